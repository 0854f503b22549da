import math

import numpy as np
import pytest

from hemagrid.evaluation.abstention import (
    POINTS,
    TEMPERATURES,
    answered,
    expected_risks,
    fit_temperature,
    risk_coverage,
    scaled,
    threshold_for,
)
from hemagrid.evaluation.metrics import calibration, calibration_error


def two_classes(confidence, correct):
    """Labels and probabilities of rows with these confidences, right or wrong."""
    confidence = np.asarray(confidence, np.float32)
    probabilities = np.column_stack([confidence, 1 - confidence])
    return np.where(correct, 0, 1), probabilities


def test_risk_of_the_most_confident_answers():
    confidence = np.array([0.6, 0.9, 0.8, 0.7])
    correct = np.array([False, True, False, True])
    # In order of confidence: right, wrong, right, wrong.
    np.testing.assert_allclose(expected_risks(confidence, correct), [0, 1 / 2, 1 / 3, 1 / 2])
    curve = risk_coverage(*two_classes(confidence, correct))
    assert curve["aurc"] == pytest.approx((1 / 2 + 1 / 3 + 1 / 2) / 4)
    assert len(curve["risks"]) == POINTS and curve["risks"][-1] == 1 / 2
    assert curve["risks"][: POINTS // 4] == [0] * (POINTS // 4)


def test_equal_confidences_count_as_the_mean_of_their_orders():
    confidence = np.array([0.9, 0.7, 0.7, 0.7])
    rng = np.random.default_rng(0)
    correct = np.array([True, False, True, True])
    orders = [
        np.cumsum(~correct[[0, *(1 + rng.permutation(3))]]) / np.arange(1, 5)
        for _ in range(20_000)
    ]
    risks = expected_risks(confidence, correct)
    np.testing.assert_allclose(risks, np.mean(orders, axis=0), atol=0.01)
    np.testing.assert_allclose(expected_risks(confidence, correct[[0, 3, 2, 1]]), risks)
    # A control is always equally sure: it is as wrong at every coverage.
    one_hot = np.eye(2, dtype=np.float32)[[0, 0, 0, 0]]
    curve = risk_coverage(np.array([0, 0, 0, 1]), one_hot)
    assert curve["aurc"] == pytest.approx(1 / 4)
    assert curve["risks"] == pytest.approx([1 / 4] * POINTS)


def test_the_threshold_answers_as_much_as_the_accuracy_allows():
    labels, probabilities = two_classes(
        [0.95, 0.9, 0.85, 0.8, 0.8, 0.6], [True, False, True, True, True, False]
    )
    threshold = threshold_for(labels, probabilities, 0.8)
    assert threshold == np.float32(0.8)  # 4 of 5, though 1 of 2 before
    assert answered(probabilities, threshold).sum() == 5
    assert threshold_for(labels, probabilities, 1.0) == np.float32(0.95)
    assert threshold_for(1 - labels[[0]], probabilities[[0]], 0.5) is None
    assert not answered(probabilities, None).any()
    # Rows of equal confidence are answered together or not at all.
    labels, probabilities = two_classes([0.9, 0.8, 0.8], [True, True, False])
    assert threshold_for(labels, probabilities, 0.9) == np.float32(0.9)


def test_the_temperature_brings_confidence_to_accuracy():
    # 3 of 4 are right at a confidence of 0.9: sigmoid(log(9) / T) = 3 / 4 where T = 2.
    labels, probabilities = two_classes([0.9] * 8, [True, True, True, False] * 2)
    temperature = fit_temperature(labels, probabilities)
    assert temperature == pytest.approx(2, rel=1e-3)
    softer = scaled(probabilities, temperature)
    np.testing.assert_allclose(softer, [[0.75, 0.25]] * 8, rtol=1e-3)
    before, after = (
        calibration_error(calibration(labels, of, 15)) for of in (probabilities, softer)
    )
    assert before == pytest.approx(0.15, abs=1e-6) and after == pytest.approx(0, abs=1e-3)


def test_the_temperature_of_a_softmax_is_found_again():
    rng = np.random.default_rng(3)
    logits = rng.normal(scale=2, size=(20_000, 5))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.array([rng.choice(5, p=row) for row in probabilities])
    sharper = scaled(probabilities, 1 / 3)
    assert fit_temperature(labels, sharper) == pytest.approx(3, rel=0.05)
    np.testing.assert_array_equal(sharper.argmax(axis=1), probabilities.argmax(axis=1))


def test_probabilities_of_zero_and_one():
    labels = np.array([0, 1, 0, 0])
    one_hot = np.eye(2, dtype=np.float32)[[0, 1, 0, 1]]
    assert fit_temperature(labels, one_hot) is None
    # Sure to the last bit in one row, and wrong there.
    mixed = np.concatenate([one_hot, np.full((1, 2), 0.5, np.float32)])
    temperature = fit_temperature(np.append(labels, 0), mixed)
    assert 1 < temperature <= TEMPERATURES[1] + 1e-9
    softer = scaled(mixed, temperature)
    assert np.isfinite(softer).all()
    np.testing.assert_allclose(softer.sum(axis=1), 1)
    # Always right: the sharpest that is allowed.
    labels, probabilities = two_classes([0.9, 0.8], [True, True])
    assert math.isclose(fit_temperature(labels, probabilities), TEMPERATURES[0], rel_tol=1e-2)
