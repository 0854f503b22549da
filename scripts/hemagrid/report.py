"""The report: one HTML file that holds everything and asks the network for nothing."""

import base64
from pathlib import Path

import jinja2
import pandas as pd
import yaml

from hemagrid import charts, tables, tuned, usage
from hemagrid.config import TUNED_HEADS, tunable_backbones
from hemagrid.files import read_json, write_text
from hemagrid.predictions import SUBSET_NAMES
from hemagrid.published import published_heads, published_tuned
from hemagrid.trials import best_trial, read_trials, shown_trials

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
    codabench=(),
    finalists=None,
    trials=(),
    trial_charts=(),
    tuned_heads=None,
    tuned_runs=None,
    tuning_gain=None,
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
    codabench: paths of codabench.json; one without a file is left out.
    finalists: path of finalists.json, None where nothing was tuned; the others then are not
        read. trials, trial_charts: paths of {run}_trials.csv and .svg, one per search;
        tuned_heads, tuned_runs, tuning_gain: paths of what `tuned.compare_tuned` wrote.
    """
    audit = read_json(audit)
    settings = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
    confusion_of = {Path(path).parent.name: path for path in confusion}
    curves_of = {Path(path).parent.name: path for path in curves}
    loaded = tables.load_metrics(metrics)
    scores = tables.codabench_scores(settings["codabench"]["scores"], codabench)
    grid = tables.grid_table(loaded, scores)
    theirs = published_heads() if settings["published"] else None
    best_heads = tables.best_heads_table(loaded, select_by, theirs, scores)
    best = tables.best_run(loaded, select_by)
    jobs = usage.read_usage(resources)
    tuning = None
    if finalists:
        gain, heads = tuned.read_tuned(tuning_gain), tuned.read_tuned(tuned_heads)
        tuning = {
            **_choice(read_json(finalists)),
            "verdicts": _verdicts(gain, loaded),
            "gain": tables.shown(gain.drop(columns="verdict")),
            "heads": tables.shown(heads),
            "weight_decay": heads["weight_decay"].notna().any(),
            "runs": tables.shown(tuned.read_tuned(tuned_runs)),
            "searches": _searches(trials, trial_charts),
        }
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
        best=_best(best, loaded, _published_of(best, best_heads, settings["published"])),
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
        tuning=tuning,
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


def _best(run, metrics, theirs):
    """Gather the headline: the best run's accuracies, beside those of `theirs`."""
    if run is None:
        return None
    subsets = metrics[run]["subsets"]
    return {
        "run": run,
        "scores": [
            {
                "name": SUBSET_NAMES[subset],
                "n": subsets[subset]["n"],
                "accuracy": subsets[subset]["accuracy"],
                "published": _number(theirs.get(f"published_{subset}_pct")),
            }
            for subset in ("test", "test_augmented")
            if subset in subsets
        ],
        "published_head": theirs.get("published_head"),
    }


def _published_of(run, best_heads, published):
    """Return the study's numbers for the model of a run, empty where it gives none."""
    for table in (best_heads, published_tuned()) if published else ():
        if run in set(table["run"]):
            return table.set_index("run").loc[run]
    return {}


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


def _choice(finalists):
    """Gather how the finalists were chosen, of the content of finalists.json."""
    chosen_by = finalists["chosen_by"]
    score = f"{chosen_by}_accuracy_pct"
    ranking = []
    for row in finalists["ranking"]:
        ranking.append({"backbone": row["backbone"], "run": row["run"]})
        tables.put(ranking[-1], score, row["accuracy"])
        ranking[-1]["finalist"] = "yes" if row["backbone"] in finalists["finalists"] else None
    return {
        "chosen_by": SUBSET_NAMES.get(chosen_by),
        "on_test": chosen_by.startswith("test"),
        "finalists": finalists["finalists"],
        "ranking": tables.shown(pd.DataFrame(ranking)),
        "missing": finalists["missing"],
    }


def _verdicts(gain, metrics):
    """Put each row of the table `tuning_gain` into words, {part of the sentence: text}."""
    verdicts = []
    for row in gain.itertuples():
        run, other = metrics[row.run], metrics[row.compared_with]
        backbone = run["backbone"]
        if other["head"] in TUNED_HEADS:
            subject = f"Weight decay in the search for {backbone}"
        elif run["head"] == "tuned_adamw":
            subject = f"Tuning {backbone} with weight decay"
        else:
            subject = f"Tuning {backbone}"
        p = tables.p_text(row.p_holm)
        verdicts.append(
            {
                "verdict": f"{subject} {_WORDS[row.verdict]}",
                "images": SUBSET_NAMES[row.subset],
                "other": row.compared_with,
                "gain": f"{row.gain_points:+z.1f} points "
                f"({row.gain_points_low:+z.1f} to {row.gain_points_high:+z.1f})",
                "p": p if p.startswith("below") else f"= {p}",
            }
        )
    return verdicts


_WORDS = {
    "better": "helped",
    "worse": "made it worse",
    "no difference beyond chance": "made no difference beyond chance",
}


def _searches(trials, trial_charts):
    """Gather the trials and the chart of each search, by the run that its files name."""
    chart_of = {_searched(path): path for path in trial_charts}
    searches = []
    for path in trials:
        table = read_trials(path)
        searches.append(
            {
                "run": _searched(path),
                "chart": chart_of.get(_searched(path)),
                "trials": shown_trials(table),
                "best": f"{best_trial(table)['trial']:.0f}",
                "epochs": int((table["epochs"] - table["initial_epoch"]).sum()),
                "seconds": float(table["seconds"].sum()),
            }
        )
    return searches


def _searched(path):
    return Path(path).stem.removesuffix("_trials")


def _number(value):
    return None if value is None or pd.isna(value) else float(value)


def _columns(grid):
    """Choose the columns of the grid that fit a page: accuracies, gap, Codabench and cost."""
    accuracies = [name for name in grid if "_accuracy_pct" in name]
    plain = [name for name in accuracies if "balanced" not in name]
    cost = ["parameters", "training_seconds", "peak_memory_mib", "images_per_second"]
    codabench = [name for name in grid if name.startswith("codabench")]
    return ["run", *plain, "gap_points", *codabench, *cost]


def _random_backbones(config):
    """Name the backbones of the study that start from random weights."""
    return [
        name
        for name in tunable_backbones(config)
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
