"""The report: one HTML file that holds everything and asks the network for nothing."""

import base64
from pathlib import Path

import jinja2
import pandas as pd
import yaml

from hemagrid import charts, tables, usage
from hemagrid.files import read_json, write_text
from hemagrid.predictions import SUBSET_NAMES
from hemagrid.published import published_heads

_TYPES = {".svg": "image/svg+xml", ".png": "image/png"}
_EXAMPLES = 10


def write_report(
    out,
    *,
    metrics,
    confusion,
    curves,
    audit,
    contact_sheet,
    config,
    versions,
    resources,
    select_by,
):
    """Write the report of a study as one self-contained HTML page at `out`.

    metrics: paths of metrics.json, one per run in grid order; a path without a file
        is a run that is missing, which the report says.
    confusion, curves: paths of SVGs, confusion matrices and learning curves; a figure
        belongs to the run that its folder names.
    audit: path of audit.json; contact_sheet: path of a PNG.
    config, versions: paths of what `provenance` wrote.
    resources: path of what `usage.write_usage` wrote.
    select_by: the subset on whose accuracy the best run and heads are chosen.
    """
    audit = read_json(audit)
    settings = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    confusion_of = {Path(path).parent.name: path for path in confusion}
    curves_of = {Path(path).parent.name: path for path in curves}
    loaded = tables.load_metrics(metrics)
    grid = tables.grid_table(loaded)
    theirs = published_heads() if settings["published"] else None
    best_heads = tables.best_heads_table(loaded, select_by, theirs)
    best = tables.best_run(loaded, select_by)
    jobs = usage.read_usage(resources)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["image"] = data_uri
    environment.filters["duration"] = tables.duration
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    html = environment.get_template("report.html.j2").render(
        best=_best(best, loaded, best_heads),
        rivals=_rivals(best, loaded, select_by),
        select_by=SUBSET_NAMES[select_by],
        selected_on_test=select_by.startswith("test"),
        missing=[run for run, m in loaded.items() if m is None],
        random_backbones=_random_backbones(settings),
        subset_names=SUBSET_NAMES,
        grid=tables.shown(grid[_columns(grid)]),
        full_grid=tables.shown(grid),
        best_heads=tables.shown(best_heads.drop(columns="run")),
        published=theirs is not None,
        accuracy_chart=_inline(charts.accuracy_chart(grid)) if best else None,
        runs=[
            {
                "name": run,
                "metrics": m,
                "figures": (confusion_of.get(run), curves_of.get(run)),
            }
            for run, m in loaded.items()
            if m
        ],
        audit=audit,
        classes=tables.shown(pd.DataFrame(audit["classes"])),
        findings=_findings(audit),
        class_balance=_inline(charts.class_balance(audit)),
        contact_sheet=contact_sheet,
        jobs=usage.shown(jobs),
        rules=usage.summary(jobs),
        config=Path(config).read_text(encoding="utf-8"),
        seed=settings["seed"],
        bootstrap=settings["evaluation"]["bootstrap"],
        versions=read_json(versions),
    )
    write_text(out, html)


def data_uri(path):
    """Read an SVG or PNG file as a data URI, which an <img> shows but never runs."""
    path = Path(path)
    return _uri(path.read_bytes(), _TYPES[path.suffix])


def _uri(content, media_type):
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _inline(chart):
    return _uri(charts.svg(chart).encode(), _TYPES[".svg"])


def _best(run, metrics, best_heads):
    """Gather the headline: the best run's accuracies, the study's, and its rivals."""
    if run is None:
        return None
    subsets = metrics[run]["subsets"]
    row = best_heads.set_index("run").loc[run]
    return {
        "run": run,
        "scores": [
            {
                "name": SUBSET_NAMES[subset],
                "n": subsets[subset]["n"],
                "accuracy": subsets[subset]["accuracy"],
                "published": _number(row.get(f"published_{subset}_pct")),
            }
            for subset in ("test", "test_augmented")
            if subset in subsets
        ],
        "published_head": row.get("published_head"),
    }


def _rivals(best, metrics, select_by):
    """Name the runs whose interval on `select_by` overlaps the best run's."""
    if best is None:
        return []
    low = metrics[best]["subsets"][select_by]["accuracy"]["low"]
    return [
        run
        for run, m in metrics.items()
        if m and run != best and m["kind"] != "control" and select_by in m["subsets"]
        if m["subsets"][select_by]["accuracy"]["high"] >= low
    ]


def _number(value):
    return None if value is None or pd.isna(value) else float(value)


def _columns(grid):
    """Choose the columns of the grid that fit a page: accuracies, gap and cost."""
    accuracies = [name for name in grid if "_accuracy_pct" in name]
    plain = [name for name in accuracies if "balanced" not in name]
    cost = ["parameters", "training_seconds", "peak_memory_mib", "images_per_second"]
    return ["run", *plain, "gap_points", *cost]


def _random_backbones(config):
    """Name the backbones of the grid that start from random weights."""
    return [
        name
        for name in config["grid"]["backbones"]
        if config["backbones"][name]["weights"] == "random"
    ]


def _findings(audit):
    """Turn an audit's examples into tables: (title, groups in all, table of some)."""
    findings = []
    for key, title, columns in _FINDINGS:
        rows = [
            {
                name: ", ".join(dict.fromkeys(map(str, value)))
                if isinstance(value := example[field], list)
                else value
                for name, field in columns.items()
            }
            for example in audit[key]["examples"][:_EXAMPLES]
        ]
        if rows:
            findings.append((title, audit[key]["count"], pd.DataFrame(rows)))
    return findings


_GROUP = {"images": "size", "ids": "ids", "classes": "classes"}
_FINDINGS = (
    (
        "label_conflicts",
        "Pictures under several labels",
        {**_GROUP, "outcome": "outcome"},
    ),
    ("exact_groups", "Groups of duplicates (equal perceptual hash)", _GROUP),
    ("near_groups", "Groups of near duplicates, kept within one split", _GROUP),
    ("skipped", "Files skipped", {"file": "source", "reason": "reason"}),
)
