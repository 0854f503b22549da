"""Arrays of an npz as streams: nothing is unpacked before its header is checked."""

import contextlib
import math
import zipfile
from pathlib import Path

import numpy as np

from hemagrid.data.pictures import MAX_PIXELS, printable
from hemagrid.errors import InputError

MAX_BYTES = 64 * 2**30  # of one array


@contextlib.contextmanager
def open_npz(path):
    """Open an npz as a zip archive.

    Args:
        path: Path of the file.

    Yields:
        The `zipfile.ZipFile`.

    Raises:
        InputError: If there is no such file, or it is not a zip.
    """
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file, expected the npz with the images")
    with open(path, "rb") as file:
        with _refusing_damage(path):
            archive = zipfile.ZipFile(file)
        yield archive


def open_images(archive, path, key):
    """Open an array of pictures as a stream.

    Args:
        archive: The open `zipfile.ZipFile`.
        path: Path of the npz, for messages.
        key: Name of the array, expected uint8 (N, H, W, 3).

    Returns:
        The stream, behind the array's header, and the array's shape.

    Raises:
        InputError: If the key is missing or the array is anything else.
    """
    stream, shape, dtype = _open_array(archive, path, key)
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
    return stream, shape


def read_labels(archive, path, key, count, classes, named="dataset.classes"):
    """Read the labels of an npz.

    Args:
        archive: The open `zipfile.ZipFile`.
        path: Path of the npz, for messages.
        key: Name of the array, expected integers (count,) or (count, 1).
        count: Number of images.
        classes: Class names in the order of the labels.
        named: Where they stand in the config, for messages.

    Returns:
        Labels, int64 (count,).

    Raises:
        InputError: If the key is missing, the array is anything else, or a label lies
            outside `classes`.
    """
    stream, shape, dtype = _open_array(archive, path, key)
    if dtype.kind not in "iu" or shape not in {(count,), (count, 1)}:
        raise InputError(
            f"{path}: {key!r} is {dtype} {shape}, expected integers ({count},) or"
            f" ({count}, 1), one for each image"
        )
    labels = np.frombuffer(read(stream, path, count * dtype.itemsize), dtype)
    outside = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if outside.size:
        row = outside[0]
        raise InputError(
            f"{path}: {key!r} row {row} holds {labels[row]}, expected 0 to"
            f" {len(classes) - 1} for the {len(classes)} names in {named}"
            f" ({outside.size} rows are out of range)"
        )
    return labels.astype(np.int64)


def read_names(path, key, count):
    """Read the names of groups of an npz.

    Args:
        path: Path of the npz.
        key: Name of the array, expected text or integers of at least 0, (count,) or (count, 1).
        count: Number of images.

    Returns:
        Names as text, list (count,). Those of integers are their digits.

    Raises:
        InputError: If the npz is damaged or holds anything else.
    """
    with open_npz(path) as archive:
        stream, shape, dtype = _open_array(archive, path, key)
        fits = dtype.kind in "iuSU" and dtype.itemsize
        if not fits or shape not in ((count,), (count, 1)):
            raise InputError(
                f"{path}: {key!r} is {dtype} {shape}, expected text or integers ({count},) or"
                f" ({count}, 1), the group of each image"
            )
        values = np.frombuffer(read(stream, path, count * dtype.itemsize), dtype)
        read(stream, path, 0)
        with _refusing_damage(path):
            texts = np.char.decode(values, "utf-8") if dtype.kind == "S" else values
            names = [str(text).strip() for text in texts]
    if dtype.kind in "iu" and values.min() < 0:
        row = np.flatnonzero(values < 0)[0]
        raise InputError(
            f"{path}: {key!r} row {row} holds {values[row]}, expected 0 or more; give a picture"
            " whose group is not known a group of its own"
        )
    return names


def read(stream, path, size):
    """Read exactly `size` bytes of a stream.

    Reading 0 bytes at the end of an array makes zipfile compare its checksum.

    Raises:
        InputError: If the file is damaged or ends early.
    """
    with _refusing_damage(path):
        data = stream.read(size) if size else stream.read()
        if len(data) != size:
            raise EOFError(f"ends {size - len(data)} bytes early")
    return data


def _open_array(archive, path, key):
    """Open one array as a stream behind its header: stream, shape, dtype."""
    keys = [name.removesuffix(".npy") for name in archive.namelist()]
    if key not in keys:
        raise InputError(
            f"{path}: found the keys {', '.join(map(printable, keys)) or 'none'},"
            f" expected {key!r} among them"
        )
    with _refusing_damage(path):
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


@contextlib.contextmanager
def _refusing_damage(path):
    """Turn whatever a broken npz raises into an InputError."""
    try:
        yield
    except Exception as error:  # zipfile and NumPy raise many types on a broken file
        raise InputError(
            f"{path}: not an npz, or a damaged one ({error}); expected a file as"
            " numpy.savez_compressed writes it"
        ) from error
