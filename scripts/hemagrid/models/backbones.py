"""The pretrained networks: how they are built, weighted and cut into trunk and top."""

import difflib
import importlib
import inspect
import os
from pathlib import Path

import keras
import numpy as np

from hemagrid import io
from hemagrid.errors import InputError
from hemagrid.names import TRAIN

CALIBRATION_IMAGES = 64  # enough for stable BatchNormalization statistics


def build_backbone(application, image_size):
    """Build a network without its classifier, with random weights.

    It differs from the network that Keras ships in three ways. Preprocessing is part of the
    model. Grouped convolutions with one channel per group, which keras.applications uses for
    ConvNeXt's depthwise convolutions, become `DepthwiseConv2D`: the same sums, several times
    faster. Dropout inside the network (EfficientNet's) is off, because backbones run in
    inference mode but Keras passes `training=True` on to a nested model that was called with
    `training=False`.

    Args:
        application: The name of a network in `keras.applications`.
        image_size: Height and width S of the images.

    Returns:
        A Keras model from pixels 0-255 (B, S, S, 3) to pooled features (B, F).
    """
    backbone = _with_depthwise_layers(_as_shipped(application, image_size, weights=None))
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return backbone


def _as_shipped(application, image_size, weights):
    """Build the network as `keras.applications` ships it, without its classifier."""
    constructor = getattr(keras.applications, application)
    pixels = keras.Input((image_size, image_size, 3), name="pixels")
    if "include_preprocessing" in inspect.signature(constructor).parameters:
        preprocessing = {"include_preprocessing": True, "input_tensor": pixels}
    else:
        module = importlib.import_module(constructor.__module__)
        preprocessing = {"input_tensor": module.preprocess_input(pixels)}
    network = constructor(include_top=False, weights=weights, pooling="avg", **preprocessing)
    return keras.Model(pixels, network.output, name=network.name)


def _is_depthwise(layer):
    return (
        isinstance(layer, keras.layers.Conv2D)
        and layer.groups > 1
        and layer.groups == layer.filters
    )


def _with_depthwise_layers(network):
    """Rebuild a network with `DepthwiseConv2D` for grouped convolutions of that kind."""
    if not any(_is_depthwise(layer) for layer in network.layers):
        return network

    def clone(layer):
        if not _is_depthwise(layer):
            return layer.__class__.from_config(layer.get_config())
        return keras.layers.DepthwiseConv2D(
            layer.kernel_size,
            strides=layer.strides,
            padding=layer.padding,
            use_bias=layer.use_bias,
            depthwise_initializer=layer.kernel_initializer,
            bias_initializer=layer.bias_initializer,
            name=layer.name,
        )

    return keras.models.clone_model(network, clone_function=clone)


def _copy_weights(shipped, backbone):
    """Copy the weights of a shipped network into ours; transpose depthwise kernels."""
    for source, target in zip(shipped.layers, backbone.layers, strict=True):
        weights = source.get_weights()
        if _is_depthwise(source):
            # (h, w, 1, channels) -> (h, w, channels, 1)
            weights[0] = weights[0].transpose(0, 1, 3, 2)
        target.set_weights(weights)


def imagenet_backbone(application, image_size):
    """Build a backbone with ImageNet weights, which Keras fetches once and checks.

    Raises:
        InputError: if they cannot be fetched, with what to do.
    """
    backbone = build_backbone(application, image_size)
    try:
        shipped = _as_shipped(application, image_size, weights="imagenet")
    except Exception as error:
        folder = Path(os.environ.get("KERAS_HOME", "~/.keras"), "models")
        raise InputError(
            f"ImageNet weights of {application}: {error}\n"
            "Keras fetches them from the address in this job's log (\"Downloading data "
            'from ..."), which takes a network connection. On a machine without one, put the '
            f"file of that name into {folder} and run again, or set `weights: random` or "
            "a path to a .weights.h5 file for this backbone."
        ) from error
    _copy_weights(shipped, backbone)
    return backbone


def saved_backbone(application, image_size, path):
    """Build a backbone with weights that `model.save_weights` wrote for the same network.

    Raises:
        InputError: if the file does not fit the network.
    """
    shipped = _as_shipped(application, image_size, weights=None)
    try:
        shipped.load_weights(path)
    except Exception as error:
        raise InputError(
            f"{path}: not the weights of keras.applications.{application}"
            f"(include_top=False, pooling='avg'): {error}"
        ) from error
    backbone = build_backbone(application, image_size)
    _copy_weights(shipped, backbone)
    return backbone


def random_backbone(application, images, seed):
    """Build a backbone with random weights that still passes a signal.

    In inference mode a fresh network normalises by a mean of 0 and a variance of 1, and its
    signal fades to nothing. So the BatchNormalization statistics are set from one pass.

    Args:
        application: The name of a network in `keras.applications`.
        images: uint8 (N, S, S, 3).
        seed: An int.
    """
    keras.utils.set_random_seed(seed)
    backbone = build_backbone(application, images.shape[1])
    norms = batch_normalizations(backbone)
    if not norms:
        return backbone
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    backbone(np.asarray(images, "float32"), training=True)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return backbone


def write_weights(out, settings, image_size, seed, images=None, splits=None, weights=None):
    """Write a backbone's starting weights, `.weights.h5`, for `load_backbone`.

    Args:
        out: Where to write them.
        settings: `application`, and `weights`: "imagenet", "random" or a path.
        image_size: Height and width of the images.
        seed: Seed of random weights.
        images: For random weights, the path of images.npy.
        splits: For random weights, the path of splits.csv. Training images set the statistics.
        weights: For weights from a file, its path.
    """
    application = settings["application"]
    if settings["weights"] == "imagenet":
        backbone = imagenet_backbone(application, image_size)
    elif settings["weights"] == "random":
        ids = io.read_table(splits).query(f"split == '{TRAIN}'")["id"].to_numpy()
        sample = np.random.default_rng(seed).permutation(ids)[:CALIBRATION_IMAGES]
        pixels = io.open_images(images)[np.sort(sample)]
        backbone = random_backbone(application, pixels, seed)
    else:
        backbone = saved_backbone(application, image_size, weights)
    io.remove_temporaries(out)
    with io.replacing(out) as temporary:
        backbone.save_weights(temporary)


def load_backbone(application, image_size, weights):
    """Build a backbone with the weights that `write_weights` wrote."""
    backbone = build_backbone(application, image_size)
    backbone.load_weights(weights)
    return backbone


def batch_normalizations(model):
    """List the BatchNormalization layers of a model, including those of nested models."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            found.append(layer)
        elif isinstance(layer, keras.Model):
            found.extend(batch_normalizations(layer))
    return found


def cut_backbone(backbone, boundary):
    """Cut a backbone in two, so that top(trunk(x)) equals backbone(x).

    Args:
        backbone: A Keras model.
        boundary: Name of the last layer of the trunk.

    Returns:
        The models (trunk, top), which share the backbone's layers and variables.

    Raises:
        InputError: if there is no such layer, or a shortcut bypasses it.
    """
    names = [layer.name for layer in backbone.layers]
    if boundary not in names:
        close = ", ".join(difflib.get_close_matches(boundary, names, n=5, cutoff=0))
        raise InputError(
            f"backbones: top: found {boundary!r}, expected the name of a layer of "
            f"{backbone.name}, such as {close}"
        )
    cut = backbone.get_layer(boundary).output
    trunk = keras.Model(backbone.input, cut, name="trunk")
    try:
        top = keras.Model(cut, backbone.output, name="top")
    except ValueError as error:
        raise InputError(
            f"backbones: top: found {boundary!r}, which a shortcut of {backbone.name} "
            "bypasses, expected a layer that everything passes through, such as the end of "
            "a block"
        ) from error
    return trunk, top
