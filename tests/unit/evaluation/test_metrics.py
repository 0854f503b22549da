import json
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from hemagrid.errors import InputError
from hemagrid.evaluation.metrics import (
    accuracy,
    area_under_curve,
    balanced_accuracy,
    calibration,
    calibration_error,
    evaluate,
    macro_f1,
)
from hemagrid.evaluation.statistics import resampled_confusions
from hemagrid.io import write_json
from hemagrid.training.predictions import read_predictions, write_predictions

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
    write_predictions(path, names, {"test": (labels, probabilities, groups)})
    return path


def test_metrics_equal_scikit_learn(tmp_path):
    labels, probabilities = draw(np.random.default_rng(1), 300)
    predicted = probabilities.argmax(axis=1)
    cost = {"parameters": 7}
    path = write(tmp_path / "predictions.npz", labels, probabilities)
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
        assert test["per_class"][name] == {
            "precision": report[name]["precision"],
            "recall": report[name]["recall"],
            "f1": report[name]["f1-score"],
            "support": report[name]["support"],
        }
    table = confusion.pivot(index="true", columns="predicted", values="count")
    assert (table.to_numpy() == sk.confusion_matrix(labels, predicted)).all()
    for score in ("accuracy", "balanced_accuracy", "macro_f1"):
        assert test[score]["low"] <= test[score]["value"] <= test[score]["high"]
    write_json(tmp_path / "metrics.json", content)
    assert json.loads((tmp_path / "metrics.json").read_text()) == content


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_scores_of_counts_equal_scikit_learn(pairs):
    true, predicted = np.array(pairs).T
    confusion = sk.confusion_matrix(true, predicted, labels=range(4))
    assert accuracy(confusion) == pytest.approx((true == predicted).mean())
    recalls = [(predicted[true == c] == c).mean() for c in np.unique(true)]
    assert balanced_accuracy(confusion) == pytest.approx(np.mean(recalls))
    assert macro_f1(confusion) == pytest.approx(
        sk.f1_score(true, predicted, average="macro", zero_division=0)
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_a_resample_draws_whole_groups(seed, n_groups):
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(n_groups), rng.integers(n_groups, size=9)]) * 7
    labels, predicted = rng.integers(3, size=(2, len(groups)))
    sizes = np.bincount(groups // 7)
    confusions = resampled_confusions(labels, predicted, groups, 3, resamples=20, seed=seed)
    assert confusions.shape == (20, 3, 3)
    totals = confusions.sum(axis=(1, 2))
    assert (totals >= n_groups * sizes.min()).all()
    assert (totals <= n_groups * sizes.max()).all()


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth, covered = 0.8, 0
    for seed in range(200):
        correct = rng.random(300) < truth
        confusions = resampled_confusions(
            np.zeros(300, int), 1 - correct, np.arange(300), 2, resamples=300, seed=seed
        )
        low, high = np.quantile(accuracy(confusions), [0.025, 0.975])
        covered += low <= truth <= high
    assert 180 <= covered <= 199


def test_copies_of_one_image_widen_the_interval(tmp_path):
    labels, probabilities = draw(np.random.default_rng(3), 150, signal=1.0)
    copies = np.repeat(np.arange(150), 4)
    path = tmp_path / "p.npz"
    write_predictions(
        path,
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


def test_the_seed_decides(tmp_path):
    path = write(tmp_path / "p.npz", *draw(np.random.default_rng(5), 80))
    assert run_evaluate(path)[0] == run_evaluate(path)[0]
    assert run_evaluate(path)[0] != run_evaluate(path, seed=43)[0]


def test_a_study_of_ten_thousand_rows_takes_seconds(tmp_path):
    labels, probabilities = draw(np.random.default_rng(6), 10_000, k=8)
    names = [f"class {c}" for c in range(8)]
    path = write(tmp_path / "p.npz", labels, probabilities, names=names)
    start = time.process_time()
    run_evaluate(path, bootstrap=2000)
    assert time.process_time() - start < 5


def test_a_class_without_rows(tmp_path):
    labels, probabilities = draw(np.random.default_rng(7), 60)
    present = labels != 2
    path = write(tmp_path / "p.npz", labels[present], probabilities[present])
    test = run_evaluate(path)[0]["subsets"]["test"]
    predicted = probabilities[present].argmax(axis=1)
    recalls = [(predicted[labels[present] == c] == c).mean() for c in (0, 1)]
    assert test["balanced_accuracy"]["value"] == pytest.approx(np.mean(recalls))
    assert test["auc"] is None
    assert test["per_class"]["platelet"]["support"] == 0


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
    path = write(tmp_path / "p.npz", *draw(np.random.default_rng(12), 400))
    test = run_evaluate(path)[0]["subsets"]["test"]
    bins = test["calibration"]
    assert sum(b["n"] for b in bins) == test["n"] == 400
    distance = sum(b["n"] * abs(b["accuracy"] - b["confidence"]) for b in bins)
    assert test["calibration_error"] == pytest.approx(distance / 400) and len(bins) > 3


def test_predictions_survive_the_file(tmp_path):
    labels, probabilities = draw(np.random.default_rng(9), 20)
    names = ["a & b", "<i>ß</i>", "c"]
    path = write(tmp_path / "p.npz", labels, probabilities, names=names)
    read_names, subsets = read_predictions(path)
    assert read_names == names and list(subsets) == ["test"]
    assert (subsets["test"][0] == labels).all()
    assert (subsets["test"][1] == probabilities).all()


def spoiled(what):
    labels, probabilities = draw(np.random.default_rng(10), 20)
    groups = np.arange(20)
    if what == "NaN":
        probabilities[3, 1] = np.nan
    elif what == "sum":
        probabilities[4] *= 2
    elif what == "shape":
        probabilities = probabilities[:, :2]
    elif what == "groups":
        groups = groups[:-1]
    elif what == "labels from 0 to 3":
        labels[0] = 3
    elif what == "no rows":
        labels, probabilities, groups = labels[:0], probabilities[:0], groups[:0]
    return labels, probabilities, groups


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("NaN", "row 3"),
        ("sum", "row 4 with sum 2"),
        ("shape", r"\(20, 2\)"),
        ("groups", r"groups \(19,\)"),
        ("labels from 0 to 3", "labels from 0 to 3"),
        ("no rows", "no rows"),
    ],
)
def test_spoiled_predictions_are_refused(tmp_path, what, message):
    path = write(tmp_path / "p.npz", *spoiled(what))
    with pytest.raises(InputError, match=message) as caught:
        run_evaluate(path)
    assert "p.npz" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04cut", b"text"])
def test_a_broken_archive_is_refused(tmp_path, content):
    path = tmp_path / "p.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="p.npz"):
        read_predictions(path)


def test_pickled_objects_and_missing_arrays_are_refused(tmp_path):
    path = tmp_path / "p.npz"
    np.savez(path, class_names=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="p.npz"):
        read_predictions(path)
    np.savez(path, class_names=["a"], test_labels=[0])
    with pytest.raises(InputError, match="test_groups, test_probabilities"):
        read_predictions(path)


def test_the_confusion_table_is_long_and_complete(tmp_path):
    path = write(tmp_path / "p.npz", *draw(np.random.default_rng(11), 12))
    _, confusion = run_evaluate(path)
    assert list(confusion.columns) == ["subset", "true", "predicted", "count"]
    assert len(confusion) == 9 and confusion["count"].sum() == 12
    assert pd.api.types.is_integer_dtype(confusion["count"])
