"""What a paper takes: two pages of LaTeX that hold every figure and the short table."""

import re
import subprocess

import pandas as pd
import pytest
from made_study import make_study

from hemagrid.evaluation.metrics import load_metrics
from hemagrid.io import read_json
from hemagrid.names import CONTROLS
from hemagrid.reporting import charts, tables

# A run of every backbone and kind, so that legends are as long as they get.
RUNS = {"baseline_cnn": 0.5, "vgg16_cfg1": 0.9, "vgg16_tuned": 0.85, "convnext_cfg1": 0.8}
RUNS |= {"efficientnetv2m_cfg1": 0.9, "mobilenetv3_cfg1": 0.7}
RUNS |= {"ensemble": 0.9, "vgg16_cfg1+views": 0.9}
CLASSES = ["basophil", "eosinophil", "erythroblast", "ig"]
CLASSES += ["lymphocyte", "monocyte", "neutrophil", "platelet"]
COLUMNS = [
    ["confusion_matrix", "corruptions", "class_balance"],
    ["cost", "risk_coverage"],
    ["reliability", "learning_curves"],
    ["abstention", "accuracy"],
]
PAGES = r"""
\documentclass[a4paper,twocolumn]{article}
\usepackage[hmargin=15mm,vmargin=5mm,columnsep=10mm]{geometry}
\usepackage{booktabs,graphicx}
\begin{document}\pagestyle{empty}
FIGURES
\noindent\resizebox{\columnwidth}{!}{\setlength{\tabcolsep}{3pt}\input{grid_short.tex}}
\end{document}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Every figure of a study, as PDF and SVG, and its short table."""
    root, out = (tmp_path_factory.mktemp(name) for name in ("study", "paper"))
    inputs = make_study(root, RUNS | dict.fromkeys(CONTROLS, 0.0), CLASSES, per_class=8)
    metrics = load_metrics(inputs["metrics"])
    grid = tables.grid_table(metrics)
    drawn = {
        "accuracy": charts.accuracy_chart(grid),
        "cost": charts.cost_chart(grid),
        "class_balance": charts.class_balance(read_json(inputs["audit"])),
        "abstention": charts.risk_coverage_of_runs(metrics),
        "corruptions": charts.corruption_heat_map(
            tables.read_corruptions(inputs["corruptions"]),
            tables.read_corruptions(inputs["corruption_summary"]),
        ),
    }
    for name, chart in drawn.items():
        charts.save(chart, out / f"{name}.svg", out / f"{name}.pdf")
    run = root / "results" / "vgg16_cfg1"
    of_run = {"confusion": "confusion_matrix", "reliability": "reliability"}
    of_run |= {"abstention": "risk_coverage", "curves": "learning_curves"}
    paths = {name: out / f"{file}.svg" for name, file in of_run.items()}
    paths |= {f"{name}_pdf": out / f"{file}.pdf" for name, file in of_run.items()}
    sources = {"metrics": "metrics.json", "confusion": "confusion_matrix.csv"}
    sources |= {"history": "history.csv"}
    charts.save_run({name: run / file for name, file in sources.items()}, paths)
    short = (root / "results" / "tables" / "grid_short.tex").read_text()
    (out / "grid_short.tex").write_text(short)
    return out


def test_figures_are_a_column_wide_and_letters_at_least_7_points(folder):
    figures = sorted(folder.glob("*.svg"))
    assert len(figures) == 9
    for path in figures:
        drawing = path.read_text()
        assert 'width="85mm"' in drawing
        width = float(re.search(r'viewBox="0 0 ([\d.]+)', drawing)[1])
        letters = [float(size) for size in re.findall(r'font-size="([\d.]+)px"', drawing)]
        assert letters and min(letters) * 85 / width / 25.4 * 72 >= 7, path.name


def test_the_short_table_is_typeset(folder):
    short = (folder / "grid_short.tex").read_text()
    assert short.startswith("\\begin{tabular}{lrrr}") and "\\toprule" in short
    assert re.search(r"vgg16\\_cfg1 & \d+\.\d \(\d+\.\d--\d+\.\d\) & ", short)
    table = pd.DataFrame({"run": ["a-1"], "x": ["−1.0 (−2.0 to −0.5)"], "y": ["1.0–2.0"]})
    typeset = "a-1 & $-$1.0 ($-$2.0 to $-$0.5) & 1.0--2.0"
    assert typeset in tables.latex(table)


def test_two_pages_of_latex_take_everything(folder, require_program):
    compiler = require_program("pdflatex", "texlive-latex-base texlive-latex-recommended")
    figures = "\\newpage\n".join(
        "\n".join(rf"\noindent\includegraphics{{{name}.pdf}}\par" for name in names)
        for names in COLUMNS
    )
    (folder / "paper.tex").write_text(PAGES.replace("FIGURES", figures))
    done = subprocess.run(
        [compiler, "-interaction=nonstopmode", "-halt-on-error", "paper.tex"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Output written on paper.pdf (2 pages" in done.stdout.replace("\n", " ")
    assert "Overfull" not in done.stdout and not re.search("Warning.*PDF", done.stdout)
