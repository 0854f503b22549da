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
    ("flags", "precision", "warned"),
    [
        ("fpu avx2 fma", "mixed_bfloat16", True),
        ("fpu avx2 fma", "float32", False),
        ("fpu avx512_bf16", "mixed_bfloat16", False),
        (None, "mixed_bfloat16", False),  # not Linux
    ],
)
def test_half_precision_that_the_cpu_does_not_have(
    flags, precision, warned, monkeypatch, tmp_path, caplog
):
    monkeypatch.setattr(backend, "CPU", tmp_path / "cpuinfo")
    if flags:
        backend.CPU.write_text(f"processor : 0\nflags\t\t: {flags}\n")
    backend.begin(1, precision)
    backend.begin(1)
    assert ("several times as long as float32" in caplog.text) is warned


@pytest.fixture
def card(monkeypatch):
    """A function that lets Keras find a GPU of a compute capability."""
    import tensorflow

    def find(capability):
        details = {"device_name": "A card", "compute_capability": capability}
        config = tensorflow.config
        monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0"])
        monkeypatch.setattr(config, "list_physical_devices", lambda kind: ["GPU:0"])
        monkeypatch.setattr(config.experimental, "get_device_details", lambda device: details)

    yield find
    monkeypatch.undo()
    backend.begin(1)


@pytest.mark.parametrize(
    ("capability", "asked", "computed"),
    [
        ((9, 0), "float32", "float32"),
        ((8, 0), "tensorfloat32", "tensorfloat32"),
        ((7, 5), "tensorfloat32", "float32"),  # has no such arithmetic
        ((9, 0), "mixed_bfloat16", "mixed_bfloat16"),
        (None, "tensorfloat32", "float32"),
        (None, "mixed_bfloat16", "mixed_bfloat16"),
    ],
)
def test_the_precision_is_set_and_what_is_computed_is_said(capability, asked, computed, card):
    import tensorflow

    if capability:
        card(capability)
        assert backend.gpu() == ("A card", capability)
    backend.begin(1, asked)
    allowed = tensorflow.config.experimental.tensor_float_32_execution_enabled()
    assert allowed is (asked == "tensorfloat32")
    assert backend.precision() == computed


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
