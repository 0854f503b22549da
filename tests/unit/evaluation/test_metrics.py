import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from answers import write_answers
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as sk

import hemagrid
from hemagrid.errors import InputError
from hemagrid.evaluation.metrics import (
    area_under_curve,
    calibration,
    calibration_error,
    evaluate,
    evaluate_run,
    scores,
    scores_with_intervals,
)
from hemagrid.io import read_json, write_json

NAMES = ["basophil", "ig", "platelet"]


def draw(rng, n, k=3, signal=2.0):
    labels = np.concatenate([np.arange(k), rng.integers(k, size=n - k)])
    logits = rng.normal(size=(n, k))
    logits[np.arange(n), labels] += signal
    e = np.exp(logits)
    return labels, (e / e.sum(axis=1, keepdims=True)).astype(np.float32)


def run_evaluate(path, **changes):
    options = {
        "run": "vgg16_cfg1",
        "kind": "transfer",
        "backbone": "vgg16",
        "head": "cfg1",
        "cost": None,
        "bootstrap": 200,
        "calibration_bins": 15,
        "seed": 42,
    }
    return evaluate(path, **(options | changes))


def write(path, labels, probabilities, groups=None, names=NAMES):
    groups = np.arange(len(labels)) if groups is None else groups
    return write_answers(path, names, {"test": (labels, probabilities, groups)})


def test_metrics_equal_scikit_learn(tmp_path):
    labels, probabilities = draw(np.random.default_rng(1), 300)
    predicted = probabilities.argmax(axis=1)
    cost = {"parameters": 7}
    path = write(tmp_path / "predictions", labels, probabilities)
    content, confusion = run_evaluate(path, cost=cost)
    test = content["subsets"]["test"]

    assert content["cost"] == cost and content["class_names"] == NAMES
    assert test["n"] == 300
    assert test["accuracy"]["value"] == pytest.approx(sk.accuracy_score(labels, predicted))
    assert test["balanced_accuracy"]["value"] == pytest.approx(
        sk.balanced_accuracy_score(labels, predicted)
    )
    assert test["macro_f1"]["value"] == pytest.approx(
        sk.f1_score(labels, predicted, average="macro")
    )
    normed = probabilities / probabilities.sum(axis=1, keepdims=True)
    assert test["auc"] == pytest.approx(
        sk.roc_auc_score(labels, normed, multi_class="ovr"), abs=1e-6
    )
    report = sk.classification_report(labels, predicted, target_names=NAMES, output_dict=True)
    for name in NAMES:
        support = int(report[name]["support"])
        exact = stats.binomtest(round(report[name]["recall"] * support), support)
        low, high = exact.proportion_ci()
        assert test["per_class"][name] == {
            "precision": report[name]["precision"],
            "recall": report[name]["recall"],
            "recall_low": pytest.approx(low, abs=2e-3),
            "recall_high": pytest.approx(high, abs=2e-3),
            "f1": report[name]["f1-score"],
            "support": report[name]["support"],
        }
    table = confusion.pivot(index="true", columns="predicted", values="count")
    assert (table.to_numpy() == sk.confusion_matrix(labels, predicted)).all()
    for score in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert test[score]["low"] <= test[score]["value"] <= test[score]["high"]
        assert test[score]["interval"] == "bootstrap"
    write_json(tmp_path / "metrics.json", content)
    assert json.loads((tmp_path / "metrics.json").read_text()) == content


def test_validation_decides_what_test_images_are_answered(tmp_path):
    rng = np.random.default_rng(5)
    (val, on_val), (test, on_test) = (draw(rng, n, signal=3) for n in (400, 300))
    paths = write_answers(
        tmp_path,
        NAMES,
        {
            "val": (val, on_val, np.arange(400)),
            "test": (test, on_test, np.repeat(np.arange(100), 3)),
        },
    )
    content, _ = run_evaluate(paths)
    scores = content["subsets"]["test"]
    said = scores["abstention"]
    # The threshold is the lowest that serves on validation images.
    sure = on_val.max(axis=1) >= content["threshold"]
    assert (on_val.argmax(axis=1) == val)[sure].mean() >= 0.99 and 0.3 < sure.mean() < 1
    rows = on_test.max(axis=1) >= content["threshold"]
    assert said["coverage"] == pytest.approx(rows.mean())
    right = (on_test.argmax(axis=1) == test)[rows].mean()
    assert said["accuracy"]["value"] == pytest.approx(right)
    assert said["risks"][-1] == pytest.approx(1 - scores["accuracy"]["value"])
    assert 0 < said["oracle_coverage"] < 1
    # These probabilities are too timid; the temperature of validation images tells.
    assert content["temperature"] < 1
    assert scores["scaled_calibration_error"] < scores["calibration_error"]
    # Without validation images, nothing says when to answer.
    content, _ = run_evaluate(paths[1:])
    said = content["subsets"]["test"]["abstention"]
    assert content["temperature"] is content["threshold"] is said["accuracy"] is None
    assert said["coverage"] == 0


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_scores_of_counts_equal_scikit_learn(pairs):
    true, predicted = np.array(pairs).T
    counts = (np.bincount(of, minlength=4) for of in (true[true == predicted], true, predicted))
    found = scores(*counts)
    assert found["accuracy"] == pytest.approx((true == predicted).mean())
    recalls = [(predicted[true == c] == c).mean() for c in np.unique(true)]
    assert found["balanced_accuracy"] == pytest.approx(np.mean(recalls))
    assert found["macro_f1"] == pytest.approx(
        sk.f1_score(true, predicted, labels=np.unique(true), average="macro", zero_division=0)
    )


def by_confusions(labels, predicted, groups, k, resamples, seed):
    """Bounds from whole confusion matrices (resamples, k, k), resampled one by one."""
    _, group = np.unique(groups, return_inverse=True)
    confusions = np.zeros((group.max() + 1, k, k), np.int64)
    np.add.at(confusions, (group, labels, predicted), 1)
    drawn = np.random.default_rng(seed).integers(
        len(confusions), size=(resamples, len(confusions))
    )
    resampled = np.stack([confusions[rows].sum(axis=0) for rows in drawn])
    support, hits = resampled.sum(axis=-1), np.diagonal(resampled, axis1=-2, axis2=-1)
    either = support + resampled.sum(axis=-2)
    found = {
        "accuracy": np.trace(resampled, axis1=-2, axis2=-1) / resampled.sum(axis=(-2, -1)),
        "balanced_accuracy": (hits / np.maximum(support, 1)).sum(-1) / (support > 0).sum(-1),
        "macro_f1": (2 * hits / np.maximum(either, 1)).sum(-1) / (support > 0).sum(-1),
    }
    return {name: tuple(np.quantile(each, [0.025, 0.975])) for name, each in found.items()}


@pytest.mark.parametrize("copies", [1, 3])
def test_bounds_equal_those_of_resampled_confusion_matrices_to_the_digit(copies):
    rng = np.random.default_rng(2)
    labels, predicted = rng.integers(7, size=(2, 240))
    groups = rng.permutation(240) // copies
    found = scores_with_intervals(labels, predicted, groups, 7, resamples=400, seed=9)
    expected = by_confusions(labels, predicted, groups, 7, 400, 9)
    assert {name: (each["low"], each["high"]) for name, each in found.items()} == expected


# The old counts took 16 GB here, and a rule's 2,000 MB include what the libraries take.
MANY_CLASSES = """
import re, sys
import numpy as np
from hemagrid.evaluation.metrics import evaluate_run
from hemagrid.evaluation.predictions import write_predictions
folder, k, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
rng = np.random.default_rng(0)
labels = np.arange(rows) % k
answers = rng.random((rows, k), dtype="float32")
answers[np.arange(rows), labels] += rng.random(rows) < 0.5
answers /= answers.sum(axis=1, keepdims=True)
names = [f"class {c}" for c in range(k)]
write_predictions(f"{folder}/test.npz", names, labels, answers, np.arange(rows))
del answers
evaluate_run(
    {"run": "r", "kind": "cnn", "backbone": None, "head": None},
    {"predictions": [f"{folder}/test.npz"]},
    {"metrics": f"{folder}/m.json", "confusion": f"{folder}/c.csv"},
    bootstrap=2000, calibration_bins=15, seed=1,
)
# Not ru_maxrss, which a child inherits from the process that started it.
print(int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) // 1024)
"""


@pytest.mark.parametrize(("k", "rows"), [(1000, 3000), (8, 100_000)])
def test_memory_stays_within_that_of_the_rule(tmp_path, k, rows):
    done = subprocess.run(
        [sys.executable, "-c", MANY_CLASSES, tmp_path, str(k), str(rows)],
        env=os.environ | {"PYTHONPATH": str(Path(hemagrid.__file__).parents[1])},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 1000  # MiB
    test = read_json(tmp_path / "m.json")["subsets"]["test"]
    assert test["n"] == rows and 0.4 < test["accuracy"]["value"] < 0.7
    for score in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert test[score]["low"] <= test[score]["value"] <= test[score]["high"]


# Intervals at the ends


@pytest.mark.parametrize("copies", [1, 4])
@pytest.mark.parametrize("wrong", [0, 1, 9])
def test_an_accuracy_close_to_its_ends_has_an_exact_interval(copies, wrong):
    groups = np.repeat(np.arange(150), copies)
    labels = groups % 3
    flipped = np.where(groups < wrong, (labels + 1) % 3, labels)
    found = scores_with_intervals(labels, flipped, groups, 3, resamples=200, seed=0)["accuracy"]
    expected = stats.binomtest(150 - wrong, 150).proportion_ci()
    assert found["interval"] == "exact"
    assert (found["low"], found["high"]) == pytest.approx(
        (expected.low, expected.high), rel=1e-3
    )
    # All but those wrong: the same from the other end.
    flipped = np.where(groups >= wrong, (labels + 1) % 3, labels)
    back = scores_with_intervals(labels, flipped, groups, 3, resamples=200, seed=0)["accuracy"]
    assert (1 - back["high"], 1 - back["low"]) == pytest.approx((found["low"], found["high"]))


def test_a_better_accuracy_has_a_higher_lower_bound():
    labels, bounds = np.zeros(300, int), []
    for wrong in range(25):
        predicted = (np.arange(300) < wrong).astype(int)
        found = scores_with_intervals(
            labels, predicted, np.arange(300), 2, resamples=2000, seed=wrong
        )
        bounds.append(found["accuracy"]["low"])
    assert (np.diff(bounds) < 1 / 300).all()  # resampled bounds jump by an image
    assert bounds[0] > bounds[1] > bounds[2] > bounds[5] > bounds[9]


@pytest.mark.parametrize("sizes", [(50, 50), (90, 10), (1, 1), (1,)])
def test_no_score_of_a_perfect_or_useless_run_is_certain(sizes):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    groups = np.arange(len(labels))
    for predicted, value in ((labels, 1), ((labels + 1) % 3, 0)):
        found = scores_with_intervals(labels, predicted, groups, 3, resamples=100, seed=0)
        for score in found.values():
            assert score["value"] == value and score["interval"] == "exact"
            assert score["low"] < score["high"] and value in (score["low"], score["high"])
        # A rare class may hide more.
        width = {name: score["high"] - score["low"] for name, score in found.items()}
        if sizes == (90, 10):
            assert width["balanced_accuracy"] > width["accuracy"]


def test_many_images_of_few_patients_are_worth_the_patients():
    labels, patients = np.arange(600) % 2, np.repeat(np.arange(8), 75)
    wrong = np.arange(600) % 75 < 4 + 3 * patients  # every patient has some
    found, alone = (
        scores_with_intervals(
            labels, np.where(wrong, 1 - labels, labels), groups, 2, resamples=200, seed=1
        )["accuracy"]
        for groups in (patients, np.arange(600))
    )
    assert found["interval"] == "exact" and found["high"] - found["low"] > 0.5
    assert alone["interval"] == "bootstrap" and alone["high"] - alone["low"] < 0.1


def test_one_group_says_next_to_nothing():
    labels = np.array([0, 0, 1, 1])
    found = scores_with_intervals(labels, labels[::-1] * 0, [7] * 4, 2, resamples=50, seed=0)
    for score in found.values():
        assert score["interval"] == "exact" and score["high"] - score["low"] > 0.9


@pytest.mark.parametrize("truth", [0.8, 0.989, 0.998])
def test_the_interval_covers_the_truth_as_often_as_it_says(truth):
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(4), (20, 60, 80, 140))
    covered = {"accuracy": 0, "balanced_accuracy": 0}
    for seed in range(200):
        predicted = np.where(rng.random(300) > truth, (labels + 1) % 4, labels)
        found = scores_with_intervals(
            labels, predicted, np.arange(300), 4, resamples=300, seed=seed
        )
        for score in covered:
            covered[score] += found[score]["low"] <= truth <= found[score]["high"]
    # 190 expected, standard deviation 3.1; at 0.989 resamples alone cover 176 and fewer.
    assert min(covered.values()) >= 180


def test_copies_of_one_image_widen_the_interval(tmp_path):
    labels, probabilities = draw(np.random.default_rng(3), 150, signal=1.0)
    copies = np.repeat(np.arange(150), 4)
    path = write_answers(
        tmp_path,
        NAMES,
        {
            "test": (labels[copies], probabilities[copies], np.arange(600)),
            "test_augmented": (labels[copies], probabilities[copies], copies),
        },
    )
    content, _ = run_evaluate(path, bootstrap=1000)
    plain, cluster = (content["subsets"][s] for s in ("test", "test_augmented"))
    width = {
        name: subset["accuracy"]["high"] - subset["accuracy"]["low"]
        for name, subset in (("plain", plain), ("cluster", cluster))
    }
    # Four equal copies carry the information of one: twice the width.
    assert width["cluster"] == pytest.approx(2 * width["plain"], rel=0.2)
    assert plain["accuracy"]["value"] == cluster["accuracy"]["value"]


def test_accuracy_by_policy_with_and_without_blank_copies(tmp_path):
    labels, probabilities = draw(np.random.default_rng(3), 400)
    groups = np.arange(400) // 4
    copies = pd.DataFrame({"subset": "test", "policy": ["randaugment", "augmix"] * 200})
    copies["spread"] = np.where(np.arange(400) % 8 == 0, 0.9, 1.0)
    path = write(tmp_path, labels, probabilities, groups)
    other = copies.assign(subset="train")
    content, _ = run_evaluate(path, copies=pd.concat([other, copies]))
    test, right = content["subsets"]["test"], labels == probabilities.argmax(axis=1)
    found = test["policies"]
    assert {name: (of["n"], of["blank"]) for name, of in found.items()} == {
        "all": (400, 50),
        "randaugment": (200, 50),
        "augmix": (200, 0),
    }
    assert found["all"]["accuracy"] == test["accuracy"]
    assert found["augmix"]["accuracy"] == found["augmix"]["without_blank"]
    cells = np.arange(400) % 8 > 0
    first = np.arange(400) % 2 == 0
    for name, rows in (("all", cells), ("randaugment", cells & first)):
        without = found[name]["without_blank"]
        assert without["value"] == pytest.approx(right[rows].mean())
        # As if the others had never been there.
        alone = write(tmp_path / name, labels[rows], probabilities[rows], groups[rows])
        assert without == run_evaluate(alone)[0]["subsets"]["test"]["accuracy"]
    with pytest.raises(InputError, match="found 400 predictions on test, expected 399"):
        run_evaluate(path, copies=copies[1:])


def test_a_single_policy_of_blank_copies_has_no_accuracy_without_them(tmp_path):
    labels, probabilities = draw(np.random.default_rng(3), 9)
    copies = pd.DataFrame({"subset": "test", "policy": "augmix", "spread": np.zeros(9)})
    content, _ = run_evaluate(write(tmp_path, labels, probabilities), copies=copies)
    ((policy, found),) = content["subsets"]["test"]["policies"].items()
    assert policy == "augmix" and found["blank"] == 9 and found["without_blank"] is None


def test_the_seed_decides(tmp_path):
    path = write(tmp_path, *draw(np.random.default_rng(5), 80))
    assert run_evaluate(path)[0] == run_evaluate(path)[0]
    assert run_evaluate(path)[0] != run_evaluate(path, seed=43)[0]


def test_a_class_without_rows_is_left_out_of_means_and_that_is_told(tmp_path, caplog):
    caplog.set_level(logging.INFO, "hemagrid")
    labels, probabilities = draw(np.random.default_rng(7), 60)
    present = labels != 2
    path = write(tmp_path, labels[present], probabilities[present])
    out = {"metrics": tmp_path / "m.json", "confusion": tmp_path / "c.csv"}
    description = {"run": "vgg16_cfg1", "kind": "transfer", "backbone": "b", "head": "cfg1"}
    settings = {"bootstrap": 50, "calibration_bins": 15, "seed": 42}
    evaluate_run(description, {"predictions": path}, out, **settings)
    test = read_json(out["metrics"])["subsets"]["test"]
    predicted = probabilities[present].argmax(axis=1)
    recalls = [(predicted[labels[present] == c] == c).mean() for c in (0, 1)]
    assert test["balanced_accuracy"]["value"] == pytest.approx(np.mean(recalls))
    assert test["macro_f1"]["value"] == pytest.approx(
        sk.f1_score(labels[present], predicted, labels=[0, 1], average="macro")
    )
    assert test["auc"] == pytest.approx(
        np.mean(
            [sk.roc_auc_score(labels[present] == c, probabilities[present, c]) for c in (0, 1)]
        )
    )
    assert test["per_class"]["platelet"]["support"] == 0
    said = "the test images lack 1 of 3 classes, which are left out of means: platelet"
    assert f"vgg16_cfg1: {said}" in caplog.text


def test_the_drop_to_other_images_has_an_interval_and_that_to_copies_has_none(tmp_path):
    rng = np.random.default_rng(9)
    sets = {
        "test": (*draw(rng, 400, signal=4.0), np.arange(400)),
        "test_augmented": (*draw(rng, 400), np.arange(400)),
        "raabin": (*draw(rng, 200, signal=1.0), np.arange(200) // 4),
    }
    subsets = run_evaluate(write_answers(tmp_path, NAMES, sets))[0]["subsets"]
    there, here = subsets["raabin"]["accuracy"], subsets["test"]["accuracy"]
    drop = subsets["raabin"]["drop"]
    assert drop["value"] == here["value"] - there["value"] > 0.2
    assert drop["value"] - drop["low"] > there["high"] - there["value"]
    assert drop["low"] > 0 and drop["high"] < 1
    assert "drop" not in subsets["test"] and "drop" not in subsets["test_augmented"]


@pytest.mark.parametrize("case", ["one class", "one image", "a class of no probability"])
def test_odd_subsets_are_evaluated(tmp_path, case):
    labels, probabilities = draw(np.random.default_rng(7), 60)
    if case == "a class of no probability":
        probabilities = probabilities * [1, 0, 1]
        probabilities /= probabilities.sum(axis=1, keepdims=True)
    else:
        keep = labels == 1 if case == "one class" else np.arange(60) == 0
        labels, probabilities = labels[keep], probabilities[keep]
    path = write(tmp_path, labels, probabilities)
    content, _ = run_evaluate(path)
    write_json(tmp_path / "metrics.json", content)  # refuses NaN
    test = content["subsets"]["test"]
    for score in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert 0 <= test[score]["low"] <= test[score]["value"] <= test[score]["high"] <= 1
    if case == "a class of no probability":
        assert test["auc"] is not None and test["per_class"]["ig"]["f1"] == 0


def test_area_under_curve_of_two_classes():
    labels, probabilities = draw(np.random.default_rng(8), 50, k=2)
    assert area_under_curve(labels, probabilities) == pytest.approx(
        sk.roc_auc_score(labels, probabilities[:, 1])
    )


def test_calibration_by_hand():
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.4, 0.6], [0.5, 0.5]])
    labels = np.array([0, 1, 1, 0])
    bins = calibration(labels, probabilities, 10)
    # A bin holds its upper bound; bins without rows are left out.
    assert [(b["low"], b["high"], b["n"]) for b in bins] == [
        (0.4, 0.5, 1),
        (0.5, 0.6, 1),
        (0.9, 1.0, 2),
    ]
    assert [b["confidence"] for b in bins] == pytest.approx([0.5, 0.6, 0.95])
    assert [b["accuracy"] for b in bins] == [1, 1, 0.5]
    # Correct minus confidence, summed in each bin: 1 - 1.9, 1 - 0.6 and 1 - 0.5.
    expected = (0.9 + 0.4 + 0.5) / 4
    assert calibration_error(bins) == pytest.approx(expected)
    certain = np.eye(2)[labels]
    assert calibration_error(calibration(labels, certain, 15)) == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 60), st.integers(1, 20))
def test_bins_of_confidence_hold_every_row_once(seed, n, bins):
    labels, probabilities = draw(np.random.default_rng(seed), n)
    found = calibration(labels, probabilities, bins)
    assert sum(b["n"] for b in found) == n and all(b["n"] for b in found)
    assert sum(b["n"] * b["accuracy"] for b in found) == pytest.approx(
        (probabilities.argmax(axis=1) == labels).sum()
    )
    for b in found:
        assert b["high"] - b["low"] == pytest.approx(1 / bins)
        assert b["low"] - 1e-6 <= b["confidence"] <= b["high"] + 1e-6
    assert [b["low"] for b in found] == sorted({b["low"] for b in found})


def test_the_calibration_error_is_that_of_the_bins_beside_it(tmp_path):
    path = write(tmp_path, *draw(np.random.default_rng(12), 400))
    test = run_evaluate(path)[0]["subsets"]["test"]
    bins = test["calibration"]
    assert sum(b["n"] for b in bins) == test["n"] == 400
    distance = sum(b["n"] * abs(b["accuracy"] - b["confidence"]) for b in bins)
    assert test["calibration_error"] == pytest.approx(distance / 400) and len(bins) > 3


def test_the_confusion_table_is_long_and_complete(tmp_path):
    path = write(tmp_path, *draw(np.random.default_rng(11), 12))
    _, confusion = run_evaluate(path)
    assert list(confusion.columns) == ["subset", "true", "predicted", "count"]
    assert len(confusion) == 9 and confusion["count"].sum() == 12
    assert pd.api.types.is_integer_dtype(confusion["count"])
