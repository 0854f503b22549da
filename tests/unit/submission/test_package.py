import importlib.util
import json
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

from hemagrid import io
from hemagrid.errors import InputError
from hemagrid.evaluation.ensembles import Combined
from hemagrid.models import backbones, cnns
from hemagrid.submission import package
from hemagrid.training import embeddings

CLASSES = ["basophil", "ig", "platelet"]
CNN = {"filters": [4], "batch_norm": False, "dropout": 0, "dense": 8, "dense_dropout": 0}

# What get_config() gives under Keras 3.4.1, by class; `_LAYER` in all layers.
_LAYER = "name trainable dtype"
_CONV = "kernel_size strides padding data_format dilation_rate activation use_bias"
_CONV += " bias_initializer bias_regularizer bias_constraint activity_regularizer"
_NORM = "axis epsilon center scale beta_initializer gamma_initializer beta_regularizer"
_NORM += " gamma_regularizer beta_constraint gamma_constraint"
KERAS_3_4 = {
    "Activation": f"{_LAYER} activation",
    "Add": _LAYER,
    "BatchNormalization": f"{_LAYER} {_NORM} momentum synchronized moving_mean_initializer"
    " moving_variance_initializer",
    "Conv2D": f"{_LAYER} {_CONV} filters groups kernel_initializer kernel_regularizer"
    " kernel_constraint",
    "DTypePolicy": "name",
    "Dense": f"{_LAYER} units activation use_bias kernel_initializer bias_initializer"
    " kernel_regularizer bias_regularizer kernel_constraint bias_constraint",
    "DepthwiseConv2D": f"{_LAYER} {_CONV} depth_multiplier depthwise_initializer"
    " depthwise_regularizer depthwise_constraint",
    "Dropout": f"{_LAYER} rate seed noise_shape",
    "Flatten": f"{_LAYER} data_format",
    "Functional": "name trainable layers input_layers output_layers",
    "GetItem": "",
    "GlobalAveragePooling2D": f"{_LAYER} data_format keepdims",
    "GlorotUniform": "seed",
    # Takes any further key.
    "Identity": _LAYER,
    "InputLayer": "name dtype batch_shape sparse ragged optional",
    "LayerNormalization": f"{_LAYER} {_NORM} rms_scaling",
    "LayerScale": f"{_LAYER} init_values projection_dim",
    "MaxPooling2D": f"{_LAYER} pool_size strides padding data_format",
    "Multiply": _LAYER,
    "Normalization": f"{_LAYER} axis mean variance invert",
    "Ones": "",
    "ReLU": f"{_LAYER} max_value negative_slope threshold",
    "Rescaling": f"{_LAYER} scale offset",
    "Resizing": f"{_LAYER} height width interpolation crop_to_aspect_ratio pad_to_aspect_ratio"
    " fill_mode fill_value data_format",
    "Reshape": f"{_LAYER} target_shape",
    "Sequential": f"{_LAYER} layers build_input_shape",
    "Stack": "axis",
    "VarianceScaling": "scale mode distribution seed",
    "ZeroPadding2D": f"{_LAYER} padding data_format",
    "Zeros": "",
    "__ellipsis__": "",
    "__keras_tensor__": "shape dtype keras_history",
    "__tensor__": "value dtype",
}


@pytest.fixture(scope="module")
def model(run, tmp_path_factory):
    """The module `model` of an unpacked package."""
    return unpacked(run.package, tmp_path_factory.mktemp("unpacked"))


def unpacked(path, folder):
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# The package


def test_a_package_holds_two_files_and_is_always_the_same(run, tmp_path):
    with zipfile.ZipFile(run.package) as archive:
        assert archive.namelist() == ["model.py", "model.keras"]
        assert archive.read("model.py") == package.MODEL.read_bytes()
        archive.extract("model.keras", tmp_path)
    again = tmp_path / "again.zip"
    package.package("other", {"models": [run.model]}, {"submission": again})
    assert again.read_bytes() == run.package.read_bytes()
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        config = json.loads(archive.read("config.json"))
        assert archive.testzip() is None
    with zipfile.ZipFile(run.model) as archive:
        original = json.loads(archive.read("config.json"))
    assert config == package.for_older_keras(original) != original


@pytest.mark.parametrize(("views", "count"), [(1, 2), (8, 1)])
def test_an_ensemble_and_a_run_with_views_are_packaged(run, tmp_path, views, count):
    networks = [run.network, cnns.build_cnn(CNN, *run.network.input_shape[1:2], len(CLASSES))]
    for number, network in enumerate(networks):
        (tmp_path / f"run_{number}").mkdir()
        network.save(tmp_path / f"run_{number}" / "model.keras")
    cost = {"members": [f"run_{number}" for number in range(count)], "views": views}
    io.write_json(tmp_path / "cost.json", cost)
    paths = [tmp_path / f"run_{number}" / "model.keras" for number in range(2)]
    inputs = {"models": paths, "cost": tmp_path / "cost.json"}
    package.package("both", inputs, {"submission": tmp_path / "both.zip"})
    labels = unpacked(tmp_path / "both.zip", tmp_path / "unpacked").Model().predict(run.images)
    combined = Combined(networks[:count], views > 1)
    expected = embeddings.predict(combined, run.images).argmax(axis=1)
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped"])
def test_a_damaged_model_is_not_packaged(run, tmp_path, damage):
    whole = run.model.read_bytes()
    middle = len(whole) // 2  # of the weights
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    path = tmp_path / "model.keras"
    path.write_bytes({"empty": b"", "cut": whole[:middle], "flipped": flipped}[damage])
    with pytest.raises(InputError, match="model.keras: damaged, or not saved by Keras"):
        package.package("tiny", {"models": [path]}, {"submission": tmp_path / "submission.zip"})
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def configs(value):
    """Yield (class name, keys of its config) for all that a model's config describes."""
    if isinstance(value, dict):
        if isinstance(value.get("config"), dict) and "class_name" in value:
            yield value["class_name"], set(value["config"])
        value = list(value.values())
    for part in value if isinstance(value, list) else ():
        yield from configs(part)


# The smallest of each family that the study takes its backbones from, and VGG16.
@pytest.mark.parametrize(
    "application", [None, "MobileNetV3Large", "EfficientNetV2B0", "ConvNeXtTiny", "VGG16"]
)
def test_nothing_is_left_that_older_keras_refuses(run, application):
    network = backbones.build_backbone(application, 48) if application else run.network
    config = package.for_older_keras(json.loads(network.to_json()))
    found = list(configs(config))
    assert len(found) > len(network.layers)
    unknown = [
        (name, keys - set(KERAS_3_4[name].split()))
        for name, keys in found
        if not keys <= set(KERAS_3_4[name].split())
    ]
    assert not unknown
    shapes = [weights.shape for weights in network.weights]
    again = keras.models.model_from_json(json.dumps(config))
    assert [weights.shape for weights in again.weights] == shapes


def test_a_resized_network_of_the_users_own_is_one_of_them():
    pixels = keras.Input((48, 48, 3))
    x = keras.layers.Resizing(32, 32)(pixels)
    features = keras.layers.Identity()(keras.layers.GlobalAveragePooling2D()(x))
    config = package.for_older_keras(json.loads(keras.Model(pixels, features).to_json()))
    assert all(keys <= set(KERAS_3_4[name].split()) for name, keys in configs(config))


def test_layers_that_keras_does_not_have_are_refused(run, tmp_path):
    class Odd(keras.layers.Layer):
        def call(self, x):
            return x

    network = keras.Sequential([keras.Input((4, 4, 3)), Odd(), keras.layers.Flatten()])
    network.save(tmp_path / "model.keras")
    with pytest.raises(
        InputError, match=r"model\.keras: found \w+'s Odd, expected layers of Ke"
    ):
        package.package(
            "odd", {"models": [tmp_path / "model.keras"]}, {"submission": tmp_path / "z"}
        )
    assert not (tmp_path / "z").exists()


def test_a_key_with_another_value_stays():
    layer = {"class_name": "BatchNormalization", "config": {"renorm": True, "axis": -1}}
    assert package.for_older_keras([layer]) == [layer]


# Its class Model


def test_pictures_of_any_type_and_number_are_classified(model, run, monkeypatch):
    network = model.Model()  # from another working directory than its own
    expected = embeddings.predict(run.network, run.images).argmax(axis=1)
    shapes = []
    predict = network.networks[0].predict_on_batch
    monkeypatch.setattr(
        network.networks[0], "predict_on_batch", lambda x: shapes.append(x.shape) or predict(x)
    )
    images = run.images
    for pixels in (images, images.astype(float), images[:1], images[:0]):
        labels = network.predict(pixels)
        assert (labels.dtype, labels.shape) == (np.int64, (len(pixels),))
        np.testing.assert_array_equal(labels, expected[: len(pixels)])
    assert set(shapes) == {(model.BATCH, *images.shape[1:])} and model.BATCH < len(images)


@pytest.mark.parametrize("size", [16, 48, 71, 96, 128])
def test_pictures_are_resized_as_for_training(model, size):
    noise = np.random.default_rng(0).integers(0, 256, (4, 96, 96, 3), dtype=np.uint8)
    expected = [
        Image.fromarray(p).resize((size, size), Image.Resampling.LANCZOS) for p in noise
    ]
    found = model.resized(noise, size)
    difference = abs(found - np.stack([np.asarray(picture) for picture in expected]))
    # Pillow computes in integers, so a value halfway may be rounded to the other side.
    assert difference.max() <= 1 and (difference > 0).mean() < 0.001
    if size == 96:
        np.testing.assert_array_equal(found, noise)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((16, 16, 3), float),
        ((2, 16, 16), float),
        ((2, 16, 17, 3), float),
        ((2, 16, 16, 4), float),
        ((2, 0, 0, 3), float),
        ((2, 16, 16, 3), bool),
        ((2, 16, 16, 3), object),
    ],
)
def test_anything_but_square_colour_pictures_is_refused(model, shape, dtype):
    with pytest.raises(ValueError, match=r"expected uint8 or float \(n, S, S, 3\)"):
        model.Model().predict(np.zeros(shape, dtype))
