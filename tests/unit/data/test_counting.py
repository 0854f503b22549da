"""How many images a study has, told without reading one."""

import io
import zipfile

import numpy as np
import pytest

from hemagrid.config.loading import load_config
from hemagrid.data import counting
from hemagrid.errors import InputError


def npz_of(path, count, version=(1, 0)):
    """Write an npz whose header promises `count` images that are not there."""
    header = {"shape": (count, 96, 96, 3), "fortran_order": False, "descr": "|u1"}
    text = io.BytesIO()
    getattr(np.lib.format, f"write_array_header_{version[0]}_0")(text, header)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", text.getvalue())


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_an_npz_is_counted_by_its_header(tmp_path, version):
    npz_of(tmp_path / "set.npz", 1_000_000, version)
    assert counting.count({"source": "npz", "path": "set.npz"}, tmp_path) == 1_000_000


@pytest.mark.parametrize("content", [b"no zip", b""])
def test_a_damaged_npz_is_refused_and_counts_as_empty_in_a_study(tmp_path, content):
    path = tmp_path / "set.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="set.npz: found no npz with an array `images`"):
        counting.count({"source": "npz", "path": "set.npz"}, tmp_path)
    config = load_config(values={"dataset": {"source": "npz", "path": str(path)}})
    assert counting.of_study(config) == 0


def test_a_folder_is_counted_by_the_files_of_its_classes(tmp_path):
    cells = tmp_path / "cells"
    for name in ("a/1.png", "a/b/2.png", "a/.git/3.png", "a/Thumbs.db", "top.png"):
        (cells / name).parent.mkdir(parents=True, exist_ok=True)
        (cells / name).touch()
    (cells / "linked").symlink_to(cells / "a", target_is_directory=True)
    assert counting.count({"source": "folder", "path": "cells"}, tmp_path) == 4


def test_test_sets_count(tmp_path):
    npz_of(tmp_path / "lab.npz", 70_000)
    lab = {"source": "npz", "path": str(tmp_path / "lab.npz")}
    values = {"test_sets": {"lab": lab, "drawn": {"source": "smears", "path": None}}}
    assert counting.of_study(load_config(values=values)) == 11_959 + 70_000 + 8 * 12
