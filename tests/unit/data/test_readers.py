"""Each source keeps the contract; bad input is refused or listed with a reason."""

import hashlib
import os
import zipfile
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from hemagrid import io
from hemagrid.data import pictures, readers
from hemagrid.errors import InputError
from hemagrid.io import open_images

CLASSES = ["blast", "ig"]
SIZE = 8


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def outputs(tmp_path):
    return tmp_path / "out" / "images.npy", tmp_path / "out" / "samples.csv"


def pictures(rng, count=4, size=SIZE):
    return rng.integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def from_npz(path, outputs, **arrays):
    np.savez_compressed(path, **arrays)
    readers.from_npz(path, *outputs, classes=CLASSES, image_size=SIZE)
    return open_images(outputs[0]), readers.read_samples(outputs[1])


def from_folder(folder, outputs, classes=None, strict=False):
    readers.from_folder(folder, *outputs, classes=classes, image_size=SIZE, strict=strict)
    samples = readers.read_samples(outputs[1])
    skipped = readers.read_skipped(outputs[1])
    return open_images(outputs[0]), samples, skipped


def save(picture, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, **options)


@pytest.fixture
def folder(tmp_path, rng):
    """Two classes of two pictures that need no conversion."""
    for class_name in CLASSES:
        for number, picture in enumerate(pictures(rng, 2)):
            save(picture, tmp_path / "in" / class_name / f"{number}.png")
    return tmp_path / "in"


@pytest.mark.parametrize("dtype", ["uint8", "int64", ">i4"])
@pytest.mark.parametrize("shape", [(4,), (4, 1)])
def test_npz_is_copied_exactly(tmp_path, outputs, rng, dtype, shape):
    given = pictures(rng)
    labels = np.array([1, 0, 0, 1], dtype).reshape(shape)
    images, samples = from_npz(tmp_path / "a.npz", outputs, images=given, labels=labels)
    assert np.array_equal(images, given)
    assert samples["id"].tolist() == [0, 1, 2, 3]
    assert samples["label"].tolist() == [1, 0, 0, 1]
    assert samples["class_name"].tolist() == ["ig", "blast", "blast", "ig"]
    assert samples["source"][2] == "a.npz[2]"
    assert samples["sha256"][3] == hashlib.sha256(given[3].tobytes()).hexdigest()
    assert io.class_names(samples) == CLASSES
    header = outputs[1].read_text().splitlines()[0]
    assert header == "id,label,class_name,source,sha256,skipped"


def test_npz_pictures_of_another_size_are_resized(tmp_path, outputs):
    given = np.full((2, 20, 30, 3), 77, np.uint8)
    given[:, :, :5] = given[:, :, -5:] = 0  # outside the centre square
    images, _ = from_npz(tmp_path / "a.npz", outputs, images=given, labels=[0, 1])
    assert images.shape == (2, SIZE, SIZE, 3)
    assert (images == 77).all()


GOOD = np.zeros((2, SIZE, SIZE, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": GOOD, "y": [0, 1]}, "found the keys images, y, expected 'labels'"),
        ({"labels": [0, 1]}, "found the keys labels, expected 'images'"),
        ({"images": GOOD.astype(float), "labels": [0, 1]}, "'images' is float64"),
        ({"images": GOOD[..., 0], "labels": [0, 1]}, r"uint8 \(2, 8, 8\), expected"),
        ({"images": GOOD[:0], "labels": []}, "at least one picture"),
        ({"images": GOOD, "labels": [0, 1, 1]}, r"\(3,\), expected integers \(2,\)"),
        ({"images": GOOD, "labels": [0.0, 1.0]}, "'labels' is float64"),
        ({"images": GOOD, "labels": [0, 2]}, "row 1 holds 2, expected 0 to 1"),
        ({"images": GOOD, "labels": [-1, 0]}, "row 0 holds -1, expected 0 to 1"),
        ({"images": GOOD, "labels": [1, 1]}, "no row with label 0, class 'blast'"),
        ({"images": GOOD, "labels": np.array([0, None])}, "pickled objects"),
        ({"images": np.asfortranarray(GOOD), "labels": [0, 1]}, "Fortran order"),
    ],
)
def test_bad_npz_is_refused(tmp_path, outputs, arrays, message):
    with pytest.raises(InputError, match=message) as refusal:
        from_npz(tmp_path / "a.npz", outputs, **arrays)
    assert "a.npz" in str(refusal.value)
    assert not any(path.exists() for path in outputs)


def test_a_file_that_is_no_npz_is_refused(tmp_path, outputs):
    path = tmp_path / "a.npz"
    options = {"classes": CLASSES, "image_size": SIZE}
    with pytest.raises(InputError, match="no such file"):
        readers.from_npz(path, *outputs, **options)
    path.write_bytes(b"not a zip")
    with pytest.raises(InputError, match="not an npz"):
        readers.from_npz(path, *outputs, **options)


@pytest.mark.parametrize("save_npz", [np.savez, np.savez_compressed])
def test_damaged_npz_is_refused_and_leaves_nothing(tmp_path, outputs, rng, save_npz):
    path = tmp_path / "a.npz"
    save_npz(path, images=pictures(rng), labels=[0, 1, 0, 1])
    intact = path.read_bytes()
    path.write_bytes(intact[: len(intact) // 2])
    with pytest.raises(InputError, match="damaged"):
        readers.from_npz(path, *outputs, classes=CLASSES, image_size=SIZE)
    damaged = bytearray(intact)
    damaged[len(intact) // 3] ^= 255
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="damaged"):
        readers.from_npz(path, *outputs, classes=CLASSES, image_size=SIZE)
    assert not list(outputs[0].parent.glob("*")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2**30, 96, 96, 3), "GiB unpacked"),
        ((2, SIZE, SIZE, 3), "has 0 bytes, its header promises"),
    ],
)
def test_npz_whose_header_promises_too_much_is_refused(tmp_path, outputs, shape, message):
    header = BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "|u1", "fortran_order": False, "shape": shape}
    )
    path = tmp_path / "a.npz"
    np.savez(path, labels=[0, 1])
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("images.npy", header.getvalue())
    with pytest.raises(InputError, match=message):
        readers.from_npz(path, *outputs, classes=CLASSES, image_size=SIZE)
    assert not outputs[0].exists()


def test_npz_of_huge_pictures_is_refused(tmp_path, outputs, monkeypatch):
    monkeypatch.setattr(sources, "MAX_PIXELS", 2**10)
    images = np.zeros((2, 64, 64, 3), np.uint8)
    with pytest.raises(InputError, match="at most 1024 pixels"):
        from_npz(tmp_path / "a.npz", outputs, images=images, labels=[0, 1])


def test_npz_needs_class_names(tmp_path, outputs):
    with pytest.raises(InputError, match="dataset.classes is empty"):
        readers.from_npz(tmp_path / "a", *outputs, classes=None, image_size=SIZE)


def test_folder_order_labels_and_pixels(folder, outputs, rng):
    nested = pictures(rng, 1)[0]
    save(nested, folder / "blast" / "été" / "細胞.png")
    os.symlink(folder / "ig" / "0.png", folder / "ig" / "link.png")
    images, samples, skipped = from_folder(folder, outputs, strict=True)
    assert samples["source"].tolist() == [
        "blast/0.png",
        "blast/1.png",
        "blast/été/細胞.png",
        "ig/0.png",
        "ig/1.png",
        "ig/link.png",
    ]
    assert samples["label"].tolist() == [0, 0, 0, 1, 1, 1]
    assert np.array_equal(images[2], nested)
    assert np.array_equal(images[5], images[3])
    assert skipped.empty
    again = outputs[0].read_bytes(), outputs[1].read_bytes()
    from_folder(folder, outputs)
    assert (outputs[0].read_bytes(), outputs[1].read_bytes()) == again


def test_given_classes_fix_the_labels(folder, outputs):
    _, samples, _ = from_folder(folder, outputs, classes=["ig", "blast"])
    assert io.class_names(samples) == ["ig", "blast"]
    with pytest.raises(InputError, match="found the folders blast, ig.*Missing: baso;"):
        from_folder(folder, outputs, classes=["blast", "ig", "baso"])
    with pytest.raises(InputError, match="unexpected: ig"):
        from_folder(folder, outputs, classes=["blast"])


def test_class_names_that_look_like_numbers_survive(folder, outputs):
    (folder / "blast").rename(folder / "007")
    (folder / "ig").rename(folder / "NA")
    _, samples, _ = from_folder(folder, outputs)
    assert io.class_names(samples) == ["007", "NA"]


def test_files_that_give_no_picture_are_listed(folder, outputs, rng, monkeypatch):
    broken = BytesIO()
    Image.fromarray(pictures(rng, 1, 64)[0]).save(broken, "JPEG")
    cut = broken.getvalue()[:-500]
    blast = folder / "blast"
    (blast / "cut.jpg").write_bytes(cut)
    (blast / "empty.png").touch()
    (blast / "notes.txt").write_text("no picture")
    (blast / ".DS_Store").write_text("x")
    (blast / ".cache").mkdir()
    save(pictures(rng, 1)[0], blast / ".cache" / "0.png")
    os.symlink(blast / "gone", blast / "link.png")
    os.symlink(folder / "ig", blast / "linked")
    os.mkfifo(blast / "pipe.png")
    save(np.zeros((80, 80), np.uint8), blast / "large.png")
    save(np.zeros((150, 150), np.uint8), blast / "larger.png")
    Image.new("F", (SIZE, SIZE)).save(blast / "values.tiff")
    (blast / os.fsdecode(b"caf\xe9.png")).touch()
    (folder / "README").touch()
    (folder / ".snakemake_timestamp").touch()
    monkeypatch.setattr(sources, "MAX_PIXELS", 64 * 64)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100 * 100)

    images, samples, skipped = from_folder(folder, outputs)
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
        from_folder(folder, outputs, strict=True)


def test_strict_lists_at_most_twenty_files(folder, outputs):
    for number in range(25):
        (folder / "ig" / f"{number}.txt").touch()
    with pytest.raises(InputError, match="and 5 more") as refusal:
        from_folder(folder, outputs, strict=True)
    assert str(refusal.value).count("not a picture") == 20


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (np.zeros((9, 8, 3), np.uint8), "8x9 in mode RGB, expected 8x8 in mode RGB"),
        (np.zeros((8, 8), np.uint8), "8x8 in mode L"),
    ],
)
def test_strict_refuses_another_size_or_mode(folder, outputs, picture, reason):
    save(picture, folder / "ig" / "other.png")
    images, _, skipped = from_folder(folder, outputs)
    assert len(images) == 5 and skipped.empty
    with pytest.raises(InputError, match=reason):
        from_folder(folder, outputs, strict=True)


def test_modes_become_rgb(tmp_path):
    def read(picture, name="a.png", **options):
        picture.save(tmp_path / name, **options)
        return np.asarray(pictures.read_picture(tmp_path / name, SIZE))

    square = (SIZE, SIZE)
    assert (read(Image.new("RGBA", square, (9, 9, 9, 0))) == 255).all()
    assert (read(Image.new("LA", square, (9, 255))) == 9).all()
    assert (read(Image.new("1", square, 1)) == 255).all()
    assert (read(Image.new("CMYK", square), "a.tiff") == 255).all()
    palette = Image.new("RGB", square, (1, 2, 3)).convert("P", palette=1)
    assert (read(palette) == [1, 2, 3]).all()
    assert (read(palette, transparency=palette.getpixel((0, 0))) == 255).all()
    deep = Image.fromarray(np.full(square, 257 * 100, np.uint16))
    for name in ("a.png", "a.tiff", "a.pgm"):
        assert (read(deep, name) == 100).all()


def test_exif_orientation_is_applied(tmp_path):
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise to show
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    shown = np.asarray(pictures.read_picture(tmp_path / "a.png", SIZE))
    assert (shown[:, -1] == 255).all() and not shown[:, :-1].any()


def test_centre_square_is_taken(tmp_path):
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 200
    save(wide, tmp_path / "a.png")
    assert (np.asarray(pictures.read_picture(tmp_path / "a.png", SIZE)) == 200).all()


def test_a_class_without_pictures_is_refused(folder, outputs):
    (folder / "zero").mkdir()
    (folder / "zero" / "notes.txt").touch()
    with pytest.raises(InputError, match="class 'zero' has no readable picture(.|\n)*notes"):
        from_folder(folder, outputs)
    assert not any(path.exists() for path in outputs)


def test_a_folder_without_classes_is_refused(tmp_path, outputs):
    with pytest.raises(InputError, match="no such folder"):
        from_folder(tmp_path / "gone", outputs)
    (tmp_path / "in").mkdir()
    with pytest.raises(InputError, match="no class folders"):
        from_folder(tmp_path / "in", outputs)
