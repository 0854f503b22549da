"""Networks in other formats: with the same answers, or not at all."""

import pytest

from hemagrid.errors import InputError
from hemagrid.export import networks

CNN = {"filters": [4], "batch_norm": True, "dropout": 0.2, "dense": 8, "dense_dropout": 0}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network as it comes from a file, with what converters have stumbled over."""
    import keras
    import numpy as np

    from hemagrid.evaluation.inference import load_network
    from hemagrid.models.cnns import build_cnn

    keras.utils.set_random_seed(0)
    pixels = keras.Input((16, 16, 3))
    shifted = keras.activations.gelu(pixels - np.float32([103.9, 116.8, 123.7]))
    path = tmp_path_factory.mktemp("run") / "model.keras"
    convolution = keras.layers.Conv2D(3, 3, padding="same", use_bias=False)
    keras.Model(pixels, build_cnn(CNN, 16, 3)(convolution(shifted) + 3.0)).save(path)
    return load_network(path)


@pytest.mark.parametrize("format", networks.SUFFIXES)
def test_a_format_answers_as_keras_does_or_nothing_is_left(
    format, network, draw, tmp_path, monkeypatch, require_package, capfd, caplog
):
    if format == "onnx":
        require_package("tf2onnx", "onnx", "onnxruntime")
    out = tmp_path / "exports" / f"run{networks.SUFFIXES[format]}"
    # More than a batch, and the last one is not full.
    images = draw([label % 3 for label in range(70)], 16)
    assert networks.export_network(network, format, images, out) <= 1e-5
    assert "Traceback" not in capfd.readouterr().err + caplog.text
    first = {path: path.stat().st_mtime_ns for path in out.parent.rglob("*")}
    assert out in first
    monkeypatch.setattr(networks, "LARGEST", -1)
    with pytest.raises(InputError, match=f"probabilities of {format} that differ by up to"):
        networks.export_network(network, format, images, out)
    assert {path: path.stat().st_mtime_ns for path in out.parent.rglob("*")} == first


def test_a_network_that_a_format_cannot_hold_is_refused(draw, tmp_path):
    import keras

    pixels = keras.Input((16, 16, 3))
    # TFLite has no singular values.
    values = keras.ops.svd(keras.ops.mean(pixels, axis=-1), compute_uv=False)
    network = keras.Model(pixels, keras.ops.softmax(values))
    with pytest.raises(InputError, match="cannot be written as tflite"):
        networks.export_network(network, "tflite", draw([0, 1], 16), tmp_path / "run.tflite")
    assert not any(tmp_path.iterdir())


def test_a_folder_of_something_else_is_not_replaced(network, draw, tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match="holds no saved_model.pb"):
        networks.export_network(network, "savedmodel", draw([0], 16), tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_a_missing_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setitem(networks._PACKAGES, "onnx", ("no_such_package",))
    with pytest.raises(InputError, match="-m pip install no_such_package"):
        networks.check_packages("onnx")
