"""Which runs cannot be told from the winner? Each of the others against it, paired."""

from pathlib import Path

import pandas as pd

from hemagrid import tables
from hemagrid.comparison import compare_on_tests, holm, in_points, verdicts
from hemagrid.files import read_sparse


def compare_with_winner(inputs, out, settings):
    """Write the table of `winner_table` as CSV with Markdown and LaTeX beside it.

    inputs: lists of paths: `metrics` of every run in grid order, `predictions` of those that
        were trained; a run with a path that does not exist is missing.
    out: path `winner` of the table (CSV).
    settings: `select_by`, `bootstrap` and `seed`.
    Raises InputError when a run did not predict on the same images as the winner.
    """
    metrics = tables.load_metrics(inputs["metrics"])
    paths = map(Path, inputs["predictions"])
    predictions = {path.parent.name: path for path in paths if path.exists()}
    table = winner_table(metrics, predictions, **settings)
    tables.write(table, Path(out["winner"]).with_suffix(""))


def winner_table(metrics, predictions, *, select_by, bootstrap, seed):
    """Build the comparison of each run with the winner, on each test subset.

    metrics is {run: metrics or None}, predictions {run: path}. The winner is
    `tables.best_run` on subset `select_by`; chosen there as the best of many, it is
    flattered on that subset and on the copies of its images. Controls and missing runs have
    no row; without a winner's predictions there is none.

    `difference_points` is winner minus run in percentage points with its 95 % interval,
    `p_value` that of `comparison.paired`. `p_holm` is corrected over the rows of the same
    subset: each subset asks a question of its own, and is one family. `verdict` is of the
    run: "worse" or "better" than the winner where `p_holm` is at most 0.05.
    """
    columns = ["run", "compared_with", "subset", *tables.with_bounds("accuracy_pct")]
    columns += [*tables.with_bounds("difference_points"), "p_value"]
    trained = {
        run: m
        for run, m in metrics.items()
        if m and m["kind"] != "control" and run in predictions
    }
    winner = tables.best_run(metrics, select_by)
    rivals = [run for run in trained if run != winner] if winner in trained else []
    rows = []
    for run in rivals:
        compared = compare_on_tests(winner, run, predictions, resamples=bootstrap, seed=seed)
        for subset, difference in compared:
            row = {"run": run, "compared_with": winner, "subset": subset}
            accuracy = trained[run]["subsets"][subset]["accuracy"]
            tables.put(row, "accuracy_pct", accuracy)
            row |= in_points("difference_points", difference)
            rows.append(row | {"p_value": difference["p"]})
    table = pd.DataFrame(rows, columns=columns)
    table["p_holm"] = table.groupby("subset")["p_value"].transform(holm)
    table["verdict"] = verdicts(-table["difference_points"], table["p_holm"])
    return table


def read_winner(path):
    """Read a table that `compare_with_winner` wrote."""
    return read_sparse(path, "run", "compared_with", "subset", "verdict")
