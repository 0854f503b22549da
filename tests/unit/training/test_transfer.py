"""Training on caches is training through the frozen network, for each family of backbones."""

import keras
import numpy as np
import pytest

from hemagrid.models import backbones
from hemagrid.training.embeddings import predict
from hemagrid.training.trainer import Examples, Phase, Trainer
from hemagrid.training.transfer import TransferModel

from .conftest import (
    CLASSES,
    HEAD,
    LABELS,
    TRAINING,
    assert_different_weights,
    assert_equal_weights,
)


def statistics(model):
    """List gamma, beta, mean and variance of every BatchNormalization."""
    norms = backbones.batch_normalizations(model)
    return [values for norm in norms for values in norm.get_weights()]


def transfer(network):
    """Put a head on the network that always starts from the same weights and dropout seeds."""
    keras.utils.set_random_seed(7)
    return TransferModel(network.backbone, network.boundary, HEAD, CLASSES)


@pytest.fixture
def train(monkeypatch):
    """A function that trains steps of four examples, the same ones for the same phase."""
    # Validation is left out, because here it only costs time.
    monkeypatch.setattr("hemagrid.training.embeddings.predict", lambda model, inputs: None)
    monkeypatch.setattr("hemagrid.training.trainer.score", lambda *anything: (0.5, 0.5))

    def fit(phase, model, inputs):
        examples = Examples(inputs, LABELS[: len(inputs)])
        Trainer("run", TRAINING, CLASSES, seed=3).fit(
            Phase(phase, model, examples, examples, 4, 1, 1, 1e-3)
        )

    return fit


@pytest.mark.parametrize(
    "session_network",
    ["mobilenetv3", "efficientnetv2b0", "vgg16", "convnexttiny"],
    indirect=True,
)
def test_caches_teach_what_the_frozen_network_teaches(network, draw, train):
    pixels, norms = draw(LABELS[:8]), statistics(network.backbone)
    cached = transfer(network)
    head, trunk = cached.head.get_weights(), cached.trunk.get_weights()
    activations = predict(cached.trunk, pixels, batch_size=4)
    embeddings = predict(cached.top, activations, batch_size=4)
    train("feature_extraction", cached.freeze_for("feature_extraction"), embeddings)
    assert_equal_weights(network.backbone.get_weights(), network.weights)
    assert_different_weights(cached.head.get_weights(), head)
    first = cached.from_images.get_weights()

    top = cached.top.get_weights()
    train("finetune_top", cached.freeze_for("finetune_top"), activations)
    assert_equal_weights(cached.trunk.get_weights(), trunk)
    assert_equal_weights(statistics(network.backbone), norms)
    assert_different_weights(cached.top.get_weights(), top)
    second = cached.from_images.get_weights()

    network.backbone.set_weights(network.weights)
    whole = transfer(network)
    network.backbone.trainable = False
    train("feature_extraction", whole.from_images, pixels)
    assert_learned_the_same(first, whole.from_images.get_weights(), network)

    network.backbone.trainable = True
    below = True
    for layer in network.backbone.layers:
        layer.trainable = not (below or isinstance(layer, keras.layers.BatchNormalization))
        below = below and layer.name != network.boundary
    train("finetune_top", whole.from_images, pixels)
    assert_learned_the_same(second, whole.from_images.get_weights(), network)


def assert_learned_the_same(found, expected, network):
    """Compare weights to the bit, those of ConvNeXt to a tenth of what four steps may change.

    Its features differ in the last bits with an image's place in its batch, and Adam divides
    small gradients by small numbers.
    """
    tolerance = 4e-4 if network.application.startswith("ConvNeXt") else 0
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=tolerance)


@pytest.mark.parametrize("session_network", ["mobilenetv3"], indirect=True)
def test_finetune_all_trains_all_but_batch_normalization(network, draw, train):
    model = transfer(network)
    trained = model.freeze_for("finetune_all")
    norms = statistics(model.from_images)
    trunk, top = model.trunk.get_weights(), model.top.get_weights()
    train("finetune_all", trained, draw(LABELS[:4]))
    assert_equal_weights(statistics(model.from_images), norms)
    assert_different_weights(model.trunk.get_weights(), trunk)
    assert_different_weights(model.top.get_weights(), top)


# Those with layers that a file may not restore: operations, a class of its own. test_run.py
# loads a network of BatchNormalization.
@pytest.mark.parametrize("session_network", ["vgg16", "convnexttiny"], indirect=True)
def test_a_saved_network_gives_the_same_from_pixels(network, draw, tmp_path):
    model = transfer(network).from_images
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    pixels = draw(range(4))
    np.testing.assert_array_equal(
        predict(loaded, pixels, batch_size=4),
        predict(model, pixels, batch_size=4),
    )
