"""Settings of tiny networks, files of a tiny data set, and what the library logs."""

import logging

import numpy as np
import pandas as pd
import pytest

from hemagrid import io

CLASSES = 3
LABELS = np.arange(12) % CLASSES
HEAD = {
    "dense": [16],
    "batch_norm": True,
    "dropout": [0.3],
    "learning_rate": 1e-3,
    "weight_decay": None,
}
TRAINING = {
    "optimizer": "adam",
    "monitor": "val_loss",
    "class_weights": True,
    "precision": "float32",
}
CNN = {
    "filters": [4, 8],
    "dense": 8,
    "batch_norm": True,
    "dropout": 0.1,
    "dense_dropout": 0.1,
    "learning_rate": 1e-3,
    "epochs": 3,
    "patience": 3,
    "batch_size": 8,
}


def assert_equal_weights(found, expected):
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, two)


def assert_different_weights(found, expected):
    pairs = zip(found, expected, strict=True)
    assert any((one != two).any() for one, two in pairs)


@pytest.fixture
def logged(caplog):
    """A function that returns what the library has logged so far."""
    logger = logging.getLogger("hemagrid")
    level = logger.level
    logger.addHandler(caplog.handler)
    logger.setLevel(logging.DEBUG)
    yield lambda: "\n".join(caplog.messages)
    logger.removeHandler(caplog.handler)
    logger.setLevel(level)


@pytest.fixture(scope="package")
def data_set(tmp_path_factory, draw):
    """Files of 60 pictures: what `train_run` takes for a CNN."""
    folder = tmp_path_factory.mktemp("dataset")
    sizes = {"train": 30, "val": 10, "test": 8, "test_augmented": 12}
    inputs = {}
    for seed, (subset, count) in enumerate(sizes.items()):
        labels = np.arange(count) % CLASSES
        inputs[f"images_{subset}"] = folder / f"{subset}.npy"
        inputs[f"table_{subset}"] = folder / f"{subset}.csv"
        np.save(inputs[f"images_{subset}"], draw(labels, 32, seed))
        table = pd.DataFrame({"id": np.arange(count), "label": labels})
        # Names that a CSV reader may take for something else.
        table["class_name"] = np.array(["NA", "007", "true"])[labels]
        table["parent_id"] = table["id"]
        table["group"] = 100 + table["id"] // 2
        io.write_table(inputs[f"table_{subset}"], table)
    return inputs
