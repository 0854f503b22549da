"""From the predictions of a run to its metrics, with intervals."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from hemagrid.data.augmentation import BLANK
from hemagrid.errors import InputError
from hemagrid.evaluation import abstention, statistics
from hemagrid.evaluation.predictions import read_predictions
from hemagrid.io import read_json, read_table, write_json, write_table
from hemagrid.names import COPIES, OWN, TEST, TRAINED, VAL, subset_title

SCORES = {
    *("n", "accuracy", "balanced_accuracy", "macro_f1", "auc", "calibration_error"),
    *("calibration", "scaled_calibration_error", "scaled_calibration", "abstention"),
    "per_class",
}
"""What metrics.json says of every subset; of some it says more."""

logger = logging.getLogger(__name__)

SHARED = ("embedding_seconds", "search_seconds")
"""What a run's cost holds besides its training: work that other runs may share."""
ALL = "all"
"""In place of a policy: the copies of all policies."""


def scores(hits, support, predicted):
    """Compute scores from counts per class.

    Balanced accuracy is the mean recall, and macro F1 the mean F1, of the classes that occur.

    Args:
        hits: int (..., k), rows of each class that are predicted as such.
        support: int (..., k), rows of each class.
        predicted: int (..., k), predictions of each class.

    Returns:
        {"accuracy", "balanced_accuracy", "macro_f1"}, each float (...), 0 to 1.
    """
    either, classes = support + predicted, (support > 0).sum(-1)
    return {
        "accuracy": hits.sum(-1) / support.sum(-1),
        "balanced_accuracy": (hits / np.maximum(support, 1)).sum(-1) / classes,
        "macro_f1": (2 * hits / np.maximum(either, 1)).sum(-1) / classes,
    }


def answer_counts(labels, predicted, k):
    """Count per row the hits, the support and the predictions of each of k classes.

    Args:
        labels: int (n,), the true classes.
        predicted: int (n,), the predicted classes.
        k: Number of classes.

    Returns:
        Sparse int (n, 3 k); its sums over rows are what `scores` takes.
    """
    n, right = len(labels), labels == predicted
    columns = np.concatenate([labels[right], k + labels, 2 * k + predicted])
    places = np.concatenate([np.flatnonzero(right), np.arange(n), np.arange(n)])
    return sparse.csr_array((np.ones(len(columns), np.int64), (places, columns)), (n, 3 * k))


def scores_with_intervals(labels, predicted, groups, k, *, resamples, seed):
    """Compute the scores of one subset with 95 % intervals.

    An interval is between the percentiles of resampled groups ("bootstrap") where that works.
    Resampling a score of 0 or 100 % gives a point, and one close to them an interval that is
    too narrow. Where fewer than `statistics.FEW` groups hold a wrong answer, or a right one,
    intervals are "exact": of accuracy Clopper and Pearson's, of as many independent images as
    the groups are worth (`statistics.effective_groups`); of balanced accuracy, in which the
    images of rare classes weigh more, `statistics.gamma_interval`; of macro F1 the same, which
    holds to first order.

    Resampling biases macro F1 where classes have a few images each, so its interval is extended
    to the value.

    Args:
        labels: int (n,), the true classes.
        predicted: int (n,), the predicted classes.
        groups: int (n,). Rows of one group depend on each other.
        k: Number of classes.
        resamples: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        {score: {"value", "low", "high", "interval": "bootstrap" or "exact"}}, 0 to 1.
    """
    right = labels == predicted
    rows = answer_counts(labels, predicted, k)
    counts = rows.sum(axis=0).reshape(3, k)
    values = {score: float(value) for score, value in scores(*counts).items()}
    drawn = statistics.resampled_sums(rows, groups, resamples=resamples, seed=seed)
    chunks = [scores(*sums.reshape(-1, 3, k).swapaxes(0, 1)) for sums in drawn]
    bounds = {
        score: (
            *statistics.percentiles(np.concatenate([c[score] for c in chunks])),
            "bootstrap",
        )
        for score in values
    }

    _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    per_group = np.bincount(group, right).astype(np.int64)
    wrong_groups, right_groups = (per_group < sizes).sum(), (per_group > 0).sum()
    few = min(wrong_groups, right_groups) < statistics.FEW
    if few or bounds["accuracy"][0] == bounds["accuracy"][1]:
        effective = statistics.effective_groups(per_group, sizes)
        exact = statistics.clopper_pearson(values["accuracy"], effective)
        bounds["accuracy"] = (*exact, "exact")
    if few:
        # The rarer answers are counted, by class and in groups.
        pairs = np.unique(np.column_stack([labels, group]), axis=0)
        present, per_class = np.unique(pairs[:, 0], return_counts=True)
        shares = counts[0, present] / counts[1, present]
        errors = wrong_groups < right_groups
        found = per_class * (1 - shares if errors else shares)
        for score in ("balanced_accuracy", "macro_f1"):
            value = 1 - values[score] if errors else values[score]
            low, high = statistics.gamma_interval(value, found, 1 / (len(present) * per_class))
            bounds[score] = (1 - high, 1 - low, "exact") if errors else (low, high, "exact")
    return {
        score: {
            "value": value,
            "low": min(bounds[score][0], value),
            "high": max(bounds[score][1], value),
            "interval": bounds[score][2],
        }
        for score, value in values.items()
    }


def by_policy(right, groups, copies, *, resamples, seed):
    """Compute the accuracy on the copies of each augmentation policy, with and without the
    copies that hold no picture any more.

    Args:
        right: bool (n,), whether the answers are right.
        groups: int (n,), as in `scores_with_intervals`, as are `resamples` and `seed`.
        copies: Rows of `audit.audit_copies` for the same images, (n,).

    Returns:
        {policy: {"n", "blank": how many of them are, "accuracy", "without_blank": the accuracy
        on the others, None if there are none}}, accuracies as in `scores_with_intervals`. With
        several policies the first entry is `ALL`.
    """

    def accuracy(rows):
        if not rows.any():
            return None
        wrong = (~right[rows]).astype(int)
        of_two = np.zeros_like(wrong), wrong, groups[rows], 2
        return scores_with_intervals(*of_two, resamples=resamples, seed=seed)["accuracy"]

    policy, blank = copies["policy"].to_numpy(), copies["spread"].to_numpy() < BLANK
    parts = {name: policy == name for name in sorted(set(policy), reverse=True)}
    if len(parts) > 1:
        parts = {ALL: np.full(len(right), True)} | parts
    found = {}
    for name, rows in parts.items():
        whole, few = accuracy(rows), int(blank[rows].sum())
        without = accuracy(rows & ~blank) if few else whole
        n = int(rows.sum())
        found[name] = {"n": n, "blank": few, "accuracy": whole, "without_blank": without}
    return found


def calibration(labels, probabilities, bins):
    """Gather the reliability diagram of Guo et al. 2017 (ICML, "On Calibration of Modern Neural
    Networks"), section 2.

    Args:
        labels: int (n,), the true classes.
        probabilities: float (n, k).
        bins: Number M of bins ((m-1)/M, m/M] of confidence, the largest probability of a row.

    Returns:
        A list with an entry per bin that has rows, lowest first: {"low", "high": its bounds,
        "n": rows, "confidence": their mean, "accuracy": the share that is right}, all but n
        from 0 to 1.
    """
    confidence = probabilities.max(axis=1).astype(float)
    correct = probabilities.argmax(axis=1) == labels
    bin_of = np.clip(np.ceil(confidence * bins) - 1, 0, bins - 1).astype(int)
    entries = []
    for place in np.unique(bin_of).tolist():
        inside = bin_of == place
        entries.append(
            {
                "low": place / bins,
                "high": (place + 1) / bins,
                "n": int(inside.sum()),
                "confidence": float(confidence[inside].mean()),
                "accuracy": float(correct[inside].mean()),
            }
        )
    return entries


def calibration_error(calibration):
    """Compute the expected calibration error, 0 to 1, of what `calibration` returns.

    Guo et al. 2017, section 2: the distance of accuracy from confidence, averaged over rows.
    """
    off = [abs(entry["accuracy"] - entry["confidence"]) for entry in calibration]
    return float(np.average(off, weights=[entry["n"] for entry in calibration]))


def answers(labels, probabilities, groups, threshold, *, resamples, seed):
    """Compute what a run that abstains below a threshold answers, and how well.

    Args:
        labels: int (n,), the true classes.
        probabilities: float (n, k).
        groups: int (n,). Rows of one group depend on each other.
        threshold: The least confidence of an answer, or None: then it answers nothing.
        resamples: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        What `abstention.risk_coverage` returns, with "coverage" and "accuracy" (as in
        `scores_with_intervals`, or None) of the answers, and "oracle_coverage": the coverage
        with the threshold that would be chosen on these very images.
    """
    rows = abstention.answered(probabilities, threshold)
    oracle = abstention.threshold_for(labels, probabilities)
    accuracy = None
    if rows.any():
        accuracy = scores_with_intervals(
            labels[rows],
            probabilities[rows].argmax(axis=1),
            groups[rows],
            probabilities.shape[1],
            resamples=resamples,
            seed=seed,
        )["accuracy"]
    return {
        **abstention.risk_coverage(labels, probabilities),
        "coverage": float(rows.mean()),
        "accuracy": accuracy,
        "oracle_coverage": float(abstention.answered(probabilities, oracle).mean()),
    }


def recall_interval(right, groups):
    """Compute the 95 % interval of the recall of a class: Clopper and Pearson's, of as many
    independent images as its groups are worth (`statistics.effective_groups`).

    Args:
        right: bool (n,), whether the images of the class are predicted as such.
        groups: int (n,), as in `scores_with_intervals`.

    Returns:
        {"recall_low", "recall_high"}; 0 and 1 without images.
    """
    low, high = 0.0, 1.0
    if len(right):
        _, group, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        per_group = np.bincount(group, right).astype(np.int64)
        effective = statistics.effective_groups(per_group, sizes)
        low, high = statistics.clopper_pearson(float(np.mean(right)), effective)
    return {"recall_low": low, "recall_high": high}


def area_under_curve(labels, probabilities):
    """Compute the macro one-vs-rest area under the ROC curve, 0 to 1.

    It is the mean over the classes that occur, and None if only one does.
    """
    present = np.unique(labels)
    if len(present) < 2:
        return None
    return float(np.mean([roc_auc_score(labels == c, probabilities[:, c]) for c in present]))


def evaluate(
    predictions,
    *,
    run,
    kind,
    backbone,
    head,
    cost,
    bootstrap,
    calibration_bins,
    seed,
    copies=None,
    latency=None,
):
    """Evaluate the predictions of a run.

    Args:
        predictions: Paths of its predictions, one per subset.
        run: Name of the run.
        kind: "cnn", "transfer", "ensemble", "views" or "control".
        backbone: Name of the backbone, or None.
        head: Name of the head, or None.
        cost: Content of cost.json, or None.
        bootstrap: Number of resamples, as in `scores_with_intervals`.
        calibration_bins: Number of bins, as in `calibration`.
        seed: The study's seed.
        copies: Table of `audit.audit_copies`: its subsets get the entry "policies".
        latency: Content of latency.json, or None.

    Returns:
        (content of metrics.json, confusion table with a row per subset, true and predicted
        class). Classes that a subset lacks are left out of its means over classes. A test set
        of other images has a `drop` (see `put_drops`). Without validation images there is no
        temperature, and no threshold on the confidence.

    Raises:
        InputError: as `read_predictions`, or there are not as many copies of a subset as
            predictions.
    """
    class_names, subsets = read_predictions(predictions)
    k, metrics, tables = len(class_names), {}, []
    temperature = threshold = None
    if VAL in subsets:
        temperature = abstention.fit_temperature(*subsets[VAL][:2])
        threshold = abstention.threshold_for(*subsets[VAL][:2])
    for subset, (labels, probabilities, groups) in subsets.items():
        predicted = probabilities.argmax(axis=1)
        confusion = np.bincount(labels * k + predicted, minlength=k * k)
        reliability = calibration(labels, probabilities, calibration_bins)
        if absent := [class_names[c] for c in np.setdiff1d(np.arange(k), labels)]:
            named = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
            logger.info(
                f"{run}: the {subset_title(subset)} images lack {len(absent)} of {k} classes, "
                f"which are left out of means: {named}"
            )
        scaled = None
        if temperature is not None:
            softer = abstention.scaled(probabilities, temperature)
            scaled = calibration(labels, softer, calibration_bins)
        per_class = precision_recall_fscore_support(
            labels, predicted, labels=range(k), zero_division=0
        )
        metrics[subset] = {
            "n": len(labels),
            **scores_with_intervals(
                labels, predicted, groups, k, resamples=bootstrap, seed=seed
            ),
            "auc": area_under_curve(labels, probabilities),
            "calibration_error": calibration_error(reliability),
            "calibration": reliability,
            "scaled_calibration_error": scaled and calibration_error(scaled),
            "scaled_calibration": scaled,
            "abstention": answers(
                labels, probabilities, groups, threshold, resamples=bootstrap, seed=seed
            ),
            "per_class": {
                name: {
                    "precision": float(precision),
                    "recall": float(recall),
                    **recall_interval(predicted[labels == c] == c, groups[labels == c]),
                    "f1": float(f1),
                    "support": int(support),
                }
                for c, (name, precision, recall, f1, support) in enumerate(
                    zip(class_names, *per_class, strict=True)
                )
            },
        }
        if copies is not None and subset in set(copies["subset"]):
            listed = copies[copies["subset"] == subset]
            if len(listed) != len(labels):
                raise InputError(
                    f"{predictions[0]}: found {len(labels)} predictions on {subset}, "
                    f"expected {len(listed)}, one per copy in {COPIES}; remove it and run again"
                )
            metrics[subset]["policies"] = by_policy(
                labels == predicted, groups, listed, resamples=bootstrap, seed=seed
            )
        names = pd.Categorical.from_codes
        codes = np.arange(k)
        tables.append(
            pd.DataFrame(
                {
                    "subset": subset,
                    "true": names(np.repeat(codes, k), class_names),
                    "predicted": names(np.tile(codes, k), class_names),
                    "count": confusion,
                }
            )
        )
    put_drops(metrics)
    content = {
        "run": run,
        "kind": kind,
        "backbone": backbone,
        "head": head,
        "class_names": class_names,
        "temperature": temperature,
        "threshold": threshold,
        "subsets": metrics,
        "cost": cost,
        "latency": latency,
    }
    return content, pd.concat(tables, ignore_index=True)


def put_drops(subsets):
    """Add `drop` to the metrics of each test set of other images than the study's own.

    It is test accuracy minus accuracy there, as `statistics.difference`. Means over replicates
    have the same seeds on both sides, so that their interval is a little wide.

    Args:
        subsets: {subset: metrics}, which is changed.
    """
    for subset in subsets.keys() - OWN:
        if TEST in subsets:
            pair = (subsets[of]["accuracy"] for of in (TEST, subset))
            subsets[subset]["drop"] = statistics.difference(*pair)


def evaluate_run(description, inputs, out, **settings):
    """Evaluate one run from files to files.

    Args:
        description: `run`, `kind`, `backbone` and `head`, as in `evaluate`.
        inputs: List of paths `predictions`, path `copies` (of `audit.audit_copies`) and, except
            for a control, path `cost`; also the cost.json of its backbone's `embedding` and
            what the `search` for its head wrote, if there are any; of a network `latency`.
        out: Paths `metrics` and `confusion`.
        **settings: `bootstrap`, `calibration_bins` and `seed`, as in `evaluate`.
    """
    cost, latency = (
        read_json(inputs[name]) if name in inputs else None for name in ("cost", "latency")
    )
    for name in SHARED:
        if path := inputs.get(name.removesuffix("_seconds")):
            cost[name] = read_json(path)["seconds"]
    copies = read_table(inputs["copies"]) if "copies" in inputs else None
    metrics, confusion = evaluate(
        inputs["predictions"],
        **description,
        cost=cost,
        **settings,
        copies=copies,
        latency=latency,
    )
    write_json(out["metrics"], metrics)
    write_table(out["confusion"], confusion)


def whole_seconds(cost):
    """Return the seconds of a training, of its backbone's embedding and of its head's search.

    Args:
        cost: What metrics.json holds as `cost`.
    """
    return sum(cost.get(name, 0) for name in ("seconds", *SHARED))


def load_metrics(paths, missing=()):
    """Read metrics.json files.

    Args:
        paths: Paths, each in the folder of its run. Their order is that of the result.
        missing: Names of runs that have no path.

    Returns:
        {run: content, or None if the file does not exist}.
    """
    found = {
        Path(path).parent.name: read_json(path) if Path(path).exists() else None
        for path in paths
    }
    return found | dict.fromkeys(missing)


def with_bounds(column):
    """Return the names of the columns of a score and its interval."""
    return [column, f"{column}_low", f"{column}_high"]


def put(row, column, score):
    """Put a score into a row of a table.

    Args:
        row: {column: value}, which is changed.
        column: Name of the column.
        score: A number from 0 to 1, or one with its interval as {"value", "low", "high"}.
    """
    if isinstance(score, dict):
        row |= {
            name: 100 * score[part]
            for name, part in zip(with_bounds(column), ("value", "low", "high"), strict=True)
        }
    else:
        row[column] = 100 * score


def most_accurate(metrics, select_by):
    """List the runs with the highest accuracy: one, or several with the same.

    Controls do not compete, nor do ensembles and runs with views: these are no answer to which
    backbone and which head are best.

    Args:
        metrics: {run: content of metrics.json or None}.
        select_by: Subset on which accuracy counts.
    """
    accuracies = {
        run: m["subsets"][select_by]["accuracy"]["value"]
        for run, m in metrics.items()
        if m and m["kind"] in TRAINED and select_by in m["subsets"]
    }
    highest = max(accuracies.values(), default=None)
    return [run for run, accuracy in accuracies.items() if accuracy == highest]


def best_run(metrics, select_by):
    """Choose the run with the highest accuracy, as `most_accurate` does.

    Ties go to the first, which in grid order is the simpler head.

    Returns:
        Name of the run, or None if no run was evaluated on that subset.
    """
    return next(iter(most_accurate(metrics, select_by)), None)
