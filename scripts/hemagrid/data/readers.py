"""From the source that the config names to one array of images and one table.

Every source ends in `images.npy`, uint8 (N, S, S, 3), and `samples.csv` with the columns
`COLUMNS`. The id of a row is its row number in `images.npy`; `changes` says what was done to
the picture, such as "padded, resized". Files that give no picture come last, without id and
label, with the reason in `skipped`: what comes before a colon is the kind of reason. The counts
of both are logged, one line per class.
"""

import contextlib
import hashlib
import logging
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from hemagrid.data import folders, npz
from hemagrid.data.bloodmnist import check
from hemagrid.data.pictures import (
    PAD,
    Unusable,
    printable,
    read_peak,
    read_picture,
    square,
)
from hemagrid.data.sources import is_litter
from hemagrid.errors import InputError
from hemagrid.io import replacing, write_table
from hemagrid.logs import track

COLUMNS = ["id", "label", "class_name", "source", "sha256", "changes", "skipped"]
LISTED = 20  # files in one error message
BIT_DEPTHS = (8, 10, 12, 14, 15, 16)

logger = logging.getLogger(__name__)


def acquire(settings, source, out):
    """Write the images and samples of whatever source the config names.

    Args:
        settings: Dict with `source` (npz, folder, smears or bloodmnist), `classes`,
            `image_size`, `fit`, `bit_depth` and `strict`.
        source: Path of the file or folder.
        out: Paths `images` and `samples`; for BloodMNIST also `holdout_images` and
            `holdout_table`.

    Returns:
        How pictures were read, for others to be read alike: dict with `fit` and `bits`, as
        `pictures.read_picture` takes them.

    Raises:
        InputError: If the source is not as expected.
    """
    bits = None
    shape = {key: settings[key] for key in ("classes", "image_size", "fit")}
    targets = (out["images"], out["samples"])
    if settings["source"] == "npz":
        from_npz(source, *targets, **shape)
    elif settings["source"] == "bloodmnist":
        holdout = (out["holdout_images"], out["holdout_table"])
        from_bloodmnist(source, *targets, *holdout, **shape)
    else:
        options = {key: settings[key] for key in ("bit_depth", "strict")}
        samples, bits = copy_folder(source, out["images"], **shape, **options)
        write_table(out["samples"], samples)
        log_counts(samples)
    return {"fit": settings["fit"], "bits": bits}


def from_npz(path, images_out, samples_out, *, classes, image_size, fit=PAD):
    """Write the dataset held in one npz.

    Args:
        path: Path of an npz with `images`, uint8 (N, H, W, 3), and `labels`, integers (N,)
            or (N, 1) that count through `classes`.
        images_out: Path of the image array.
        samples_out: Path of the table.
        classes: Class names in the order of the labels.
        image_size: Edge of the images in pixels.
        fit: What makes pictures square; see `pictures.square`.

    Raises:
        InputError: If the npz is damaged or holds anything else.
    """
    samples = copy_npz(path, images_out, classes=classes, image_size=image_size, fit=fit)
    write_table(samples_out, samples)
    log_counts(samples)


def from_bloodmnist(
    path,
    images_out,
    samples_out,
    holdout_images_out,
    holdout_table_out,
    *,
    classes,
    image_size,
    fit=PAD,
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
        image_size: Edge of the images in pixels.
        fit: What makes pictures square; see `pictures.square`.

    Raises:
        InputError: If the file has not the published checksum or holds anything else.
    """
    check(path)

    def copy_part(part, out):
        return copy_npz(
            path,
            out,
            classes=classes,
            image_size=image_size,
            fit=fit,
            image_key=f"{part}_images",
            label_key=f"{part}_labels",
            source=f"{{file}}/{part}_images[{{row}}]",
        )

    samples = copy_part("train", images_out)
    write_table(samples_out, samples)
    log_counts(samples)
    holdout = copy_part("test", holdout_images_out)
    write_table(holdout_table_out, holdout)
    logger.info("Holdout test set:")
    log_counts(holdout)


def copy_npz(
    path,
    images_out,
    *,
    classes,
    image_size,
    fit=PAD,
    image_key="images",
    label_key="labels",
    source="{file}[{row}]",
    left_out=None,
    key="dataset",
):
    """Copy the images under one key of an npz. One picture at a time is in memory.

    Args:
        path: Path of the npz.
        images_out: Path of the image array.
        classes: Class names in the order of the labels.
        image_size: Edge of the images in pixels.
        fit: What makes pictures square; see `pictures.square`.
        image_key: Name of the images, uint8 (N, H, W, 3).
        label_key: Name of the labels, integers (N,) or (N, 1).
        source: Pattern for the column `source`.
        left_out: None, or {class: reason} of the classes whose images are not copied. A class
            without images is then no error.
        key: Where `classes` stand in the config, for messages.

    Returns:
        A data frame with the columns `COLUMNS`. Rows that are not copied come last.

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
        named = f"{key}.classes"
        labels = npz.read_labels(archive, path, label_key, shape[0], classes, named)
        absent = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0)
        if left_out is None and absent.size:
            raise InputError(
                f"{path}: {label_key!r} has no row with label {absent[0]}, class"
                f" {classes[absent[0]]!r}; expected at least one image of each class in"
                " dataset.classes"
            )
        name, rows, skipped = printable(path.name), [], []
        with _appending(images_out, image_size) as append:
            for row in track(range(shape[0]), "Reading images"):
                pixels = np.frombuffer(npz.read(stream, path, math.prod(shape[1:])), np.uint8)
                label, class_name = labels[row], classes[labels[row]]
                place = source.format(file=name, row=row)
                if left_out and class_name in left_out:
                    skipped.append((class_name, place, left_out[class_name]))
                    continue
                picture, changes = square(
                    Image.fromarray(pixels.reshape(shape[1:])), image_size, fit
                )
                done = append(picture), ", ".join(changes)
                rows.append((len(rows), label, class_name, place, *done))
            npz.read(stream, path, 0)
    return _samples(rows, skipped)


def copy_folder(
    folder,
    images_out,
    *,
    classes,
    image_size,
    fit=PAD,
    bit_depth="auto",
    strict=False,
    left_out=None,
    key="dataset",
):
    """Copy the pictures held in one folder per class.

    Class folders are read recursively, in the order of their relative paths. Files that give
    no picture are listed in the table with the reason; see also `sources.is_litter`.

    Args:
        folder: Path of the folder of class folders.
        images_out: Path of the image array.
        classes: Names of the class folders in the order of the labels. None stands for all
            folders, in natural order.
        image_size: Edge of the images in pixels.
        fit: What makes pictures square; see `pictures.square`.
        bit_depth: Significant bits of files that store more than 8 bits per channel. `auto`
            takes the fewest of `BIT_DEPTHS` that hold all values of all files stored alike.
        strict: Whether to refuse files that give no picture, and pictures that are not RGB
            of `image_size` already.
        left_out: None, or {class: reason} of the class folders that are listed as skipped.
        key: Where `path` and `classes` stand in the config, for messages.

    Returns:
        A data frame with the columns `COLUMNS`, and the bits that were taken: `bit_depth`, or
        dict from the way of storing to its bits.

    Raises:
        InputError: If the folder does not hold the classes, a class has no readable picture,
            or `strict` refuses a file.
    """
    folder = Path(folder)
    class_folders = folders.class_folders(folder, classes, key)
    if Path(images_out).resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"{folder}: the study's own results are in this folder; move the class folders"
            f" into a folder of their own and set {key}.path to that"
        )
    left_out = left_out or {}
    files, skipped, rows = [], [], []
    for path in sorted(folder.iterdir()):
        if not path.is_dir() and not is_litter(path.name):
            skipped.append(("", printable(path.name), "not in a class folder"))
    for label, (class_name, class_folder) in enumerate(class_folders.items()):
        paths = folders.files(class_folder)
        masks = folders.masks(paths, class_folder)
        for path in paths:
            source = printable(path.relative_to(folder).as_posix())
            reason = masks.get(path) or left_out.get(class_name)
            if reason:
                skipped.append((class_name, source, reason))
            else:
                files.append((path, label, class_name, source))
    bits = _BitDepths(files) if bit_depth == "auto" else bit_depth
    with _appending(images_out, image_size) as append:
        for path, label, class_name, source in track(files, "Reading pictures", unit="files"):
            try:
                picture, changes = read_picture(
                    path, image_size, fit=fit, strict=strict, bits=bits
                )
            except Unusable as error:
                skipped.append((class_name, source, str(error)))
            else:
                row = (len(rows), label, class_name, source, append(picture))
                rows.append((*row, ", ".join(changes)))
        refused = [row for row in skipped if row[0] not in left_out]
        if strict and refused:
            raise InputError(
                f"{folder}: {len(refused)} files are refused, because dataset.strict"
                f" is set:{_listing(refused)}\nRepair or remove them, or set it to"
                " false to list unreadable files as skipped and convert the others."
            )
        filled = {row[2] for row in rows}
        for class_name, class_folder in class_folders.items():
            if class_name not in filled and class_name not in left_out:
                reasons = [row for row in skipped if row[0] == class_name]
                raise InputError(
                    f"{class_folder}: class {class_name!r} has no readable picture"
                    f" among {len(reasons)} files, expected one{_listing(reasons)}\nAdd"
                    " pictures to it, or remove the folder"
                    f"{f' and its name in {key}.classes' if classes else ''}"
                )
    return _samples(rows, skipped), bits


def _samples(rows, skipped):
    """Return a data frame with the columns `COLUMNS`.

    Args:
        rows: Tuples of all columns but the last, of images.
        skipped: Tuples (class name, source, reason), of what gave no image.
    """
    images = pd.DataFrame(rows, columns=COLUMNS[:-1]).assign(skipped="")
    others = pd.DataFrame(skipped, columns=["class_name", "source", "skipped"])
    table = pd.concat([images, others.assign(sha256="", changes="")], ignore_index=True)
    return table.astype({"id": "Int64", "label": "Int64"})[COLUMNS]


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


class _BitDepths(dict):
    """The significant bits per way of storing, found in all files once one is asked for.

    One depth for all files that are stored alike: file by file, a dark picture would come out
    as bright as the others.
    """

    def __init__(self, files):
        self.class_names = {path: class_name for path, _, class_name, _ in files}

    def get(self, storage):
        if storage in self:
            return self[storage]
        peaks = {}
        for path in track(self.class_names, "Finding the range of values", unit="files"):
            try:
                if found := read_peak(path):
                    classes = peaks.setdefault(found[0], {})
                    classes.setdefault(self.class_names[path], []).append(found[1])
            except Unusable:
                pass  # and listed as such when it is read
        for deep, classes in peaks.items():
            values = [value for of_class in classes.values() for value in of_class]
            depths = [bits for bits in BIT_DEPTHS if bits != 15 or deep.signed]
            bits = next((bits for bits in depths if max(values) < 2**bits), 16)
            self[str(deep)] = bits
            logger.info(
                f"{deep}: no value above {max(values)} in {len(values)} pictures, read as"
                f" {bits} bits (0 to {2**bits - 1}); if that is wrong, set dataset.bit_depth"
            )
            for class_name, values in classes.items():
                if max(values) < 2 ** (bits - 2):
                    logger.info(
                        f"{deep}: class {class_name!r} has no value above {max(values)}, less"
                        " than a quarter of the range; if its pictures are of fewer bits, they"
                        " come out too dark, so convert them to 8 bits"
                    )
        return self[storage]


def log_counts(samples):
    """Log one line per class: how many were read, changed and how, skipped and why."""

    def counted(values):
        return ", ".join(f"{count} {value}" for value, count in Counter(values).most_common())

    images = samples[samples["skipped"] == ""]
    skipped = samples[samples["skipped"] != ""]
    for class_name, rows in images.sort_values("label").groupby("class_name", sort=False):
        done = counted(word for text in rows["changes"] for word in text.split(", ") if word)
        reasons = skipped.loc[skipped["class_name"] == class_name, "skipped"]
        kinds = counted(reason.partition(":")[0] for reason in reasons)
        logger.info(
            f"{class_name}: {len(rows)} read{f' ({done})' if done else ''}"
            f", {len(reasons)} skipped{f' ({kinds})' if kinds else ''}"
        )
    if outside := int((skipped["class_name"] == "").sum()):
        logger.info(f"Outside the class folders: {outside} skipped")


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
