"""Abstention: how much better a run is on the images that it is sure of, and how sure to be.

A run that may abstain answers only where its confidence, the largest probability of a row,
reaches a threshold. Coverage is the share of images that it answers, risk the share of these
answers that are wrong (El-Yaniv & Wiener 2010, JMLR 11, "On the Foundations of Noise-free
Selective Classification"; with the confidence of a network, Geifman & El-Yaniv 2017, NeurIPS,
"Selective Classification for Deep Neural Networks").
"""

import logging

import numpy as np
from scipy import optimize, special

logger = logging.getLogger(__name__)

TARGET = 0.99
"""The accuracy that answers have to reach."""
POINTS = 50
"""Points of a risk-coverage curve, at coverages of 1 / POINTS, 2 / POINTS, ..., 1."""
TEMPERATURES = 0.05, 20.0
"""The temperatures between which one is fitted."""


def confidence_and_correct(labels, probabilities):
    """Return the confidence of each row, float64 (n,), and whether it is right, bool (n,)."""
    return probabilities.max(axis=1).astype(float), probabilities.argmax(axis=1) == labels


def expected_risks(confidence, correct):
    """Compute the risk of answering the 1, 2, ..., n most confident rows.

    Rows of equal confidence have no order, so this is the mean over all their orders: the wrong
    answers among them come evenly. No threshold ends between two of them.

    Args:
        confidence: float (n,).
        correct: bool (n,).

    Returns:
        float (n,), 0 to 1.
    """
    order = np.argsort(-confidence, kind="stable")
    _, start, size = np.unique(-confidence[order], return_index=True, return_counts=True)
    wrong = np.add.reduceat((~correct[order]).astype(float), start)
    return np.cumsum(np.repeat(wrong / size, size)) / np.arange(1, len(order) + 1)


def risk_coverage(labels, probabilities):
    """Gather the risk-coverage curve of a run on one test set.

    Args:
        labels: int (n,), the true classes.
        probabilities: float (n, k).

    Returns:
        {"aurc": area under the curve, the mean risk over the coverages 1/n, 2/n, ..., 1
        (Geifman, Uziel & El-Yaniv 2019, ICLR, "Bias-Reduced Uncertainty Estimation for Deep
        Neural Classifiers"), "risks": the risks at `POINTS` coverages}, all from 0 to 1.
    """
    risks = expected_risks(*confidence_and_correct(labels, probabilities))
    rows = np.ceil(np.arange(1, POINTS + 1) * len(risks) / POINTS).astype(int)
    return {"aurc": float(risks.mean()), "risks": risks[rows - 1].tolist()}


def threshold_for(labels, probabilities, accuracy=TARGET):
    """Find the confidence from which on a run is right often enough.

    Args:
        labels: int (n,), the true classes.
        probabilities: float (n, k).
        accuracy: What the answers have to reach, 0 to 1.

    Returns:
        The smallest confidence c that a row has, so that of the rows with a confidence of at
        least c the share `accuracy` or more is right; None if there is none.
    """
    confidence, correct = confidence_and_correct(labels, probabilities)
    levels, place = np.unique(-confidence, return_inverse=True)
    rows = np.cumsum(np.bincount(place))
    right = np.cumsum(np.bincount(place, correct))
    reached = np.flatnonzero(right >= accuracy * rows - 1e-9)
    return float(-levels[reached[-1]]) if reached.size else None


def answered(probabilities, threshold):
    """Return the rows, bool (n,), that a run answers; none if the threshold is None."""
    if threshold is None:
        return np.zeros(len(probabilities), bool)
    return probabilities.max(axis=1).astype(float) >= threshold


def fit_temperature(labels, probabilities):
    """Fit the temperature of Guo et al. 2017 (ICML, "On Calibration of Modern Neural
    Networks"), section 4.2: the one under which the labels are the most likely.

    The logits are log-probabilities, which differ from those of the network by a constant per
    row. A probability of 0 counts as the smallest that single precision holds in full, 1e-38.

    Args:
        labels: int (n,), the true classes.
        probabilities: float (n, k).

    Returns:
        The temperature, within `TEMPERATURES`; None if all probabilities are 0 or 1, as those
        of a control, because these say nothing of how sure a run is.
    """
    if np.isin(probabilities, (0, 1)).all():
        return None
    logits = _log(probabilities)
    own = logits[np.arange(len(labels)), labels]

    def loss(log_temperature):
        scale = np.exp(-log_temperature)
        return (special.logsumexp(scale * logits, axis=1) - scale * own).mean()

    # The loss is convex in 1 / temperature, so it has one minimum.
    bounds = np.log(TEMPERATURES)
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded").x
    if np.isclose(found, bounds, atol=1e-3).any():
        logger.info(f"temperature: the fit ended at the bound {np.exp(found):.3g}")
    return float(np.exp(found))


def scaled(probabilities, temperature):
    """Divide the logits of probabilities, float (n, k), by a temperature.

    The class with the largest probability stays the same.
    """
    return special.softmax(_log(probabilities) / temperature, axis=1)


def _log(probabilities):
    smallest = np.finfo(np.float32).tiny
    return np.log(np.maximum(np.asarray(probabilities, float), smallest))
