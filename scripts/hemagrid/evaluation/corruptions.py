"""What corruptions of the test images cost: accuracy, its fall, and mean corruption errors."""

import numpy as np
import pandas as pd

from hemagrid.errors import InputError
from hemagrid.evaluation import statistics
from hemagrid.evaluation.metrics import put, with_bounds
from hemagrid.evaluation.predictions import read_corrupted, read_predictions

REFERENCE = "regularized_cnn"
"""The run whose corruption errors are 100 %."""


def accuracy_table(answers, *, bootstrap, seed):
    """Compare accuracy on corrupted test images with that on clean ones.

    Intervals are at 95 %, for each number on its own: of an accuracy as in
    `metrics.scores_with_intervals`, of a fall as in `statistics.paired`.

    Args:
        answers: {run: (groups, clean, corrupted)}: int (n,), bool (n,) whether the answer to
            each clean image is right, and the same for corrupted ones as {(kind, severity):
            bool (n,)}.
        bootstrap: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        A data frame with a row per run, `corruption` and `severity`: `accuracy_pct` and
        `fall_points`, clean minus corrupted in percentage points, both with bounds.
    """
    rows = []
    for run, (groups, clean, corrupted) in answers.items():
        right = _columns(clean, corrupted)
        resampled = _resampled(right, groups, bootstrap, seed)
        falls = statistics.paired(
            right[:, :1] - right[:, 1:], groups, resamples=bootstrap, seed=seed
        )
        for place, ((kind, severity), fall) in enumerate(zip(corrupted, falls, strict=True), 1):
            rows.append({"run": run, "corruption": kind, "severity": severity})
            accuracy = _accuracy(right[:, place], groups, resampled[:, place])
            put(rows[-1], "accuracy_pct", accuracy)
            put(rows[-1], "fall_points", fall)
    columns = ["run", "corruption", "severity"]
    columns += [*with_bounds("accuracy_pct"), *with_bounds("fall_points")]
    return pd.DataFrame(rows, columns=columns)


def summary_table(answers, *, bootstrap, seed):
    """Sum up over kinds and severities how far each run falls.

    The mean corruption error and the relative one are those of Hendrycks & Dietterich 2019
    (ICLR, "Benchmarking neural network robustness to common corruptions and perturbations",
    section 4.2): per kind, the errors of a run (or what corruption adds to them), summed over
    severities, in shares of those of `REFERENCE`; then the mean over kinds. The relative one
    is over the kinds by which the reference falls at all.

    Intervals at 95 % are between percentiles of resampled groups. Where fewer than
    `statistics.FEW` groups are ever wrong, ever right, or ever change, those of the means are
    `statistics.clopper_pearson` with a unit per group, and `statistics.tango`.

    Args:
        answers: As in `accuracy_table`.
        bootstrap: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        A data frame with a row per run: `test_accuracy_pct` on clean images,
        `mean_accuracy_pct` and `mean_fall_points` over kinds and severities and `mce_pct`, all
        three with bounds, `relative_mce_pct`, `relative_mce_kinds` (how many kinds it is over),
        `worst_corruption`, the kind with the largest fall over severities, and
        `worst_fall_points`. Without the reference there is no corruption error.

    Raises:
        InputError: If a run and the reference did not predict the same images.
    """
    rows, base = [], answers.get(REFERENCE)
    for run, answer in answers.items():
        groups, _, corrupted = answer
        kinds = list(dict.fromkeys(kind for kind, _ in corrupted))
        errors, drawn = _errors(answer, bootstrap, seed)
        falls = errors[1:] - errors[0]
        rows.append({"run": run, "test_accuracy_pct": 100 * (1 - errors[0])})
        accuracy, fall = _means(answer, drawn)
        put(rows[-1], "mean_accuracy_pct", accuracy)
        put(rows[-1], "mean_fall_points", fall)
        rows[-1]["worst_corruption"] = kinds[falls.argmax()]
        rows[-1]["worst_fall_points"] = 100 * falls.max()
        if base is None:
            continue
        if not np.array_equal(groups, base[0]) or corrupted.keys() != base[2].keys():
            raise InputError(
                f"{run} and {REFERENCE} did not predict the same corrupted images: found "
                f"{len(groups)} and {len(base[0])} images, {len(corrupted)} and {len(base[2])} "
                "corruptions, expected the same ones; run snakemake, which predicts again what "
                "is out of date"
            )
        theirs, their_draws = _errors(base, bootstrap, seed)
        if theirs[1:].all():
            # A resample may lack errors of the reference; percentiles bear its infinite share.
            with np.errstate(divide="ignore", invalid="ignore"):
                shares = np.nan_to_num(drawn[:, 1:] / their_draws[:, 1:], nan=1.0)
            mce = (errors[1:] / theirs[1:]).mean()
            put(rows[-1], "mce_pct", _score(mce, shares.mean(axis=1)))
        their_falls = theirs[1:] - theirs[0]
        fell = their_falls > 0
        rows[-1]["relative_mce_kinds"] = int(fell.sum())
        if fell.any():
            rows[-1]["relative_mce_pct"] = 100 * (falls[fell] / their_falls[fell]).mean()
    columns = ["run", "test_accuracy_pct", *with_bounds("mean_accuracy_pct")]
    columns += with_bounds("mean_fall_points")
    if base is not None:
        columns += [*with_bounds("mce_pct"), "relative_mce_pct", "relative_mce_kinds"]
    columns += ["worst_corruption", "worst_fall_points"]
    return pd.DataFrame(rows, columns=columns)


def read_answers(test, corrupted):
    """Read what a run answered, as `accuracy_table` takes it.

    Args:
        test: Path of its predictions for the test images.
        corrupted: Path of those for their corrupted copies.

    Returns:
        (groups, clean, corrupted).

    Raises:
        InputError: If a file cannot be read, or they are of other images.
    """
    _, subsets = read_predictions([test])
    ((labels, probabilities, groups),) = subsets.values()
    their_labels, answers, their_groups = read_corrupted(corrupted)
    if not (np.array_equal(labels, their_labels) and np.array_equal(groups, their_groups)):
        raise InputError(
            f"{test} and {corrupted}: found {len(labels)} and {len(their_labels)} images whose "
            "labels or groups differ, expected the same ones; run snakemake, which predicts "
            "again what is out of date"
        )
    right = {how: of.argmax(axis=1) == labels for how, of in answers.items()}
    return groups, probabilities.argmax(axis=1) == labels, right


def _columns(clean, corrupted):
    """Return int64 (n, 1 + corruptions), 1 for each right answer, the clean images first."""
    return np.stack([clean, *corrupted.values()], axis=1).astype(np.int64)


def _resampled(right, groups, bootstrap, seed):
    """Return the accuracies of resampled groups, float (bootstrap, 1 + corruptions)."""
    rows = np.column_stack([right, np.ones(len(right), np.int64)])
    sums = statistics.resampled_sums(rows, groups, resamples=bootstrap, seed=seed)
    return np.concatenate([chunk[:, :-1] / chunk[:, -1:] for chunk in sums])


def _errors(answer, bootstrap, seed):
    """Return error rates (1 + kinds,), the clean images first, and those of resamples."""
    groups, clean, corrupted = answer
    right = _columns(clean, corrupted)
    kinds = [kind for kind, _ in corrupted]
    starts = [0, *(1 + kinds.index(kind) for kind in dict.fromkeys(kinds))]
    sizes = np.diff([*starts, right.shape[1]])
    of_kinds = [
        np.add.reduceat(shares, starts, axis=-1) / sizes
        for shares in (right.mean(axis=0), _resampled(right, groups, bootstrap, seed))
    ]
    return 1 - of_kinds[0], 1 - of_kinds[1]


def _means(answer, drawn):
    """Return the mean accuracy and the mean fall over corruptions, with intervals."""
    groups, clean, corrupted = answer
    right = _columns(clean, corrupted)
    share = right[:, 1:].mean(axis=1)
    _, group = np.unique(groups, return_inverse=True)
    wrong, hits, lost = (np.bincount(group, of) for of in (1 - share, share, clean - share))
    accuracy = _score(share.mean(), 1 - drawn[:, 1:].mean(axis=1))
    fall = _score((clean - share).mean(), (drawn[:, 1:] - drawn[:, :1]).mean(axis=1))
    if min(map(np.count_nonzero, (wrong, hits))) < statistics.FEW:
        bounds = statistics.clopper_pearson(accuracy["value"], len(hits))
        accuracy |= dict(zip(("low", "high"), bounds, strict=True))
    if np.count_nonzero(lost) < statistics.FEW:
        per_image = len(lost) / len(groups)
        counts = (per_image * abs(lost[of].sum()) for of in (lost > 0, lost < 0))
        bounds = statistics.tango(*counts, len(lost))
        fall |= dict(zip(("low", "high"), bounds, strict=True))
    return accuracy, fall


def _accuracy(right, groups, resampled):
    """Return one accuracy with its interval."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    per_group = np.bincount(group, right).astype(np.int64)
    bounds = statistics.percentiles(resampled)
    few = min((per_group < sizes).sum(), (per_group > 0).sum()) < statistics.FEW
    if few or bounds[0] == bounds[1]:
        effective = statistics.effective_groups(per_group, sizes)
        bounds = statistics.clopper_pearson(right.mean(), effective)
    return {"value": right.mean(), "low": bounds[0], "high": bounds[1]}


def _score(value, resampled):
    low, high = statistics.percentiles(resampled)
    return {"value": value, "low": low, "high": high}
