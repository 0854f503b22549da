"""A package holds all that it needs, loads under older Keras, and is scored in isolation."""

import importlib.util
import json
import zipfile

import keras
import numpy as np
import pandas as pd
import pytest

from hemagrid.errors import InputError
from hemagrid.io import read_json
from hemagrid.models import backbones, cnns
from hemagrid.submission import package, score
from hemagrid.training import embeddings

CLASSES = ["basophil", "ig", "platelet"]
SIZE = 16
CNN = {"filters": [4], "batch_norm": True, "dropout": 0.3, "dense": 8, "dense_dropout": 0.4}
SETTINGS = {
    "bootstrap": 200,
    "seed": 1,
    "classes": CLASSES,
    "image_size": SIZE,
    "set": "test",
}
# Answers by the hue that `draw` gives a class, whatever the size of the pictures.
BY_HUE = "return X.astype(float).mean(axis=(1, 2)).argmax(axis=1)"
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
    "InputLayer": "name dtype batch_shape sparse ragged optional",
    "LayerNormalization": f"{_LAYER} {_NORM} rms_scaling",
    "LayerScale": f"{_LAYER} init_values projection_dim",
    "MaxPooling2D": f"{_LAYER} pool_size strides padding data_format",
    "Multiply": _LAYER,
    "Normalization": f"{_LAYER} axis mean variance invert",
    "Ones": "",
    "ReLU": f"{_LAYER} max_value negative_slope threshold",
    "Rescaling": f"{_LAYER} scale offset",
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


def random_cnn():
    """A CNN whose answers depend on the picture, unlike those of a fresh one."""
    keras.utils.set_random_seed(3)
    network = cnns.build_cnn(CNN, SIZE, len(CLASSES))
    network.get_layer("probabilities").kernel.assign(
        np.random.default_rng(3).normal(size=(8, len(CLASSES)))
    )
    return network


@pytest.fixture(scope="module")
def run(tmp_path_factory, draw):
    """A network, its package, and pictures of which it gets some right."""
    folder = tmp_path_factory.mktemp("run")
    network = random_cnn()
    network.save(folder / "model.keras")
    out = {"submission": folder / "submission.zip"}
    package.package("tiny_cnn", {"model": folder / "model.keras"}, out)
    labels = np.arange(150) % len(CLASSES)
    images = draw(labels, SIZE)
    np.save(folder / "test.npy", images)
    pd.DataFrame(
        {
            "label": labels,
            "class_name": np.take(CLASSES, labels),
            "parent_id": np.arange(150) // 2,
        }
    ).to_csv(folder / "test.csv", index=False)
    return folder, network, images, labels


@pytest.fixture
def score(tmp_path, run):
    """A function that scores a zip, by default on the study's own images."""
    images = {"images": run[0] / "test.npy", "table": run[0] / "test.csv"}

    def scored(package, inputs=images, **settings):
        out = {"score": tmp_path / "codabench.json"}
        inputs = {"submission": package, **inputs}
        score.score("tiny_cnn", inputs, out, SETTINGS | settings)
        return read_json(out["score"])

    return scored


def written(path, predict, before=""):
    """Write a package whose class `Model` predicts by these lines."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "model.py",
            f"import os, sys\nimport numpy as np\n{before}\n"
            f"class Model:\n    def predict(self, X):\n        {predict}\n",
        )
    return path


def test_a_package_scores_what_the_run_predicts(run, score):
    folder, network, images, labels = run
    right = embeddings.predict(network, images).argmax(axis=1) == labels
    assert 0.1 < right.mean() < 0.9
    found = score(folder / "submission.zip")
    assert found["accuracy"]["value"] == right.mean()
    assert found["accuracy"]["low"] < right.mean() < found["accuracy"]["high"]
    assert (found["run"], found["set"], found["n"]) == ("tiny_cnn", "test", 150)
    assert found["keras"] == keras.__version__ and found["seconds"] > 0


def test_two_files_always_the_same(run, tmp_path):
    folder = run[0]
    with zipfile.ZipFile(folder / "submission.zip") as archive:
        assert archive.namelist() == ["model.py", "model.keras"]
        assert archive.read("model.py") == package.MODEL.read_bytes()
    again = {"submission": tmp_path / "submission.zip"}
    package.package("other", {"model": folder / "model.keras"}, again)
    assert again["submission"].read_bytes() == (folder / "submission.zip").read_bytes()


@pytest.fixture(scope="module")
def packed(run, tmp_path_factory):
    """The module `model` of an unpacked package."""
    folder = tmp_path_factory.mktemp("packed")
    with zipfile.ZipFile(run[0] / "submission.zip") as archive:
        archive.extractall(folder)
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_labels_of_any_kind_and_number_of_pictures(packed, run, monkeypatch):
    _, network, images, _ = run
    model = packed.Model()  # not from its own folder
    expected = embeddings.predict(network, images).argmax(axis=1)
    shapes = []
    predict = model.network.predict_on_batch
    monkeypatch.setattr(
        model.network, "predict_on_batch", lambda x: shapes.append(x.shape) or predict(x)
    )
    for pixels in (images, images.astype(float), images.astype("float32"), images[:1]):
        labels = model.predict(pixels)
        assert (labels.dtype, labels.shape) == (np.int64, (len(pixels),))
        np.testing.assert_array_equal(labels, expected[: len(pixels)])
    assert set(shapes) == {(packed.BATCH, SIZE, SIZE, 3)} and packed.BATCH < len(images)
    labels = model.predict(images[:0])
    assert (labels.dtype, labels.shape) == (np.int64, (0,))


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((SIZE, SIZE, 3)),
        np.zeros((2, SIZE, SIZE)),
        np.zeros((2, SIZE, SIZE + 1, 3)),
        np.zeros((2, SIZE, SIZE, 3), bool),
        np.zeros((2, SIZE, SIZE, 3), object),
    ],
)
def test_other_pictures_are_refused(packed, pixels):
    with pytest.raises(ValueError, match=r"expected uint8 or float \(n, 16, 16, 3\)"):
        packed.Model().predict(pixels)


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
def test_nothing_is_left_that_older_keras_refuses(application):
    network = backbones.build_backbone(application, 48) if application else random_cnn()
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


def test_what_is_no_default_stays():
    layer = {"class_name": "BatchNormalization", "config": {"renorm": True, "axis": -1}}
    assert package.for_older_keras([layer]) == [layer]


def test_the_packaged_network_is_the_rewritten_one(run, tmp_path):
    with zipfile.ZipFile(run[0] / "submission.zip") as archive:
        archive.extract("model.keras", tmp_path)
    with zipfile.ZipFile(tmp_path / "model.keras") as archive:
        config = json.loads(archive.read("config.json"))
        assert archive.testzip() is None
    with zipfile.ZipFile(run[0] / "model.keras") as archive:
        original = json.loads(archive.read("config.json"))
    assert config == package.for_older_keras(original) != original


def test_a_damaged_model_is_not_packaged(run, tmp_path):
    whole = (run[0] / "model.keras").read_bytes()
    out = {"submission": tmp_path / "submission.zip"}
    path = tmp_path / "model.keras"
    middle = len(whole) // 2  # of the weights
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for content in (b"", whole[:middle], flipped):
        path.write_bytes(content)
        with pytest.raises(InputError, match="model.keras: no model that Keras saved"):
            package.package("tiny_cnn", {"model": path}, out)
        assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_the_process_sees_the_package_alone(tmp_path, score, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(package.MODEL.parents[3]))
    alone = (
        "import importlib.util\n"
        "assert importlib.util.find_spec('hemagrid') is None\n"
        "assert set(os.listdir()) - {'__pycache__'} == {'model.py'}, os.listdir()"
    )
    found = score(written(tmp_path / "a.zip", BY_HUE, alone))
    assert found["accuracy"] == {"value": 1.0, "low": 1.0, "high": 1.0}


def test_rows_of_one_parent_are_resampled_together(tmp_path, score, run):
    package = written(tmp_path / "a.zip", "return np.arange(len(X)) // 2 % 3")

    def width(parents):
        table = pd.read_csv(run[0] / "test.csv")
        table["parent_id"] = parents
        table["label"] = np.arange(150) // 2 % 3 * (np.arange(150) < 100)
        table.to_csv(tmp_path / "test.csv", index=False)
        inputs = {"images": run[0] / "test.npy", "table": tmp_path / "test.csv"}
        accuracy = score(package, inputs)["accuracy"]
        return accuracy["high"] - accuracy["low"]

    assert width(np.arange(150) // 10) > 1.5 * width(np.arange(150))


def test_an_npz_of_another_size(tmp_path, score, draw):
    labels = np.arange(30) % 3
    path = tmp_path / "hidden.npz"
    np.savez(path, images=draw(labels, 2 * SIZE), labels=labels[:, None])
    right_size = f"assert X.shape[1:] == ({SIZE}, {SIZE}, 3); {BY_HUE}"
    package = written(tmp_path / "a.zip", right_size)
    found = score(package, {"hidden_set": path}, set=str(path))
    assert (found["set"], found["n"]) == (str(path), 30)
    assert found["accuracy"]["value"] == 1
    # It need not show every class, as images to train on must.
    np.savez(path, images=draw([2, 2], 2 * SIZE), labels=np.array([2, 2]))
    assert score(package, {"hidden_set": path})["accuracy"]["value"] == 1
    np.savez(path, images=draw(labels, SIZE), labels=labels.astype(object))
    with pytest.raises(InputError, match="hidden.npz.*pickled objects"):
        score(package, {"hidden_set": path})


def test_a_folder_of_the_users_names_its_classes_in_the_table(tmp_path, score):
    found = score(written(tmp_path / "a.zip", BY_HUE), classes=None)
    assert found["accuracy"]["value"] == 1


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        ("return np.zeros(len(X))", r"float64 \(150,\), expected integers \(150,\)"),
        ("return np.zeros((len(X), 3), int)", r"int64 \(150, 3\), expected integers"),
        ("return np.zeros(len(X) - 1, int)", r"int64 \(149,\), expected integers \(150,\)"),
        ("return np.arange(len(X)) % 4", "labels from 0 to 3, expected 0 to 2"),
        ("return np.arange(len(X)) % 3 - 1", "labels from -1 to 1, expected 0 to 2"),
        ("return np.array([None] * len(X))", "Python objects"),
        ("raise RuntimeError('no luck')", "with status 1(.|\n)*RuntimeError: no luck"),
        ("os.kill(os.getpid(), 9)", "by SIGKILL"),
        ("import hemagrid", "No module named 'hemagrid'"),
    ],
)
def test_a_package_that_fails_is_told_with_its_reason(tmp_path, score, predict, message):
    with pytest.raises(InputError, match=message) as refusal:
        score(written(tmp_path / "a.zip", predict))
    assert "a.zip" in str(refusal.value)
    assert not (tmp_path / "codabench.json").exists()


@pytest.mark.parametrize("name", ["../model.py", "/tmp/model.py", "a/model.py", "..", "a\\b"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, score, name):
    path = written(tmp_path / "a.zip", BY_HUE)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "")
    with pytest.raises(InputError, match="expected files without folders"):
        score(path)


def test_a_damaged_package_is_refused(run, tmp_path, score):
    whole = (run[0] / "submission.zip").read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for content in (b"", whole[:middle], flipped):
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(InputError, match="a.zip: no zip, or a damaged one"):
            score(tmp_path / "a.zip")
