"""The format of predictions: a run's class probabilities for every image of a test set."""

import zipfile
from pathlib import Path

import numpy as np

from hemagrid.errors import InputError
from hemagrid.io import replacing

_ARRAYS = ("class_names", "labels", "probabilities", "groups", "key")


def write_predictions(path, class_names, labels, probabilities, groups, key=""):
    """Write the predictions of a run for a test set.

    Args:
        path: Where to write them, as `names.PREDICTIONS`.
        class_names: The names of the k classes, in the order of their labels.
        labels: The true classes (n,).
        probabilities: (n, k).
        groups: (n,). Rows of one group are not independent, so statistics resample them
            together.
        key: What `checkpoints.key_of` gave for the network and the images.
    """
    with replacing(path) as temporary:
        np.savez(
            temporary,
            class_names=np.array(class_names, dtype=str),
            labels=np.asarray(labels, np.int64),
            probabilities=np.asarray(probabilities, np.float32),
            groups=np.asarray(groups, np.int64),
            key=np.array(key),
        )


def read_predictions(paths):
    """Read the predictions of a run.

    Args:
        paths: One path per test set. The name of the file is that of the test set.

    Returns:
        The class names, and {test set: (labels, probabilities, groups)} in the order of the
        paths, as they were written.

    Raises:
        InputError: if a file is not such an archive, shapes disagree, a label is out of range,
            a row is not a probability distribution, or class names differ between files.
    """
    class_names, subsets = None, {}
    for path in map(Path, paths):
        arrays = _read(path)
        names = arrays["class_names"].tolist()
        if class_names not in (None, names):
            raise InputError(
                f"{path}: found the classes {', '.join(names)}, expected those of the other "
                f"test sets, {', '.join(class_names)}; remove the file and run again"
            )
        class_names = names
        parts = tuple(arrays[part] for part in ("labels", "probabilities", "groups"))
        _check(path, *parts, len(names))
        subsets[path.stem] = parts
    return class_names, subsets


def write_corrupted(path, class_names, labels, answers, groups, key=""):
    """Write the predictions of a run for corrupted copies of one test set.

    Args:
        path: Where to write them, as `names.CORRUPTED`.
        class_names, labels, groups, key: As in `write_predictions`.
        answers: {(kind, severity): probabilities (n, k)}.
    """
    with replacing(path) as temporary:
        np.savez(
            temporary,
            class_names=np.array(class_names, dtype=str),
            labels=np.asarray(labels, np.int64),
            probabilities=np.asarray([*answers.values()], np.float32),
            groups=np.asarray(groups, np.int64),
            key=np.array(key),
            kinds=np.array([kind for kind, _ in answers], dtype=str),
            severities=np.array([severity for _, severity in answers]),
        )


def read_corrupted(path):
    """Read predictions for corrupted images.

    Returns:
        (labels, {(kind, severity): probabilities}, groups), as they were written.

    Raises:
        InputError: as `read_predictions`.
    """
    arrays = _read(path, [*_ARRAYS, "kinds", "severities"])
    labels, groups = arrays["labels"], arrays["groups"]
    how = zip(arrays["kinds"].tolist(), arrays["severities"].tolist(), strict=True)
    answers = dict(zip(how, arrays["probabilities"], strict=True))
    for (kind, severity), probabilities in answers.items():
        where = f"{path}, {kind} {severity}"
        _check(where, labels, probabilities, groups, len(arrays["class_names"]))
    return labels, answers, groups


def stored_key(path):
    """Return the key that predictions were written with, or None if they cannot be read."""
    try:
        return str(_read(path)["key"])
    except (InputError, OSError):
        return None


def by_run(paths):
    """Gather the predictions that exist by run: {run: [path, ...]}, both in the order given."""
    found = {}
    for path in map(Path, paths):
        if path.exists():
            found.setdefault(path.parents[1].name, []).append(path)
    return found


def _read(path, names=_ARRAYS):
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
    except (ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise InputError(
            f"{path}: not an archive of predictions ({error}); remove it and run again"
        ) from error
    if missing := [name for name in names if name not in arrays]:
        raise InputError(f"{path}: lacks {', '.join(missing)}; remove it and run again")
    return arrays


def _check(where, labels, probabilities, groups, k):
    n = len(labels)
    if not n:
        raise InputError(f"{where}: no rows, expected at least one image")
    if labels.shape != (n,) or groups.shape != (n,) or probabilities.shape != (n, k):
        raise InputError(
            f"{where}: labels {labels.shape}, probabilities {probabilities.shape}, "
            f"groups {groups.shape}; expected ({n},), ({n}, {k}), ({n},)"
        )
    if labels.min() < 0 or labels.max() >= k:
        raise InputError(
            f"{where}: labels from {labels.min()} to {labels.max()}, expected 0 to {k - 1}"
        )
    bad = ~np.isfinite(probabilities).all(axis=1)
    if bad.any():
        raise InputError(
            f"{where}: {bad.sum()} rows hold NaN or infinite probabilities, the first "
            f"is row {bad.argmax()}; the training diverged, try a smaller learning rate"
        )
    # Half precision leaves a softmax off by up to about 1e-3.
    bad = (probabilities < 0).any(axis=1) | (abs(probabilities.sum(1) - 1) > 2e-3)
    if bad.any():
        raise InputError(
            f"{where}: {bad.sum()} rows are not probability distributions, the first is "
            f"row {bad.argmax()} with sum {probabilities[bad.argmax()].sum():.4g}; "
            "expected values of at least 0 that sum to 1 (a softmax output)"
        )
