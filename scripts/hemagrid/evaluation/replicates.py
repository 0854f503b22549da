"""What several trainings of a model show: intervals and tests that cover images and seeds.

An accuracy changes with the images it is measured on and with the seed that a network was
trained from. Replicates differ in the seed alone, and all of them answer the same images, which
is a random two-way design: the error of a mean over S replicates and N images has the variance

    seed / S + image / N + (seed x image) / (S N)

Bouthillier et al. 2021 (MLSys, "Accounting for variance in machine learning benchmarks") show
that a comparison that leaves either source out is too sure of itself. A bootstrap over
replicates does not repair that: with three of them it is too narrow by a third.

So the components are estimated by analysis of variance (Satterthwaite 1946, Biometrics Bulletin
2, "An approximate distribution of estimates of variance components"), and the interval is that
of Student's t. Its degrees of freedom are those of the seeds, divided by their share of the
variance: the few degrees count for the part that rests on few replicates. Images add theirs as
Satterthwaite has it, which matters where groups are few, such as patients. For the seeds of two
models, which share nothing although their numbers are equal, they are the mean of the two
formulas of Welch 1947 (Biometrika 34), one of which is too cautious and one too bold.
`tests/benchmarks/replicate_intervals.py` prints the coverage of this choice beside others: for
shares of seed and images of any size it is between 93 and 97 %, where Satterthwaite's own
degrees of freedom fall to 91 % with two replicates.
"""

import copy

import numpy as np
from scipy import sparse, special

from hemagrid.errors import InputError
from hemagrid.evaluation.metrics import answer_counts, put_drops, scores
from hemagrid.evaluation.predictions import by_run, read_predictions
from hemagrid.evaluation.statistics import ALPHA, resampled_sums
from hemagrid.io import read_json, write_json


def compare_accuracies(ours, theirs, groups, alpha=ALPHA):
    """Compare the mean accuracies of two models over their replicates.

    Images are paired, seeds are not. A model with one replicate shows nothing of its seed: then
    interval and test leave that seed out.

    As many images as two more, one that only the first model answers and one that only the
    other does, are added to the variance, which would be too small where the models hardly
    differ (Bonett & Price 2012, Journal of Educational and Behavioral Statistics 37, "Adjusted
    Wald confidence interval for a difference of binomial proportions based on paired data").

    Args:
        ours: bool (s, n), right answers of each replicate of the first model.
        theirs: bool (t, n), those of the second one on the same rows.
        groups: int (n,). Rows of one group depend on each other.
        alpha: Error rate.

    Returns:
        {"value": first minus second mean accuracy, "low", "high", "p": two-sided,
        "seed_share": share of the variance, 0 to 1, that more replicates would reduce; None if
        both models have one replicate}.
    """
    n, n_groups = len(groups), len(np.unique(groups))
    others = max(n_groups - 1, 1)
    first, second = _per_group(ours, groups), _per_group(theirs, groups)
    difference = first.mean(axis=0) - second.mean(axis=0)
    two_more = 2 / n**2
    images = np.square(difference).sum() / (n_groups * others) + two_more
    seeds, shared = [], 0.0
    for right, per_group in ((ours, first), (theirs, second)):
        replicates = len(right)
        if replicates > 1:
            seeds.append((np.mean(right, axis=1).var(ddof=1) / replicates, replicates - 1))
            off = per_group - per_group.mean(axis=0)
            freedom = (replicates - 1) * others
            shared += np.square(off).sum() / freedom / (replicates * n_groups)
    value = float(np.mean(ours) - np.mean(theirs))
    error, freedom, share = standard_error(seeds, max(images - shared, two_more), others)
    half = -error * special.stdtrit(freedom, alpha / 2)
    return {
        "value": value,
        "low": max(-1.0, value - half),
        "high": min(1.0, value + half),
        "p": float(2 * special.stdtr(freedom, -abs(value) / error)),
        "seed_share": share,
    }


def mean_scores(labels, predicted, groups, k, *, resamples, seed, alpha=ALPHA):
    """Compute the scores of a model over its replicates on one subset.

    The variance that images bring is that of resampled groups, the same ones for all
    replicates. Two more answers of the largest weight are added to it, for scores close to 0 or
    100 %.

    Args:
        labels: int (n,), the true classes.
        predicted: int (s, n), the predicted classes of each of s > 1 replicates.
        groups: int (n,). Rows of one group depend on each other.
        k: Number of classes.
        resamples: Number of resamples.
        seed: Seed of the resamples.
        alpha: Error rate.

    Returns:
        {score: {"value": mean over replicates, "low", "high": interval that covers images and
        seeds, "least", "most": range over replicates, "seed_share": as in
        `compare_accuracies`, "interval": "replicates"}}, 0 to 1.
    """
    replicates, n = np.shape(predicted)
    rows = sparse.hstack([answer_counts(labels, answers, k) for answers in predicted], "csr")
    found = scores(*rows.sum(axis=0).reshape(replicates, 3, k).swapaxes(0, 1))
    drawn = [
        scores(*sums.reshape(-1, replicates, 3, k).transpose(2, 0, 1, 3))
        for sums in resampled_sums(rows, groups, resamples=resamples, seed=seed)
    ]
    support, others = np.unique(labels, return_counts=True)[1], len(np.unique(groups)) - 1
    summary = {}
    for score, values in found.items():
        draws = np.concatenate([chunk[score] for chunk in drawn])
        images = draws.mean(axis=1).var()
        shared = max(draws.var(axis=0).mean() - images, 0.0) / (replicates - 1)
        weight = 1 / n if score == "accuracy" else 1 / (len(support) * support.min())
        two_more = 2 * weight**2
        seeds = [(values.var(ddof=1) / replicates, replicates - 1)]
        images = max(images + two_more - shared, two_more)
        error, freedom, share = standard_error(seeds, images, max(others, 1))
        value = float(values.mean())
        half = -error * special.stdtrit(freedom, alpha / 2)
        summary[score] = {
            "value": value,
            "low": float(max(0.0, value - half)),
            "high": float(min(1.0, value + half)),
            "least": float(values.min()),
            "most": float(values.max()),
            "seed_share": share,
            "interval": "replicates",
        }
    return summary


def summarize(metrics, predictions, *, bootstrap, seed):
    """Average the metrics of a run over its replicates.

    Args:
        metrics: Contents of the replicates' metrics.json, the run's own first.
        predictions: What `read_predictions` returned for each of them.
        bootstrap: Number of resamples, as in `mean_scores`.
        seed: Seed of the resamples.

    Returns:
        Content of metrics.json, with the mean of every score and the names of the
        `replicates`. The interval of a recall is the mean of theirs: it covers images, no
        seeds. Calibration curves, abstention, cost and the accuracy by
        augmentation policy are those of the run itself.

    Raises:
        InputError: The replicates did not predict on the same images.
    """
    summary = copy.deepcopy(metrics[0]) | {"replicates": [of["run"] for of in metrics]}
    k = len(summary["class_names"])
    for subset, scores_of in summary["subsets"].items():
        answers = [subsets.get(subset) for _, subsets in predictions]
        labels, _, groups = answers[0]
        for of, other in zip(metrics, answers, strict=True):
            if other is None or not (
                np.array_equal(labels, other[0]) and np.array_equal(groups, other[2])
            ):
                raise InputError(
                    f"{of['run']}: did not predict on the same {subset} images as "
                    f"{metrics[0]['run']}, expected the labels and groups of these; remove its "
                    "older predictions and run again"
                )
        predicted = np.stack([probabilities.argmax(axis=1) for _, probabilities, _ in answers])
        scores_of |= mean_scores(labels, predicted, groups, k, resamples=bootstrap, seed=seed)
        same = [of["subsets"][subset] for of in metrics]
        for score in ("auc", "calibration_error", "scaled_calibration_error"):
            values = [of[score] for of in same]
            scores_of[score] = None if None in values else float(np.mean(values))
        for name, per_class in scores_of["per_class"].items():
            for score in ("precision", "recall", "recall_low", "recall_high", "f1"):
                values = [of["per_class"][name][score] for of in same]
                per_class[score] = float(np.mean(values))
    put_drops(summary["subsets"])
    return summary


def summarize_run(inputs, out, **settings):
    """Average the metrics of a run over its replicates, from files to a file.

    Args:
        inputs: Lists of paths, the run's own first: `metrics` of its replicates, and
            `predictions` of each of them for every test set.
        out: Path of the summary.
        **settings: `bootstrap` and `seed`, as in `summarize`.
    """
    metrics = [read_json(path) for path in inputs["metrics"]]
    paths = by_run(inputs["predictions"])
    predictions = [read_predictions(paths[of["run"]]) for of in metrics]
    write_json(out, summarize(metrics, predictions, **settings))


def standard_error(seeds, images, others):
    """Estimate the standard error of a mean over seeds and images, or of a difference of two.

    Args:
        seeds: For each model with several replicates the variance of its mean over seeds, and
            the number of replicates less one.
        images: Variance that images bring, without what the variances over seeds contain.
        others: Number of groups of images less one.

    Returns:
        (standard error, degrees of freedom of its t distribution, share of the variance, 0 to
        1, that is seeds', or None if there are no `seeds`).
    """
    by_seed = sum(variance for variance, _ in seeds)
    total = by_seed + images
    if by_seed == 0:
        return np.sqrt(total), others, 0.0 if seeds else None
    shares = [(variance / by_seed, freedom) for variance, freedom in seeds]
    cautious = 1 / sum(share**2 / freedom for share, freedom in shares)
    bold = 1 / sum(share**2 / (freedom + 2) for share, freedom in shares) - 2
    share = by_seed / total
    freedom = 1 / (2 * share / (cautious + bold) + (1 - share) ** 2 / others)
    return np.sqrt(total), freedom, float(share)


def _per_group(right, groups):
    """Center the right answers of groups, as what each adds to the accuracy (s, g)."""
    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    right = np.asarray(right, float)
    sums = np.stack([np.bincount(group, row) for row in right])
    centered = sums - right.mean(axis=1, keepdims=True) * sizes
    return centered * len(sizes) / len(group)
