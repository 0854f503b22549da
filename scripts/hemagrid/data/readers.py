"""From the source that the config names to one array of images and one table.

Every source ends in `images.npy`, uint8 (N, S, S, 3), and `samples.csv` with the columns
`COLUMNS`. The id of a row is its row number in `images.npy`. Files that give no picture come
last, without id and label, with the reason in `skipped`.
"""

import contextlib
import hashlib
import math
import os
import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from hemagrid.data import npz
from hemagrid.data.pictures import Unusable, printable, read_picture, square
from hemagrid.errors import InputError
from hemagrid.io import replacing, write_table

COLUMNS = ["id", "label", "class_name", "source", "sha256", "skipped"]
HOLDOUT_COLUMNS = [*COLUMNS[:-1], "parent_id", "copy", "policy"]
LISTED = 20  # files in one error message


def acquire(settings, source, out):
    """Write the images and samples of whatever source the config names.

    Args:
        settings: Dict with `source` (npz, folder, smears or bloodmnist), `classes`,
            `image_size` and `strict`.
        source: Path of the file or folder.
        out: Paths `images` and `samples`; for BloodMNIST also `holdout_images` and
            `holdout_table`.

    Raises:
        InputError: If the source is not as expected.
    """
    shape = {key: settings[key] for key in ("classes", "image_size")}
    targets = (out["images"], out["samples"])
    if settings["source"] == "npz":
        from_npz(source, *targets, **shape)
    elif settings["source"] == "bloodmnist":
        holdout = (out["holdout_images"], out["holdout_table"])
        from_bloodmnist(source, *targets, *holdout, **shape)
    else:
        from_folder(source, *targets, **shape, strict=settings["strict"])


def from_npz(path, images_out, samples_out, *, classes, image_size):
    """Write the dataset held in one npz.

    Args:
        path: Path of an npz with `images`, uint8 (N, H, W, 3), and `labels`, integers (N,)
            or (N, 1) that count through `classes`.
        images_out: Path of the image array.
        samples_out: Path of the table.
        classes: Class names in the order of the labels.
        image_size: Edge of the images in pixels; see `pictures.square`.

    Raises:
        InputError: If the npz is damaged or holds anything else.
    """
    samples = copy_npz(path, images_out, classes=classes, image_size=image_size)
    write_table(samples_out, samples.assign(skipped="")[COLUMNS])


def from_bloodmnist(
    path,
    images_out,
    samples_out,
    holdout_images_out,
    holdout_table_out,
    *,
    classes,
    image_size,
):
    """Write the dataset and the holdout test set held in one BloodMNIST file.

    `train_images` become the dataset, which the workflow splits itself, as the study did.
    `test_images` become the holdout: no training and no selection sees them. `val_images`
    are left out: the study had no such pictures to train on, and the published results on
    BloodMNIST, beside which the holdout's are read, used them to choose models.

    Args:
        path: Path of the file.
        images_out: Path of the image array.
        samples_out: Path of the table.
        holdout_images_out: Path of the holdout's image array.
        holdout_table_out: Path of the holdout's table.
        classes: Class names in the order of the labels.
        image_size: Edge of the images in pixels; see `pictures.square`.

    Raises:
        InputError: If the file is damaged or holds anything else.
    """

    def copy_part(part, out):
        return copy_npz(
            path,
            out,
            classes=classes,
            image_size=image_size,
            image_key=f"{part}_images",
            label_key=f"{part}_labels",
            source=f"{{file}}/{part}_images[{{row}}]",
        )

    samples = copy_part("train", images_out)
    write_table(samples_out, samples.assign(skipped="")[COLUMNS])
    holdout = copy_part("test", holdout_images_out)
    holdout = holdout.assign(parent_id=holdout["id"], copy=0, policy="original")
    write_table(holdout_table_out, holdout[HOLDOUT_COLUMNS])


def copy_npz(
    path,
    images_out,
    *,
    classes,
    image_size,
    image_key="images",
    label_key="labels",
    source="{file}[{row}]",
    every_class=True,
):
    """Copy the images under one key of an npz. One picture at a time is in memory.

    Args:
        path: Path of the npz.
        images_out: Path of the image array.
        classes: Class names in the order of the labels.
        image_size: Edge of the images in pixels. None keeps the pictures' own height or
            width, whichever is smaller.
        image_key: Name of the images, uint8 (N, H, W, 3).
        label_key: Name of the labels, integers (N,) or (N, 1).
        source: Pattern for the column `source`.
        every_class: Whether a class without images is refused.

    Returns:
        A data frame with the columns id, label, class_name, source and sha256.

    Raises:
        InputError: If the npz is damaged or holds anything else.
    """
    path = Path(path)
    if not classes:
        raise InputError(
            f"{path}: dataset.classes is empty, expected the class names in the order"
            " of the labels, because an npz holds none"
        )
    with npz.open_npz(path) as archive:
        stream, shape = npz.open_images(archive, path, image_key)
        labels = npz.read_labels(archive, path, label_key, shape[0], classes)
        absent = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0)
        if every_class and absent.size:
            raise InputError(
                f"{path}: {label_key!r} has no row with label {absent[0]}, class"
                f" {classes[absent[0]]!r}; expected at least one image of each class in"
                " dataset.classes"
            )
        image_size = image_size or min(shape[1:3])
        hashes = []
        with _appending(images_out, image_size) as append:
            for _ in range(shape[0]):
                pixels = np.frombuffer(npz.read(stream, path, math.prod(shape[1:])), np.uint8)
                picture = Image.fromarray(pixels.reshape(shape[1:]))
                hashes.append(append(square(picture, image_size)))
            npz.read(stream, path, 0)
    name = printable(path.name)
    return pd.DataFrame(
        {
            "id": np.arange(len(labels)),
            "label": labels,
            "class_name": np.array(classes, dtype=object)[labels],
            "source": [source.format(file=name, row=row) for row in range(len(labels))],
            "sha256": hashes,
        }
    )


def from_folder(folder, images_out, samples_out, *, classes, image_size, strict):
    """Write the dataset held in one folder per class.

    Class folders are read recursively, in the order of their relative paths. Files that give
    no picture are listed in the table with the reason.

    Args:
        folder: Path of the folder of class folders. Hidden entries in it are ignored.
        images_out: Path of the image array.
        samples_out: Path of the table.
        classes: Names of the class folders in the order of the labels. None stands for all
            folders, sorted.
        image_size: Edge of the images in pixels; see `pictures.read_picture`.
        strict: Whether to refuse files that give no picture, and pictures that are not RGB
            of `image_size` already.

    Raises:
        InputError: If a class folder is missing or unexpected, a class has no readable
            picture, or `strict` refuses a file.
    """
    folder = Path(folder)
    class_folders = _class_folders(folder, classes)
    rows = []
    skipped = [
        ("", printable(path.name), "not in a class folder")
        for path in sorted(folder.iterdir())
        if not path.is_dir() and not path.name.startswith(".")
    ]
    with _appending(images_out, image_size) as append:
        for label, (class_name, class_folder) in enumerate(class_folders.items()):
            for path in _files(class_folder):
                source = printable(path.relative_to(folder).as_posix())
                try:
                    picture = read_picture(path, image_size, strict)
                except Unusable as error:
                    skipped.append((class_name, source, str(error)))
                else:
                    digest = append(picture)
                    rows.append((len(rows), label, class_name, source, digest))
        if strict and skipped:
            raise InputError(
                f"{folder}: {len(skipped)} files are refused, because dataset.strict"
                f" is set:{_listing(skipped)}\nRepair or remove them, or set it to"
                " false to list unreadable files as skipped and convert the others."
            )
        filled = {class_name for _, _, class_name, _, _ in rows}
        for class_name, class_folder in class_folders.items():
            if class_name not in filled:
                reasons = [row for row in skipped if row[0] == class_name]
                raise InputError(
                    f"{class_folder}: class {class_name!r} has no readable picture"
                    f" among {len(reasons)} files, expected one{_listing(reasons)}"
                )
    images = pd.DataFrame(rows, columns=COLUMNS[:5]).assign(skipped="")
    others = pd.DataFrame(skipped, columns=["class_name", "source", "skipped"])
    table = pd.concat([images, others.assign(sha256="")])
    write_table(samples_out, table.astype({"id": "Int64", "label": "Int64"})[COLUMNS])


def read_samples(path):
    """Read the rows of a `samples.csv` that have an image; id and label are integers."""
    # As text, so that class names such as "007" or "NA" survive.
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table = table[table["skipped"] == ""].drop(columns="skipped")
    return table.astype({"id": "int64", "label": "int64"})


def read_skipped(path):
    """Read the skipped files of a `samples.csv`: class_name, source, reason."""
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    table = table[table["skipped"] != ""].rename(columns={"skipped": "reason"})
    return table[["class_name", "source", "reason"]].reset_index(drop=True)


def _class_folders(folder, classes):
    """Map class names to their folders, in the order of the labels."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected a folder per class in it")
    # File systems differ in how they compose accents; a config is typed composed.
    found = {
        printable(unicodedata.normalize("NFC", path.name)): path
        for path in sorted(folder.iterdir())
        if path.is_dir() and not path.name.startswith(".")
    }
    if not found:
        raise InputError(f"{folder}: found no class folders, expected one per class")
    if classes is None:
        return found
    wanted = [unicodedata.normalize("NFC", name) for name in classes]
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    if missing or unexpected:
        raise InputError(
            f"{folder}: found the folders {', '.join(found)}; dataset.classes expects"
            f" {', '.join(wanted)}. Missing: {', '.join(missing) or 'none'};"
            f" unexpected: {', '.join(unexpected) or 'none'}"
        )
    return {name: found[name] for name in wanted}


def _files(class_folder):
    """List all files below a folder by relative path, and the linked and hidden folders."""
    paths = []
    for parent, folders, names in os.walk(class_folder):
        parent = Path(parent)
        links = [name for name in folders if (parent / name).is_symlink()]
        hidden = [name for name in folders if name.startswith(".")]
        folders[:] = [name for name in folders if name not in hidden]
        paths += [parent / name for name in {*names, *links, *hidden}]
    return sorted(paths, key=lambda path: path.relative_to(class_folder).as_posix())


def _listing(skipped):
    """Write skipped files one to a line, at most `LISTED` of them."""
    lines = [f"\n  {source}: {reason}" for _, source, reason in skipped[:LISTED]]
    if len(skipped) > LISTED:
        lines.append(f"\n  and {len(skipped) - LISTED} more")
    return "".join(lines)


@contextlib.contextmanager
def _appending(path, image_size):
    """Yield a function that adds a picture to the array at `path` and returns its SHA-256.

    How many pictures there are is known only at the end. NumPy leaves room in the header of
    a `.npy` for its first axis to grow, so the header is then written again.
    """
    count = 0

    def write_header(file):
        shape = (count, image_size, image_size, 3)
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header)

    with replacing(path) as temporary:
        with open(temporary, "wb") as file:
            write_header(file)

            def append(picture):
                nonlocal count
                pixels = np.asarray(picture).tobytes()
                file.write(pixels)
                count += 1
                return hashlib.sha256(pixels).hexdigest()

            yield append
            write_header(file)
