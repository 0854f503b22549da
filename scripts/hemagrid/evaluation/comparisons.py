"""Is the difference between two runs larger than chance? Paired, on the same images."""

import numpy as np
import pandas as pd

from hemagrid.errors import InputError
from hemagrid.evaluation.metrics import best_run, put, with_bounds
from hemagrid.evaluation.statistics import holm, paired
from hemagrid.names import SUBSET_TITLES, TUNED_ADAMW, TUNED_HEADS, VAL
from hemagrid.training.predictions import read_predictions

_LEVEL = 0.05


def compare_on_tests(run, other, predictions, *, resamples, seed):
    """Yield (subset, result of `paired`) for each test subset that both runs predicted on.

    The difference is `run` minus `other`; predictions is {run: path of predictions.npz}.
    Raises InputError when the two did not predict on the same images.
    """
    ours, theirs = (read_predictions(predictions[name]) for name in (run, other))
    for subset in SUBSET_TITLES:
        if subset == VAL or not (subset in ours[1] and subset in theirs[1]):
            continue
        labels, groups = _same_images(run, ours, other, theirs, subset)
        answers = (of[1][subset][1].argmax(axis=1) for of in (ours, theirs))
        yield subset, paired(labels, *answers, groups, resamples=resamples, seed=seed)


def _same_images(run, ours, other, theirs, subset):
    """Return the labels and groups that both runs share; raise InputError if they do not."""
    (labels, _, groups), (labels_of, _, groups_of) = ours[1][subset], theirs[1][subset]
    if (
        ours[0] != theirs[0]
        or not np.array_equal(labels, labels_of)
        or not np.array_equal(groups, groups_of)
    ):
        raise InputError(
            f"{run} and {other} did not predict on the same {SUBSET_TITLES[subset]} images: "
            f"found {len(labels)} and {len(labels_of)} rows whose labels or parents differ, "
            "expected the same ones; remove the older predictions.npz and run again"
        )
    return labels, groups


def in_points(name, difference):
    """Name a result of `paired` and its bounds as columns, in percentage points."""
    parts = {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
    return {column: 100 * difference[part] for column, part in parts.items()}


def verdicts(differences, p_holm):
    """Say of each difference, of any unit, whether it is one: an array of text.

    "better" above zero, "worse" below it; "no difference beyond chance" where the corrected
    p value is above 0.05.
    """
    direction = np.where(np.asarray(differences) > 0, "better", "worse")
    chance = np.asarray(p_holm) > _LEVEL
    return np.where(chance, "no difference beyond chance", direction)


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
    columns = ["run", "compared_with", "subset", *with_bounds("accuracy_pct")]
    columns += [*with_bounds("difference_points"), "p_value"]
    trained = {
        run: m
        for run, m in metrics.items()
        if m and m["kind"] != "control" and run in predictions
    }
    winner = best_run(metrics, select_by)
    rivals = [run for run in trained if run != winner] if winner in trained else []
    rows = []
    for run in rivals:
        compared = compare_on_tests(winner, run, predictions, resamples=bootstrap, seed=seed)
        for subset, difference in compared:
            row = {"run": run, "compared_with": winner, "subset": subset}
            accuracy = trained[run]["subsets"][subset]["accuracy"]
            put(row, "accuracy_pct", accuracy)
            row |= in_points("difference_points", difference)
            rows.append(row | {"p_value": difference["p"]})
    table = pd.DataFrame(rows, columns=columns)
    table["p_holm"] = table.groupby("subset")["p_value"].transform(holm)
    table["verdict"] = verdicts(-table["difference_points"], table["p_holm"])
    return table


def tuning_gain_table(metrics, predictions, *, select_by, bootstrap, seed):
    """Build the verdict: each tuned run against an untuned one, on each test subset.

    metrics is {run: metrics or None}, predictions {run: path}. The untuned run is the best
    of the grid's of the same backbone on subset `select_by`; chosen there as the best of
    several, it is flattered on that subset and on the copies of its images. A run of the
    search with weight decay is compared with the backbone's other tuned run, too. Without
    such a run there is no row.

    `gain_points` is tuned minus other in percentage points with its 95 % interval,
    `p_value` that of `comparison.paired`, `p_holm` corrected over the rows of the table;
    `verdict` is "better" or "worse" where that is at most 0.05.
    """
    known = {run: m for run, m in metrics.items() if m and run in predictions}
    rows = []
    for run, other in _pairs(known, select_by):
        compared = compare_on_tests(run, other, predictions, resamples=bootstrap, seed=seed)
        for subset, gain in compared:
            rows.append(
                {
                    "run": run,
                    "compared_with": other,
                    "subset": subset,
                    "tuned_accuracy_pct": _accuracy_pct(known[run], subset),
                    "other_accuracy_pct": _accuracy_pct(known[other], subset),
                    **in_points("gain_points", gain),
                    "p_value": gain["p"],
                }
            )
    columns = ["run", "compared_with", "subset", "tuned_accuracy_pct", "other_accuracy_pct"]
    columns += [*with_bounds("gain_points"), "p_value"]
    table = pd.DataFrame(rows, columns=columns)
    table["p_holm"] = holm(table["p_value"])
    table["verdict"] = verdicts(table["gain_points"], table["p_holm"])
    return table


def _pairs(metrics, select_by):
    """Yield (tuned run, run to compare it with), in the order of `metrics`."""
    tuned = {run: m for run, m in metrics.items() if m["head"] in TUNED_HEADS}
    for run, m in tuned.items():
        same = {o: n for o, n in metrics.items() if n["backbone"] == m["backbone"]}
        untuned = best_run({o: n for o, n in same.items() if o not in tuned}, select_by)
        if untuned:
            yield run, untuned
        if m["head"] == TUNED_ADAMW:
            yield from ((run, o) for o, n in same.items() if n["head"] == "tuned")


def _accuracy_pct(metrics, subset):
    return 100 * metrics["subsets"][subset]["accuracy"]["value"]
