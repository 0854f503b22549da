from types import SimpleNamespace

import numpy as np
import pytest
from answers import write_answers

from hemagrid import io
from hemagrid.errors import InputError
from hemagrid.evaluation.ensembles import (
    Combined,
    best_runs,
    cost_of,
    eight_views,
    mean_predictions,
    write_ensemble,
)
from hemagrid.evaluation.predictions import read_predictions

NAMES = ["ig", "platelet"]
LABELS, GROUPS = np.array([0, 1, 1]), np.array([0, 0, 1])
# Of the first image, one run is surer than the other; on the second, both err.
ONE = np.float32([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]])
OTHER = np.float32([[0.3, 0.7], [0.7, 0.3], [0.4, 0.6]])


def metrics_of(accuracy, kind="cnn"):
    return {"kind": kind, "subsets": {"val": {"accuracy": {"value": accuracy}}}}


def cost(parameters, speed):
    measured = {"peak_memory_mib": 10.0 * parameters, "phases": {}}
    return {"parameters": parameters, "images_per_second": speed, "seconds": 60.0} | measured


@pytest.fixture
def results(tmp_path):
    """Three runs; the two best on validation images are b and c."""
    for run, probabilities, accuracy in (("a", ONE, 0.5), ("b", ONE, 0.7), ("c", OTHER, 0.6)):
        answers = (LABELS, probabilities, GROUPS)
        write_answers(
            tmp_path / run / "predictions", NAMES, dict.fromkeys(("val", "test"), answers)
        )
        io.write_json(tmp_path / run / "metrics.json", metrics_of(accuracy))
        io.write_json(tmp_path / run / "cost.json", cost(3, 100.0))
    return tmp_path


def inputs_of(results, runs):
    return {
        "metrics": [results / run / "metrics.json" for run in runs],
        "costs": [results / run / "cost.json" for run in runs],
        "predictions": [
            results / run / "predictions" / f"{subset}.npz"
            for subset in ("val", "test")
            for run in runs
        ],
    }


@pytest.mark.parametrize(
    ("settings", "members", "expected"),
    [
        ({"members": ["a", "b"], "best": None}, ["a", "b"], ONE),
        ({"members": None, "best": 2}, ["b", "c"], (ONE + OTHER) / 2),
    ],
)
def test_an_ensemble_answers_with_the_mean(results, settings, members, expected):
    out = {
        "predictions": [results / "both" / "predictions" / f"{s}.npz" for s in ("val", "test")],
        "cost": results / "both" / "cost.json",
    }
    write_ensemble("both", settings, inputs_of(results, settings["members"] or "abc"), out)
    names, subsets = read_predictions(out["predictions"])
    assert names == NAMES and list(subsets) == ["val", "test"]
    for labels, probabilities, groups in subsets.values():
        np.testing.assert_allclose(probabilities, expected, rtol=1e-6)
        assert (labels == LABELS).all() and (groups == GROUPS).all()
    assert io.read_json(out["cost"])["members"] == members


def test_members_must_have_seen_the_same_images(results):
    paths = {run: [results / run / "predictions" / "test.npz"] for run in "abc"}
    assert mean_predictions(paths)[0] == NAMES
    for change, said in (
        ((NAMES, 1 - LABELS, GROUPS), "did not predict on the same test images: found 3 and 3"),
        ((NAMES, LABELS, GROUPS[::-1]), "whose labels or groups differ"),
        ((["ig", "monocyte"], LABELS, GROUPS), "and ig, monocyte on test; expected the same"),
    ):
        names, labels, groups = change
        write_answers(results / "c" / "predictions", names, {"test": (labels, OTHER, groups)})
        with pytest.raises(InputError, match=said):
            mean_predictions(paths)


def test_the_best_are_chosen_among_trained_runs():
    metrics = {
        "first": metrics_of(0.6),
        "missing": None,
        "better": metrics_of(0.8, "transfer"),
        "tied": metrics_of(0.6),
        "majority_class": metrics_of(0.9, "control"),
        "pair": metrics_of(0.9, "ensemble"),
        "better+views": metrics_of(0.9, "views"),
    }
    assert best_runs(metrics, 2) == ["better", "first"]
    assert best_runs(metrics, 3) == ["better", "first", "tied"]
    with pytest.raises(InputError, match="found 3 runs with validation accuracy, expected 4"):
        best_runs(metrics, 4)


def test_cost_is_that_of_all_networks_one_after_another():
    both = cost_of({"a": cost(3, 100.0), "b": cost(5, 50.0)})
    assert (both["members"], both["views"]) == (["a", "b"], 1)
    assert (both["parameters"], both["seconds"], both["peak_memory_mib"]) == (8, 120, 50)
    assert both["images_per_second"] == pytest.approx(1 / (1 / 100 + 1 / 50))
    views = cost_of({"a": cost(3, 100.0)}, views=8)
    assert (views["parameters"], views["images_per_second"]) == (3, pytest.approx(12.5))


def test_eight_views_are_all_turns_and_mirror_images():
    images = np.arange(2 * 3 * 3 * 3).reshape(2, 3, 3, 3)
    views = eight_views(images)
    assert len({view.tobytes() for view in views}) == 8
    np.testing.assert_array_equal(views[0], images)
    # They are the same for each of them: nothing distinguishes upright.
    for view in views:
        assert {v.tobytes() for v in eight_views(view)} == {v.tobytes() for v in views}


def test_networks_answer_as_one():
    def network(place):
        # The probability is the brightness of one corner, which the views bring there in turn.
        def predict_on_batch(images):
            share = images[:, 0, 0, place] / 255
            return np.stack([share, 1 - share], axis=1)

        return SimpleNamespace(input_shape=(None, 2, 2, 3), predict_on_batch=predict_on_batch)

    images = np.zeros((1, 2, 2, 3))
    images[0, 0, 0] = [255, 0, 51]
    one, both = Combined([network(0)], True), Combined([network(0), network(2)], False)
    assert one.input_shape == both.input_shape == (None, 2, 2, 3)
    # Each of four corners comes there in two views.
    np.testing.assert_allclose(one.predict_on_batch(images), [[0.25, 0.75]])
    np.testing.assert_allclose(both.predict_on_batch(images), [[0.6, 0.4]])
