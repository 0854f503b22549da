"""Keras kept out of the home folder; small pictures; the study's networks, one at a time."""

import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from hemagrid.training import jobs

# Keras reads this when it is imported, which is after this file.
_keras_home = tempfile.TemporaryDirectory()
os.environ["KERAS_HOME"] = _keras_home.name
jobs.prepare(threads=1)

_CONFIG = Path(__file__).parents[2] / "config" / "config.yaml"
_BACKBONES = yaml.safe_load(_CONFIG.read_text())["backbones"]
# The same blocks as in the study's networks of these families, fewer of them.
_SMALL = {
    "efficientnetv2b0": {"application": "EfficientNetV2B0", "top": "block5e_add"},
    "convnexttiny": {
        "application": "ConvNeXtTiny",
        "top": "convnext_tiny_downsampling_block_2",
    },
}


@pytest.fixture(scope="session")
def draw():
    """A function from labels to pictures uint8 (n, size, size, 3), of a hue per class."""

    def pictures(labels, size=48, seed=0):
        labels = np.asarray(labels)
        rng = np.random.default_rng(seed)
        cells = -(-size // 8)
        coarse = rng.integers(0, 128, (len(labels), cells, cells, 3), dtype="uint8")
        coarse[np.arange(len(labels)), :, :, labels % 3] += 127
        return coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :size, :size].copy()

    return pictures


@pytest.fixture
def eager():
    """Run networks step by step: for a few steps faster than building their graphs."""
    import tensorflow

    tensorflow.config.run_functions_eagerly(True)
    yield
    tensorflow.config.run_functions_eagerly(False)


@pytest.fixture(scope="session", params=_BACKBONES)
def session_network(request, draw):
    from hemagrid.models import backbones

    settings = (_BACKBONES | _SMALL)[request.param]
    backbone = backbones.random_backbone(settings["application"], draw(range(32)), seed=1)
    for layer in backbone.layers:
        # ConvNeXt starts with its blocks scaled to nothing: a test would not see them.
        if type(layer).__name__ == "LayerScale":
            layer.gamma.assign(np.full(layer.gamma.shape, 0.5))
    return SimpleNamespace(
        application=settings["application"],
        boundary=settings["top"],
        backbone=backbone,
        weights=backbone.get_weights(),
    )


@pytest.fixture
def network(session_network, eager):
    """A backbone of the study with weights that pass a signal; a test may train it."""
    yield session_network
    session_network.backbone.set_weights(session_network.weights)
    # Keras ignores an assignment of what is there already, for the layers inside as well.
    session_network.backbone.trainable = False
    session_network.backbone.trainable = True


@pytest.fixture(scope="session")
def sparing():
    """A class of arrays that refuse to be read by more than `most` rows at once."""

    class Sparing:
        def __init__(self, array, most):
            self.array, self.most = array, most
            self.shape, self.dtype = array.shape, array.dtype

        def __len__(self):
            return len(self.array)

        def __getitem__(self, rows):
            found = self.array[rows]
            count = found.size // self.array[0].size
            assert count <= self.most, f"{count} rows were read at once"
            return found

        def __array__(self, *args, **kwargs):
            raise AssertionError("all rows were read at once")

    return Sparing
