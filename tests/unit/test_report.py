import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hemagrid import charts
from hemagrid.evaluation import evaluate
from hemagrid.files import write_json, write_table, write_text
from hemagrid.predictions import write_predictions
from hemagrid.provenance import write_config
from hemagrid.report import write_report
from hemagrid.tables import grid_table, load_metrics
from hemagrid.trials import read_trials
from hemagrid.tuned import compare_tuned
from hemagrid.usage import write_usage

MARKUP = '<script>alert("x")</script> & co'
NAMES = ["basophil", "ig", MARKUP]
RUNS = {
    "baseline_cnn": ("cnn", None, None, 0.6),
    "vgg16_cfg1": ("transfer", "vgg16", "cfg1", 0.9),
    "random_labels": ("control", None, None, 0.0),
}
TUNED = {
    "vgg16_tuned": ("transfer", "vgg16", "tuned", 0.2),
    "convnext_tuned_adamw": ("transfer", "convnext", "tuned_adamw", 0.9),
}


class Page(HTMLParser):
    """Collects the tags and the attribute values that would load something."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.loads = [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.loads += [
            value
            for name, value in attrs
            if name in ("src", "srcset", "data", "poster") or (tag, name) == ("link", "href")
        ]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    rng = np.random.default_rng(0)
    labels = rng.integers(3, size=120)
    for run, (kind, backbone, head, skill) in (RUNS | TUNED).items():
        folder = root / run
        drawn = rng.integers(3, size=120)
        predicted = np.where(rng.random(120) < skill, labels, drawn)
        one_hot = np.eye(3)[predicted]
        groups = np.arange(120)
        write_predictions(
            folder / "predictions.npz",
            NAMES,
            {s: (labels, one_hot, groups) for s in ("val", "test", "test_augmented")},
        )
        cost = {
            "device": "CPU",
            "backend": "tensorflow",
            "parameters": 1000,
            "images_per_second": 50.0,
            "peak_memory_mib": 300.0,
            "phases": {"training": {"epochs": 3, "seconds": 12.0}},
        }
        content, confusion = evaluate(
            folder / "predictions.npz",
            run=run,
            kind=kind,
            backbone=backbone,
            head=head,
            cost=None if kind == "control" else cost,
            bootstrap=50,
            calibration_bins=15,
            seed=42,
        )
        write_json(folder / "metrics.json", content)
        write_table(folder / "confusion_matrix.csv", confusion)
        if kind != "control":
            charts.save(charts.confusion_matrices(confusion), folder / "confusion_matrix.svg")
            charts.save(charts.learning_curves(a_history()), folder / "learning_curves.svg")
    group = {"size": 2, "ids": [1, 2], "classes": ["ig", MARKUP]}
    listing = {
        "count": 1,
        "examples": [group | {"outcome": f"kept image 1 as {MARKUP}"}],
    }
    write_json(
        root / "audit.json",
        {
            "settings": {"near_duplicate_distance": 4, "label_conflicts": "keep_first"},
            "counts": {
                "found": 1234,
                "skipped": 1,
                "images": 1233,
                "duplicates_removed": 33,
                "conflicts_removed": 0,
                "kept": 1200,
                "near_groups": 1,
                "near_images": 2,
                "label_conflicts": 1,
            },
            "classes": [
                {"class": c, "found": 411, "kept": 400} | {"train": 240, "val": 80, "test": 80}
                for c in NAMES
            ],
            "exact_groups": listing,
            "near_groups": listing,
            "label_conflicts": listing,
            "skipped": {
                "count": 1,
                "examples": [{"source": f"{MARKUP}/cut.png", "reason": "truncated"}],
            },
        },
    )
    Image.new("RGB", (40, 20), "purple").save(root / "contact_sheet.png")
    return root


def some_trials():
    """Two trials with two Dense layers and with none, the second of them continued."""
    return pd.DataFrame(
        {
            "trial": [0, 1, 2],
            "bracket": [1, 1, 1],
            "round": [0, 0, 1],
            "parent": [None, None, 1],
            "initial_epoch": [0, 0, 2],
            "epochs": [2, 2, 6],
            "layers": [2, 0, 0],
            "dense": ["384, 128", None, None],
            "dropout": ["0.1, 0.3", "0.5", "0.5"],
            "learning_rate": [0.01, 0.001, 0.001],
            "weight_decay": [None, None, None],
            "val_accuracy": [0.25, 0.5, 0.625],
            "val_loss": [1.5, 1.0, 0.9],
            "seconds": [2.0, 3.0, 60.0],
        }
    )


def tuning_files(study, folder, runs, chosen_by="val"):
    """Write what a study with tuned runs has more; return it as the report's inputs."""
    searched = [run for run in runs if run in TUNED]
    for run in searched:
        head = {"dense": [128], "dropout": [0.3], "learning_rate": 1e-3, "weight_decay": None}
        found = {"run": run, "head": head, "trial": 2, "val_accuracy": 0.625}
        write_json(folder / f"{run}.json", found | {"trials": 3, "epochs": 8, "seconds": 65.0})
        write_table(folder / f"{run}_trials.csv", some_trials())
        charts.save(charts.parallel_coordinates(some_trials()), folder / f"{run}_trials.svg")
    score = {"value": 0.9, "low": 0.85, "high": 0.95}
    ranking = [{"backbone": "vgg16", "run": "vgg16_cfg1", "accuracy": score}]
    named = chosen_by == "config"
    write_json(
        folder / "finalists.json",
        {
            "chosen_by": chosen_by,
            "finalists": ["vgg16"],
            "ranking": [] if named else ranking,
            "missing": [] if named else ["vgg16_cfg3"],
        },
    )
    out = {name: folder / f"{name}.csv" for name in ("heads", "runs", "gain")}
    compare_tuned(
        {
            "metrics": [study / run / "metrics.json" for run in runs],
            "predictions": [study / run / "predictions.npz" for run in runs],
            "heads": [folder / f"{run}.json" for run in searched],
        },
        out,
        {"select_by": "val", "published": True, "bootstrap": 50, "seed": 42, "codabench": {}},
    )
    return {
        "tuned_heads": out["heads"],
        "tuned_runs": out["runs"],
        "tuning_gain": out["gain"],
        "finalists": folder / "finalists.json",
        "trials": [folder / f"{run}_trials.csv" for run in searched],
        "trial_charts": [folder / f"{run}_trials.svg" for run in searched],
    }


def a_history():
    return pd.DataFrame(
        {
            "phase": ["feature_extraction"] * 2 + ["finetune_top"],
            "epoch": [1, 2, 1],
            "loss": [1.0, 0.8, 0.7],
            "accuracy": [0.5, 0.6, 0.7],
            "val_loss": [1.1, 0.9, 0.8],
            "val_accuracy": [0.4, 0.5, 0.6],
            "learning_rate": [1e-3, 1e-3, 1e-4],
            "seconds": [1.0, 1.0, 2.0],
            "best": [False, True, True],
        }
    )


def has_figures(run):
    return run in RUNS | TUNED and run != "random_labels"


def report(
    study,
    out,
    *,
    runs=RUNS,
    select_by="val",
    weights="imagenet",
    published=True,
    scores=(),
    **inputs,
):
    folder = out.parent
    write_config(
        {
            "dataset": {"classes": NAMES},
            "backbones": {"vgg16": {"weights": weights}},
            "grid": {"backbones": ["vgg16"]},
            "tuning": {"backbones": None},
            "codabench": {"scores": dict(scores)},
            "evaluation": {"bootstrap": 50},
            "published": published,
            "seed": 42,
        },
        folder / "config.yaml",
    )
    write_usage(study / "benchmarks", folder / "resources.csv")
    write_json(folder / "versions.json", {"python": "3.11", "hemagrid": "<b>0.1</b>"})
    write_report(
        out,
        metrics=[study / run / "metrics.json" for run in runs],
        confusion=[study / run / "confusion_matrix.svg" for run in runs if has_figures(run)],
        curves=[study / run / "learning_curves.svg" for run in runs if has_figures(run)],
        audit=study / "audit.json",
        contact_sheet=study / "contact_sheet.png",
        config=folder / "config.yaml",
        versions=folder / "versions.json",
        resources=folder / "resources.csv",
        select_by=select_by,
        **inputs,
    )
    return out.read_text(encoding="utf-8")


def test_the_page_is_self_contained_and_runs_nothing(study, tmp_path):
    html = report(study, tmp_path / "report.html")
    page = Page(html)
    assert page.loads and all(value.startswith("data:image/") for value in page.loads)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert "default-src 'none'" in html and "url(" not in html
    # 1 of accuracy, 3 confusion matrices, 2 learning curves, balance, contact sheet.
    assert page.tags.count("img") == 7
    assert 'id="tuning"' not in html and 'href="#tuning"' not in html


def test_markup_in_names_is_text(study, tmp_path):
    html = report(study, tmp_path / "report.html")
    assert "<script" not in html and "<b>0.1" not in html
    assert "&lt;script&gt;alert(" in html and "&lt;b&gt;0.1" in html
    svg = (study / "vgg16_cfg1" / "confusion_matrix.svg").read_text()
    root = ElementTree.fromstring(svg)
    assert not [e for e in root.iter() if e.tag.endswith("script")]
    assert "alert" in "".join(root.itertext())


def test_numbers_are_those_of_the_metrics(study, tmp_path):
    html = report(study, tmp_path / "report.html")
    metrics = load_metrics([study / "vgg16_cfg1" / "metrics.json"])["vgg16_cfg1"]
    for subset in ("test", "test_augmented"):
        score = metrics["subsets"][subset]["accuracy"]
        value, low, high = (f"{100 * score[k]:.1f}" for k in ("value", "low", "high"))
        assert f"{value}&thinsp;%" in html
        assert f"<td>{value} ({low}-{high})</td>" in html
    recall = metrics["subsets"]["test"]["per_class"]["ig"]["recall"]
    assert f"<td>{recall:.3f}</td>" in html
    assert "1,200 are kept" in html and "published: 96.4 (cfg1)" in html


def test_the_page_says_what_weakens_it(study, tmp_path):
    honest = report(study, tmp_path / "a.html")
    assert not re.search("Chosen on test|Random weights|Incomplete", honest)
    html = report(
        study,
        tmp_path / "b.html",
        runs=[*RUNS, "vgg16_cfg2"],
        select_by="test_augmented",
        weights="random",
        published=False,
    )
    assert "Chosen on test images" in html
    assert "vgg16 started from random weights" in html
    assert "Missing: vgg16_cfg2" in html
    assert "ublished" not in html.split("<pre>")[0].replace("published ones", "")


def test_a_study_without_any_result_still_has_a_page(study, tmp_path):
    html = report(study, tmp_path / "report.html", runs=["vgg16_cfg2"])
    assert "No run has been evaluated" in html and "The data" in html


def test_requested_and_used_resources_are_shown(study, tmp_path):
    benchmark = study / "benchmarks" / "train" / "vgg16_cfg1.tsv"
    assert "No benchmark of any job was found" in report(study, tmp_path / "a.html")
    write_text(
        benchmark,
        "s\tmax_rss\tcpu_time\tthreads\tresources\n"
        "1800\t1000\t600\t1\t{'mem_mb': 6000, 'runtime': 120}\n",
    )
    html = report(study, tmp_path / "b.html")
    benchmark.unlink()
    assert (
        "<td>1,049 MB of 6,000 MB (17 %)</td><td>30 min 00 s of 2 h 00 min (25 %)</td>" in html
    )
    assert '<th scope="row">train vgg16_cfg1</th><td>1,049 MB</td><td>6,000 MB</td>' in html


def test_charts_show_what_they_are_given(study):
    grid = grid_table(load_metrics([study / run / "metrics.json" for run in RUNS]))
    drawn = "".join(ElementTree.fromstring(charts.svg(charts.accuracy_chart(grid))).itertext())
    assert all(run in drawn for run in RUNS) and "augmented test" in drawn
    drawn = "".join(
        ElementTree.fromstring(charts.svg(charts.learning_curves(a_history()))).itertext()
    )
    assert "feature extraction" in drawn and "finetune top" in drawn


def test_a_control_has_no_learning_curves(study):
    assert not (study / "random_labels" / "learning_curves.svg").exists()
    assert (study / "vgg16_cfg1" / "learning_curves.svg").exists()


def test_a_failed_report_leaves_nothing(study, tmp_path):
    with pytest.raises(FileNotFoundError):
        report(tmp_path / "nowhere", tmp_path / "report.html")
    assert not list(tmp_path.glob("*report.html"))


def test_tuning_has_its_section(study, tmp_path):
    runs = [*RUNS, *TUNED]
    inputs = tuning_files(study, tmp_path, runs)
    html = report(study, tmp_path / "report.html", runs=runs, **inputs)
    page = Page(html)
    assert 'href="#tuning"' in html and 'id="tuning"' in html
    # 7 as without tuning; of each tuned run two figures and its trials.
    assert page.tags.count("img") == 7 + 3 * len(TUNED)
    assert all(value.startswith("data:image/") for value in page.loads)

    gain = pd.read_csv(inputs["tuning_gain"]).set_index("subset").loc["test_augmented"]
    points = [f"{gain[f'gain_points{bound}']:+.1f}" for bound in ("", "_low", "_high")]
    assert (
        "<strong>Tuning vgg16 made it worse</strong> on the augmented test images: "
        f"{points[0]} points ({points[1]} to {points[2]}) against vgg16_cfg1, "
        "p&nbsp;below 0.001"
    ) in html
    # The backbone of the other search has no untuned run.
    assert "Tuning convnext" not in html

    assert "vgg16: the best by accuracy on the validation images" in html
    assert "because their metrics are missing: vgg16_cfg3" in html
    assert "3 trials, 8 epochs, 1 min 05 s" in html
    assert '<tr class="best"><th scope="row">2</th>' in html
    assert "<td>384, 128</td>" in html
    # A run like any other, whose head competes with no other of the study.
    assert "<summary><b>convnext_tuned_adamw</b>" in html
    heads = html.split('id="heads"')[1].split("</section>")[0]
    assert "convnext" not in heads and "<td>cfg1</td>" in heads
    assert "Chosen on test" not in html and "flattered" not in html


def test_a_choice_on_test_images_is_called_one(study, tmp_path):
    runs = [*RUNS, "vgg16_tuned"]
    inputs = tuning_files(study, tmp_path, runs, chosen_by="test_augmented")
    html = report(study, tmp_path / "a.html", runs=runs, select_by="test_augmented", **inputs)
    section = html.split('id="tuning"')[1].split("</section>")[0]
    assert "Chosen on test images" in section and "The untuned side is flattered" in section
    inputs = tuning_files(study, tmp_path, runs, chosen_by="config")
    html = report(study, tmp_path / "b.html", runs=runs, **inputs)
    assert "vgg16: named in the configuration" in html and "Chosen on test" not in html


def test_a_tuned_winner_stands_beside_its_published_numbers(study, tmp_path):
    runs = [run for run in RUNS | TUNED if run != "vgg16_cfg1"]
    inputs = tuning_files(study, tmp_path, runs)
    rows = pd.read_csv(inputs["tuning_gain"])
    assert rows.empty
    html = report(study, tmp_path / "a.html", runs=runs, **inputs)
    headline = html.split("<section")[1]
    # The study gives no accuracy of its own for it, only Codabench.
    assert "<h2>convnext_tuned_adamw</h2>" in headline and "published" not in headline
    assert "No tuned run has an untuned run of its backbone" in html
    # The same numbers under the name of a run whose accuracies the study does give.
    winner = load_metrics([study / "convnext_tuned_adamw" / "metrics.json"])
    winner = winner["convnext_tuned_adamw"] | {"run": "convnext_tuned", "head": "tuned"}
    write_json(study / "convnext_tuned" / "metrics.json", winner)
    html = report(study, tmp_path / "b.html", runs=["convnext_tuned"])
    assert "published: 76.8</span>" in html.split("<section")[1]


def test_codabench_scores_are_in_the_tables(study, tmp_path):
    scored = tmp_path / "baseline_cnn" / "codabench.json"
    write_json(scored, {"accuracy": {"value": 0.204}})
    html = report(
        study, tmp_path / "report.html", scores={"vgg16_cfg1": 81.2}, codabench=[scored]
    )
    # In the grid as on the page, in full, and among the best heads.
    assert html.count("<td>81.2 (reported)</td>") == 3
    assert html.count("<td>20.4 (scored here)</td>") == 3
    assert "Codabench, %</th>" in html


def test_trials_are_drawn_with_their_values(tmp_path):
    def drawn(trials):
        svg = charts.svg(charts.parallel_coordinates(trials))
        return list(ElementTree.fromstring(svg).itertext())

    write_table(tmp_path / "trials.csv", some_trials())
    texts = drawn(read_trials(tmp_path / "trials.csv"))
    assert "best: trial 2" in texts and "weight decay" not in texts
    for name in ("Dense layers", "neurons in all", "mean dropout", "learning rate", "epochs"):
        assert name in texts
    # Layers and neurons from 0, both learning rates, epochs, the best accuracy.
    assert {"0", "2", "512", "0.2", "0.5", "0.001", "0.01", "6", "62.5"} <= set(texts)
    decayed = some_trials().assign(weight_decay=[1e-4, 1e-2, 1e-2])
    assert {"weight decay", "0.0001"} <= set(drawn(decayed))
    assert "best: trial 0" in drawn(some_trials().iloc[:1])
