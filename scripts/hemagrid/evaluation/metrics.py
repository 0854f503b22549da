"""How good is a run? Its predictions become metrics with intervals."""

from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.metrics import precision_recall_fscore_support, roc_auc_score

from hemagrid.evaluation.statistics import resampled_confusions, with_interval
from hemagrid.io import read_json, write_json, write_table
from hemagrid.training.predictions import read_predictions


def accuracy(confusion):
    """Accuracy of confusion counts (..., true, predicted)."""
    return np.trace(confusion, axis1=-2, axis2=-1) / confusion.sum(axis=(-2, -1))


def balanced_accuracy(confusion):
    """Mean recall over the classes that occur, of counts (..., true, predicted)."""
    support = confusion.sum(axis=-1)
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return (hits / np.maximum(support, 1)).sum(-1) / (support > 0).sum(-1)


def macro_f1(confusion):
    """Mean F1 over the classes that occur or are predicted, of counts (..., t, p)."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    either = confusion.sum(axis=-1) + confusion.sum(axis=-2)
    return (2 * hits / np.maximum(either, 1)).sum(-1) / (either > 0).sum(-1)


_RESAMPLED = {
    "accuracy": accuracy,
    "balanced_accuracy": balanced_accuracy,
    "macro_f1": macro_f1,
}


def calibration(labels, probabilities, bins):
    """Gather the reliability diagram: one entry for each bin of confidence that has rows.

    labels: (n,); probabilities: (n, k). The bins ((m-1)/M, m/M] are of equal width, as in
    Guo et al. 2017 (On Calibration of Modern Neural Networks), section 2. Returns a list,
    lowest bin first, of {"low", "high": its bounds, "n": rows, "confidence": their mean
    largest probability, "accuracy": the share of them that is right}, all but n 0 to 1.
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
    """Expected calibration error, 0 to 1, of the bins that `calibration` returns.

    Guo et al. 2017, section 2: the mean distance of accuracy from confidence over the
    bins, weighted by their rows.
    """
    off = [abs(entry["accuracy"] - entry["confidence"]) for entry in calibration]
    return float(np.average(off, weights=[entry["n"] for entry in calibration]))


def area_under_curve(labels, probabilities):
    """Macro one-vs-rest area under the ROC curve; None when a class has no rows."""
    k = probabilities.shape[1]
    if k < 2 or len(np.unique(labels)) < k:
        return None
    return float(np.mean([roc_auc_score(labels == c, probabilities[:, c]) for c in range(k)]))


def evaluate(
    predictions_path,
    *,
    run,
    kind,
    backbone,
    head,
    cost,
    bootstrap,
    calibration_bins,
    seed,
):
    """Evaluate predictions.npz: (content of metrics.json, confusion table).

    Accuracy, balanced accuracy and macro F1 come with the percentile interval (95 %) of
    `bootstrap` resamples of parent images. The table has one row per subset, true and
    predicted class. Raises InputError as `read_predictions` does.
    """
    class_names, subsets = read_predictions(predictions_path)
    metrics, tables = {}, []
    for subset, (labels, probabilities, groups) in subsets.items():
        confusion = _confusion(labels, probabilities)
        reliability = calibration(labels, probabilities, calibration_bins)
        resampled = resampled_confusions(
            labels,
            probabilities.argmax(axis=1),
            groups,
            len(class_names),
            resamples=bootstrap,
            seed=seed,
        )
        metrics[subset] = {
            "n": len(labels),
            **{
                name: with_interval(metric(confusion), metric(resampled))
                for name, metric in _RESAMPLED.items()
            },
            "auc": area_under_curve(labels, probabilities),
            "calibration_error": calibration_error(reliability),
            "calibration": reliability,
            "per_class": _per_class(labels, probabilities, class_names),
        }
        tables.append(_long(confusion, subset, class_names))
    content = {
        "run": run,
        "kind": kind,
        "backbone": backbone,
        "head": head,
        "class_names": class_names,
        "subsets": metrics,
        "cost": cost,
    }
    return content, pd.concat(tables, ignore_index=True)


def evaluate_run(description, inputs, out, **settings):
    """Evaluate one run from files to files.

    `description` holds run, kind, backbone and head; `inputs` the paths `predictions`
    and, except for a control, `cost`; `out` the paths `metrics` and `confusion`;
    `settings` is as in `evaluate`.
    """
    cost = read_json(inputs["cost"]) if "cost" in inputs else None
    metrics, confusion = evaluate(inputs["predictions"], **description, cost=cost, **settings)
    write_json(out["metrics"], metrics)
    write_table(out["confusion"], confusion)


def _confusion(labels, probabilities):
    k = probabilities.shape[1]
    cells = labels * k + probabilities.argmax(axis=1)
    return np.bincount(cells, minlength=k * k).reshape(k, k)


def _per_class(labels, probabilities, class_names):
    scores = precision_recall_fscore_support(
        labels,
        probabilities.argmax(axis=1),
        labels=range(len(class_names)),
        zero_division=0,
    )
    return {
        name: {
            "precision": float(precision),
            "recall": float(recall),
            "f1": float(f1),
            "support": int(support),
        }
        for name, precision, recall, f1, support in zip(class_names, *scores, strict=True)
    }


def _long(confusion, subset, class_names):
    k = len(class_names)
    return pd.DataFrame(
        {
            "subset": subset,
            "true": np.repeat(class_names, k),
            "predicted": np.tile(class_names, k),
            "count": confusion.ravel(),
        }
    )


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
