"""The tables of a study as data frames and files: values here, their spelling in `text`."""

from pathlib import Path

import pandas as pd

from hemagrid.evaluation.comparisons import tuning_gain_table, winner_table
from hemagrid.evaluation.metrics import best_run, load_metrics, put, with_bounds
from hemagrid.io import read_json, read_sparse, write_table, write_text
from hemagrid.names import SUBSET_TITLES, TEST, TEST_AUGMENTED, TUNED_HEADS, VAL
from hemagrid.reporting.reference import (
    published_configurations,
    published_heads,
    published_tuned,
)
from hemagrid.reporting.text import SCORES, aligned, listed, shorten, shown, spell

_COST = ("parameters", "peak_memory_mib", "images_per_second")


def codabench_scores(reported, scored):
    """Gather the Codabench scores of runs.

    Args:
        reported: {run: %}, as the leaderboard gave them.
        scored: Paths of codabench.json files; those that do not exist are ignored.

    Returns:
        {run: {"pct", "source"}}. A reported score replaces one that was computed here.
    """
    here = {
        Path(path).parent.name: {
            "pct": 100 * read_json(path)["accuracy"]["value"],
            "source": "scored here",
        }
        for path in scored
        if Path(path).exists()
    }
    return here | {run: {"pct": pct, "source": "reported"} for run, pct in reported.items()}


def with_codabench(table, scores):
    """Add `codabench_pct` and `codabench_source` to a table, unless no run has a score.

    Args:
        table: Data frame with a column `run`.
        scores: What `codabench_scores` returns, or None.
    """
    of_rows = [(scores or {}).get(run) for run in table["run"]]
    if not any(of_rows):
        return table
    return table.assign(
        codabench_pct=[score["pct"] if score else None for score in of_rows],
        codabench_source=[score["source"] if score else None for score in of_rows],
    )


def grid_table(metrics, codabench=None):
    """Build the table of all runs.

    Args:
        metrics: {run: content of metrics.json, or None if the run is missing}.
        codabench: What `codabench_scores` returns, or None.

    Returns:
        A data frame with one row per run, in the order given; a missing run has a row without
        numbers. Columns that end in `_pct` are in %, `gap_points` (test minus augmented test
        accuracy) is in percentage points, `_low` and `_high` bound 95 % intervals.
    """
    known = [m for m in metrics.values() if m]
    subsets = [s for s in SUBSET_TITLES if any(s in m["subsets"] for m in known)]
    columns = ["run", "kind", "backbone", "head"]
    for subset in subsets:
        for score in SCORES:
            column = f"{subset}_{score}_pct"
            columns += [column] if score == "calibration_error" else with_bounds(column)
    columns += ["gap_points", "parameters", "training_seconds", "peak_memory_mib"]
    columns += ["images_per_second"]
    rows = []
    for run, m in metrics.items():
        if m is None:
            rows.append({"run": run, "kind": "missing"})
            continue
        row = {"run": run} | {key: m[key] for key in ("kind", "backbone", "head")}
        for subset, scores in m["subsets"].items():
            for score in SCORES:
                put(row, f"{subset}_{score}_pct", scores[score])
        if {TEST, TEST_AUGMENTED} <= m["subsets"].keys():
            clean, augmented = (m["subsets"][s]["accuracy"] for s in (TEST, TEST_AUGMENTED))
            row["gap_points"] = 100 * (clean["value"] - augmented["value"])
        if cost := m["cost"]:
            row |= {key: cost[key] for key in _COST}
            row["training_seconds"] = sum(p["seconds"] for p in cost["phases"].values())
        rows.append(row)
    table = pd.DataFrame(rows, columns=columns).astype({"parameters": "Int64"})
    return with_codabench(table, codabench)


def heads_table(heads, published=None):
    """Build table 1 of the published study, the heads of the grid.

    Args:
        heads: {name: entry of the config}.
        published: What `reference.published_configurations` returns, to put the published
            heads of the same names beside ours, or None.

    Returns:
        A data frame with one row per head. There is a column for weight decay if any head has
        some.
    """
    rows = [
        {
            "head": name,
            "dense": listed(head["dense"]),
            "batch_norm": ("yes" if head["batch_norm"] else "no") if head["dense"] else None,
            "dropout": listed(head["dropout"]),
            "learning_rate": head["learning_rate"],
            "weight_decay": head["weight_decay"],
        }
        for name, head in heads.items()
    ]
    columns = ["head", "dense", "published_dense", "batch_norm", "published_batch_norm"]
    columns += ["dropout", "published_dropout", "learning_rate", "published_learning_rate"]
    columns += ["weight_decay"] if any(row["weight_decay"] for row in rows) else []
    own = [name for name in columns if not name.startswith("published_")]
    return beside(pd.DataFrame(rows, columns=own), published, "head", columns)


def beside(table, published, key, columns):
    """Join published numbers to a table by `key`, and keep `columns` in their order."""
    if published is not None:
        table = table.merge(published, on=key, how="left")
    return table[[name for name in columns if name in table]]


def best_heads_table(metrics, select_by, published=None, codabench=None):
    """Build table 2 of the published study: each CNN, and each backbone with its best head.

    Tuned heads are not part of the grid and do not compete.

    Args:
        metrics: {run: content of metrics.json or None}, in grid order.
        select_by: Subset on which the best head has the highest accuracy; ties go to the
            first.
        published: What `reference.published_heads` returns, to put its accuracies (%) beside
            ours whatever head was the best there, or None.
        codabench: What `codabench_scores` returns, or None.

    Returns:
        A data frame with one row per model.
    """
    models = {}
    for run, m in metrics.items():
        if m and m["kind"] != "control" and m["head"] not in TUNED_HEADS:
            models.setdefault(m["backbone"] or run, {})[run] = m
    rows = []
    for model, runs in models.items():
        best = best_run(runs, select_by)
        if best is None:
            continue
        row = {"model": model, "run": best, "head": runs[best]["head"]}
        for subset in (TEST, TEST_AUGMENTED):
            if subset in runs[best]["subsets"]:
                accuracy = runs[best]["subsets"][subset]["accuracy"]
                put(row, f"{subset}_accuracy_pct", accuracy)
        rows.append(row)
    columns = ["model", "run", "head", *with_bounds("test_accuracy_pct")]
    columns += with_bounds("test_augmented_accuracy_pct")
    table = with_codabench(pd.DataFrame(rows, columns=columns), codabench)
    if published is None:
        return table
    theirs = published.drop(columns="run").assign(
        model=published["backbone"].where(published["backbone"] != "", published["run"])
    )
    theirs = theirs.rename(
        columns={
            "head": "published_head",
            TEST: "published_test_pct",
            TEST_AUGMENTED: "published_test_augmented_pct",
            "codabench": "published_codabench",
        }
    )
    columns = [
        *("model", "run", "head", "published_head"),
        *with_bounds("test_accuracy_pct"),
        "published_test_pct",
        *with_bounds("test_augmented_accuracy_pct"),
        "published_test_augmented_pct",
        *("codabench_pct", "codabench_source", "published_codabench"),
    ]
    return beside(table, theirs, "model", columns)


def write(table, path):
    """Write a table as CSV with plain numbers, and beside it as Markdown and LaTeX for people.

    The LaTeX needs the package booktabs. Markup in names is escaped in both.

    Args:
        table: Data frame.
        path: Path of the CSV; the others have the suffixes `.md` and `.tex`.
    """
    path = Path(path)
    write_table(path, table)
    spelled = shown(table)
    escaped = spelled.map(
        lambda cell: cell.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    )
    markdown = escaped.to_markdown(index=False, disable_numparse=True)
    write_text(path.with_suffix(".md"), markdown + "\n")
    styler = spelled.style.hide(axis="index").format(escape="latex")
    styler = styler.format_index(axis="columns", escape="latex")
    write_text(path.with_suffix(".tex"), styler.to_latex(hrules=True))


def headline(table):
    """Lay out a grid table for a terminal, at most 100 columns wide."""
    columns = {"run": [shorten(run, 24) for run in table["run"]]}
    for subset in (TEST, TEST_AUGMENTED):
        if f"{subset}_accuracy_pct" in table:
            spelled = shown(table[with_bounds(f"{subset}_accuracy_pct")])
            columns[f"{SUBSET_TITLES[subset]} %"] = list(spelled.iloc[:, 0])
    for title, name in (("params", "parameters"), ("train time", "training_seconds")):
        columns[title] = [spell(value, name) for value in table[name]]
    return aligned(columns, zip(*columns.values(), strict=True))


def aggregate(metrics, out, select_by, published, *, heads, reported, codabench=(), missing=()):
    """Write the tables over all runs.

    Args:
        metrics: Paths of metrics.json, as in `load_metrics`.
        out: Paths `grid`, `heads` and `best_heads` of tables (as in `write`), and `headline`.
        select_by: Subset on which the best heads are chosen.
        published: Whether the published numbers stand beside ours.
        heads: {name: entry of the config}, the heads of the grid.
        reported: Codabench scores {run: %}, as the leaderboard gave them.
        codabench: Paths of codabench.json files.
        missing: Names of runs without a path, as in `load_metrics`.
    """
    loaded = load_metrics(metrics, missing)
    scores = codabench_scores(reported, codabench)
    grid = grid_table(loaded, scores)
    theirs = published_heads() if published else None
    write(grid, out["grid"])
    write(heads_table(heads, published_configurations() if published else None), out["heads"])
    write(best_heads_table(loaded, select_by, theirs, scores), out["best_heads"])
    write_text(out["headline"], headline(grid) + "\n")


def compare_with_winner(inputs, out, settings):
    """Write the comparison of each run with the winner.

    Args:
        inputs: Lists of paths: `metrics` of every run in grid order, `predictions` of the
            trained ones. Runs whose files do not exist are missing.
        out: Path `winner` of the table (as in `write`).
        settings: `select_by`, `bootstrap` and `seed`, as in `comparisons.winner_table`.

    Raises:
        InputError: A run did not predict on the same images as the winner.
    """
    metrics = load_metrics(inputs["metrics"])
    paths = map(Path, inputs["predictions"])
    predictions = {path.parent.name: path for path in paths if path.exists()}
    table = winner_table(metrics, predictions, **settings)
    write(table, out["winner"])


def read_winner(path):
    """Read a table that `compare_with_winner` wrote."""
    return read_sparse(path, "run", "compared_with", "subset", "verdict")


def compare_tuned(inputs, out, settings):
    """Write the three tables about tuning.

    Args:
        inputs: Lists of paths: `metrics` of every run in grid order, `predictions` of the tuned
            runs and of the grid's runs of the same backbones, `heads`
            (results/tuning/{run}.json) of the tuned runs, and optionally `codabench`.
        out: Paths `heads`, `runs` and `gain` of the tables (as in `write`).
        settings: `select_by`, `bootstrap` and `seed`, as in `comparisons.tuning_gain_table`;
            `published`, whether the published numbers stand beside ours; `codabench`, the
            scores {run: %} as the leaderboard gave them.

    Raises:
        InputError: Two runs to be compared did not predict on the same images.
    """
    metrics = load_metrics(inputs["metrics"])
    heads = {Path(path).stem: read_json(path) for path in inputs["heads"]}
    predictions = {Path(path).parent.name: path for path in inputs["predictions"]}
    scores = codabench_scores(settings["codabench"], inputs.get("codabench", ()))
    theirs = published_tuned() if settings["published"] else None
    written = {
        "heads": tuned_heads_table(heads, theirs),
        "runs": tuned_runs_table(metrics, theirs, scores),
        "gain": tuning_gain_table(
            metrics,
            predictions,
            select_by=settings["select_by"],
            bootstrap=settings["bootstrap"],
            seed=settings["seed"],
        ),
    }
    for name, table in written.items():
        write(table, out[name])


def tuned_heads_table(heads, published=None):
    """Build table 3 of the published study, the heads that the searches found.

    Args:
        heads: {run: content of results/tuning/{run}.json}.
        published: What `reference.published_tuned` returns, to put its heads beside ours, or
            None.
    """
    rows = [
        {
            "run": run,
            "dense": listed(found["head"]["dense"]),
            "dropout": listed(found["head"]["dropout"]),
            "learning_rate": found["head"]["learning_rate"],
            "weight_decay": found["head"]["weight_decay"],
            "trial_val_accuracy_pct": 100 * found["val_accuracy"],
            "trials": found["trials"],
            "search_seconds": found["seconds"],
        }
        for run, found in heads.items()
    ]
    columns = ["run", "dense", "published_dense", "dropout", "published_dropout"]
    columns += ["learning_rate", "published_learning_rate", "weight_decay"]
    columns += ["trial_val_accuracy_pct", "trials", "search_seconds"]
    own = [name for name in columns if not name.startswith("published_")]
    return beside(pd.DataFrame(rows, columns=own), published, "run", columns)


def tuned_runs_table(metrics, published=None, codabench=None):
    """Build table 4 of the published study, the tuned runs.

    Args:
        metrics: {run: content of metrics.json or None}.
        published: As in `tuned_heads_table`.
        codabench: What `codabench_scores` returns, or None.
    """
    columns = ["run"]
    for subset in (VAL, TEST, TEST_AUGMENTED):
        columns += [*with_bounds(f"{subset}_accuracy_pct"), f"published_{subset}_pct"]
    columns += ["codabench_pct", "codabench_source", "published_codabench"]
    tuned = {run: m for run, m in metrics.items() if m and m["head"] in TUNED_HEADS}
    return beside(grid_table(tuned, codabench), published, "run", columns)


def read_tuned(path):
    """Read a table that `compare_tuned` wrote."""
    return read_sparse(path, "run", "dense", "dropout", "published_dense", "published_dropout")


def trials_table(trials):
    """Choose the columns of a search's trials that people read, in their order."""
    names = ["trial", "bracket", "round", "parent", "epochs", "dense", "dropout"]
    names += ["learning_rate", "weight_decay", "val_accuracy_pct", "val_loss", "seconds"]
    shares = 100 * trials["val_accuracy"]
    return trials.assign(dense=trials["dense"].fillna("none"), val_accuracy_pct=shares)[names]
