"""The two networks of the study that start from nothing, layer by layer."""

from pathlib import Path

import keras
import numpy as np
import pytest
import yaml

from hemagrid.models.cnns import build_cnn

CONFIG = Path(__file__).parents[3] / "config" / "config.yaml"
CNNS = yaml.safe_load(CONFIG.read_text())["cnns"]
LAYERS = {
    "baseline_cnn": [
        "Conv2D 32 relu",
        "MaxPooling2D",
        "Conv2D 64 relu",
        "MaxPooling2D",
        "Flatten",
        "Dense 128 relu",
        "Dense 8 softmax",
    ],
    "regularized_cnn": [
        "Conv2D 32 relu",
        "MaxPooling2D",
        "BatchNormalization",
        "Dropout 0.3",
        "Conv2D 64 relu",
        "MaxPooling2D",
        "BatchNormalization",
        "Dropout 0.3",
        "Flatten",
        "Dense 128 relu",
        "Dropout 0.4",
        "Dense 8 softmax",
    ],
}


def described(layer):
    name = type(layer).__name__
    match layer:
        case keras.layers.Dense():
            return f"{name} {layer.units} {layer.activation.__name__}"
        case keras.layers.Conv2D():
            assert layer.kernel_size == (3, 3)
            return f"{name} {layer.filters} {layer.activation.__name__}"
        case keras.layers.Dropout():
            return f"{name} {layer.rate}"
    return name


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_those_of_the_study(name):
    model = build_cnn(CNNS[name], image_size=96, classes=8)
    assert [described(layer) for layer in model.layers[1:]] == LAYERS[name]
    assert model.input.shape == (None, 96, 96, 3)


@pytest.mark.parametrize("name", LAYERS)
def test_output_is_probabilities_of_raw_pixels(name, draw):
    model = build_cnn(CNNS[name], image_size=32, classes=3)
    found = np.asarray(model(draw(range(4), 32)))
    assert (found.shape, found.dtype) == ((4, 3), np.float32)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
