import numpy as np
import pandas as pd
import pytest

from hemagrid.errors import InputError
from hemagrid.evaluation.controls import CONTROLS, majority_class, random_labels, write_control
from hemagrid.evaluation.metrics import evaluate
from hemagrid.io import write_table

NAMES = ["a", "b", "c"]


@pytest.fixture
def subsets(tmp_path):
    rng = np.random.default_rng(0)
    paths = {}
    for subset, n in (("train", 90), ("test", 3000)):
        labels = rng.choice(3, size=n, p=[0.2, 0.7, 0.1])
        paths[subset] = tmp_path / f"{subset}.csv"
        write_table(
            paths[subset],
            pd.DataFrame(
                {
                    "id": range(n),
                    "label": labels,
                    "class_name": np.array(NAMES)[labels],
                    "parent_id": np.arange(n) // 2 + 50,
                    "group": np.arange(n) // 6 + 50,
                }
            ),
        )
    return paths


def evaluated(name, subsets, out):
    write_control(name, {key: subsets[key] for key in ("train", "test")}, 42, {"test": out})
    content, _ = evaluate(
        [out],
        run=name,
        kind="control",
        backbone=None,
        head=None,
        cost=None,
        bootstrap=100,
        calibration_bins=15,
        seed=42,
    )
    return content["subsets"]["test"]


def test_the_majority_class_scores_its_share(tmp_path, subsets):
    test = evaluated("majority_class", subsets, tmp_path / "test.npz")
    share = (pd.read_csv(subsets["test"])["label"] == 1).mean()
    assert test["accuracy"]["value"] == pytest.approx(share)
    assert test["balanced_accuracy"]["value"] == pytest.approx(1 / 3)
    assert test["auc"] == pytest.approx(0.5)


def test_random_labels_score_chance(tmp_path, subsets):
    test = evaluated("random_labels", subsets, tmp_path / "test.npz")
    assert test["balanced_accuracy"]["value"] == pytest.approx(1 / 3, abs=0.05)
    assert test["auc"] == pytest.approx(0.5, abs=0.05)


def test_groups_are_those_of_near_duplicates(tmp_path, subsets):
    evaluated("random_labels", subsets, tmp_path / "test.npz")
    groups = np.load(tmp_path / "test.npz")["groups"]
    assert (groups == pd.read_csv(subsets["test"])["group"]).all()


def test_ties_go_to_the_first_class():
    drawn = majority_class(np.array([2, 1, 2, 1]), {"test": 2}, 3, seed=0)
    assert (drawn["test"] == [[0, 1, 0], [0, 1, 0]]).all()


def test_a_subsets_random_labels_do_not_depend_on_the_others():
    alone = random_labels([], {"test": 50}, 8, seed=1)["test"]
    beside = random_labels([], {"val": 9, "test": 50}, 8, seed=1)["test"]
    other = random_labels([], {"test": 50}, 8, seed=2)["test"]
    assert (alone == beside).all() and (alone != other).any()
    assert (alone.sum(axis=1) == 1).all()


def test_an_unknown_control_is_refused(tmp_path, subsets):
    with pytest.raises(InputError, match="majority_class, random_labels"):
        write_control("coin", {"train": subsets["train"]}, 42, tmp_path / "test.npz")
    assert not (tmp_path / "test.npz").exists()
    assert list(CONTROLS) == ["majority_class", "random_labels"]
