"""The study's tables: the heads, every run in one grid, and the best head of each model."""

from pathlib import Path

import numpy as np
import pandas as pd

from hemagrid.evaluation.comparisons import (
    tuning_gain_table,
    winner_table,
)
from hemagrid.evaluation.metrics import best_run, load_metrics, put, with_bounds
from hemagrid.io import read_json, read_sparse, write_table, write_text
from hemagrid.names import SUBSET_TITLES, TEST, TEST_AUGMENTED, TUNED_HEADS, VAL
from hemagrid.reporting import text
from hemagrid.reporting.reference import (
    published_configurations,
    published_heads,
    published_tuned,
)
from hemagrid.reporting.text import SCORES, listed, shorten, shown, spell


def codabench_scores(reported, scored):
    """Gather the scores on the challenge's hidden test set: {run: {"pct", "source"}}.

    reported: {run: %}, read off the leaderboard. scored: paths of codabench.json, made here;
    one that does not exist is left out. The leaderboard wins where both are known.
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
    """Add `codabench_pct` and `codabench_source` to a table with a column `run`.

    `scores` is as `codabench_scores` returns it, or None. A table none of whose runs has a
    score stays as it is.
    """
    of_rows = [(scores or {}).get(run) for run in table["run"]]
    if not any(of_rows):
        return table
    return table.assign(
        codabench_pct=[score["pct"] if score else None for score in of_rows],
        codabench_source=[score["source"] if score else None for score in of_rows],
    )


def grid_table(metrics, codabench=None):
    """Build the table of all runs: one row for each {run: metrics or None}, in order.

    Columns ending in `_pct` are in %, `gap_points` (test minus augmented test
    accuracy) in percentage points; `_low` and `_high` bound the 95 % interval. A
    missing run keeps its row, with no numbers. `codabench` is as in `with_codabench`.
    """
    subsets = [
        subset
        for subset in SUBSET_TITLES
        if any(subset in m["subsets"] for m in metrics.values() if m)
    ]
    columns = ["run", "kind", "backbone", "head"]
    for subset in subsets:
        for score in SCORES:
            column = f"{subset}_{score}_pct"
            bare = score == "calibration_error"
            columns += [column] if bare else with_bounds(column)
    columns += ["gap_points", "parameters", "training_seconds", "peak_memory_mib"]
    columns += ["images_per_second"]
    table = pd.DataFrame([_row(run, m) for run, m in metrics.items()], columns=columns)
    return with_codabench(table.astype({"parameters": "Int64"}), codabench)


def _row(run, metrics):
    if metrics is None:
        return {"run": run, "kind": "missing"}
    row = {"run": run} | {key: metrics[key] for key in ("kind", "backbone", "head")}
    for subset, scores in metrics["subsets"].items():
        for score in SCORES:
            put(row, f"{subset}_{score}_pct", scores[score])
    accuracies = {
        subset: scores["accuracy"]["value"] for subset, scores in metrics["subsets"].items()
    }
    if {TEST, TEST_AUGMENTED} <= accuracies.keys():
        row["gap_points"] = 100 * (accuracies[TEST] - accuracies[TEST_AUGMENTED])
    if cost := metrics["cost"]:
        row |= {key: cost[key] for key in _COST}
        row["training_seconds"] = sum(p["seconds"] for p in cost["phases"].values())
    return row


_COST = ("parameters", "peak_memory_mib", "images_per_second")


def pareto_front(cost, score):
    """Mark the rows that no other row beats: bool (n,), of cost and score, float (n,).

    One row beats another that costs no less and scores no higher, if it differs in either;
    equal rows share the front. A row with a NaN is never on it and beats none.
    """
    cost, score = np.asarray(cost, float), np.asarray(score, float)
    no_worse = (cost[:, None] <= cost) & (score[:, None] >= score)
    differs = (cost[:, None] != cost) | (score[:, None] != score)
    beaten = (no_worse & differs).any(axis=0)
    return ~(beaten | np.isnan(cost) | np.isnan(score))


def heads_table(heads, published=None):
    """Build the study's table 1, the heads of the grid, of {name: entry of the config}.

    `published` is `published.published_configurations()`, whose heads of the same name then
    stand beside ours. A head without Dense layers has none that could be normalised; weight
    decay has a column where any head has some.
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
    """Put published numbers, of the same `key`, beside a table; keep `columns` in order."""
    if published is not None:
        table = table.merge(published, on=key, how="left")
    return table[[name for name in columns if name in table]]


def best_heads_table(metrics, select_by, published=None, codabench=None):
    """Build the study's table 2: each CNN, and each backbone under its best head.

    The best head has the highest accuracy on subset `select_by` (of equals the first of
    `metrics`); tuned heads are not of the grid and do not compete. `published` is
    `published.published_heads()`, whose accuracies (%) then stand beside ours, whichever
    head the study found best. `codabench` is as in `with_codabench`.
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


def write(table, stem):
    """Write `stem`.csv with plain numbers, and .md and .tex with the text of `shown`.

    The LaTeX needs the package booktabs. Markup in names is escaped in both.
    """
    write_table(f"{stem}.csv", table)
    text = shown(table)
    write_text(
        f"{stem}.md",
        text.map(_markdown).to_markdown(index=False, disable_numparse=True) + "\n",
    )
    styler = text.style.hide(axis="index").format(escape="latex")
    styler = styler.format_index(axis="columns", escape="latex")
    write_text(f"{stem}.tex", styler.to_latex(hrules=True))


def _markdown(cell):
    return cell.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")


def headline(table):
    """Lay the grid table out for a terminal: aligned, at most 100 columns wide."""
    columns = {"run": [shorten(run, 24) for run in table["run"]]}
    for subset in (TEST, TEST_AUGMENTED):
        if f"{subset}_accuracy_pct" in table:
            text = shown(table[with_bounds(f"{subset}_accuracy_pct")]).iloc[:, 0]
            columns[f"{SUBSET_TITLES[subset]} %"] = list(text)
    for title, name in (("params", "parameters"), ("train time", "training_seconds")):
        columns[title] = [spell(value, name) for value in table[name]]
    widths = {title: max(map(len, [title, *c])) for title, c in columns.items()}
    lines = [[*columns], *zip(*columns.values(), strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths.values(), strict=True))
        ).rstrip()
        for line in lines
    )


def aggregate(metrics, out, select_by, published, *, heads, reported, codabench=(), missing=()):
    """Write every table over all runs.

    `metrics` and `missing` are as in `load_metrics`; `out` holds the paths `grid`, `heads`,
    `best_heads` (CSV; Markdown and LaTeX go beside them) and `headline`; with `published`
    the study's numbers stand beside ours. `heads` are those of the grid, as in
    `heads_table`; `reported` and the paths `codabench` are those of `codabench_scores`.
    """
    loaded = load_metrics(metrics, missing)
    scores = codabench_scores(reported, codabench)
    grid = grid_table(loaded, scores)
    write(grid, Path(out["grid"]).with_suffix(""))
    configurations = published_configurations() if published else None
    write(heads_table(heads, configurations), Path(out["heads"]).with_suffix(""))
    theirs = published_heads() if published else None
    best = best_heads_table(loaded, select_by, theirs, scores)
    write(best, Path(out["best_heads"]).with_suffix(""))
    write_text(out["headline"], headline(grid) + "\n")


def compare_with_winner(inputs, out, settings):
    """Write the table of `winner_table` as CSV with Markdown and LaTeX beside it.

    inputs: lists of paths: `metrics` of every run in grid order, `predictions` of those that
        were trained; a run with a path that does not exist is missing.
    out: path `winner` of the table (CSV).
    settings: `select_by`, `bootstrap` and `seed`.
    Raises InputError when a run did not predict on the same images as the winner.
    """
    metrics = load_metrics(inputs["metrics"])
    paths = map(Path, inputs["predictions"])
    predictions = {path.parent.name: path for path in paths if path.exists()}
    table = winner_table(metrics, predictions, **settings)
    write(table, Path(out["winner"]).with_suffix(""))


def read_winner(path):
    """Read a table that `compare_with_winner` wrote."""
    return read_sparse(path, "run", "compared_with", "subset", "verdict")


def compare_tuned(inputs, out, settings):
    """Write the three tables about tuning, each as CSV with Markdown and LaTeX beside it.

    inputs: lists of paths: `metrics` of every run in grid order, `predictions` of the tuned
        runs and of the grid's runs of their backbones, `heads` (results/tuning/{run}.json)
        of the tuned runs, and `codabench` (codabench.json files; may be left out).
    out: paths `heads`, `runs` and `gain` of the tables (CSV).
    settings: `select_by`, `published`, `bootstrap`, `seed` and `codabench`, the reported
        scores {run: %}.
    Raises InputError when two runs to be compared did not predict on the same images.
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
        write(table, Path(out[name]).with_suffix(""))


def tuned_heads_table(heads, published=None):
    """Build the study's table 3, the heads that were found, of {run: results/tuning/*.json}.

    `published` is `published.published_tuned()`, whose heads then stand beside ours.
    """
    rows = [
        {
            "run": run,
            "dense": text.listed(found["head"]["dense"]),
            "dropout": text.listed(found["head"]["dropout"]),
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
    """Build the study's table 4, the tuned runs, of {run: metrics or None}.

    `published` is as in `tuned_heads_table`, `codabench` as in `tables.grid_table`.
    """
    columns = ["run"]
    for subset in (VAL, TEST, TEST_AUGMENTED):
        columns += [*with_bounds(f"{subset}_accuracy_pct"), f"published_{subset}_pct"]
    columns += ["codabench_pct", "codabench_source", "published_codabench"]
    tuned = {run: m for run, m in metrics.items() if m and m["head"] in TUNED_HEADS}
    return beside(grid_table(tuned, codabench), published, "run", columns)


def read_tuned(path):
    """Read a table that `compare_tuned` wrote; an empty cell is missing."""
    return read_sparse(path, "run", "dense", "dropout", "published_dense", "published_dropout")


def shown_trials(trials):
    """Turn the trials of a search into text for people, a row for each, in their order."""
    return text.shown(
        pd.DataFrame(
            {
                "trial": trials["trial"],
                "bracket": trials["bracket"],
                "round": trials["round"],
                "parent": trials["parent"],
                "epochs": trials["epochs"],
                "dense": trials["dense"].fillna("none"),
                "dropout": trials["dropout"],
                "learning_rate": trials["learning_rate"],
                "weight_decay": trials["weight_decay"],
                "val_accuracy_pct": 100 * trials["val_accuracy"],
                "val_loss": trials["val_loss"],
                "seconds": trials["seconds"],
            }
        )
    )
