"""Paired comparisons of runs on the same images: is a difference more than chance?"""

import numpy as np
import pandas as pd

from hemagrid.errors import InputError
from hemagrid.evaluation.metrics import best_run, put, whole_seconds, with_bounds
from hemagrid.evaluation.predictions import read_predictions
from hemagrid.evaluation.replicates import compare_accuracies
from hemagrid.evaluation.statistics import ALPHA, holm, paired
from hemagrid.names import TRAINED, TUNED, TUNED_ADAMW, TUNED_HEADS, VAL, subset_title

BETTER = "better"
WORSE = "worse"
NOT_SHOWN = "not shown to differ"
"""What a table says of a difference."""
EXTRA = ("covers", "seed_share_pct")
"""What it says beyond that where runs have several replicates."""


def compare(pairs, predictions, *, family, bootstrap, seed, replicates=None):
    """Compare the accuracies of pairs of runs on every test subset that both predicted on.

    The p value is that of `statistics.sign_flip_test` over groups of near duplicates or, where
    a run of the pair has several replicates, of `replicates.compare_accuracies`. It is
    corrected for the tests of its family (Holm). A corrected p value of at most 0.05 decides
    the verdict.

    The intervals of a family hold together with probability 0.95 (Bonferroni, which is a
    little wider than Holm needs). Their side of zero is Holm's: an interval holds zero exactly
    where the pair is not shown to differ. Strassburger & Bretz 2008 (Statistics in Medicine
    27, "Compatible simultaneous lower confidence bounds for the Holm procedure") show that of
    differences that only Holm's steps find, no more can be said than their sign.

    Args:
        pairs: List of (run, other).
        predictions: {run: paths of its predictions, one per subset}.
        family: "subset" if each subset is a family of its own, "table" if all rows are one.
        bootstrap: Number of resamples, or None: then intervals and p values are those of
            `replicates.compare_accuracies`, for runs with one replicate, too.
        seed: Seed of the resamples.
        replicates: {run: names of its replicates} of runs that have several; those without
            predictions do not count. None if no run has.

    Returns:
        A data frame, by pair, then subset: run, compared_with, subset, `points` (accuracy of
        run minus other) with `points_low` and `points_high`, in percentage points, p_value,
        p_holm, `family` (which comparisons p_holm and the interval allow for), verdict. With
        `replicates` also `covers`, what the interval and the p value cover, and
        `seed_share_pct`, the share of the difference's variance that more replicates would
        reduce.

    Raises:
        InputError: if two runs did not predict on the same images.
    """
    answers, replicates = {}, replicates or {}
    for run in dict.fromkeys(run for pair in pairs for run in pair):
        answers[run] = _answers(run, replicates.get(run, [run]), predictions)
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
        for run, other in found:
            _check_same(subset, run, answers[run][subset], other, answers[other][subset])
        size = len(found) if family == "subset" else tests
        results = _results(
            [[answers[run][subset] for run in pair] for pair in found],
            size,
            resamples=bootstrap,
            seed=seed,
        )
        of = f"on the {subset_title(subset)} images" if family == "subset" else "of this table"
        for pair, result in zip(found, results, strict=True):
            share = result.get("seed_share")
            rights = [answers[run][subset][3] for run in pair]
            rows.append(
                dict(zip(("run", "compared_with"), pair, strict=True))
                | {
                    "subset": subset,
                    "points": result["value"],
                    "points_low": result["low"],
                    "points_high": result["high"],
                    "p_value": result["p"],
                    "family": f"{size} comparison{'s' if size > 1 else ''} {of}",
                    "covers": _covers(pair, [len(right) for right in rights]),
                    "seed_share_pct": np.nan if share is None else 100 * share,
                    "images": rights[0].shape[1],
                    "place": pairs.index(pair),
                }
            )
    columns = ["run", "compared_with", "subset", *with_bounds("points"), "p_value", "family"]
    table = pd.DataFrame(rows, columns=[*columns, *EXTRA, "images", "place"])
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
    return table[[*columns[:-1], "p_holm", "family", "verdict", *(EXTRA if replicates else [])]]


def _answers(run, names, predictions):
    """Read {subset: (class names, labels, groups, right answers: bool (s, n))}."""
    read = {name: read_predictions(predictions[name]) for name in names if name in predictions}
    gathered = {}
    for name, (class_names, subsets) in read.items():
        for subset, (labels, probabilities, groups) in subsets.items():
            right = (probabilities.argmax(axis=1) == labels)[None]
            answers = (class_names, labels, groups, right)
            if subset == VAL:
                continue
            if subset in gathered:
                _check_same(subset, run, gathered[subset], name, answers)
                right = np.concatenate([gathered[subset][3], right])
            gathered[subset] = (*answers[:3], right)
    return gathered


def _check_same(subset, run, ours, other, theirs):
    """Raise InputError unless two runs predicted on the same images."""
    if not all(map(np.array_equal, ours[:3], theirs[:3])):
        raise InputError(
            f"{run} and {other} did not predict on the same {subset_title(subset)} "
            f"images: found {len(ours[1])} and {len(theirs[1])} rows whose labels or "
            "groups differ, expected the same ones; remove the older predictions "
            "and run again"
        )


def _results(pairs, family, *, resamples, seed):
    """Compare pairs of answers to the same images, as `statistics.paired` returns it."""
    results = [None] * len(pairs)
    single = []
    for place, (ours, theirs) in enumerate(pairs):
        if resamples and len(ours[3]) == len(theirs[3]) == 1:
            single.append(place)
        else:
            results[place] = compare_accuracies(
                ours[3], theirs[3], ours[2], alpha=ALPHA / family
            )
    if single:
        differences = [
            pairs[place][0][3][0].astype(np.int8) - pairs[place][1][3][0] for place in single
        ]
        found = paired(
            np.stack(differences, axis=1),
            pairs[0][0][2],
            resamples=resamples,
            seed=seed,
            family=family,
        )
        for place, result in zip(single, found, strict=True):
            results[place] = result
    return results


def _covers(pair, counts):
    """Say what an interval covers, from the numbers of replicates of both runs."""
    alone = [run for run, count in zip(pair, counts, strict=True) if count == 1]
    if len(alone) == 2:
        return "images, no seed"
    return f"images, no seed of {alone[0]}" if alone else "images and seeds"


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
    table = compare(
        pairs,
        predictions,
        family="subset",
        bootstrap=bootstrap,
        seed=seed,
        replicates=_replicates(metrics),
    )
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
    return table[[*columns, *(name for name in EXTRA if name in table)]]


def control_table(metrics, predictions):
    """Compare each run with each control, on each test subset.

    The question is which runs are better than guessing, so the rows of one subset are one
    family (as in `compare`). It holds for the best run, too, although that was chosen as the
    best of many: all that might have been chosen are in its family.

    Args:
        metrics: {run: content of metrics.json or None}. Missing runs have no row.
        predictions: {run: paths of its predictions}. A run without them has no row.

    Returns:
        A data frame with the columns of `compare` and both accuracies in %. The difference is
        `gain_points`, run minus control; the verdict is on the run.

    Raises:
        InputError: if a run and a control did not predict on the same images.
    """
    known = {run: m for run, m in metrics.items() if m and run in predictions}
    controls = [run for run, m in known.items() if m["kind"] == "control"]
    pairs = [(run, control) for run in known if run not in controls for control in controls]
    table = compare(
        pairs,
        predictions,
        family="subset",
        bootstrap=None,
        seed=None,
        replicates=_replicates(metrics),
    )
    return _gains(table, known, "accuracy_pct")


def beats_controls(table):
    """List the runs that are shown to be better than every control.

    Args:
        table: What `control_table` returns.

    Returns:
        {subset: names of the runs, in the order of the table}.
    """
    better = table.assign(better=table["verdict"] == BETTER)
    found = better.groupby(["subset", "run"], sort=False)["better"].all()
    return {
        subset: [run for (_, run), all_of_them in rows.items() if all_of_them]
        for subset, rows in found.groupby("subset", sort=False)
    }


def frugal_run(metrics, winner, better):
    """Choose the cheapest run that is not shown to be worse than the winner on any test subset.

    Cost is the time of training, with the embedding of the backbone and the search of the head,
    as if no other run shared them; ties go to the one with fewer parameters.

    Args:
        metrics: {run: content of metrics.json or None}. Ensembles and runs with views do not
            compete, as in `best_run`.
        winner: What `winner_table` returns, with at least one row.
        better: Names of the runs that are shown to be better than guessing; others do not
            compete.

    Returns:
        Name of the run, which may be the winner; None if no run of `better` has its cost on
        record.
    """
    worse = set(winner.loc[winner["verdict"] == WORSE, "run"])
    compared = {*winner["run"], *winner["compared_with"]} - worse
    costs = {
        run: (whole_seconds(m["cost"]), m["cost"]["parameters"])
        for run, m in metrics.items()
        if m and m["kind"] in TRAINED and m["cost"] and run in compared and run in better
    }
    return min(costs, key=costs.get, default=None)


def _replicates(metrics):
    """Return {run: names of its replicates} of the runs that have several."""
    return {run: m["replicates"] for run, m in metrics.items() if m and "replicates" in m}


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
    table = compare(
        pairs,
        predictions,
        family="table",
        bootstrap=bootstrap,
        seed=seed,
        replicates=_replicates(metrics),
    )
    return _gains(table, known, "tuned_accuracy_pct")


def _gains(table, known, accuracy):
    """Return a table of `compare` with both accuracies, that of the run under this name."""
    for column, runs in ((accuracy, "run"), ("other_accuracy_pct", "compared_with")):
        table[column] = [
            100 * known[run]["subsets"][subset]["accuracy"]["value"]
            for run, subset in zip(table[runs], table["subset"], strict=True)
        ]
    table = table.rename(columns=lambda name: name.replace("points", "gain_points"))
    columns = ["run", "compared_with", "subset", accuracy, "other_accuracy_pct"]
    columns += [*with_bounds("gain_points"), "p_value", "p_holm", "family", "verdict"]
    return table[[*columns, *(name for name in EXTRA if name in table)]]
