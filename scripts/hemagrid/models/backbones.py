"""The pretrained networks: how they are built, weighted and cut into trunk and top.

They come from `keras.applications`, or from a file of the user's (`own_networks`).
"""

import difflib
import importlib
import inspect
import os
from pathlib import Path

import keras
import numpy as np

from hemagrid import io
from hemagrid.errors import InputError
from hemagrid.models import own_networks
from hemagrid.models.weight_files import load_weights
from hemagrid.names import TRAIN

CALIBRATION_IMAGES = 64  # enough for stable BatchNormalization statistics


def build_backbone(application, image_size):
    """Build a network without its classifier, with random weights.

    It differs from the network that Keras ships in three ways. Preprocessing is part of the
    model. Grouped convolutions with one channel per group, which keras.applications uses for
    ConvNeXt's depthwise convolutions, become `DepthwiseConv2D`: the same sums, several times
    faster. Dropout inside the network (EfficientNet's) is off, because backbones run in
    inference mode but Keras passes `training=True` on to a nested model that was called with
    `training=False`. On a CPU, mixed_bfloat16 holds for convolutions and matrix products alone.

    Args:
        application: The name of a network in `keras.applications`.
        image_size: Height and width S of the images.

    Returns:
        A Keras model from pixels 0-255 (B, S, S, 3) to pooled features (B, F).
    """
    network = _as_shipped(application, image_size, weights=None)
    return _single_precision(own_networks.without_dropout(_with_depthwise_layers(network)))


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


def _single_precision(network):
    """Let a CPU compute in bfloat16 only what it is faster at; return the network."""
    on_cpu = not any(map(keras.distribution.list_devices, ("gpu", "tpu")))
    if on_cpu and keras.config.dtype_policy().name == "mixed_bfloat16":
        for layer in network.layers:
            if not isinstance(layer, (keras.layers.Conv2D, keras.layers.Dense)):
                layer.dtype_policy = "float32"
    return network


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
    """Build a backbone with the weights in a file of the user's for the same network.

    Raises:
        InputError: if the file does not fit the network.
    """
    shipped = _as_shipped(application, image_size, weights=None)
    load_weights(shipped, path, f"keras.applications.{application}(include_top=False)")
    backbone = build_backbone(application, image_size)
    _copy_weights(shipped, backbone)
    return backbone


def random_backbone(application, images, seed):
    """Build a backbone with random weights that still passes a signal.

    Args:
        application: The name of a network in `keras.applications`.
        images: uint8 (N, S, S, 3).
        seed: An int.
    """
    keras.utils.set_random_seed(seed)
    return _calibrated(build_backbone(application, images.shape[1]), images)


def _calibrated(backbone, images):
    """Set the BatchNormalization statistics of a backbone from one pass of images.

    In inference mode a fresh network normalises by a mean of 0 and a variance of 1, and its
    signal fades to nothing.
    """
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


def write_weights(
    out,
    settings,
    image_size,
    seed,
    images=None,
    splits=None,
    weights=None,
    module=None,
    function=None,
    top=None,
    precision="float32",
):
    """Write what a backbone starts from, `.weights.h5`, for `load_backbone`.

    Args:
        out: Where to write it.
        settings: `application`, or None for a network of the user's, and `weights`:
            "imagenet", "own", "random" or a path.
        image_size: Height and width of the images.
        seed: Seed of random weights.
        images: For random weights, the path of images.npy.
        splits: For random weights, the path of splits.csv. Training images set the statistics.
        weights: For weights from a file, its path.
        module: For a network of the user's, the path of its Python file.
        function: For a network of the user's, the function that builds it.
        top: For a network of the user's, the name of its trunk's last layer, or None.
        precision: For a network of the user's, the config's `training.precision`.
    """
    application, start = settings["application"], settings["weights"]
    io.remove_temporaries(out)
    if start == "random":
        ids = io.read_table(splits).query(f"split == '{TRAIN}'")["id"].to_numpy()
        sample = np.random.default_rng(seed).permutation(ids)[:CALIBRATION_IMAGES]
        pixels = io.open_images(images)[np.sort(sample)]
    if module:
        keras.config.set_dtype_policy(precision if precision == "mixed_bfloat16" else "float32")
        keras.utils.set_random_seed(seed)
        backbone, boundary = own_networks.build(module, function, image_size, top)
        cut_backbone(backbone, boundary)
        if start == "random":
            # The function may have loaded weights.
            backbone = own_networks.without_dropout(keras.models.clone_model(backbone))
            _calibrated(backbone, pixels)
        elif start != "own":
            load_weights(backbone, weights, f"{function}({image_size}) of {module}")
        with io.replacing(out) as temporary:
            own_networks.save(backbone, boundary, temporary, module)
        return
    if start == "imagenet":
        backbone = imagenet_backbone(application, image_size)
    elif start == "random":
        backbone = random_backbone(application, pixels, seed)
    else:
        backbone = saved_backbone(application, image_size, weights)
    with io.replacing(out) as temporary:
        backbone.save_weights(temporary)


def load_backbone(settings, image_size, weights):
    """Build a backbone with the weights that `write_weights` wrote.

    Args:
        settings: `application` and `top` of the config. Without an application, the file holds
            the network and the name of the last layer of its trunk.
        image_size: Height and width of the images.
        weights: Path of the file.

    Returns:
        The model from pixels to features, and the name of the last layer of its trunk.
    """
    if not settings.get("application"):
        return own_networks.load(weights)
    backbone = build_backbone(settings["application"], image_size)
    backbone.load_weights(weights)
    return backbone, settings["top"]


def batch_normalizations(model):
    """List the BatchNormalization layers of a model, including those inside its layers."""
    found = model._flatten_layers()
    return [layer for layer in found if isinstance(layer, keras.layers.BatchNormalization)]


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
