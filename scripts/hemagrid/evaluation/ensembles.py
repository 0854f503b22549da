"""Rows made of trained runs: the mean of several, or of one on eight views of each image.

The mean of the probabilities of networks is the ensemble of Lakshminarayanan et al. 2017
(NeurIPS, "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles"),
section 2.4. Nothing is trained for it. Eight views are the turns by quarters of an image and
of its mirror image: a cell has no upright position, so all of them are alike.
"""

import logging
from pathlib import Path

import numpy as np

from hemagrid.errors import InputError
from hemagrid.evaluation.metrics import load_metrics
from hemagrid.evaluation.predictions import by_run, read_predictions, write_predictions
from hemagrid.io import read_json, write_json
from hemagrid.names import TRAINED, VAL, subset_title

logger = logging.getLogger(__name__)

VIEWS = 8


class Combined:
    """Networks that answer as one: with the mean of their probabilities.

    Args:
        networks: Keras models of the same inputs and classes.
        views: Whether each of them looks at eight views of every image.
    """

    def __init__(self, networks, views):
        self.networks, self.views = networks, views
        self.input_shape = networks[0].input_shape

    def predict_on_batch(self, images):
        """Return the mean of all answers to images (n, S, S, 3), float (n, k)."""
        shown = eight_views(images) if self.views else [images]
        answers = [
            network.predict_on_batch(view) for view in shown for network in self.networks
        ]
        return np.mean(answers, axis=0)


def eight_views(images):
    """List the turns by quarters of images (n, S, S, 3) and of their mirror images."""
    return [
        np.rot90(side, turns, axes=(1, 2))
        for side in (images, images[:, :, ::-1])
        for turns in range(4)
    ]


def best_runs(metrics, n):
    """Choose the n runs with the highest accuracy on validation images.

    Args:
        metrics: {run: content of metrics.json or None}. Only trained runs compete; ties go to
            the first.
        n: Number of runs.

    Raises:
        InputError: if fewer have been evaluated on validation images.
    """
    accuracies = {
        run: m["subsets"][VAL]["accuracy"]["value"]
        for run, m in metrics.items()
        if m and m["kind"] in TRAINED and VAL in m["subsets"]
    }
    if len(accuracies) < n:
        raise InputError(
            f"best: found {len(accuracies)} runs with validation accuracy, expected {n}; lower "
            "ensembles.NAME.best, or evaluate more runs"
        )
    return sorted(accuracies, key=accuracies.get, reverse=True)[:n]


def mean_predictions(predictions):
    """Average what runs predicted.

    Args:
        predictions: {run: paths of its predictions, one per test set}.

    Returns:
        The class names, and {test set: (labels, probabilities, groups)}.

    Raises:
        InputError: if two runs did not predict on the same images of the same classes.
    """
    answers = {run: read_predictions(paths) for run, paths in predictions.items()}
    (first, (class_names, subsets)), *others = answers.items()
    for run, (names, theirs) in others:
        if names != class_names or theirs.keys() != subsets.keys():
            raise InputError(
                f"{first} and {run}: found the classes {', '.join(class_names)} on "
                f"{', '.join(subsets)}, and {', '.join(names)} on {', '.join(theirs)}; "
                "expected the same classes and test sets; remove the older predictions and run "
                "again"
            )
        for subset, (labels, _, groups) in subsets.items():
            if not (
                np.array_equal(labels, theirs[subset][0])
                and np.array_equal(groups, theirs[subset][2])
            ):
                raise InputError(
                    f"{first} and {run} did not predict on the same {subset_title(subset)} "
                    f"images: found {len(labels)} and {len(theirs[subset][0])} rows whose "
                    "labels or groups differ, expected the same ones; remove the older "
                    "predictions and run again"
                )
    mean = {
        subset: (labels, np.mean([of[subset][1] for _, of in answers.values()], axis=0), groups)
        for subset, (labels, _, groups) in subsets.items()
    }
    return class_names, mean


def cost_of(costs, views=1):
    """Add up what runs cost, {run: content of cost.json}, that answer as one.

    Args:
        costs: {run: content of cost.json}, in the order of the runs.
        views: How many views of an image each run looks at.

    Returns:
        The content of a cost.json: `members` (names of the runs), `views`, `parameters` and
        `seconds` (of training; sums), `images_per_second` (one network after another),
        `peak_memory_mib` (of the largest training).
    """
    each = costs.values()
    return {
        "members": list(costs),
        "views": views,
        "parameters": sum(cost["parameters"] for cost in each),
        "seconds": sum(cost["seconds"] for cost in each),
        "images_per_second": 1 / (views * sum(1 / cost["images_per_second"] for cost in each)),
        "peak_memory_mib": max(cost["peak_memory_mib"] for cost in each),
    }


def write_ensemble(name, settings, inputs, out):
    """Write the predictions and the cost of an ensemble.

    Args:
        name: Name of the ensemble.
        settings: Its entry in the config: `members`, or `best`.
        inputs: Lists of paths of the members, or of all runs that may be: `metrics`,
            `predictions` and `costs`.
        out: Paths `predictions` (a list, a test set each) and `cost`.

    Raises:
        InputError: as `best_runs` and `mean_predictions`.
    """
    costs = {Path(path).parent.name: path for path in inputs["costs"]}
    members = settings["members"]
    if members is None:
        members = best_runs(load_metrics(inputs["metrics"]), settings["best"])
        logger.info(f"{name}: the best on validation images are {', '.join(members)}")
    predictions = by_run(inputs["predictions"])
    class_names, mean = mean_predictions({run: predictions[run] for run in members})
    for path in map(Path, out["predictions"]):
        write_predictions(path, class_names, *mean[path.stem])
    write_json(out["cost"], cost_of({run: read_json(costs[run]) for run in members}))
