import numpy as np
import pytest

from hemagrid.errors import InputError
from hemagrid.evaluation.predictions import (
    read_corrupted,
    read_predictions,
    stored_key,
    write_corrupted,
    write_predictions,
)

NAMES = ["basophil", "ig", "platelet"]


def answers(n=20, k=3):
    rng = np.random.default_rng(10)
    labels = np.concatenate([np.arange(k), rng.integers(k, size=n - k)])
    return labels, rng.dirichlet(np.ones(k), n).astype("float32")


def write(path, labels, probabilities, groups=None, names=NAMES):
    groups = np.arange(len(labels)) if groups is None else groups
    write_predictions(path, names, labels, probabilities, groups)
    return path


def test_predictions_survive_the_file(tmp_path):
    labels, probabilities = answers()
    names = ["a & b", "<i>ß</i>", "c"]
    path = write(tmp_path / "test.npz", labels, probabilities, names=names)
    read_names, subsets = read_predictions([path])
    assert read_names == names and list(subsets) == ["test"]
    assert (subsets["test"][0] == labels).all()
    assert (subsets["test"][1] == probabilities).all()


def test_predictions_for_corrupted_images_survive_the_file(tmp_path):
    labels, probabilities = answers()
    worse = {("bubble", 1): probabilities, ("saturate", 5): probabilities[::-1]}
    write_corrupted(tmp_path / "test.npz", NAMES, labels, worse, labels, "key")
    read_labels, found, groups = read_corrupted(tmp_path / "test.npz")
    assert list(found) == list(worse)
    assert all((found[how] == worse[how]).all() for how in worse)
    assert (read_labels == labels).all() and (groups == labels).all()
    assert stored_key(tmp_path / "test.npz") == "key"
    probabilities[3, 1] = np.nan
    write_corrupted(tmp_path / "test.npz", NAMES, labels, worse, labels)
    with pytest.raises(InputError, match="test.npz, bubble 1: 1 rows hold NaN.*row 3"):
        read_corrupted(tmp_path / "test.npz")


def spoiled(what):
    labels, probabilities = answers()
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
        read_predictions([path])
    assert "p.npz" in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04cut", b"text"])
def test_a_broken_archive_is_refused(tmp_path, content):
    path = tmp_path / "p.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="p.npz"):
        read_predictions([path])


def test_pickled_objects_and_missing_arrays_are_refused(tmp_path):
    path = tmp_path / "p.npz"
    np.savez(path, class_names=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="p.npz"):
        read_predictions([path])
    np.savez(path, class_names=["a"], labels=[0])
    with pytest.raises(InputError, match="lacks probabilities, groups, key"):
        read_predictions([path])


def test_runs_of_other_classes_do_not_mix(tmp_path):
    paths = [write(tmp_path / f"{name}.npz", *answers()) for name in ("val", "test")]
    assert list(read_predictions(paths)[1]) == ["val", "test"]
    write(paths[1], *answers(), names=NAMES[::-1])
    with pytest.raises(InputError, match="test.npz: found the classes platelet"):
        read_predictions(paths)
