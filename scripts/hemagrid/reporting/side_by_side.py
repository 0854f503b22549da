"""Runs side by side: recalls in columns, pairs that agree, and differences of two matrices."""

import pandas as pd

from hemagrid import io
from hemagrid.names import TEST, subset_title
from hemagrid.reporting import text

MATRICES = 4  # runs whose confusion matrices the best one's is compared with


def recalls(table):
    """Put the recalls of each test subset in columns, one for each class.

    Args:
        table: As `tables.recall_table` returns it.

    Returns:
        {subset as people read it: data frame of texts with a row per run}.
    """
    found = {}
    for subset, rows in table.groupby("subset", sort=False):
        cells = rows[["run", "class"]].assign(cell=text.shown(rows)["recall, %"].to_numpy())
        wide = cells.pivot(index="run", columns="class", values="cell")
        wide = wide.loc[rows["run"].unique(), rows["class"].unique()]
        found[subset_title(subset)] = wide.add_suffix(", %").reset_index()
    return found


def pairs(inputs, runs):
    """Read the agreement of these runs, None if nothing is known of any pair."""
    if "agreement" not in inputs:
        return None
    table = io.read_sparse(inputs["agreement"], "run", "compared_with")
    table = table[table["run"].isin(runs) & table["compared_with"].isin(runs)]
    return None if table.empty else table


def differences(paths, best, metrics):
    """Subtract the confusion matrices of other runs from the best run's, on the test images.

    Args:
        paths: {run: path of its confusion_matrix.csv}.
        best: Name of the best run.
        metrics: {run: content of metrics.json}.

    Returns:
        A list, the most accurate runs first: {"run", "names", "rows": [{"name", "total",
        "cells": [(images more, share of the class more)]}]}.
    """
    if best not in paths:
        return []
    accuracy = {run: metrics[run]["subsets"][TEST]["accuracy"]["value"] for run in paths}
    others = [run for run in sorted(accuracy, key=accuracy.get, reverse=True) if run != best]
    ours = _counts(paths[best])
    found = []
    for run in others[:MATRICES]:
        more = ours - _counts(paths[run])
        totals = ours.sum(axis=1).clip(lower=1)
        rows = [
            {
                "name": name,
                "total": int(totals[name]),
                "cells": [(int(n), n / totals[name]) for n in more.loc[name]],
            }
            for name in more.index
        ]
        found.append({"run": run, "names": list(more.columns), "rows": rows})
    return found


def _counts(path):
    table = io.read_table(path)
    table = table[table["subset"] == TEST]
    order = list(dict.fromkeys(table["true"]))
    counts = pd.pivot_table(table, index="true", columns="predicted", values="count")
    return counts.loc[order, order]
