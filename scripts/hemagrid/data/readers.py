"""From the source that the config names to one array of images and one table."""

import contextlib
import hashlib
import math
import os
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from hemagrid.data.pictures import MAX_PIXELS, Unusable, printable, read_picture, square
from hemagrid.errors import InputError
from hemagrid.io import replacing, write_table


def acquire(settings, source, out):
    """Write `out["images"]` and `out["samples"]` from `source`, a file or a folder.

    `settings` holds `source` (npz, folder, smears, bloodmnist), `classes`, `image_size`
    and `strict`. BloodMNIST also fills `out["holdout_images"]` and
    `out["holdout_table"]`. Raises InputError on bad input.
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


COLUMNS = ["id", "label", "class_name", "source", "sha256", "skipped"]


MAX_BYTES = 64 * 2**30  # of one array in an npz


LISTED = 20  # names in one error message


def from_npz(path, images_out, samples_out, *, classes, image_size):
    """Write the dataset held in one npz.

    The file holds `images`, uint8 (N, H, W, 3), and `labels`, integers (N,) or (N, 1)
    that count through `classes`. Pictures of another size are cropped to their centre
    square and resized (see `square`). The file is streamed: one picture in memory at a
    time.

    Raises InputError for a file that is no npz, holds pickled objects, lacks a key, or
    whose arrays have another type, shape, length or labels outside `classes`.
    """
    samples = copy_npz(path, images_out, classes=classes, image_size=image_size)
    write_table(samples_out, samples.assign(skipped="")[COLUMNS])


def from_folder(folder, images_out, samples_out, *, classes, image_size, strict):
    """Write the dataset held in one folder per class.

    Class folders are read recursively, in the order of their relative paths. `classes`
    fixes which folders there are and the order of their labels; with None every folder
    is a class, in sorted order. Pictures become RGB as `read_picture` describes. Files
    that give no picture are listed in `samples_out` with the reason; hidden entries
    beside the class folders are ignored.

    With `strict`, any such file, and any picture that is not RGB of `image_size`
    already, raises InputError. So do a missing or unexpected class folder and a class
    without a readable picture.
    """
    folder = Path(folder)
    class_folders = _class_folders(folder, classes)
    rows, skipped = [], []
    for path in sorted(folder.iterdir()):
        if not path.is_dir() and not path.name.startswith("."):
            skipped.append(("", printable(path.name), "not in a class folder"))
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
    table = pd.concat([images, others.assign(sha256="")]).astype(
        {"id": "Int64", "label": "Int64"}
    )
    write_table(samples_out, table[COLUMNS])


def read_samples(path):
    """Read the rows of a `samples.csv` that have an image, id and label as integers."""
    table = _read_text(path)
    table = table[table["skipped"] == ""].drop(columns="skipped")
    return table.astype({"id": "int64", "label": "int64"})


def read_skipped(path):
    """Read the skipped files of a `samples.csv`: class_name, source, reason."""
    table = _read_text(path)
    table = table[table["skipped"] != ""].rename(columns={"skipped": "reason"})
    return table[["class_name", "source", "reason"]].reset_index(drop=True)


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
    """Copy the images under one key of an npz to `images_out`; return a table of them.

    The table has the columns id, label, class_name, source (`source` filled in),
    sha256. `image_size` None keeps the pictures' own height or width, whichever is smaller.
    With `every_class` a class without images is refused. Raises as `from_npz`.
    """
    path = Path(path)
    if not classes:
        raise InputError(
            f"{path}: dataset.classes is empty, expected the class names in the order"
            " of the labels, because an npz holds none"
        )
    with _open_npz(path) as archive:
        images, shape, dtype = _open_array(archive, path, image_key)
        _check_images(path, image_key, shape, dtype)
        image_size = image_size or min(shape[1:3])
        labels = _read_labels(archive, path, label_key, shape[0], classes, every_class)
        hashes = []
        with _appending(images_out, image_size) as append:
            for _ in range(shape[0]):
                pixels = np.frombuffer(_read(images, path, math.prod(shape[1:])), dtype)
                picture = Image.fromarray(pixels.reshape(shape[1:]))
                hashes.append(append(square(picture, image_size)))
            _read(images, path, 0)
    return pd.DataFrame(
        {
            "id": np.arange(len(labels)),
            "label": labels,
            "class_name": np.array(classes, dtype=object)[labels],
            "source": [
                source.format(file=printable(path.name), row=row) for row in range(len(labels))
            ],
            "sha256": hashes,
        }
    )


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
    """List all files below a folder by relative path; linked folders unentered."""
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


def _read_text(path):
    """Read a `samples.csv` as text: class names such as "007" or "NA" survive."""
    return pd.read_csv(path, dtype=str, keep_default_na=False)


@contextlib.contextmanager
def _appending(path, image_size):
    """Yield a function that adds a picture to the array at `path`, gives its SHA-256.

    How many pictures there are is known only at the end. NumPy leaves room in the
    header of a `.npy` for its first axis to grow, so the header is written again then.
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


@contextlib.contextmanager
def _refusing_corruption(path):
    """Turn what a broken npz raises while it is read into an InputError."""
    try:
        yield
    except Exception as error:  # zipfile and NumPy raise many types on a broken file
        raise InputError(
            f"{path}: not an npz, or a damaged one ({error}); expected a file as"
            " numpy.savez_compressed writes it"
        ) from error


@contextlib.contextmanager
def _open_npz(path):
    if not path.is_file():
        raise InputError(f"{path}: no such file, expected the npz with the images")
    with _refusing_corruption(path):
        archive = zipfile.ZipFile(path)
    with archive:
        yield archive


def _open_array(archive, path, key):
    """Open one array of an npz as a stream behind its header: stream, shape, dtype."""
    keys = [name.removesuffix(".npy") for name in archive.namelist()]
    if key not in keys:
        raise InputError(
            f"{path}: found the keys {', '.join(map(printable, keys)) or 'none'},"
            f" expected {key!r} among them"
        )
    with _refusing_corruption(path):
        stream = archive.open(f"{key}.npy")
        version = np.lib.format.read_magic(stream)
        if version == (1, 0):
            header = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            header = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"{key} is in npy version {version}")
    shape, fortran_order, dtype = header
    if dtype.hasobject:
        raise InputError(
            f"{path}: {key!r} holds pickled objects, which are never loaded because"
            " they can run code; save it as a plain array"
        )
    size = math.prod(shape) * dtype.itemsize
    if size > MAX_BYTES:
        raise InputError(
            f"{path}: {key!r} is {dtype} {shape}, {size / 2**30:.0f} GiB unpacked,"
            f" expected at most {MAX_BYTES // 2**30} GiB; it was not unpacked"
        )
    if fortran_order:
        raise InputError(
            f"{path}: {key!r} is in Fortran order, expected C order; save"
            " numpy.ascontiguousarray of it"
        )
    present = archive.getinfo(f"{key}.npy").file_size - stream.tell()
    if present != size:
        raise InputError(
            f"{path}: {key!r} has {present} bytes, its header promises {dtype} {shape},"
            f" {size} bytes; the file is damaged"
        )
    return stream, shape, dtype


def _read(stream, path, size):
    """Read `size` bytes; 0 at an array's end makes zipfile compare its checksum."""
    with _refusing_corruption(path):
        data = stream.read(size) if size else stream.read()
        if len(data) != size:
            raise EOFError(f"ends {size - len(data)} bytes early")
    return data


def _check_images(path, key, shape, dtype):
    if dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
        raise InputError(
            f"{path}: {key!r} is {dtype} {shape}, expected uint8 (N, H, W, 3) with"
            " at least one picture"
        )
    if shape[1] * shape[2] > MAX_PIXELS:
        raise InputError(
            f"{path}: {key!r} is {dtype} {shape}, expected pictures of at most"
            f" {MAX_PIXELS} pixels; it was not unpacked"
        )


def _read_labels(archive, path, key, count, classes, every_class):
    stream, shape, dtype = _open_array(archive, path, key)
    if dtype.kind not in "iu" or shape not in {(count,), (count, 1)}:
        raise InputError(
            f"{path}: {key!r} is {dtype} {shape}, expected integers ({count},) or"
            f" ({count}, 1), one for each image"
        )
    labels = np.frombuffer(_read(stream, path, count * dtype.itemsize), dtype)
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if outside.size:
        row = outside[0]
        raise InputError(
            f"{path}: {key!r} row {row} holds {labels[row]}, expected 0 to"
            f" {len(classes) - 1} for the {len(classes)} names in dataset.classes"
            f" ({outside.size} rows are out of range)"
        )
    labels = labels.astype(np.int64)
    absent = np.flatnonzero(np.bincount(labels, minlength=len(classes)) == 0)
    for label in absent if every_class else []:
        raise InputError(
            f"{path}: {key!r} has no row with label {label}, class {classes[label]!r};"
            " expected at least one image of each class in dataset.classes"
        )
    return labels


HOLDOUT_COLUMNS = [*COLUMNS[:-1], "parent_id", "copy", "policy"]


def from_bloodmnist(
    npz,
    images_out,
    samples_out,
    holdout_images_out,
    holdout_samples_out,
    *,
    classes,
    image_size,
):
    """Write the study's images and an holdout test set from one BloodMNIST file.

    `train_images` become the dataset, which the workflow splits itself, as the study
    did. `test_images` become the holdout set, seen by no training and no selection.
    `val_images` are left out: the study had no such pictures to train on, and the
    published results on BloodMNIST, beside which the holdout's are read, spent them
    on choosing models. Raises InputError as `sources.from_npz`.
    """
    arrays = {"classes": classes, "image_size": image_size}
    samples = _copy(npz, images_out, "train", **arrays)
    write_table(samples_out, samples.assign(skipped="")[COLUMNS])
    holdout = _copy(npz, holdout_images_out, "test", **arrays)
    holdout = holdout.assign(parent_id=holdout["id"], copy=0, policy="original")
    write_table(holdout_samples_out, holdout[HOLDOUT_COLUMNS])


def _copy(npz, images_out, part, **arrays):
    return copy_npz(
        npz,
        images_out,
        image_key=f"{part}_images",
        label_key=f"{part}_labels",
        source=f"{{file}}/{part}_images[{{row}}]",
        **arrays,
    )
