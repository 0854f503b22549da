"""The fused Adam takes the steps of Keras's own, in one operation per variable."""

import keras
import numpy as np
import pytest

from hemagrid.training.optimizers import build_optimizer


def plain(weight_decay):
    """Adam as Keras computes it; it decays what is named kernel."""
    if weight_decay is None:
        return keras.optimizers.Adam(0.01)
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def network():
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(16, activation="relu"), keras.layers.BatchNormalization()]
    return keras.Sequential([keras.Input((8,)), *layers, keras.layers.Dense(3)])


def trained(build, steps=50):
    """Train a network for some steps."""
    model = network()
    optimizer = build(model.trainable_variables)
    model.compile(optimizer, keras.losses.MeanSquaredError())
    random = np.random.default_rng(0)
    for _ in range(steps):
        model.train_on_batch(random.normal(size=(4, 8)), random.normal(size=(4, 3)))
    return model


@pytest.mark.parametrize("weight_decay", [None, 0.5])
def test_the_steps_are_those_of_keras(weight_decay):
    ours = trained(lambda variables: build_optimizer("adam", 0.01, weight_decay, variables))
    keras_own = trained(lambda variables: plain(weight_decay))
    untrained = network().get_weights()
    for weights, expected, start in zip(
        ours.get_weights(), keras_own.get_weights(), untrained, strict=True
    ):
        assert abs(expected - start).max() > 1e-3
        np.testing.assert_allclose(weights, expected, atol=1e-5)
    for variable, expected in zip(
        ours.optimizer.variables, keras_own.optimizer.variables, strict=True
    ):
        assert variable.shape == expected.shape
        np.testing.assert_allclose(variable, expected, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_is_one_operation_for_each_variable(name):
    import tensorflow

    model = network()
    optimizer = build_optimizer(name, 0.01)
    variables = model.trainable_variables
    optimizer.build(variables)
    step = tensorflow.function(lambda: optimizer.apply([v * 0 + 1 for v in variables]))
    kinds = [node.type for node in step.get_concrete_function().graph.get_operations()]
    assert kinds.count("ResourceApplyAdam") == len(variables)
    assert "Sqrt" not in kinds
