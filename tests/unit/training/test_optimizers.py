"""Weight decay pulls at kernels and leaves everything else alone."""

import keras
import numpy as np
import pytest

from hemagrid.models import backbones
from hemagrid.training.optimizers import build_optimizer


def network():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8,))
    x = keras.layers.Dense(6, name="kernel_of_dense")(inputs)
    x = keras.layers.BatchNormalization(gamma_initializer="ones")(x)
    x = keras.layers.Reshape((3, 2))(x)
    x = keras.layers.MultiHeadAttention(2, 2)(x, x)  # whose biases have two dimensions
    x = keras.layers.LayerNormalization()(x)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(("name", "weight_decay"), [("adam", 0.1), ("adamw", None)])
def test_weight_decay_pulls_at_kernels_alone(name, weight_decay):
    model = network()
    variables = model.trainable_variables
    for each in variables:
        each.assign(np.full(each.shape, 2.0))
    optimizer = build_optimizer(name, 0.5, weight_decay, variables)
    optimizer.build(variables)
    optimizer.apply([keras.ops.zeros(each.shape) for each in variables])
    decay = weight_decay or keras.optimizers.AdamW().weight_decay
    for each in variables:
        pulled = 2 * (1 - 0.5 * decay) if each.name == "kernel" else 2.0
        np.testing.assert_allclose(each, pulled, rtol=1e-6, err_msg=each.path)
    assert {each.name for each in variables} == {"kernel", "bias", "gamma", "beta"}


def test_layer_scale_is_left_alone():
    backbone = backbones.build_backbone("ConvNeXtTiny", 32)
    variables = backbone.trainable_variables
    optimizer = build_optimizer("adam", 0.5, 0.1, variables)
    scales = [each for each in variables if "layer_scale" in each.path]
    assert scales
    assert not any(optimizer._use_weight_decay(each) for each in scales)
    kernels = [each for each in variables if each.ndim > 1]
    assert all(optimizer._use_weight_decay(each) for each in kernels)
