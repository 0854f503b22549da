"""A small network, its package, and pictures of which it gets some right."""

from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest

from hemagrid.models import cnns
from hemagrid.submission.package import package

CLASSES = ["basophil", "ig", "platelet"]
SIZE = 16
CNN = {"filters": [4], "batch_norm": True, "dropout": 0.3, "dense": 8, "dense_dropout": 0.4}


@pytest.fixture(scope="package")
def run(tmp_path_factory, draw):
    folder = tmp_path_factory.mktemp("run")
    keras.utils.set_random_seed(3)
    network = cnns.build_cnn(CNN, SIZE, len(CLASSES))
    # A fresh network gives nearly the same answer to every picture.
    network.get_layer("probabilities").kernel.assign(
        np.random.default_rng(3).normal(size=(8, len(CLASSES)))
    )
    network.save(folder / "model.keras")
    package("tiny", {"models": [folder / "model.keras"]}, {"submission": folder / "a.zip"})
    labels = np.arange(150) % len(CLASSES)
    images = draw(labels, SIZE)
    np.save(folder / "test.npy", images)
    names = np.take(CLASSES, labels)
    table = pd.DataFrame({"label": labels, "class_name": names, "group": np.arange(150) // 2})
    table.to_csv(folder / "test.csv", index=False)
    return SimpleNamespace(
        folder=folder,
        model=folder / "model.keras",
        package=folder / "a.zip",
        network=network,
        images=images,
        labels=labels,
    )
