"""The study's tables: the heads, every run in one grid, and the best head of each model."""

from pathlib import Path

import numpy as np
import pandas as pd

from hemagrid.config import TUNED_HEADS
from hemagrid.files import read_json, write_table, write_text
from hemagrid.predictions import SUBSET_NAMES
from hemagrid.published import published_configurations, published_heads

_SCORES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "calibration_error": "calibration error",
}
_DASH = "\N{EN DASH}"


def load_metrics(paths, missing=()):
    """Read metrics.json files: {run: content}, None for a run whose file is missing.

    A run is named by the folder of its file; the order of `paths` is the order of rows.
    `missing` names runs that have no path, either.
    """
    found = {
        Path(path).parent.name: read_json(path) if Path(path).exists() else None
        for path in paths
    }
    return found | dict.fromkeys(missing)


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
        for subset in SUBSET_NAMES
        if any(subset in m["subsets"] for m in metrics.values() if m)
    ]
    columns = ["run", "kind", "backbone", "head"]
    for subset in subsets:
        for score in _SCORES:
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
        for score in _SCORES:
            put(row, f"{subset}_{score}_pct", scores[score])
    accuracies = {
        subset: scores["accuracy"]["value"] for subset, scores in metrics["subsets"].items()
    }
    if {"test", "test_augmented"} <= accuracies.keys():
        row["gap_points"] = 100 * (accuracies["test"] - accuracies["test_augmented"])
    if cost := metrics["cost"]:
        row |= {key: cost[key] for key in _COST}
        row["training_seconds"] = sum(p["seconds"] for p in cost["phases"].values())
    return row


_COST = ("parameters", "peak_memory_mib", "images_per_second")


def with_bounds(column):
    """Name the columns of a score and of its interval."""
    return [column, f"{column}_low", f"{column}_high"]


def put(row, column, score):
    """Put a score, 0 to 1, into `row` in %, with its interval where it has one."""
    if isinstance(score, dict):
        row[column] = 100 * score["value"]
        row[f"{column}_low"] = 100 * score["low"]
        row[f"{column}_high"] = 100 * score["high"]
    else:
        row[column] = 100 * score


def best_run(metrics, select_by):
    """Name the run, controls aside, with the highest accuracy on subset `select_by`.

    Of equals the first wins, which is the simpler head in grid order; None when no run
    has been evaluated on that subset.
    """
    candidates = {
        run: m["subsets"][select_by]["accuracy"]["value"]
        for run, m in metrics.items()
        if m and m["kind"] != "control" and select_by in m["subsets"]
    }
    return max(candidates, key=candidates.get, default=None)


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


def listed(numbers):
    """Spell a list of layers or rates: "512, 256", and "none" where it is empty."""
    return ", ".join(f"{number:g}" for number in numbers) or "none"


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
        for subset in ("test", "test_augmented"):
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
            "test": "published_test_pct",
            "test_augmented": "published_test_augmented_pct",
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


def shown(table):
    """Turn a table into text for people: "92.5 (91.0-93.9)", units in the headings.

    A value and its `_low` and `_high`, where there are any, become one column, as do a
    Codabench score and where it comes from; what is missing is a dash.
    """
    inside = ("_low", "_high", "codabench_source")
    columns = {}
    for name in table.columns:
        if name.endswith(inside):
            continue
        cells = [_text(value, name) for value in table[name]]
        if f"{name}_low" in table:
            # A difference may be negative, and a hyphen then reads as a sign.
            to = " to " if name.endswith("_points") else "-"
            cells = [
                cell if pd.isna(low) else f"{cell} ({_text(low, name)}{to}{_text(high, name)})"
                for cell, low, high in zip(
                    cells, table[f"{name}_low"], table[f"{name}_high"], strict=True
                )
            ]
        if name == "codabench_pct":
            cells = [
                cell if cell == _DASH else f"{cell} ({source})"
                for cell, source in zip(cells, table["codabench_source"], strict=True)
            ]
        columns[heading(name)] = cells
    return pd.DataFrame(columns, dtype=object)


def heading(name):
    """Spell a column's name out: "test_accuracy_pct" becomes "test accuracy, %"."""
    for subset, subset_name in SUBSET_NAMES.items():
        for score, score_name in _SCORES.items():
            if name == f"{subset}_{score}_pct":
                return f"{subset_name} {score_name}, %"
    return _HEADINGS.get(name, name)


_HEADINGS = {
    "gap_points": "test minus augmented, points",
    "training_seconds": "training time",
    "peak_memory_mib": "peak memory, MiB",
    "images_per_second": "images/s",
    "published_head": "published head",
    "published_test_pct": "published test, %",
    "published_test_augmented_pct": "published augmented test, %",
    "codabench_pct": "Codabench, %",
    "published_codabench": "published Codabench, %",
    "published_val_pct": "published validation, %",
    "dense": "Dense",
    "published_dense": "published Dense",
    "published_dropout": "published dropout",
    "batch_norm": "BatchNormalization",
    "published_batch_norm": "published BatchNormalization",
    "learning_rate": "learning rate",
    "published_learning_rate": "published learning rate",
    "weight_decay": "weight decay",
    "trial_val_accuracy_pct": "validation accuracy of the best trial, %",
    "val_loss": "validation loss",
    "search_seconds": "search time",
    "seconds": "time",
    "compared_with": "compared with",
    "subset": "images",
    "tuned_accuracy_pct": "its accuracy, %",
    "other_accuracy_pct": "the other's accuracy, %",
    "gain_points": "difference, points",
    "accuracy_pct": "its accuracy, %",
    "difference_points": "winner minus run, points",
    "p_value": "p",
    "p_holm": "p, Holm-corrected",
}


def _text(value, column):
    if value is None or pd.isna(value) or value == "":
        return _DASH
    for ending, spell in _SPELLINGS.items():
        if column.endswith(ending):
            return spell(value)
    return value if isinstance(value, str) else f"{value:,.0f}"


def p_text(p):
    """Spell a p value, to three decimals: "0.012", "below 0.001"."""
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds):
    """Spell a duration: "48 s", "12 min 05 s", "3 h 20 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


# How a column's values are spelled, by the end of its name; the first that fits.
_SPELLINGS = {
    "gain_points": "{:+z.1f}".format,
    "difference_points": "{:+z.1f}".format,
    "_points": "{:z.1f}".format,
    "_pct": "{:z.1f}".format,
    "seconds": duration,
    "_rate": "{:g}".format,
    "_decay": "{:g}".format,
    "_loss": "{:.3f}".format,
    "p_value": p_text,
    "p_holm": p_text,
    "subset": lambda name: SUBSET_NAMES.get(name, name),
}


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
    columns = {"run": [_cut(run, 24) for run in table["run"]]}
    for subset in ("test", "test_augmented"):
        if f"{subset}_accuracy_pct" in table:
            text = shown(table[with_bounds(f"{subset}_accuracy_pct")]).iloc[:, 0]
            columns[f"{SUBSET_NAMES[subset]} %"] = list(text)
    for title, name in (("params", "parameters"), ("train time", "training_seconds")):
        columns[title] = [_text(value, name) for value in table[name]]
    widths = {title: max(map(len, [title, *c])) for title, c in columns.items()}
    lines = [[*columns], *zip(*columns.values(), strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(line, widths.values(), strict=True))
        ).rstrip()
        for line in lines
    )


def _cut(text, width):
    return text if len(text) <= width else text[: width - 1] + "\N{HORIZONTAL ELLIPSIS}"


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
