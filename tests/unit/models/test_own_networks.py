"""A network from a file of the user's: the documentation's examples, and what is refused."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from hemagrid import io
from hemagrid.config.loading import ROOT
from hemagrid.errors import InputError
from hemagrid.models import backbones
from hemagrid.training.transfer import TransferModel

SIZE = 32
SMALL, PRESET = re.findall(
    r"^```python\n(.*?)^```", (ROOT / "docs/backbones.md").read_text(), re.M | re.S
)
OWN = {"application": None, "weights": "own"}
HEAD = {"dense": [], "batch_norm": False, "dropout": [0.3]}


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A function that writes a file with a network and makes a backbone of it."""
    monkeypatch.chdir(tmp_path)

    def write(text, start="own", **settings):
        Path("own.py").write_text(text)
        backbones.write_weights(
            "out.weights.h5",
            {"application": None, "weights": start},
            SIZE,
            seed=1,
            module="own.py",
            function="build",
            **settings,
        )
        return backbones.load_backbone(OWN, SIZE, "out.weights.h5")

    return write


def network(body, returned="keras.Model(pixels, x)"):
    """Write a file whose `build` makes features `x` of `pixels`."""
    lines = ["pixels = x = keras.Input((size, size, 3))", *body, f"return {returned}"]
    return "import keras\n\ndef build(size):\n    " + "\n    ".join(lines)


CONVOLUTION = "x = keras.layers.Conv2D(4, 3, name='convolution')(x)"


def test_the_small_network_of_the_documentation(written, draw):
    backbone, boundary = written(SMALL)
    trunk, top = backbones.cut_backbone(backbone, boundary)
    pixels = draw(range(4), SIZE).astype("float32")
    assert trunk.output.shape == (None, 8, 8, 32) and backbone.output.shape == (None, 64)
    np.testing.assert_array_equal(top(trunk(pixels)), backbone(pixels))
    assert top.count_params() > 0


def test_the_preset_of_the_documentation(written, draw, monkeypatch):
    if importlib.util.find_spec("keras_hub") is None:
        pytest.skip("keras-hub is not in the lock: pip install keras-hub runs this test")
    import keras_hub

    planted = keras_hub.models.ViTBackbone(
        image_shape=(24, 24, 3),
        patch_size=8,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
        dropout_rate=0.5,
    )
    planted.save_to_preset("preset")
    backbone, boundary = written(PRESET)
    pixels = draw(range(4), SIZE).astype("float32")
    small = keras.layers.Resizing(24, 24)(pixels) / 127.5 - 1
    expected = planted(small, training=False)[:, 0]
    np.testing.assert_allclose(backbone(pixels), expected, rtol=0, atol=1e-5)
    assert not backbones.cut_backbone(backbone, boundary)[1].weights
    model = TransferModel(backbone, boundary, HEAD, 3).from_images
    model.save("model.keras")
    # In another process, which has never seen the file.
    code = "import keras; print(keras.saving.load_model('model.keras', compile=False).name)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "classifier\n", done.stderr


def test_top_of_the_config_comes_before_what_the_function_says(written):
    text = network([CONVOLUTION, "x = keras.layers.ReLU(name='relu')(x)"])
    assert written(text)[1] == "trunk_output"
    assert written(text, top="relu")[1] == "relu"
    assert written(text + ", 'convolution'")[1] == "convolution"
    assert written(text + ", 'convolution'", top="relu")[1] == "relu"
    with pytest.raises(InputError, match="top: found 'rely', expected .* such as relu"):
        written(text, top="rely")


def test_random_weights_are_calibrated_on_training_images(written, draw):
    norm = "x = keras.layers.BatchNormalization(name='norm')(x)"
    io.write_table("splits.csv", pd.DataFrame({"id": range(8), "split": "train"}))
    with io.new_array("images.npy", (8, SIZE, SIZE, 3), "uint8") as array:
        array[:] = draw(range(8), SIZE)
    given = ["m = keras.Model(pixels, x)", "m.set_weights([w + 5 for w in m.get_weights()])"]
    text = network([CONVOLUTION, norm, *given], "m")
    own, _ = written(text)
    kernel, _, *norm = own.get_weights()
    assert kernel.min() > 4 and (norm[2] == 5).all()
    random, _ = written(text, "random", images="images.npy", splits="splits.csv")
    kernel, _, *norm = random.get_weights()
    assert abs(kernel).max() < 1 and not np.isin(norm[2], (0, 5)).any()


def test_weights_from_a_file_of_the_same_network(written):
    text = network([CONVOLUTION])
    first, _ = written(text)
    first.set_weights([values + 1 for values in first.get_weights()])
    first.save_weights("mine.weights.h5")
    second, _ = written(text, "mine.weights.h5", weights="mine.weights.h5")
    for one, two in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    with pytest.raises(InputError, match=r"\(3, 3, 3, 4\) .* expected \(5, 5.* of own\.py"):
        written(text.replace("4, 3,", "4, 5,"), "mine.weights.h5", weights="mine.weights.h5")


def test_half_precision_is_that_of_the_study(written):
    before = keras.config.dtype_policy()
    try:
        backbone, _ = written(network([CONVOLUTION]), precision="mixed_bfloat16")
        assert backbone.get_layer("convolution").compute_dtype == "bfloat16"
        assert backbone.get_layer("convolution").kernel.dtype == "float32"
    finally:
        keras.config.set_dtype_policy(before)


LAYER = """
import keras

@keras.saving.register_keras_serializable()
class Mine(keras.layers.Layer):
    def call(self, x):
        return x

def build(size):
    pixels = keras.Input((size, size, 3))
    return keras.Model(pixels, Mine(name="odd")(keras.layers.Conv2D(4, 3)(pixels)))
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (
            "import keras\n\ndef build(size):\n    return keras.nowhere",
            r"line 4: AttributeError",
        ),
        ("import helper\n\ndef build(size): pass", r"line 1: ModuleNotFoundError.*is one file"),
        ("def build(): pass", r"own\.py: TypeError: build\(\) takes 0"),
        ("import sys\ndef build(size):\n    sys.exit(3)", r"line 3: SystemExit: 3"),
        ("def build(size:", r"line 1: SyntaxError"),
        ("def build(size):\n    return 7", r"line 1, build\(\): found int, expected a keras"),
        (network([CONVOLUTION], "keras.Model(pixels, x), 3"), "found Functional and int"),
        ("import keras\ndef build(s): return keras.Sequential([])", "the input nobody knows"),
        (
            "import keras\ndef build(s): return keras.applications.VGG16(weights=None)",
            r"the input \(None, 224, 224, 3\), expected one with the input \(None, 32, 32, 3\)",
        ),
        (
            network([CONVOLUTION, "x = keras.layers.Reshape((-1, 4))(x)"]),
            r"the output \(None, 900, 4\), expected one output with features",
        ),
        (network([CONVOLUTION], "keras.Model(pixels, [x, x])"), "expected one output"),
        (
            network([CONVOLUTION, "x = keras.ops.argmax(x, axis=-1)", "x = x[:, :, 0]"]),
            "found int32 at one end",
        ),
        (network(["x = keras.layers.Flatten()(x)"]), "found a model without weights"),
        (LAYER, "the layer odd of the class Mine, which is not from keras, keras_hub"),
        (
            network([CONVOLUTION, "x = keras.layers.Lambda(abs)(x)"]),
            "cannot be saved and loaded without this file",
        ),
        (
            network(["x = keras.layers.GaussianNoise(0.01)(x / 255)", CONVOLUTION]),
            "other features in training than in inference",
        ),
    ],
)
def test_what_is_no_network_is_refused_in_words(written, text, found):
    with pytest.raises(InputError, match=found) as refused:
        written(text)
    assert str(refused.value).startswith("own.py")
    assert [path.name for path in Path().iterdir()] == ["own.py"]


def test_dropout_anywhere_in_the_network_is_off(written, draw):
    inner = "inner = keras.Sequential([keras.layers.Dropout(0.9)])"
    backbone, _ = written(network([CONVOLUTION, inner, "x = inner(x)"]))
    pixels = draw(range(4), SIZE).astype("float32")
    np.testing.assert_array_equal(
        backbone(pixels, training=True), backbone(pixels, training=False)
    )
