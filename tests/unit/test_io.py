"""A file is complete or absent, and a table reads as it was written."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hemagrid import io
from hemagrid.errors import InputError


def test_a_file_replaces_the_old_one_only_when_it_is_complete(tmp_path):
    path = tmp_path / "results" / "a.txt"
    io.write_text(path, "old")
    with io.replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
        assert temporary.parent == path.parent
        assert temporary.suffix == path.suffix
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_an_interrupted_writer_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.txt"
    io.write_text(path, "old")
    with pytest.raises(type(error)), io.replacing(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_writer_that_wrote_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError), io.replacing(tmp_path / "a.txt"):
        pass


def test_a_new_array_appears_when_it_is_filled(tmp_path):
    path = tmp_path / "a.npy"
    with io.new_array(path, [3, 2], "float32") as array:
        assert isinstance(array, np.memmap)
        array[:] = [[1, 2], [3, 4], [5, 6]]
        assert not path.exists()
    np.testing.assert_array_equal(np.load(path), [[1, 2], [3, 4], [5, 6]])
    with pytest.raises(ValueError), io.new_array(tmp_path / "b.npy", [3], "uint8"):
        raise ValueError
    assert list(tmp_path.iterdir()) == [path]


def test_images_are_opened_without_reading_them(tmp_path):
    np.save(tmp_path / "images.npy", np.zeros((2, 4, 4, 3), "uint8"))
    images = io.open_images(tmp_path / "images.npy")
    assert isinstance(images, np.memmap)
    with pytest.raises(ValueError):
        images[0] = 1


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((2, 4, 4, 3), "float32"),
        np.zeros((2, 4, 4), "uint8"),
        np.zeros((2, 4, 4, 1), "uint8"),
    ],
)
def test_what_are_no_images_is_refused(tmp_path, array):
    np.save(tmp_path / "images.npy", array)
    with pytest.raises(InputError, match=rf"images\.npy: found {array.dtype} \(2, 4"):
        io.open_images(tmp_path / "images.npy")


def test_pickled_arrays_are_not_loaded(tmp_path):
    np.save(tmp_path / "images.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        io.open_images(tmp_path / "images.npy")


def test_json_goes_round_and_has_no_nan(tmp_path):
    content = {"name": "Grünwald", "values": [1, 0.5, None]}
    io.write_json(tmp_path / "a.json", content)
    assert io.read_json(tmp_path / "a.json") == content
    with pytest.raises(ValueError):
        io.write_json(tmp_path / "b.json", {"auc": float("nan")})
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert json.loads((tmp_path / "a.json").read_text()) == content


# What a CSV reader likes to take for a number, a truth value or nothing.
TREACHEROUS = st.sampled_from(["NA", "007", "1e5", "true", "nan", "None", "", "-inf"])
NAMES = TREACHEROUS | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]))


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAMES, min_size=1, max_size=8))
def test_names_and_hashes_survive(tmp_path, names):
    table = pd.DataFrame({"id": range(len(names)), "label": 1, "kept": True})
    for column in ("class_name", "source", "phash", "sha256", "true", "predicted"):
        table[column] = names
    io.write_table(tmp_path / "a.csv", table)
    found = io.read_table(tmp_path / "a.csv")
    assert list(found.columns) == list(table.columns)
    for column in table.columns:
        assert list(found[column]) == list(table[column])
    assert found["kept"].dtype == bool
    assert found["id"].dtype == np.int64


def test_an_empty_cell_among_numbers_stays_empty(tmp_path):
    table = pd.DataFrame({"id": [0, 1], "near_group": ["0", ""]})
    io.write_table(tmp_path / "a.csv", table)
    assert list(io.read_table(tmp_path / "a.csv")["near_group"]) == ["0", ""]


def mapped_mib():
    """Return what this process holds of files, in MiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("RssFile:")[1].split()[0]) / 1024


def test_what_is_read_and_written_through_a_map_is_given_back(tmp_path):
    path, mib = tmp_path / "array.npy", 64
    content = np.random.default_rng(0).integers(0, 256, (mib, 2**20), dtype="uint8")
    before = mapped_mib()
    with io.new_array(path, content.shape, "uint8") as array:
        array[:] = content
        assert mapped_mib() > before + mib / 2
        io.release(array)
        assert mapped_mib() < before + mib / 4
    array = np.load(path, mmap_mode="r")
    for row in range(mib):
        np.testing.assert_array_equal(io.take(array, [row]), content[[row]])
    assert mapped_mib() < before + mib / 4
    assert array.max() == 255 and mapped_mib() > before + mib / 2
    np.testing.assert_array_equal(io.take(content, slice(1, 3)), content[1:3])


def test_rows_are_copied_without_keeping_them_in_memory(tmp_path):
    def resident():
        """Return the memory of this process, in MiB."""
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    shape = (1600, 256, 256, 3)  # 300 MiB
    with io.new_array(tmp_path / "images.npy", shape, "uint8") as images:
        images[:] = np.arange(1600, dtype="uint16").astype("uint8")[:, None, None, None]
    images = io.open_images(tmp_path / "images.npy")
    rows = np.arange(1600)[::-1]
    before = resident()
    with io.new_array(tmp_path / "copied.npy", shape, "uint8") as copied:
        io.copy_rows(images, rows, copied)
        assert resident() - before < 100
        assert (copied[::100, 0, 0, 0] == rows[::100] % 256).all()
