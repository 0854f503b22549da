"""Files that are complete or absent: written beside their place, then moved there."""

import contextlib
import json
import mmap
import os
import uuid
from pathlib import Path

import numpy as np
import pandas as pd

from hemagrid.errors import InputError

_ROWS = 64  # rows that are copied at once


@contextlib.contextmanager
def replacing(path):
    """Write a file beside its place, and move it there once it is complete.

    Args:
        path: Path of the file. Its folder is made if it is missing.

    Yields:
        The Path to write to. It ends like `path`, because Keras and NumPy choose the format by
        the ending. On an error it is removed, and what was at `path` stays.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{uuid.uuid4().hex[:8]}.{path.name}")
    try:
        yield temporary
        # On the disk before it has its name, because machines die, too.
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_temporaries(path):
    """Remove what killed writers of `path` left beside it. For its only writer."""
    for left in Path(path).parent.glob(f".????????.{Path(path).name}"):
        left.unlink(missing_ok=True)


@contextlib.contextmanager
def new_array(path, shape, dtype):
    """Write an array that is too large for memory; it appears once it is complete.

    Args:
        path: Path of the `.npy` file.
        shape: Its shape.
        dtype: Its type.

    Yields:
        A memory map to fill.
    """
    with replacing(path) as temporary:
        array = np.lib.format.open_memmap(temporary, mode="w+", shape=tuple(shape), dtype=dtype)
        yield array
        array.flush()


def open_images(path):
    """Map images into memory, read-only.

    Args:
        path: Path of a `.npy` file that holds uint8 (N, H, W, 3).

    Raises:
        InputError: It holds anything else.
    """
    images = np.load(path, mmap_mode="r")
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
        raise InputError(
            f"{path}: found {images.dtype} {images.shape}, expected uint8 (N, H, W, 3)"
        )
    return images


def take(array, rows):
    """Copy some rows of an array and, if it is a memory map, release it.

    Args:
        array: Any array.
        rows: Slice, or array of row numbers of any shape.
    """
    taken = np.asarray(array[rows])
    if isinstance(rows, slice):  # row numbers have made a copy already
        taken = taken.copy()
    release(array)
    return taken


def copy_rows(array, rows, out):
    """Copy some rows of an array to another one, and release both if they are memory maps.

    Args:
        array: Any array.
        rows: Row numbers, int (n,).
        out: Array to fill, with n rows.
    """
    for start in range(0, len(rows), _ROWS):
        chunk = slice(start, start + _ROWS)
        out[chunk] = take(array, rows[chunk])
        release(out)


def release(array):
    """Give back the memory that a memory map has come to hold. Its content stays.

    Every page that was read or written through a map counts as memory of the process, for which
    a scheduler may kill the job. Released pages remain in the cache of the system.
    """
    if isinstance(array, np.memmap):
        array._mmap.madvise(mmap.MADV_DONTNEED)


def write_text(path, text):
    """Write `text` in UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path, content):
    """Write `content` as readable JSON. Raises ValueError for NaN, which JSON lacks."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path):
    """Read one JSON document."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_table(path, table):
    """Write a data frame as CSV without its index."""
    write_text(path, table.to_csv(index=False, lineterminator="\n"))


def read_sparse(path, *text):
    """Read a CSV in which an empty cell is a missing value. The columns `text` stay text."""
    return pd.read_csv(
        path, keep_default_na=False, na_values="", dtype=dict.fromkeys(text, str)
    )


def read_table(path):
    """Read a CSV. Names and hashes stay text, even if all of them look like numbers."""
    text = ["class_name", "source", "phash", "sha256", "true", "predicted", "policy"]
    text += ["group_name"]
    return pd.read_csv(path, keep_default_na=False, dtype=dict.fromkeys(text, str))


def class_names(samples):
    """List the class names in the order of their labels."""
    return list(samples.drop_duplicates("label").sort_values("label")["class_name"])
