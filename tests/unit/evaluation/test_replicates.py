import numpy as np
import pytest

from hemagrid.errors import InputError
from hemagrid.evaluation.replicates import compare_accuracies, mean_scores, summarize

STUDIES, IMAGES, ACCURACY = 1500, 250, 0.6
# Standard deviations of the chance of a right answer, between seeds and between images.
SOURCES = {"seeds": (0.05, 0.1), "both": (0.03, 0.28), "images": (0.0, 0.28)}


def answers(rng, replicates, seed, image, images=IMAGES):
    """Draw right answers of one model: bool (replicates, images)."""
    by_seed = rng.normal(0, seed, size=(replicates, 1))
    by_image = image * rng.choice([-1, 1], size=images)
    return rng.random((replicates, images)) < ACCURACY + by_seed + by_image


@pytest.mark.parametrize("replicates", [2, 3, 5, 10])
@pytest.mark.parametrize(("seed", "image"), SOURCES.values(), ids=SOURCES)
def test_intervals_hold_the_truth_and_equal_models_seldom_differ(replicates, seed, image):
    rng, groups = np.random.default_rng([replicates, 3]), np.arange(IMAGES)
    found = [
        compare_accuracies(*(answers(rng, replicates, seed, image) for _ in "ab"), groups)
        for _ in range(STUDIES)
    ]
    covered = np.mean([row["low"] <= 0 <= row["high"] for row in found])
    assert covered == pytest.approx(0.95, abs=0.02)
    assert np.mean([row["p"] <= 0.05 for row in found]) == pytest.approx(1 - covered)
    # The variances of both kinds are known: of a seed, of an image, of a single answer.
    single = ACCURACY * (1 - ACCURACY) - seed**2 - image**2
    by_seed, by_image = (seed**2 + single / IMAGES) / replicates, image**2 / IMAGES
    variance = np.var([row["value"] for row in found])
    assert variance == pytest.approx(2 * (by_seed + by_image), rel=0.15)
    share = np.mean([row["seed_share"] for row in found])
    assert share == pytest.approx(by_seed / (by_seed + by_image), abs=0.2)


@pytest.mark.parametrize("images", [8, 100])
def test_copies_of_an_image_are_one_image_however_few_there_are(images):
    rng, covered = np.random.default_rng(0), []
    groups = np.repeat(np.arange(images), 4)
    for _ in range(STUDIES):
        ours, theirs = (answers(rng, 3, 0.02, 0.3, images).repeat(4, axis=1) for _ in "ab")
        row = compare_accuracies(ours, theirs, groups)
        covered.append(row["low"] <= 0 <= row["high"])
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_the_seed_of_a_model_with_one_replicate_is_left_out():
    rng, groups = np.random.default_rng(0), np.arange(IMAGES)
    ours, theirs = answers(rng, 4, 0.2, 0.1), answers(rng, 4, 0.01, 0.1)
    alone = compare_accuracies(ours[:1], theirs[:1], groups)
    assert alone["seed_share"] is None
    for pair in ((ours, theirs[:1]), (ours, theirs)):
        row = compare_accuracies(*pair, groups)
        assert row["seed_share"] > 0.5
        assert row["high"] - row["low"] > 1.2 * (alone["high"] - alone["low"])


def test_models_that_agree_throughout_have_an_interval_and_no_difference():
    right = np.ones((2, 50), bool)
    row = compare_accuracies(right, right, np.arange(50))
    assert row["low"] < 0 < row["high"] and row["p"] == 1


def test_a_few_answers_decide_as_they_do_in_mcnemars_test():
    # Five against none are 2/2**5 there, seven are 2/2**7.
    for answered, differs in ((5, False), (7, True)):
        theirs = np.ones((3, 200), bool)
        theirs[:, :answered] = False
        row = compare_accuracies(np.ones((3, 200), bool), theirs, np.arange(200))
        assert (row["p"] <= 0.05) == differs == (row["low"] > 0)


def test_mean_scores_cover_images_and_seeds():
    rng, covered, n = np.random.default_rng(1), [], 200
    for _ in range(300):
        labels = rng.integers(2, size=n)
        right = answers(rng, 3, 0.04, 0.2, n)
        scores = mean_scores(
            labels, np.where(right, labels, 1 - labels), np.arange(n), 2, resamples=100, seed=0
        )
        row = scores["accuracy"]
        covered.append(row["low"] <= ACCURACY <= row["high"])
        assert row["least"] <= row["value"] <= row["most"]
        assert row["value"] == pytest.approx(right.mean())
    assert np.mean(covered) == pytest.approx(0.95, abs=0.03)
    assert set(scores) == {"accuracy", "balanced_accuracy", "macro_f1"}


def test_perfect_replicates_have_an_interval():
    labels = np.arange(100) % 4
    scores = mean_scores(
        labels, np.stack([labels] * 3), np.arange(100), 4, resamples=100, seed=0
    )
    for row in scores.values():
        assert row["value"] == row["high"] == row["least"] == 1 and 0.9 < row["low"] < 1


def test_a_summary_holds_the_means_and_the_names_of_the_replicates():
    rng, labels = np.random.default_rng(0), np.arange(60) % 2
    metrics, predictions = [], []
    for number, accuracy in enumerate((0.7, 0.8, 0.9), start=1):
        chosen = np.where(rng.random(60) < accuracy, labels, 1 - labels)
        predictions.append((["a", "b"], {"test": (labels, np.eye(2)[chosen], np.arange(60))}))
        per_class = {"precision": 0.1 * number, "recall": 0.5, "f1": 0.5, "support": 30}
        per_class |= {"recall_low": 0.3, "recall_high": 0.6 + 0.1 * number}
        scores = {"n": 60, "auc": accuracy, "calibration_error": 0.1, "calibration": [number]}
        scores |= {"scaled_calibration_error": None, "per_class": {"a": per_class}}
        metrics.append({"run": f"x_s{number}", "class_names": ["a", "b"]})
        metrics[-1]["subsets"] = {"test": scores}
    summary = summarize(metrics, predictions, bootstrap=100, seed=0)
    test = summary["subsets"]["test"]
    assert summary["replicates"] == ["x_s1", "x_s2", "x_s3"] and "replicates" not in metrics[0]
    right = [np.mean(of["test"][1].argmax(axis=1) == labels) for _, of in predictions]
    assert test["accuracy"]["value"] == pytest.approx(np.mean(right))
    assert [test["accuracy"][k] for k in ("least", "most")] == [min(right), max(right)]
    assert test["auc"] == pytest.approx(0.8) and test["scaled_calibration_error"] is None
    assert test["per_class"]["a"]["precision"] == pytest.approx(0.2)
    assert test["per_class"]["a"]["recall_high"] == pytest.approx(0.8)
    assert test["calibration"] == [1] and test["n"] == 60
    predictions[2][1]["test"] = (labels, np.eye(2)[labels], np.arange(60) // 2)
    with pytest.raises(InputError, match="x_s3: did not predict on the same test images"):
        summarize(metrics, predictions, bootstrap=100, seed=0)
