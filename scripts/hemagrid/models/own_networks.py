"""A backbone that the user wrote: a Python file with a function that builds it.

The file runs once. What it built is saved with its weights, and everything later loads that, so
that no run depends on the file any more. So its layers are those of Keras and of its sister
packages: Keras loads no others without the code that defines them.
"""

import ast
import json
import traceback
from pathlib import Path

import h5py
import keras
import numpy as np

from hemagrid.errors import InputError

# Of these packages Keras loads layers by itself.
PACKAGES = ("keras", "keras_hub", "keras_cv", "keras_nlp")
END_OF_TRUNK = "trunk_output"
"""The last layer of the trunk of a network that has no top."""

_ARCHITECTURE = "architecture"  # beside the weights in their file


def build(path, function, image_size, top=None):
    """Build a network with the user's function.

    Args:
        path: Path of a Python file.
        function: Name of a function in it. It takes the height and width S of the images and
            returns a Keras model, functional or Sequential, from pixels 0-255 (B, S, S, 3) to
            features (B, F) or feature maps (B, h, w, F), which are averaged; or such a model
            and the name of the last layer of its trunk.
        image_size: S.
        top: The name of that layer, in place of what the function says, or None.

    Returns:
        A Keras model from pixels to features (B, F), and the name of the trunk's last layer.
        Where nobody gave one, the top has no weights.

    Raises:
        InputError: if the file or the function fails, with the line, or the function returns
            anything else.
    """
    namespace = {"__name__": Path(path).stem, "__file__": str(path)}
    registered = keras.saving.get_custom_objects()
    before = set(registered)
    try:
        # Not imported, which would leave the file's bytes and its folder to later imports.
        tree = ast.parse(Path(path).read_bytes(), str(path))
        exec(compile(tree, str(path), "exec"), namespace)
        built = namespace[function](image_size)
    except (Exception, SystemExit) as error:
        raise InputError(_failure(path, error)) from error
    finally:
        # The jobs that load the network will not know what the file registered.
        for name in set(registered) - before:
            if _package(registered[name]) not in PACKAGES:
                del registered[name]
    model, boundary = built if isinstance(built, tuple) and len(built) == 2 else (built, None)
    line = next(node.lineno for node in tree.body if getattr(node, "name", None) == function)
    place = f"{path}, line {line}, {function}()"
    _check(model, boundary, image_size, place)
    features = model.outputs[0]
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D()(features)
    features = keras.layers.Identity(name=END_OF_TRUNK)(features)
    features = keras.layers.Identity(name="backbone_output")(features)
    network = keras.Model(model.inputs[0], features, name=model.name)
    return network, top or boundary or END_OF_TRUNK


def _failure(path, error):
    """Say where in the user's file an error arose."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == str(path)]
    line = lines[-1] if lines else getattr(error, "lineno", None)
    hint = ""
    if isinstance(error, ImportError):
        hint = (
            "; a backbone is one file, so that its content says what was built: files beside "
            "it are not found, packages that are installed are"
        )
    return f"{path}{f', line {line}' if line else ''}: {type(error).__name__}: {error}{hint}"


def _check(model, boundary, image_size, place):
    """Refuse what is no network from pixels to features."""
    if not isinstance(model, keras.Model) or not isinstance(boundary, str | None):
        found = type(model).__name__
        if boundary is not None:
            found = f"{found} and {type(boundary).__name__}"
        raise InputError(
            f"{place}: found {found}, expected a keras.Model, or one and the name of the last "
            "layer of its trunk"
        )
    inputs, outputs = (getattr(model, ends, None) or [] for ends in ("inputs", "outputs"))
    size = (None, image_size, image_size, 3)
    if [tuple(each.shape) for each in inputs] != [size]:
        raise InputError(
            f"{place}: found a model with {_described(inputs, 'input')}, expected one with the "
            f"input {size}: begin with keras.Input((image_size, image_size, 3)), and resize "
            "with keras.layers.Resizing"
        )
    shapes = [each.shape for each in outputs]
    if [len(shape) for shape in shapes] not in ([2], [4]) or None in shapes[0][1:]:
        raise InputError(
            f"{place}: found a model with {_described(outputs, 'output')}, expected one output "
            "with features (None, F) or feature maps (None, h, w, F); of a sequence of tokens "
            "take one, or the mean"
        )
    for each in (*inputs, *outputs):
        if not keras.backend.is_float_dtype(each.dtype):
            raise InputError(
                f"{place}: found {each.dtype} at one end of the model, expected floating-point "
                "numbers at both"
            )
    if not model.weights:
        raise InputError(f"{place}: found a model without weights, expected a network")
    for layer in model._flatten_layers():
        if _package(type(layer)) not in PACKAGES:
            raise InputError(
                f"{place}: found the layer {layer.name} of the class {type(layer).__name__}, "
                f"which is not from {', '.join(PACKAGES)}. A trained run must load without "
                "this file, so build the network from their layers and from keras.ops"
            )


def _package(kind):
    return kind.__module__.partition(".")[0]


def _described(tensors, word):
    """Spell the shapes of a model's inputs or outputs."""
    return f"the {word} {', '.join(str(tuple(t.shape)) for t in tensors) or 'nobody knows'}"


def save(network, boundary, out, place):
    """Write a network with its weights to one file, `.weights.h5`, for `load`.

    Args:
        network: A functional Keras model from pixels 0-255 (B, S, S, 3) to features (B, F).
        boundary: Name of the last layer of its trunk.
        out: Path of the file.
        place: The user's file, for messages.

    Raises:
        InputError: if what is loaded again does not give the same features, or training gives
            others than inference.
    """
    network.save_weights(out)
    pixels = np.random.default_rng(0).uniform(0, 255, (2, *network.input.shape[1:]))
    pixels = keras.ops.cast(pixels, "float32")

    def features(model, training):
        found = model(pixels, training=training)
        return keras.ops.convert_to_numpy(keras.ops.cast(found, "float32"))

    try:
        with h5py.File(out, "a") as file:
            content = {"boundary": boundary, "model": json.loads(network.to_json())}
            file[_ARCHITECTURE] = json.dumps(content)
        loaded, _ = load(out)
    except Exception as error:  # Keras raises many types for what it cannot save or load
        raise InputError(
            f"{place}: the network cannot be saved and loaded without this file "
            f"({str(error).strip().splitlines()[0]}); build it from layers of "
            f"{', '.join(PACKAGES)} and from keras.ops, without functions of your own"
        ) from error
    loaded.trainable = False  # so that BatchNormalization keeps to its statistics
    expected = features(loaded, training=False)
    close = {"rtol": 1e-5, "atol": 1e-5 * np.abs(expected).max(), "equal_nan": True}
    if not np.allclose(features(network, training=False), expected, **close):
        raise InputError(
            f"{place}: the network gives other features once it is saved and loaded; look for "
            "a layer whose get_config leaves something out"
        )
    if not np.allclose(features(loaded, training=True), expected, **close):
        raise InputError(
            f"{place}: the network gives other features in training than in inference, though "
            "BatchNormalization and Dropout are frozen; features are computed once, so leave "
            "out what draws anew, such as GaussianNoise or RandomFlip"
        )


def load(path):
    """Load what `save` wrote: the network, and the name of the last layer of its trunk."""
    with h5py.File(path, "r") as file:
        content = json.loads(file[_ARCHITECTURE].asstr()[()])
    network = keras.models.model_from_json(json.dumps(content["model"]))
    network.load_weights(path)
    return without_dropout(network), content["boundary"]


def without_dropout(network):
    """Turn off the Dropout inside a network, wherever it is, and return the network.

    Backbones run in inference mode, but Keras passes `training=True` on to a nested model that
    was called with `training=False`.
    """
    for layer in network._flatten_layers():
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return network
