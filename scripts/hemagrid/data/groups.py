"""Which images are of one patient or slide, as the config's `dataset.groups` tells.

Names of files count as equal if they differ in `\\` for `/`, a leading `./`, blanks at the ends
or in how accents are composed.
"""

import csv
import logging
import re
import unicodedata
from collections import Counter
from pathlib import PurePosixPath
from statistics import median

from hemagrid.errors import InputError

MISSING = {"", "na", "n/a", "nan", "none", "null"}
"""What stands where a group is not known, in lower case."""
LISTED = 5  # names in one error message

logger = logging.getLogger(__name__)


def check(config):
    """Check the table that `dataset.groups.csv` names, if it does.

    Args:
        config: Validated config.

    Raises:
        InputError: as `read_groups`.
    """
    groups = config["dataset"]["groups"]
    if groups and groups["csv"]:
        read_groups(groups["csv"])


def read_groups(path):
    """Read a CSV with the columns `file` and `group`; others are ignored.

    Args:
        path: Path of the CSV, in UTF-8.

    Returns:
        {name of the file: name of its group}, both without blanks at their ends.

    Raises:
        InputError: A column or a group is missing, or a file is in two groups.
    """
    groups = {}
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file, skipinitialspace=True, strict=True)
            header = [name.strip() for name in next(rows, [])]
            if [header.count(name) for name in ("file", "group")] != [1, 1]:
                raise InputError(
                    f"{path}: found the columns {', '.join(map(repr, header)) or 'none'},"
                    " expected file and group, once each, with commas between them"
                )
            for row in rows:
                if not any(cell.strip() for cell in row):
                    continue
                where = f"{path}, line {rows.line_num}"
                if len(row) != len(header):
                    raise InputError(
                        f"{where}: found {len(row)} cells, expected {len(header)} as in the"
                        " first line; put names that hold a comma in quotes"
                    )
                cells = dict(zip(header, row, strict=True))
                name, group = _spelled(cells["file"]), cells["group"].strip()
                if name == "." or _is_missing(group):
                    raise InputError(
                        f"{where}: found the file {cells['file']!r} and the group"
                        f" {cells['group']!r}, expected both; give a picture whose group is not"
                        " known a group of its own, or leave it out of the data set"
                    )
                if groups.setdefault(name, group) != group:
                    raise InputError(
                        f"{where}: found {name} in the group {group!r}, and before in"
                        f" {groups[name]!r}, expected every file in one group"
                    )
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{path}: cannot be read ({error}), expected a CSV in UTF-8 with the columns file"
            " and group"
        ) from None
    return groups


def name_groups(settings, sources, npz_path=None):
    """Name the group of each image.

    Args:
        settings: The config's `dataset.groups`: one of `pattern`, `csv` and `key`.
        sources: Column `source` of samples.csv: paths of files relative to `dataset.path`, or
            the rows of an npz in their order.
        npz_path: Path of the npz, for `key`.

    Returns:
        Names of groups, list of text (n,).

    Raises:
        InputError: An image has no group, or the CSV or npz is not as expected.
    """
    # Not above: the workflow imports this module, and no NumPy.
    from hemagrid.data import npz
    from hemagrid.data.pictures import printable

    sources = list(sources)
    hint = ""
    if settings["key"]:
        where = f"{npz_path}: {settings['key']!r}"
        found = npz.read_names(npz_path, settings["key"], len(sources))
    elif settings["csv"]:
        where = settings["csv"]
        table = read_groups(where)
        table = {_spelled(printable(name)): group for name, group in table.items()}
        found = [table.get(_spelled(source), "") for source in sources]
        hint = f"; the CSV names files such as {next(iter(table), 'none')!r}"
        used = sum(_spelled(source) in table for source in sources)
        if used < len(table):
            logger.info(f"{where}: {len(table) - used} files are no images of this data set")
    else:
        where = f"dataset.groups.pattern {settings['pattern']!r}"
        matches = [re.search(settings["pattern"], source) for source in sources]
        found = [(match["group"] or "").strip() if match else "" for match in matches]
    lacking = [source for source, name in zip(sources, found, strict=True) if _is_missing(name)]
    if lacking:
        named = ", ".join(map(repr, lacking[:LISTED])) + ", ..." * (len(lacking) > LISTED)
        raise InputError(
            f"{where}: found no group for {len(lacking)} of {len(sources)} images: {named};"
            f" expected one for each{hint}. Give a picture whose group is not known a group of"
            " its own, or leave it out of the data set"
        )
    names = [printable(name) for name in found]
    sizes = Counter(names).values()
    logger.info(
        f"Groups: {len(sizes)}, of {min(sizes)} to {max(sizes)} images (median"
        f" {median(sizes):g})"
    )
    if max(sizes) == 1:
        logger.warning("Groups: each image is a group of its own, so nothing is kept together")
    return names


def _spelled(name):
    name = unicodedata.normalize("NFC", name.strip().replace("\\", "/"))
    return str(PurePosixPath(name))


def _is_missing(group):
    return group.casefold() in MISSING
