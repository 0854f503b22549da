"""Every source ends in one array and one table; bad input is refused or listed."""

import hashlib
import logging
import os
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from hemagrid import io
from hemagrid.data import bloodmnist, pictures, readers
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
        settings = {"source": source, "classes": CLASSES, "image_size": SIZE}
        settings |= {"fit": "pad", "bit_depth": "auto", "strict": False}
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


def test_pictures_of_an_npz_are_made_square_and_resized(tmp_path, acquire, caplog):
    given = np.full((2, 20, 30, 3), 77, np.uint8)
    given[:, :, :5] = given[:, :, -5:] = 0  # outside the centre square
    np.savez(tmp_path / "a.npz", images=given, labels=[0, 1])
    with caplog.at_level(logging.INFO, "hemagrid"):
        images, samples, _ = acquire(tmp_path / "a.npz", "npz", fit="crop")
    assert images.shape == (2, SIZE, SIZE, 3)
    assert (images == 77).all()
    assert set(samples["changes"]) == {"cropped, resized"}
    assert "ig: 1 read (1 cropped, 1 resized), 0 skipped" in caplog.messages
    images, samples, _ = acquire(tmp_path / "a.npz", "npz", fit="pad")
    assert set(samples["changes"]) == {"padded, resized"}
    assert (images[:, :, 0] < 40).all() and (images[:, 3:5, 3:5] > 70).all()


def test_an_npz_needs_class_names(tmp_path, acquire):
    with pytest.raises(InputError, match="dataset.classes is empty"):
        acquire(tmp_path / "a.npz", "npz", classes=None)


@pytest.fixture
def archive(tmp_path, out, monkeypatch):
    """A small BloodMNIST under the checksum that the module expects, and its arrays."""
    arrays = {}
    for part, count in {"train": 6, "val": 2, "test": 4}.items():
        arrays[f"{part}_images"] = noise(count, seed=count)
        arrays[f"{part}_labels"] = np.arange(count, dtype=np.uint8)[:, None] % 2
    path = tmp_path / "bloodmnist_64.npz"
    np.savez(path, **arrays)
    monkeypatch.setitem(bloodmnist.MD5, 64, hashlib.md5(path.read_bytes()).hexdigest())
    out["holdout_images"], out["holdout_table"] = tmp_path / "h.npy", tmp_path / "h.csv"
    return path, arrays


def test_bloodmnist_gives_the_dataset_and_the_holdout(archive, out, acquire):
    path, arrays = archive
    images, samples, _ = acquire(path, "bloodmnist")
    assert np.array_equal(images, arrays["train_images"])
    assert samples["source"][5] == "bloodmnist_64.npz/train_images[5]"
    assert np.array_equal(io.open_images(out["holdout_images"]), arrays["test_images"])
    table = io.read_table(out["holdout_table"])
    assert table.columns.tolist() == readers.COLUMNS
    assert table["id"].tolist() == [0, 1, 2, 3]
    assert table["class_name"].tolist() == ["blast", "ig", "blast", "ig"]


def test_a_bloodmnist_put_in_place_by_hand_is_checked_before_use(archive, out, acquire):
    path, arrays = archive
    np.savez(path, **arrays | {"train_images": noise(6, seed=9)})
    with pytest.raises(InputError, match=f"MD5 is .*, expected {bloodmnist.MD5[64]}"):
        acquire(path, "bloodmnist")
    assert not any(path.exists() for path in out.values())


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
    (blast / "html.png").write_text("<html>404</html>")
    (blast / "notes.txt").write_text("no picture")
    (blast / ".DS_Store").write_text("x")
    save(noise(1)[0], blast / ".cache" / "0.png")
    save(noise(1)[0], blast / "0_mask.png")
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
    assert reasons.pop("blast/empty.png") == "empty file"
    assert reasons.pop("blast/html.png") == "not a picture that Pillow knows"
    assert reasons.pop("blast/0_mask.png") == "mask: of 0"
    assert reasons.pop("blast/notes.txt") == "not a picture that Pillow knows"
    assert "broken link" in reasons.pop("blast/link.png")
    assert "link to a folder" in reasons.pop("blast/linked")
    assert "not a file" in reasons.pop("blast/pipe.png")
    assert "80x80, larger than 4096" in reasons.pop("blast/large.png")
    assert reasons.pop("blast/larger.png").startswith("too large:")
    assert "floating-point" in reasons.pop("blast/values.tiff")
    assert reasons.pop("blast/caf\\udce9.png") == "empty file"
    assert not reasons
    with pytest.raises(InputError, match="13 files are refused(.|\n)*README: not in a"):
        acquire(folder, strict=True)


def test_strict_lists_at_most_twenty_files(folder, acquire):
    for number in range(25):
        (folder / "ig" / f"{number}.txt").touch()
    with pytest.raises(InputError, match="and 5 more") as refusal:
        acquire(folder, strict=True)
    assert str(refusal.value).count("empty file") == 20


def test_a_class_without_pictures_is_refused(folder, out, acquire):
    (folder / "zero").mkdir()
    (folder / "zero" / "notes.txt").touch()
    with pytest.raises(InputError, match="class 'zero' has no readable picture(.|\n)*notes"):
        acquire(folder, classes=None)
    assert not any(path.exists() for path in out.values())


def deep(folder, **classes):
    """Write 16-bit pictures: values per class, one flat picture each."""
    for class_name, values in classes.items():
        (folder / class_name).mkdir(parents=True)
        for number, value in enumerate(values):
            pixels = np.full((SIZE, SIZE), value, np.uint16)
            Image.fromarray(pixels).save(folder / class_name / f"{number}.tif")


def test_one_range_is_found_for_all_files_stored_alike(tmp_path, acquire, caplog):
    deep(tmp_path / "in", blast=[400, 800], ig=[4000, 1600])
    save(noise(1)[0], tmp_path / "in" / "ig" / "8bit.png")
    with caplog.at_level(logging.INFO, "hemagrid"):
        images, samples, _ = acquire(tmp_path / "in", classes=None)
    # A dark picture stays dark: 400 and 800 of 4095.
    assert [picture.max() for picture in images[:4]] == [25, 50, 249, 100]
    assert samples["changes"].tolist() == ["to 8 bits"] * 4 + [""]
    assert "16-bit TIFF: no value above 4000 in 4 pictures, read as 12 bits" in caplog.text


def test_others_can_be_read_as_the_dataset_was(tmp_path, out):
    deep(tmp_path / "in", blast=[400, 800], ig=[4000])
    settings = {"source": "folder", "classes": None, "image_size": SIZE, "strict": False}
    settings |= {"fit": "crop", "bit_depth": "auto"}
    reading = readers.acquire(settings, tmp_path / "in", out)
    assert reading == {"fit": "crop", "bits": {"16-bit TIFF": 12}}
    path = tmp_path / "in" / "blast" / "1.tif"
    picture, _ = pictures.read_picture(path, SIZE, **reading)
    assert np.array_equal(picture, io.open_images(out["images"])[1])
    assert readers.acquire(settings | {"bit_depth": 14}, tmp_path / "in", out)["bits"] == 14


def test_a_class_of_fewer_bits_than_the_others_is_refused_with_the_choice(tmp_path, acquire):
    deep(tmp_path / "in", blast=[400, 4000], ig=[40000])
    with pytest.raises(InputError, match="class 'blast'(.|\n)*set dataset.bit_depth"):
        acquire(tmp_path / "in", classes=None)
    images, _, _ = acquire(tmp_path / "in", classes=None, bit_depth=16)
    assert [picture.max() for picture in images] == [2, 16, 156]


def test_a_class_that_may_be_of_fewer_bits_than_the_others_is_told(tmp_path, acquire, caplog):
    deep(tmp_path / "in", blast=[400, 1000], ig=[4000, 400])
    with caplog.at_level(logging.INFO, "hemagrid"):
        acquire(tmp_path / "in", classes=None)
    (told,) = [said for said in caplog.messages if "come out too dark" in said]
    assert told.startswith("16-bit TIFF: class 'blast' has no value above 1000, less than")


def test_counts_end_in_one_line_per_class(folder, acquire, caplog):
    save(noise(1, 20)[0], folder / "ig" / "large.png")
    save(noise(1, 20)[0][:9], folder / "ig" / "wide.png")
    (folder / "ig" / "a.csv").write_text("x")
    (folder / "ig" / "b.csv").write_text("x")
    (folder / "ig" / "c.png").touch()
    (folder / "README").touch()
    with caplog.at_level(logging.INFO, "hemagrid"):
        acquire(folder)
    assert caplog.messages == [
        "blast: 2 read, 0 skipped",
        "ig: 4 read (2 resized, 1 padded), 3 skipped (2 not a picture that Pillow knows, "
        "1 empty file)",
        "Outside the class folders: 1 skipped",
    ]


def test_a_folder_that_holds_the_study_is_refused(folder, out, acquire):
    with pytest.raises(InputError, match="the study's own results are in this folder"):
        out["images"] = folder / "results" / "images.npy"
        acquire(folder)
