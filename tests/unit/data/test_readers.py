"""Every source ends in one array and one table; bad input is refused or listed."""

import hashlib
import os
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from hemagrid import io
from hemagrid.data import pictures, readers
from hemagrid.errors import InputError

CLASSES = ["blast", "ig"]
SIZE = 8


def noise(count, size=SIZE, seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def save(picture, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "out"
    return {"images": folder / "images.npy", "samples": folder / "samples.csv"}


@pytest.fixture
def acquire(out):
    """A function that reads a source: images, samples, skipped."""

    def acquire(path, source="folder", **changes):
        settings = {"source": source, "classes": CLASSES, "image_size": SIZE, "strict": False}
        readers.acquire(settings | changes, path, out)
        return (
            io.open_images(out["images"]),
            readers.read_samples(out["samples"]),
            readers.read_skipped(out["samples"]),
        )

    return acquire


@pytest.fixture
def folder(tmp_path):
    """Two classes of two pictures that need no conversion."""
    for seed, class_name in enumerate(CLASSES):
        for number, picture in enumerate(noise(2, seed=seed)):
            save(picture, tmp_path / "in" / class_name / f"{number}.png")
    return tmp_path / "in"


@pytest.mark.parametrize("dtype", ["uint8", "int64", ">i4"])
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_an_npz_is_copied_exactly(tmp_path, out, acquire, dtype, shape):
    given = noise(4)
    labels = np.array([1, 0, 0, 1], dtype).reshape(shape)
    np.savez_compressed(tmp_path / "a.npz", images=given, labels=labels)
    images, samples, _ = acquire(tmp_path / "a.npz", "npz")
    assert np.array_equal(images, given)
    assert samples["id"].tolist() == [0, 1, 2, 3]
    assert samples["label"].tolist() == [1, 0, 0, 1]
    assert samples["class_name"].tolist() == ["ig", "blast", "blast", "ig"]
    assert samples["source"][2] == "a.npz[2]"
    assert samples["sha256"][3] == hashlib.sha256(given[3].tobytes()).hexdigest()
    assert io.class_names(samples) == CLASSES
    assert out["samples"].read_text().splitlines()[0] == ",".join(readers.COLUMNS)


def test_pictures_of_an_npz_are_resized(tmp_path, acquire):
    given = np.full((2, 20, 30, 3), 77, np.uint8)
    given[:, :, :5] = given[:, :, -5:] = 0  # outside the centre square
    np.savez(tmp_path / "a.npz", images=given, labels=[0, 1])
    images, _, _ = acquire(tmp_path / "a.npz", "npz")
    assert images.shape == (2, SIZE, SIZE, 3)
    assert (images == 77).all()


def test_an_npz_needs_class_names(tmp_path, acquire):
    with pytest.raises(InputError, match="dataset.classes is empty"):
        acquire(tmp_path / "a.npz", "npz", classes=None)


def test_bloodmnist_gives_the_dataset_and_the_holdout(tmp_path, out, acquire):
    arrays = {}
    for part, count in {"train": 6, "val": 2, "test": 4}.items():
        arrays[f"{part}_images"] = noise(count, seed=count)
        arrays[f"{part}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
    np.savez(tmp_path / "b.npz", **arrays)
    out["holdout_images"], out["holdout_table"] = tmp_path / "h.npy", tmp_path / "h.csv"
    images, samples, _ = acquire(tmp_path / "b.npz", "bloodmnist")
    assert np.array_equal(images, arrays["train_images"])
    assert samples["source"][5] == "b.npz/train_images[5]"
    assert np.array_equal(io.open_images(tmp_path / "h.npy"), arrays["test_images"])
    table = io.read_table(tmp_path / "h.csv")
    assert table.columns.tolist() == readers.HOLDOUT_COLUMNS
    assert table["parent_id"].tolist() == table["id"].tolist() == [0, 1, 2, 3]
    assert table["class_name"].tolist() == ["blast", "ig", "blast", "ig"]
    assert set(table["policy"]) == {"original"} and set(table["copy"]) == {0}


def test_another_npz_is_no_bloodmnist(tmp_path, out, acquire):
    np.savez(tmp_path / "b.npz", images=noise(1), labels=[0])
    out["holdout_images"], out["holdout_table"] = tmp_path / "h.npy", tmp_path / "h.csv"
    with pytest.raises(InputError, match="expected 'train_images'"):
        acquire(tmp_path / "b.npz", "bloodmnist")


def test_folders_are_read_in_order(folder, out, acquire):
    nested = noise(1, seed=9)[0]
    save(nested, folder / "blast" / "été" / "細胞.png")
    os.symlink(folder / "ig" / "0.png", folder / "ig" / "link.png")
    images, samples, skipped = acquire(folder, classes=None, strict=True)
    assert samples["source"].tolist() == [
        *("blast/0.png", "blast/1.png", "blast/été/細胞.png"),
        *("ig/0.png", "ig/1.png", "ig/link.png"),
    ]
    assert samples["label"].tolist() == [0, 0, 0, 1, 1, 1]
    assert np.array_equal(images[2], nested)
    assert np.array_equal(images[5], images[3])
    assert skipped.empty
    again = out["images"].read_bytes(), out["samples"].read_bytes()
    acquire(folder, "smears", classes=None)
    assert (out["images"].read_bytes(), out["samples"].read_bytes()) == again


def test_given_classes_fix_the_labels(folder, acquire):
    _, samples, _ = acquire(folder, classes=["ig", "blast"])
    assert io.class_names(samples) == ["ig", "blast"]
    with pytest.raises(InputError, match="found the folders blast, ig.*Missing: baso;"):
        acquire(folder, classes=["blast", "ig", "baso"])
    with pytest.raises(InputError, match="unexpected: ig"):
        acquire(folder, classes=["blast"])


def test_class_names_that_look_like_numbers_survive(folder, acquire):
    (folder / "blast").rename(folder / "007")
    (folder / "ig").rename(folder / "NA")
    _, samples, _ = acquire(folder, classes=None)
    assert io.class_names(samples) == ["007", "NA"]


def test_files_that_give_no_picture_are_listed(folder, acquire, monkeypatch):
    broken = BytesIO()
    Image.fromarray(noise(1, 64)[0]).save(broken, "JPEG")
    blast = folder / "blast"
    (blast / "cut.jpg").write_bytes(broken.getvalue()[:-500])
    (blast / "empty.png").touch()
    (blast / "notes.txt").write_text("no picture")
    (blast / ".DS_Store").write_text("x")
    save(noise(1)[0], blast / ".cache" / "0.png")
    os.symlink(blast / "gone", blast / "link.png")
    os.symlink(folder / "ig", blast / "linked")
    os.mkfifo(blast / "pipe.png")
    save(np.zeros((80, 80), np.uint8), blast / "large.png")
    save(np.zeros((150, 150), np.uint8), blast / "larger.png")
    Image.new("F", (SIZE, SIZE)).save(blast / "values.tiff")
    (blast / os.fsdecode(b"caf\xe9.png")).touch()
    (folder / "README").touch()
    (folder / ".snakemake_timestamp").touch()
    monkeypatch.setattr(pictures, "MAX_PIXELS", 64 * 64)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100 * 100)

    images, samples, skipped = acquire(folder)
    assert len(images) == len(samples) == 4
    reasons = dict(zip(skipped["source"], skipped["reason"], strict=True))
    assert reasons.pop("README") == "not in a class folder"
    assert reasons.pop("blast/cut.jpg").startswith("unreadable: image file is trunc")
    assert reasons.pop("blast/empty.png") == "not a picture that Pillow knows"
    assert reasons.pop("blast/notes.txt") == "not a picture that Pillow knows"
    assert reasons.pop("blast/.DS_Store") == reasons.pop("blast/.cache") == "hidden"
    assert "broken link" in reasons.pop("blast/link.png")
    assert "link to a folder" in reasons.pop("blast/linked")
    assert "not a file" in reasons.pop("blast/pipe.png")
    assert "80x80 is larger" in reasons.pop("blast/large.png")
    assert "not decoded" in reasons.pop("blast/larger.png")
    assert "floating-point" in reasons.pop("blast/values.tiff")
    assert "Pillow" in reasons.pop("blast/caf\\udce9.png")
    assert not reasons
    with pytest.raises(InputError, match="13 files are refused(.|\n)*cut.jpg: 64x64 in"):
        acquire(folder, strict=True)


def test_strict_lists_at_most_twenty_files(folder, acquire):
    for number in range(25):
        (folder / "ig" / f"{number}.txt").touch()
    with pytest.raises(InputError, match="and 5 more") as refusal:
        acquire(folder, strict=True)
    assert str(refusal.value).count("not a picture") == 20


def test_a_class_without_pictures_is_refused(folder, out, acquire):
    (folder / "zero").mkdir()
    (folder / "zero" / "notes.txt").touch()
    with pytest.raises(InputError, match="class 'zero' has no readable picture(.|\n)*notes"):
        acquire(folder, classes=None)
    assert not any(path.exists() for path in out.values())


def test_a_folder_without_classes_is_refused(tmp_path, acquire):
    with pytest.raises(InputError, match="no such folder"):
        acquire(tmp_path / "gone")
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="no class folders"):
        acquire(tmp_path / "in")
