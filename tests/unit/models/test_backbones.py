"""Our backbones are keras.applications' networks, cut in two without a difference."""

import functools
import hashlib
import http.server
import inspect
import os
import shutil
import sys
import threading
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
import yaml

from hemagrid import io
from hemagrid.config.loading import ROOT
from hemagrid.errors import InputError
from hemagrid.models import backbones
from hemagrid.training import backend

SIZE = 48
FETCHED = "MobileNetV3Small"
SMALL = "MobileNet"


def as_a_user_builds_it(application, size=SIZE):
    constructor = getattr(keras.applications, application)
    return constructor(
        include_top=False, weights=None, pooling="avg", input_shape=(size, size, 3)
    )


def shake(network, pixels):
    """Make every weight matter: none stays at 0, 1 or 1e-6, and a signal passes."""
    rng = np.random.default_rng(0)
    for variable in network.weights:
        if variable.ndim == 1:
            values = np.asarray(variable)
            variable.assign(values + rng.uniform(0.1, 0.3, values.shape))
    for norm in backbones.batch_normalizations(network):
        norm.momentum = 0.0
    network(pixels.astype("float32"), training=True)


def loaded(application, path):
    return backbones.load_backbone({"application": application, "top": "any"}, SIZE, path)[0]


def features(network, pixels):
    return network.predict_on_batch(np.asarray(pixels, "float32"))


@pytest.fixture(scope="module")
def calibrated(draw):
    return backbones.random_backbone(SMALL, draw(range(32)), seed=1)


def test_backbone_is_the_shipped_network(network, draw):
    shipped = as_a_user_builds_it(network.application)
    shipped.set_weights(
        [
            # A depthwise kernel, (h, w, c, 1) in our layout, (h, w, 1, c) in theirs.
            ours if ours.shape == theirs.shape else ours.transpose(0, 1, 3, 2)
            for ours, theirs in zip(network.weights, shipped.weights, strict=True)
        ]
    )
    pixels = draw(range(4)).astype("float32")
    module = sys.modules[getattr(keras.applications, network.application).__module__]
    # The identity except for VGG16, which leaves preprocessing to its user.
    expected = features(shipped, module.preprocess_input(pixels.copy()))
    found = features(network.backbone, pixels)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * expected.std())

    # Back into our layout, as for weights from ImageNet or a file.
    network.backbone.set_weights([0 * values for values in network.weights])
    backbones._copy_weights(shipped, network.backbone)
    for copied, values in zip(network.backbone.get_weights(), network.weights, strict=True):
        np.testing.assert_array_equal(copied, values)


def test_no_convolution_is_left_in_groups(network):
    assert all(getattr(layer, "groups", 1) == 1 for layer in network.backbone.layers)


def test_half_precision_is_for_products_alone(draw):
    def built(precision):
        backend.begin(1, precision)
        network = backbones.build_backbone(SMALL, SIZE)
        return network, features(network, draw(range(4)))

    half, found = built("mixed_bfloat16")
    _, expected = built("float32")
    kinds = {type(layer).__name__ for layer in half.layers if layer.compute_dtype == "bfloat16"}
    assert kinds == {"Conv2D"}
    assert all(weight.dtype == "float32" for weight in half.weights)
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.1 * expected.std())
    assert not np.array_equal(found, expected)


def test_backbone_stays_in_inference_mode_inside_a_model_that_trains(network, draw):
    for norm in backbones.batch_normalizations(network.backbone):
        norm.trainable = False
    pixels = keras.Input((SIZE, SIZE, 3))
    model = keras.Model(pixels, network.backbone(pixels, training=False))
    images = draw(range(4)).astype("float32")
    np.testing.assert_array_equal(model(images, training=True), model(images, training=False))


@pytest.mark.parametrize("application", [SMALL, "VGG16"])
def test_weights_that_a_user_saved(application, draw, tmp_path):
    own = as_a_user_builds_it(application)
    shake(own, draw(range(8)))
    own.save_weights(tmp_path / "own.weights.h5")
    backbones.write_weights(
        tmp_path / "out.weights.h5",
        {"application": application, "weights": "own.weights.h5"},
        SIZE,
        seed=1,
        weights=tmp_path / "own.weights.h5",
    )
    ours = loaded(application, tmp_path / "out.weights.h5")
    for found, expected in zip(ours.get_weights(), own.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_trunk_and_top_are_the_backbone(network, draw):
    trunk, top = backbones.cut_backbone(network.backbone, network.boundary)
    pixels = draw(range(4))
    activations = features(trunk, pixels)
    assert activations.ndim == 4
    np.testing.assert_array_equal(
        features(top, activations), features(network.backbone, pixels)
    )
    shared = {id(variable) for variable in (*trunk.variables, *top.variables)}
    assert shared == {id(variable) for variable in network.backbone.variables}
    assert top.count_params() > 0


def test_random_weights_pass_a_signal(network, draw):
    found = features(network.backbone, draw(range(8), seed=5))
    assert np.isfinite(found).all()
    assert found.std() > 0.01
    # Images differ by more than rounding, against what they have in common.
    assert found.std(axis=0).mean() > 0.01 * found.std()


def test_random_weights_follow_from_the_seed(calibrated, draw):
    again, other = (
        backbones.random_backbone(SMALL, draw(range(32)), seed).get_weights() for seed in (1, 2)
    )
    kernels_differ = []
    for first, same, new in zip(calibrated.get_weights(), again, other, strict=True):
        np.testing.assert_array_equal(first, same)
        if first.ndim == 4:
            kernels_differ.append((first != new).any())
    assert all(kernels_differ)


def test_statistics_of_random_weights_come_from_training_images(draw, tmp_path):
    ids = np.arange(24)
    io.write_table(
        tmp_path / "splits.csv",
        pd.DataFrame({"id": ids, "split": np.where(ids < 12, "train", "test")}),
    )

    pixels = draw(ids)
    with io.new_array(tmp_path / "images.npy", pixels.shape, "uint8") as array:
        array[:] = pixels
    backbones.write_weights(
        tmp_path / "out.weights.h5",
        {"application": SMALL, "weights": "random"},
        SIZE,
        seed=3,
        images=tmp_path / "images.npy",
        splits=tmp_path / "splits.csv",
    )
    found = loaded(SMALL, tmp_path / "out.weights.h5")
    expected = backbones.random_backbone(SMALL, pixels[:12], seed=3)
    for one, two in zip(found.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_a_file_of_another_network_is_refused(calibrated, tmp_path):
    path, out = tmp_path / "own.weights.h5", tmp_path / "out.weights.h5"
    calibrated.save_weights(path)
    settings = {"application": "VGG16", "weights": str(path)}
    with pytest.raises(InputError, match=r"own\.weights\.h5.*VGG16"):
        backbones.write_weights(out, settings, SIZE, seed=1, weights=path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_file_is_refused(calibrated, tmp_path):
    path = tmp_path / "own.weights.h5"
    calibrated.save_weights(path)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(InputError, match=r"own\.weights\.h5.*MobileNet"):
        backbones.saved_backbone(SMALL, SIZE, path)


def test_an_unknown_layer_is_refused_with_what_is_close(calibrated):
    with pytest.raises(InputError, match="conv_pw_11_relu"):
        backbones.cut_backbone(calibrated, "conv_pw_11_rely")


def test_a_layer_that_a_shortcut_bypasses_is_refused():
    backbone = backbones.build_backbone(FETCHED, SIZE)
    with pytest.raises(InputError, match="squeeze_excite_conv.*bypasses"):
        backbones.cut_backbone(backbone, "expanded_conv_5_squeeze_excite_conv")


@pytest.fixture
def keras_cache():
    folder = Path(os.environ["KERAS_HOME"]) / "models"
    shutil.rmtree(folder, ignore_errors=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def weights_server(keras_cache, draw, tmp_path, monkeypatch):
    """Serve weights of MobileNetV3Small where keras.applications looks for ImageNet's.

    Yields (network, file name, server, requests), requests being the paths asked for.
    """
    network = as_a_user_builds_it(FETCHED)
    shake(network, draw(range(8)))
    name = "weights_mobilenet_v3_small_224_1.0_float_no_top_v2.h5"
    served = tmp_path / "served"
    served.mkdir()
    network.save(served / name)
    requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            requests.append(self.path)

    server = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Handler, directory=served)
    )
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    shipped = inspect.getmodule(keras.applications.MobileNetV3Small)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(shipped, "BASE_WEIGHT_PATH", f"http://127.0.0.1:{server.server_port}/")
    checksum = hashlib.md5((served / name).read_bytes()).hexdigest()
    monkeypatch.setitem(shipped.WEIGHTS_HASHES, "small_224_1.0_float", ("absent", checksum))
    yield network, served / name, server, requests
    server.shutdown()
    server.server_close()
    thread.join()


def test_imagenet_weights_are_fetched_once(weights_server, keras_cache, draw, tmp_path, eager):
    network, served, _, requests = weights_server
    settings = {"application": FETCHED, "weights": "imagenet"}
    backbones.write_weights(tmp_path / "out.weights.h5", settings, SIZE, seed=1)
    ours = loaded(FETCHED, tmp_path / "out.weights.h5")
    expected = features(network, draw(range(4)))
    np.testing.assert_allclose(
        features(ours, draw(range(4))), expected, rtol=0, atol=1e-5 * expected.std()
    )
    assert (keras_cache / served.name).read_bytes() == served.read_bytes()
    backbones.imagenet_backbone(FETCHED, SIZE)
    assert requests == [f"/{served.name}"]


def test_weights_that_cannot_be_fetched_may_be_put_there_by_hand(weights_server, keras_cache):
    _, served, server, _ = weights_server
    source = served.rename(served.with_name("elsewhere"))
    with pytest.raises(InputError) as refusal:
        backbones.imagenet_backbone(FETCHED, SIZE)
    assert f"http://127.0.0.1:{server.server_port}/{served.name}" in str(refusal.value)
    assert str(keras_cache) in str(refusal.value)
    shutil.copy(source, keras_cache / served.name)
    backbones.imagenet_backbone(FETCHED, SIZE)


def test_weights_with_another_checksum_are_refused(weights_server, keras_cache, capsys):
    _, served, _, _ = weights_server
    served.write_bytes(served.read_bytes()[:-1])
    with pytest.raises(InputError, match="corrupted") as refusal:
        backbones.imagenet_backbone(FETCHED, SIZE)
    assert str(keras_cache) in str(refusal.value)
    assert served.name in capsys.readouterr().out


def test_the_config_knows_every_network_of_keras_applications():
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    backbone = schema["properties"]["backbones"]["additionalProperties"]["properties"]
    shipped = [name for name, _ in inspect.getmembers(keras.applications, inspect.isfunction)]
    assert backbone["application"]["enum"] == [None, *shipped]
