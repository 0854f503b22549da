"""Every source that the config may name ends in the same two files."""

import numpy as np
import pytest
from PIL import Image

from hemagrid.data.readers import acquire, read_samples
from hemagrid.errors import InputError
from hemagrid.io import open_images, read_table

CLASSES = ["blast", "ig"]
SIZE = 32


def settings(source, **changes):
    return {
        "source": source,
        "classes": CLASSES,
        "image_size": SIZE,
        "strict": False,
    } | changes


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "dataset"
    return {"images": folder / "images.npy", "samples": folder / "samples.csv"}


def pictures(count):
    rng = np.random.default_rng(count)
    return rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype=np.uint8)


def class_folders(folder):
    for name, pixels in zip(CLASSES, pictures(2), strict=True):
        (folder / name).mkdir(parents=True)
        Image.fromarray(pixels).save(folder / name / "a.png")
    (folder / "ig" / "b.png").write_bytes(b"no picture")


def test_npz(tmp_path, out):
    path = tmp_path / "cells.npz"
    np.savez(path, images=pictures(3), labels=np.array([1, 0, 1]))
    acquire(settings("npz"), path, out)
    np.testing.assert_array_equal(open_images(out["images"]), pictures(3))
    samples = read_samples(out["samples"])
    assert list(samples["class_name"]) == ["ig", "blast", "ig"]


@pytest.mark.parametrize("source", ["folder", "smears"])
def test_folders(tmp_path, out, source):
    class_folders(tmp_path / "cells")
    acquire(settings(source), tmp_path / "cells", out)
    np.testing.assert_array_equal(open_images(out["images"]), pictures(2))
    assert list(read_samples(out["samples"])["class_name"]) == CLASSES


def test_strict_is_handed_on(tmp_path, out):
    class_folders(tmp_path / "cells")
    with pytest.raises(InputError, match=r"b\.png"):
        acquire(settings("folder", strict=True), tmp_path / "cells", out)
    assert not out["images"].exists()


def test_bloodmnist_fills_the_external_set_too(tmp_path, out):
    path = tmp_path / "bloodmnist_64.npz"
    classes = [f"class {label}" for label in range(8)]
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = pictures(8)
        arrays[f"{split}_labels"] = np.arange(8)[:, None]
    np.savez(path, **arrays)
    folder = tmp_path / "dataset"
    out |= {
        "external_images": folder / "external.npy",
        "external_table": folder / "external.csv",
    }
    acquire(settings("bloodmnist", classes=classes), path, out)
    assert len(open_images(out["images"])) == len(read_samples(out["samples"])) > 0
    external = read_table(out["external_table"])
    assert len(open_images(out["external_images"])) == len(external) > 0
