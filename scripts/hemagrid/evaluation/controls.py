"""Runs without a network that bracket every metric: what knowing nothing scores."""

import zlib

import numpy as np

from hemagrid.errors import InputError
from hemagrid.io import class_names, read_table
from hemagrid.names import TRAIN
from hemagrid.training.predictions import write_predictions


def majority_class(train_labels, sizes, k, seed):
    """Always the commonest class of the training subset (of equals, the first).

    `sizes` is {subset: rows}; returns {subset: one-hot float32 (rows, k)}.
    """
    label = np.bincount(train_labels, minlength=k).argmax()
    return {subset: _one_hot(np.full(n, label), k) for subset, n in sizes.items()}


def random_labels(train_labels, sizes, k, seed):
    """A class drawn uniformly for each row, whatever the training subset holds.

    A subset's draw depends on `seed` and its name alone, not on the other subsets.
    `sizes` is {subset: rows}; returns {subset: one-hot float32 (rows, k)}.
    """
    return {
        subset: _one_hot(
            np.random.default_rng([seed, zlib.crc32(subset.encode())]).integers(k, size=n),
            k,
        )
        for subset, n in sizes.items()
    }


CONTROLS = {"majority_class": majority_class, "random_labels": random_labels}


def write_control(name, tables, seed, out_path):
    """Write the predictions.npz of control `name` for every subset in `tables`.

    `tables` is {subset: path of its csv} and includes `train`, for which no prediction
    is written. Raises InputError when `name` is none of `CONTROLS`.
    """
    if name not in CONTROLS:
        raise InputError(f"control {name!r} is unknown, expected one of {', '.join(CONTROLS)}")
    subsets = {subset: read_table(path) for subset, path in tables.items()}
    train = subsets.pop(TRAIN)
    names = class_names(train)
    probabilities = CONTROLS[name](
        train["label"].to_numpy(),
        {subset: len(table) for subset, table in subsets.items()},
        len(names),
        seed,
    )
    write_predictions(
        out_path,
        names,
        {
            subset: (table["label"], probabilities[subset], table["parent_id"])
            for subset, table in subsets.items()
        },
    )


def _one_hot(labels, k):
    return np.eye(k, dtype=np.float32)[labels]
