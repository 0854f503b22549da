"""Controls: runs without a network, whose scores bracket every metric."""

import zlib

import numpy as np

from hemagrid.errors import InputError
from hemagrid.evaluation.predictions import write_predictions
from hemagrid.io import class_names, read_table
from hemagrid.names import MAJORITY_CLASS, RANDOM_LABELS, TRAIN


def majority_class(train_labels, sizes, k, seed):
    """Always predict the commonest class of the training subset; ties go to the first class.

    Args:
        train_labels: int (n,).
        sizes: {subset: number of rows}.
        k: Number of classes.
        seed: Not used.

    Returns:
        {subset: one-hot float32 (rows, k)}.
    """
    label = np.bincount(train_labels, minlength=k).argmax()
    return {subset: _one_hot(np.full(n, label), k) for subset, n in sizes.items()}


def random_labels(train_labels, sizes, k, seed):
    """Predict a class drawn uniformly for each row, whatever the training subset holds.

    Arguments and result are as in `majority_class`. The draw of a subset depends on the seed
    and its name alone, not on the other subsets.
    """
    return {
        subset: _one_hot(
            np.random.default_rng([seed, zlib.crc32(subset.encode())]).integers(k, size=n),
            k,
        )
        for subset, n in sizes.items()
    }


CONTROLS = {MAJORITY_CLASS: majority_class, RANDOM_LABELS: random_labels}


def write_control(name, tables, seed, out):
    """Write the predictions of a control for every subset but the training subset.

    Args:
        name: One of `CONTROLS`.
        tables: {subset: path of its CSV}, with `train` among them.
        seed: The study's seed.
        out: {subset: path of its predictions}.

    Raises:
        InputError: if the name is unknown.
    """
    if name not in CONTROLS:
        raise InputError(f"control {name!r} is unknown, expected one of {', '.join(CONTROLS)}")
    subsets = {subset: read_table(path) for subset, path in tables.items()}
    train = subsets.pop(TRAIN)
    names = class_names(train)
    sizes = {subset: len(table) for subset, table in subsets.items()}
    probabilities = CONTROLS[name](train["label"].to_numpy(), sizes, len(names), seed)
    for subset, table in subsets.items():
        parts = (table["label"], probabilities[subset], table["group"])
        write_predictions(out[subset], names, *parts)


def _one_hot(labels, k):
    return np.eye(k, dtype=np.float32)[labels]
