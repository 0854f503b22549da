"""An npz is read as a stream, and refused before it can do harm."""

import zipfile
from io import BytesIO

import numpy as np
import pytest

from hemagrid.data import npz
from hemagrid.data.readers import from_npz
from hemagrid.errors import InputError

SIZE = 8
GOOD = np.zeros((2, SIZE, SIZE, 3), np.uint8)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "in" / "a.npz"


@pytest.fixture
def refused(tmp_path, path):
    """A function that asserts that the npz is refused, named, and that nothing is left."""
    path.parent.mkdir()

    def refused(message):
        out = tmp_path / "out"
        with pytest.raises(InputError, match=message) as refusal:
            from_npz(path, out / "i.npy", out / "s.csv", classes=["a", "b"], image_size=SIZE)
        assert str(path) in str(refusal.value)
        assert not [*out.glob("*")]

    return refused


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GOOD, "y": [0, 1]}, "found the keys images, y, expected 'labels'"),
        ({"labels": [0, 1]}, "found the keys labels, expected 'images'"),
        ({"images": GOOD.astype(float), "labels": [0, 1]}, "'images' is float64"),
        ({"images": GOOD.astype("u2"), "labels": [0, 1]}, "'images' is uint16"),
        ({"images": GOOD[..., 0], "labels": [0, 1]}, r"uint8 \(2, 8, 8\), expected"),
        ({"images": GOOD.transpose(0, 3, 1, 2).copy(), "labels": [0, 1]}, r"\(2, 3, 8, 8\)"),
        ({"images": GOOD[:0], "labels": []}, "at least one picture"),
        ({"images": GOOD, "labels": [0, 1, 1]}, r"\(3,\), expected integers \(2,\)"),
        ({"images": GOOD, "labels": np.eye(2, dtype="u1")}, r"\(2, 2\), expected integers"),
        ({"images": GOOD, "labels": [0.0, 1.0]}, "'labels' is float64"),
        ({"images": GOOD, "labels": [0, 2]}, "row 1 holds 2, expected 0 to 1"),
        ({"images": GOOD, "labels": [-1, 0]}, "row 0 holds -1, expected 0 to 1"),
        ({"images": GOOD, "labels": [1, 1]}, "no row with label 0, class 'a'"),
        ({"images": GOOD, "labels": np.array([0, None])}, "pickled objects"),
        ({"images": np.asfortranarray(GOOD), "labels": [0, 1]}, "Fortran order"),
    ],
)
def test_other_arrays_are_refused(path, refused, arrays, message):
    np.savez_compressed(path, **arrays)
    refused(message)


def test_a_file_that_is_no_npz_is_refused(path, refused):
    refused("no such file")
    path.write_bytes(b"not a zip")
    refused("not an npz")


@pytest.mark.parametrize("save_npz", [np.savez, np.savez_compressed])
def test_a_damaged_npz_is_refused(path, refused, save_npz):
    noise = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)
    save_npz(path, images=noise, labels=[0, 1, 0, 1])
    intact = path.read_bytes()
    path.write_bytes(intact[: len(intact) // 2])
    refused("damaged")
    damaged = bytearray(intact)
    damaged[len(intact) // 3] ^= 255
    path.write_bytes(damaged)
    refused("damaged")


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2**30, 96, 96, 3), "GiB unpacked"),
        ((2, SIZE, SIZE, 3), "has 0 bytes, its header promises"),
    ],
)
def test_a_header_that_promises_too_much_is_refused(path, refused, shape, message):
    header = BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    np.savez(path, labels=[0, 1])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("images.npy", header.getvalue())
    refused(message)


def test_huge_pictures_are_refused(path, refused, monkeypatch):
    monkeypatch.setattr(npz, "MAX_PIXELS", 2**10)
    np.savez(path, images=np.zeros((2, 64, 64, 3), np.uint8), labels=[0, 1])
    refused("at most 1024 pixels")
