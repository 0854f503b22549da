"""How many images a source holds. None is read, and NumPy is not needed."""

import ast
import os
import struct
import zipfile
from pathlib import Path

from hemagrid.config.checks import BLOODMNIST_CLASSES, SECOND_LAB_CELLS
from hemagrid.data.sources import is_litter
from hemagrid.errors import InputError

# What the published files of BloodMNIST hold, at every resolution.
BLOODMNIST_TRAIN, BLOODMNIST_TEST = 11_959, 3_421


def count(source, folder="."):
    """Count the images of a source; in a folder, the files below its class folders.

    Args:
        source: The config's `dataset`, or one of its `test_sets`.
        folder: Folder of the study.

    Raises:
        InputError: The file is no npz with an array `images`.
    """
    if source["source"] == "bloodmnist":
        return BLOODMNIST_TRAIN
    if source["source"] == "smears":
        drawn = source.get("smears") or {"per_class": SECOND_LAB_CELLS}
        planted = drawn.get("duplicates", 0) + drawn.get("near_duplicates", 0)
        return BLOODMNIST_CLASSES * drawn["per_class"] + planted
    path = Path(folder, source["path"])
    if source["source"] == "npz":
        return _rows(path)
    classes = [entry for entry in os.scandir(path) if entry.is_dir()]
    return sum(_files(entry.path) for entry in classes if not is_litter(entry.name))


def of_study(config):
    """Count the images of a study and of its test sets.

    A source that cannot be counted counts as empty: the rule that reads it says what is wrong.

    Args:
        config: Validated config.
    """
    total = 0
    for source in (config["dataset"], *config["test_sets"].values()):
        try:
            total += count(source)
        except (InputError, OSError):
            continue
    return total


def _rows(path):
    """Return the number in the header of an array: https://numpy.org/neps/nep-0001-npy-format"""
    try:
        with zipfile.ZipFile(path) as archive, archive.open("images.npy") as array:
            *_, version, _ = array.read(8)
            length = "<H" if version == 1 else "<I"
            (size,) = struct.unpack(length, array.read(struct.calcsize(length)))
            return int(ast.literal_eval(array.read(size).decode("latin1").strip())["shape"][0])
    except Exception as error:  # zipfile and what reads a header raise many types
        raise InputError(f"{path}: found no npz with an array `images` ({error})") from None


def _files(folder):
    found = 0
    for _, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not is_litter(name)]
        found += sum(not is_litter(name) for name in names)
    return found
