"""The heads of the study, layer by layer."""

import keras
import numpy as np
import pytest

from hemagrid.models.heads import build_head

HEADS = {
    "cfg1": {"dense": [], "batch_norm": False, "dropout": [0.3]},
    "cfg2": {"dense": [512], "batch_norm": True, "dropout": [0.4]},
    "cfg3": {"dense": [512, 256], "batch_norm": True, "dropout": [0.3, 0.1]},
    "plain": {"dense": [64], "batch_norm": False, "dropout": [0.0]},
}
LAYERS = {
    "cfg1": ["Dropout 0.3", "Dense 8 softmax"],
    "cfg2": ["Dense 512 relu", "BatchNormalization", "Dropout 0.4", "Dense 8 softmax"],
    "cfg3": [
        "Dense 512 relu",
        "BatchNormalization",
        "Dropout 0.3",
        "Dense 256 relu",
        "BatchNormalization",
        "Dropout 0.1",
        "Dense 8 softmax",
    ],
    "plain": ["Dense 64 relu", "Dropout 0.0", "Dense 8 softmax"],
}


def described(layer):
    if isinstance(layer, keras.layers.Dense):
        return f"Dense {layer.units} {layer.activation.__name__}"
    if isinstance(layer, keras.layers.Dropout):
        return f"Dropout {layer.rate}"
    return type(layer).__name__


@pytest.mark.parametrize("head", HEADS)
def test_layers(head):
    model = build_head(HEADS[head], features=960, classes=8)
    assert [described(layer) for layer in model.layers[1:]] == LAYERS[head]
    assert model.input.shape == (None, 960)


@pytest.mark.parametrize("head", HEADS)
def test_output_is_probabilities(head):
    model = build_head(HEADS[head], features=16, classes=8)
    found = np.asarray(model(np.random.default_rng(0).normal(size=(5, 16))))
    assert (found.shape, found.dtype) == ((5, 8), np.float32)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
