"""Paired comparisons of runs on the same images: is a difference more than chance?"""

import numpy as np
import pandas as pd

from hemagrid.errors import InputError
from hemagrid.evaluation.metrics import best_run, put, with_bounds
from hemagrid.evaluation.predictions import read_predictions
from hemagrid.evaluation.statistics import ALPHA, holm, paired
from hemagrid.names import TUNED, TUNED_ADAMW, TUNED_HEADS, VAL, subset_title

BETTER = "better"
WORSE = "worse"
NOT_SHOWN = "not shown to differ"
"""What a table says of a difference."""


def compare(pairs, predictions, *, family, bootstrap, seed):
    """Compare the accuracies of pairs of runs on every test subset that both predicted on.

    The p value is that of `statistics.sign_flip_test` over groups of near duplicates, corrected
    for the tests of its family (Holm). A corrected p value of at most 0.05 decides the verdict.

    The intervals of a family hold together with probability 0.95 (Bonferroni, which is a
    little wider than Holm needs). Their side of zero is Holm's: an interval holds zero exactly
    where the pair is not shown to differ. Strassburger & Bretz 2008 (Statistics in Medicine
    27, "Compatible simultaneous lower confidence bounds for the Holm procedure") show that of
    differences that only Holm's steps find, no more can be said than their sign.

    Args:
        pairs: List of (run, other).
        predictions: {run: paths of its predictions, one per subset}.
        family: "subset" if each subset is a family of its own, "table" if all rows are one.
        bootstrap: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        A data frame, by pair, then subset: run, compared_with, subset, `points` (accuracy of
        run minus other) with `points_low` and `points_high`, in percentage points, p_value,
        p_holm, `family` (which comparisons p_holm and the interval allow for), verdict.

    Raises:
        InputError: if two runs did not predict on the same images.
    """
    answers = {}
    for run in dict.fromkeys(run for pair in pairs for run in pair):
        class_names, subsets = read_predictions(predictions[run])
        answers[run] = {
            subset: (class_names, labels, groups, probabilities.argmax(axis=1) == labels)
            for subset, (labels, probabilities, groups) in subsets.items()
            if subset != VAL
        }
    compared = {
        subset: found
        for subset in dict.fromkeys(
            subset for subsets in answers.values() for subset in subsets
        )
        if (found := [pair for pair in pairs if all(subset in answers[run] for run in pair)])
    }
    tests = sum(map(len, compared.values()))
    rows = []
    for subset, found in compared.items():
        differences = []
        for run, other in found:
            ours, theirs = answers[run][subset], answers[other][subset]
            if not all(map(np.array_equal, ours[:3], theirs[:3])):
                raise InputError(
                    f"{run} and {other} did not predict on the same {subset_title(subset)} "
                    f"images: found {len(ours[1])} and {len(theirs[1])} rows whose labels or "
                    "groups differ, expected the same ones; remove the older predictions "
                    "and run again"
                )
            differences.append(ours[3].astype(np.int8) - theirs[3])
        size = len(found) if family == "subset" else tests
        results = paired(
            np.stack(differences, axis=1),
            ours[2],
            resamples=bootstrap,
            seed=seed,
            family=size,
        )
        of = f"on the {subset_title(subset)} images" if family == "subset" else "of this table"
        for pair, result in zip(found, results, strict=True):
            rows.append(
                dict(zip(("run", "compared_with"), pair, strict=True))
                | {
                    "subset": subset,
                    "points": result["value"],
                    "points_low": result["low"],
                    "points_high": result["high"],
                    "p_value": result["p"],
                    "family": f"{size} comparison{'s' if size > 1 else ''} {of}",
                    "images": len(ours[1]),
                    "place": pairs.index(pair),
                }
            )
    columns = ["run", "compared_with", "subset", *with_bounds("points"), "p_value", "family"]
    table = pd.DataFrame(rows, columns=[*columns, "images", "place"])
    table = table.sort_values("place", kind="stable", ignore_index=True)
    table["p_holm"] = table.groupby("family")["p_value"].transform(holm)
    shown = table["p_holm"] <= ALPHA
    better, worse = shown & (table["points"] > 0), shown & (table["points"] < 0)
    table["verdict"] = np.select([better, worse], [BETTER, WORSE], NOT_SHOWN)
    # A bound that Holm keeps away from zero is the smallest difference that images can show.
    low, high, least = table["points_low"], table["points_high"], 1 / table["images"]
    table["points_low"] = low.where(~better, np.maximum(low, least)).where(
        shown, low.clip(upper=0)
    )
    table["points_high"] = high.where(~worse, np.minimum(high, -least)).where(
        shown, high.clip(lower=0)
    )
    table[with_bounds("points")] *= 100
    return table[[*columns[:-1], "p_holm", "family", "verdict"]]


def winner_table(metrics, predictions, *, select_by, bootstrap, seed):
    """Compare each run with the winner, on each test subset.

    The winner is the best run on the subset `select_by`. As it was chosen there as the best of
    many, it is flattered on that subset and on the copies of its images.

    The question is which runs differ from the winner on these images, so the rows of one
    subset are one family (as in `compare`).

    Args:
        metrics: {run: content of metrics.json or None}. Controls and missing runs have no row.
        predictions: {run: paths of its predictions}. Without the winner's there is no row.
        select_by: Subset that decides the winner.
        bootstrap: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        A data frame with the columns of `compare` and the accuracy of the run in %. The
        difference is `difference_points`, winner minus run; the verdict is on the run.

    Raises:
        InputError: if a run did not predict on the same images as the winner.
    """
    winner = best_run(metrics, select_by)
    rivals = [
        run
        for run, m in metrics.items()
        if m and m["kind"] != "control" and run in predictions and run != winner
    ]
    pairs = [(run, winner) for run in rivals] if winner in predictions else []
    table = compare(pairs, predictions, family="subset", bootstrap=bootstrap, seed=seed)
    accuracies = []
    for run, subset in zip(table["run"], table["subset"], strict=True):
        accuracies.append({})
        put(accuracies[-1], "accuracy_pct", metrics[run]["subsets"][subset]["accuracy"])
    table[with_bounds("accuracy_pct")] = pd.DataFrame(
        accuracies, columns=with_bounds("accuracy_pct")
    )
    points = with_bounds("points")
    table[points] = 0.0 - table[[points[0], points[2], points[1]]].to_numpy()
    table = table.rename(columns=lambda name: name.replace("points", "difference_points"))
    columns = ["run", "compared_with", "subset", *with_bounds("accuracy_pct")]
    columns += [*with_bounds("difference_points"), "p_value", "p_holm", "family", "verdict"]
    return table[columns]


def tuning_gain_table(metrics, predictions, *, select_by, bootstrap, seed):
    """Compare each tuned run with an untuned one, on each test subset.

    The untuned run is the best one of the grid with the same backbone on the subset
    `select_by`. As it was chosen there as the best of several, it is flattered on that subset
    and on the copies of its images. A run of the search with weight decay is also compared with
    the other tuned run of its backbone.

    The question is whether tuning changed the accuracy of any backbone, on any images, so all
    rows are one family (as in `compare`).

    Args:
        metrics: {run: content of metrics.json or None}.
        predictions: {run: paths of its predictions}. A run without them has no row.
        select_by: Subset that decides the untuned run.
        bootstrap: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        A data frame with the columns of `compare` and both accuracies in %. The difference is
        `gain_points`, tuned minus other; the verdict is on the tuned run.

    Raises:
        InputError: if two runs did not predict on the same images.
    """
    known = {run: m for run, m in metrics.items() if m and run in predictions}
    pairs = []
    for run, m in known.items():
        if m["head"] not in TUNED_HEADS:
            continue
        same = {o: n for o, n in known.items() if n["backbone"] == m["backbone"]}
        untuned = {o: n for o, n in same.items() if n["head"] not in TUNED_HEADS}
        if best := best_run(untuned, select_by):
            pairs.append((run, best))
        if m["head"] == TUNED_ADAMW:
            pairs += [(run, o) for o, n in same.items() if n["head"] == TUNED]
    table = compare(pairs, predictions, family="table", bootstrap=bootstrap, seed=seed)
    for column, runs in (("tuned", "run"), ("other", "compared_with")):
        table[f"{column}_accuracy_pct"] = [
            100 * known[run]["subsets"][subset]["accuracy"]["value"]
            for run, subset in zip(table[runs], table["subset"], strict=True)
        ]
    table = table.rename(columns=lambda name: name.replace("points", "gain_points"))
    columns = ["run", "compared_with", "subset", "tuned_accuracy_pct", "other_accuracy_pct"]
    columns += [*with_bounds("gain_points"), "p_value", "p_holm", "family", "verdict"]
    return table[columns]
