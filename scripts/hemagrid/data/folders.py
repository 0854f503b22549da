"""A folder of class folders: which folders are classes, and which files may be pictures.

What systems and editors leave behind is passed over at every level: see `sources.is_litter`.
"""

import logging
import os
import re
import unicodedata
from pathlib import Path

from hemagrid.data.pictures import printable
from hemagrid.data.sources import is_litter
from hemagrid.errors import InputError

SPLIT = re.compile(
    r"(train|test|val|dev|eval|fold|split|part|batch|set|images?|masks?)(ing|id|idation|uation)?"
    r"([_\W].*|s?ets?|data|\d+|[a-z])?|holdout",
    re.IGNORECASE,
)
"""Names of parts of a data set: Train, TestA, validation, test_set, fold1, images and masks."""
PREFIX = re.compile(r".+[\W_](?=train|test|val)", re.IGNORECASE)
"""What may stand before the name of a split: 1_train, cells-test."""
MASKS = r"masks?|segmentations?|annotations?|ground[ _-]?truths?"
MASK_FOLDER = re.compile(MASKS, re.IGNORECASE)
MASK_FILE = re.compile(rf"(.+?)[ _-]({MASKS}|seg|gt)", re.IGNORECASE)

logger = logging.getLogger(__name__)


def class_folders(folder, classes, key="dataset"):
    """Map class names to their folders, in the order of the labels.

    Names are compared in their composed Unicode form (NFC): file systems differ in how they
    compose accents, and a config is typed composed. Without `classes`, numbers in names are
    compared as numbers: 1, 2, 10.

    Args:
        folder: Path of the folder of class folders.
        classes: Class names in the order of the labels. None stands for all folders.
        key: Where `path` and `classes` stand in the config, for messages.

    Returns:
        Dict from class name to path.

    Raises:
        InputError: If a class folder is missing or unexpected, two have the same name, the
            folders are splits rather than classes, or the classes lie one level deeper.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder, expected a folder per class in it")
    paths = _subfolders(folder)
    if not paths:
        files = sum(not is_litter(path.name) for path in folder.iterdir())
        raise InputError(
            f"{folder}: found no class folders and {files} files, expected a folder per class;"
            f" if this is one class, set {key}.path to the folder above"
        )
    found = {}
    for path in paths:
        name = printable(unicodedata.normalize("NFC", path.name))
        if name in found:
            raise InputError(
                f"{folder}: found two folders with the same name, {ascii(found[name].name)} and"
                f" {ascii(path.name)}, which differ only in Unicode composition; rename one,"
                " or merge them"
            )
        found[name] = path
    wanted = [unicodedata.normalize("NFC", name) for name in classes or found]
    if len(set(wanted)) < len(wanted):
        raise InputError(
            f"{key}.classes: found one name twice, {', '.join(map(ascii, classes))}, which"
            " differ at most in Unicode composition, expected different names"
        )
    missing = [name for name in wanted if name not in found]
    unexpected = [name for name in found if name not in wanted]
    if classes is None or missing:
        _refuse_another_level(folder, paths, key)
    if missing or unexpected:
        raise InputError(
            f"{folder}: found the folders {', '.join(found)}; {key}.classes expects"
            f" {', '.join(wanted)}. Missing: {', '.join(missing) or 'none'};"
            f" unexpected: {', '.join(unexpected) or 'none'}"
        )
    alike = {}
    for name in wanted:
        plain = unicodedata.normalize("NFKC", found[name].name).casefold()
        alike.setdefault(re.sub(r"[\W_]", "", plain) or name, []).append(name)
    for names in alike.values():
        if len(names) > 1:
            logger.info(
                f"{folder}: the folders {', '.join(map(repr, names))} differ only in case or"
                " punctuation and are read as different classes"
            )
    return {name: found[name] for name in wanted}


def files(class_folder):
    """List what lies below a class folder, by relative path.

    Returns:
        Paths of all files, and of linked folders, which are not entered.

    Raises:
        InputError: If a folder cannot be listed.
    """

    def refuse(error):
        raise InputError(f"{error.filename}: cannot be listed ({error.strerror})") from error

    paths = []
    for parent, folders, names in os.walk(class_folder, onerror=refuse):
        folders[:] = [name for name in folders if not is_litter(name)]
        links = [name for name in folders if os.path.islink(os.path.join(parent, name))]
        paths += [Path(parent, name) for name in (*names, *links) if not is_litter(name)]
    return sorted(paths, key=lambda path: path.relative_to(class_folder).as_posix())


def masks(paths, class_folder):
    """Find the masks and annotations that lie beside pictures, by their names.

    Args:
        paths: Paths below a class folder, as `files` lists them.
        class_folder: Path of the class folder.

    Returns:
        Dict from the path of a mask to the reason that it is taken for one: it lies in a
        folder called masks or the like, or beside `a.png` and is called `a_mask.png` or the
        like.
    """
    stems = {(path.parent, path.stem) for path in paths}
    reasons = {}
    for path in paths:
        inside = path.relative_to(class_folder).parts[:-1]
        named = MASK_FILE.fullmatch(path.stem)
        if any(MASK_FOLDER.fullmatch(part) for part in inside):
            reasons[path] = "mask: in a folder of masks"
        elif named and (path.parent, named[1]) in stems:
            reasons[path] = f"mask: of {printable(named[1])}"
    return reasons


def _subfolders(folder):
    """List folders in natural order: numbers in their names compare as numbers."""

    def natural(path):
        # Text and numbers alternate, so that like is compared with like.
        parts = re.split(r"(\d+)", unicodedata.normalize("NFC", path.name))
        return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name

    inside = (path for path in Path(folder).iterdir() if not is_litter(path.name))
    return sorted((path for path in inside if path.is_dir()), key=natural)


def _refuse_another_level(folder, paths, key):
    """Raise InputError if the folders are splits, or a single one around the classes."""
    holding = [path for path in paths if _subfolders(path)]
    splits = [path for path in paths if SPLIT.fullmatch(path.name)]
    if len(splits) < 2:
        splits = [path for path in holding if SPLIT.fullmatch(PREFIX.sub("", path.name))]
    if len(splits) > 1:
        names = ", ".join(path.name for path in splits)
        raise InputError(
            f"{folder}: found the folders {names}, which are parts of a data set, such as"
            f" splits, and no classes; set {key}.path to one of them, such as {splits[0]}"
            ", or merge their class folders into one: the workflow splits the images itself"
            " and keeps near duplicates together. If they are classes, name them in"
            f" {key}.classes"
        )
    shared = set.intersection(*({path.name for path in _subfolders(path)} for path in paths))
    if len(paths) > 1 and len(shared) > 1:
        logger.info(
            f"{folder}: the folders {', '.join(path.name for path in paths)} are read as the"
            f" classes, and each holds the folders {', '.join(sorted(shared))}; if these are"
            f" the classes, merge them into one folder each and set {key}.path to what holds"
            " them"
        )
    if len(paths) == 1:
        deeper = paths[0]
        while len(inside := _subfolders(deeper)) == 1:
            deeper = inside[0]
        if inside:
            raise InputError(
                f"{folder}: found one folder, {paths[0].name}, with the folders"
                f" {', '.join(path.name for path in inside)} in it; set {key}.path to"
                f" {deeper}"
            )
        raise InputError(
            f"{folder}: found one folder, {paths[0].name}, expected two classes or more"
        )
