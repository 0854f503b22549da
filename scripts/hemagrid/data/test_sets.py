"""Test sets: images of other sources, without the pictures that the study has already."""

import logging
from pathlib import Path

import numpy as np
import pandas as pd

from hemagrid import io
from hemagrid.config.messages import did_you_mean
from hemagrid.data.duplicates import (
    SHIFT,
    candidates,
    differences,
    exact_groups,
    fingerprint,
    groups,
    near_limits,
)
from hemagrid.data.folders import class_folders
from hemagrid.data.readers import copy_folder, copy_npz, log_counts
from hemagrid.errors import InputError

logger = logging.getLogger(__name__)


def acquire_test_set(name, path, kind, given, classes, settings, out):
    """Write the images of a test set as they come, under the study's class names.

    Args:
        name: Name of the test set.
        path: Path of the file or folder.
        kind: "npz", "folder", or "smears", which is a folder.
        given: The set's class map in the config, {their class: the study's class, or None}.
        classes: The study's class names in the order of the labels.
        settings: Dict with `image_size`, `fit`, `bit_depth` and `strict` of the study.
        out: Paths to write: `images` (.npy) and `table` (.csv, with the columns
            `readers.COLUMNS`).

    Raises:
        InputError: If the source is not as expected, or has a class that is none of the
            study's and is not in the class map.
    """
    key = f"test_sets.{name}"
    theirs = class_map(key, path, kind, given, classes)
    options = {
        "classes": list(theirs),
        "left_out": {
            their: f"class left out: {their}" for their, our in theirs.items() if our is None
        },
        "key": key,
        **{option: settings[option] for option in ("image_size", "fit")},
    }
    if kind == "npz":
        samples = copy_npz(path, out["images"], **options)
    else:
        options |= {option: settings[option] for option in ("bit_depth", "strict")}
        samples, _ = copy_folder(path, out["images"], **options)
    read = samples["skipped"] == ""
    ours = samples.loc[read, "class_name"].map(theirs)
    samples.loc[read, "class_name"] = ours
    samples.loc[read, "label"] = ours.map({our: label for label, our in enumerate(classes)})
    io.write_table(out["table"], samples)
    log_counts(samples)
    for their in options["left_out"]:
        rows = samples["class_name"][~read] == their
        logger.info(f"Class {their} of {name} is left out: {rows.sum()} images")
    if lacking := [our for our in classes if our not in set(ours)]:
        logger.info(
            f"{name} has no images of {', '.join(lacking)}, which are left out of its means"
        )


def class_map(key, path, kind, given, classes):
    """Say which class of the study each class of a test set is.

    The classes of a folder go by the map, and otherwise by their own name. Those of an npz are
    its labels: they go by the map or, without one, count through the study's classes.

    Args:
        key: Where the set stands in the config.
        path: Path of the file or folder.
        kind: "npz", "folder", or "smears", which is a folder.
        given: The map in the config, {their class: the study's class, or None}.
        classes: The study's class names in the order of the labels.

    Returns:
        {their class: the study's class, or None for one that is left out}, in the order of
        their labels.

    Raises:
        InputError: If a class is not known, on either side.
    """
    for their, our in given.items():
        if our is not None and our not in classes:
            raise InputError(
                f"{key}.classes.{their}: found {our!r}, expected a class of the study"
                f" ({', '.join(classes)}) or null{did_you_mean(our, classes)}"
            )
    if kind == "npz":
        if not given:
            return {str(label): our for label, our in enumerate(classes)}
        return {their: given[their] for their in sorted(given, key=int)}
    found = list(class_folders(path, None, key))
    for their in given:
        if their not in found:
            raise InputError(
                f"{key}.classes: found {their!r}, expected a folder of {path}"
                f" ({', '.join(found)}){did_you_mean(their, found)}"
            )
    unknown = [their for their in found if their not in given and their not in classes]
    if unknown:
        lines = [f"\n  {their}{did_you_mean(their.casefold(), classes)}" for their in unknown]
        raise InputError(
            f"{path}: found folders that are no classes of the study"
            f" ({', '.join(classes)}):{''.join(lines)}\nGive each of them one of these classes"
            f" in {key}.classes, or null to leave its images out"
        )
    return {their: given.get(their, their) for their in found}


def write_test_set(name, found, study, settings, out, threads=1):
    """Write the images of a test set that are new, and list the others.

    Args:
        name: Name of the test set.
        found: Paths `images` (.npy) and `table` (.csv) of the images as they came.
        study: Fingerprints of the study's images (`duplicates.fingerprint`), dropped ones
            included.
        settings: The config's `dataset`, as for `duplicates.deduplicate`.
        out: Paths to write: `images` (.npy), `table` (.csv, with the near-duplicate `group` of
            each image) and `left_out` (.csv, with the reason for each image and file that
            came and is not in the set).
        threads: Number of threads.

    Raises:
        InputError: If fewer than two classes are left.
    """
    images, table = io.open_images(found["images"]), io.read_table(found["table"])
    skipped = table[table["id"] == ""].rename(columns={"skipped": "reason"})
    table = table[table["id"] != ""].astype({"id": "int64", "label": "int64"})
    reason, difference, group = compare(fingerprint(images, threads), study, settings, name)
    new = reason == ""
    removed = table[~new].assign(reason=reason[~new], difference=difference[~new].round(4))
    columns = ["class_name", "source", "reason", "difference"]
    left_out = pd.concat([skipped.reindex(columns=columns), removed[columns]])
    inside = int(removed["reason"].str.startswith(f"duplicate of {name}").sum())
    counts = (
        f"{new.sum()} of {len(table)} images kept. Pictures that the study already has:"
        f" {len(removed) - inside}; duplicates among themselves: {inside}"
    )
    left = table["class_name"][new].unique()
    if len(left) < 2:
        raise InputError(
            f"test set {name}: {counts}. Found images of {', '.join(left) or 'no class'},"
            " expected new images of two classes or more; name another source in"
            f" test_sets.{name}"
        )
    io.write_table(out["left_out"], left_out)
    rows = np.flatnonzero(new)
    ids = np.arange(len(rows))
    with io.new_array(out["images"], (len(rows), *images.shape[1:]), "uint8") as array:
        io.copy_rows(images, rows, array)
    kept = table.iloc[rows][["id", "label", "class_name", "source", "sha256"]]
    kept = kept.assign(id=ids, parent_id=ids, copy=0, policy="original")
    io.write_table(out["table"], kept.assign(group=np.searchsorted(rows, group[rows])))
    logger.info(f"{name}: {counts}")


def read_test_sets(tables, left_out):
    """Read what `write_test_set` wrote of several test sets.

    Args:
        tables: Paths of the tables of their images, each called after its set.
        left_out: Paths of the tables of what was left out, in the same order.

    Returns:
        {name: (table, table of what was left out)}.
    """
    text = ("class_name", "source", "reason")
    return {
        Path(path).stem: (io.read_table(path), io.read_sparse(others, *text))
        for path, others in zip(tables, left_out, strict=True)
    }


def compare(found, study, settings, name):
    """Tell which images of a test set are not new, jointly with the study's images.

    Args:
        found: Fingerprints of the test set (`duplicates.fingerprint`), (n,).
        study: Fingerprints of the study's images, dropped ones included.
        settings: As for `write_test_set`.
        name: Name of the test set.

    Returns:
        Per image of the set, arrays (n,): the reason why it is left out ("", "duplicate of
        study image ID", "near duplicate of study image ID" or "duplicate of NAME image
        ID"), the difference from the image named (0 if new), and its near-duplicate group, the
        smallest row of it.
    """
    both = np.concatenate([study, found])
    left, right, views = candidates(both, np.arange(len(both)), settings)
    exact, difference = exact_groups(both, left, right, views, settings)
    reason = np.full(len(both), "", object)
    for image in np.flatnonzero(exact != np.arange(len(both))):
        whole, start = ("study", 0) if exact[image] < len(study) else (name, len(study))
        reason[image] = f"duplicate of {whole} image {exact[image] - start}"
    measured = differences(both, left, right, views, SHIFT)
    near = (
        (left < len(study)) & (right >= len(study)) & (measured <= near_limits(settings)[views])
    )
    near &= reason[right] == ""
    for pair in np.flatnonzero(near)[np.argsort(-measured[near])]:  # the closest comes last
        reason[right[pair]] = f"near duplicate of study image {left[pair]}"
        difference[right[pair]] = measured[pair]
    new = reason == ""
    new[: len(study)] = False
    pairs = new[left] & new[right]
    pairs = left[pairs], right[pairs], views[pairs]
    first, _ = groups(both, *pairs, near_limits(settings), SHIFT)
    part = slice(len(study), None)
    return reason[part], difference[part], first[part] - len(study)
