"""The format of predictions.npz: a run's class probabilities for every evaluated image."""

import zipfile

import numpy as np

from hemagrid.errors import InputError
from hemagrid.io import replacing
from hemagrid.names import SUBSET_TITLES

_PARTS = ("labels", "probabilities", "groups")


def write_predictions(path, class_names, subsets):
    """Write predictions.npz.

    Args:
        path: Where to write it.
        class_names: The names of the k classes, in the order of their labels.
        subsets: {name: (labels (n,), probabilities (n, k), groups (n,))}. Rows of one group
            are not independent, so statistics resample them together.
    """
    arrays = {"class_names": np.array(class_names, dtype=str)}
    for subset, (labels, probabilities, groups) in subsets.items():
        arrays[f"{subset}_labels"] = np.asarray(labels, np.int64)
        arrays[f"{subset}_probabilities"] = np.asarray(probabilities, np.float32)
        arrays[f"{subset}_groups"] = np.asarray(groups, np.int64)
    with replacing(path) as temporary:
        np.savez(temporary, **arrays)


def read_predictions(path):
    """Read predictions.npz.

    Returns:
        The class names, and {subset: (labels, probabilities, groups)} as they were written.

    Raises:
        InputError: if the file is not such an archive, shapes disagree, a label is out of
            range, or a row is not a probability distribution.
    """
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = dict(archive)
    except (ValueError, EOFError, zipfile.BadZipFile, TypeError) as error:
        raise InputError(
            f"{path}: not an archive of predictions ({error}); remove it and run again"
        ) from error
    wanted = {
        f"{subset}_{part}"
        for subset in SUBSET_TITLES
        for part in _PARTS
        if any(f"{subset}_{other}" in arrays for other in _PARTS)
    } | {"class_names"}
    if missing := sorted(wanted - arrays.keys()):
        raise InputError(f"{path}: lacks {', '.join(missing)}")
    class_names = arrays["class_names"].tolist()
    subsets = {}
    for subset in SUBSET_TITLES:
        if f"{subset}_labels" in arrays:
            parts = tuple(arrays[f"{subset}_{part}"] for part in _PARTS)
            _check(f"{path}, {subset}", *parts, len(class_names))
            subsets[subset] = parts
    if not subsets:
        raise InputError(
            f"{path}: no subset found, expected some of {', '.join(SUBSET_TITLES)}"
        )
    return class_names, subsets


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
