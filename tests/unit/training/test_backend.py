"""The Keras backend: seed, precision, device and gradient."""

import keras
import numpy as np
import pytest

from hemagrid.errors import InputError
from hemagrid.training import backend


def test_begin_seeds_and_sets_the_precision():
    draws = []
    for seed in (1, 1, 2):
        backend.begin(seed, "mixed_bfloat16")
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        layer = keras.layers.Dense(2)
        layer.build((None, 3))
        draws.append((np.random.rand(), *layer.get_weights()[0].ravel()))
    backend.begin(1)
    assert keras.config.dtype_policy().name == "float32"
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    "devices, kind",
    [(["cpu:0"], "cpu"), (["CPU:0", "gpu:0", "gpu:1"], "gpu"), (["tpu:0"], "tpu")],
)
def test_device(monkeypatch, devices, kind):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: devices)
    assert backend.device() == kind


def test_a_gradient_is_that_of_the_sum_of_the_values():
    inputs = np.array([[1.0, 2.0], [3.0, 4.0]], "float32")
    value, slopes = backend.gradient(lambda x: keras.ops.sum(x**2, axis=1), inputs)
    assert isinstance(value, np.ndarray) and isinstance(slopes, np.ndarray)
    np.testing.assert_allclose(value, [5, 25])
    np.testing.assert_allclose(slopes, 2 * inputs)


def test_a_backend_without_gradients_here_is_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(InputError, match="found torch, expected tensorflow or jax"):
        backend.gradient(keras.ops.sum, np.ones(2))
