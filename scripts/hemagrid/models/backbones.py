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

# Enough for stable BatchNormalization statistics in one pass.
CALIBRATION_IMAGES = 64


def build_backbone(application, image_size):
    """Return the network from pixels 0-255 (B, S, S, 3) to pooled features (B, F).

    `application` is a name in `keras.applications`. Preprocessing is part of the model.
    Grouped convolutions with one channel per group become DepthwiseConv2D: the same sums
    in the same network, several times faster (keras.applications writes ConvNeXt's
    depthwise convolutions as `Conv2D(groups=channels)`). Weights are random. Dropout
    inside the network (EfficientNet's) is off: backbones run in inference mode, but Keras
    passes `training=True` on to a nested model that was called with `training=False`.
    """
    backbone = _with_depthwise_layers(_as_shipped(application, image_size, weights=None))
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return backbone


def _as_shipped(application, image_size, weights):
    """Build `keras.applications.<application>` without its classifier, pooled by mean."""
    constructor = getattr(keras.applications, application)
    pixels = keras.Input((image_size, image_size, 3), name="pixels")
    if "include_preprocessing" in inspect.signature(constructor).parameters:
        preprocessing = {"include_preprocessing": True, "input_tensor": pixels}
    else:
        module = importlib.import_module(constructor.__module__)
        preprocessing = {"input_tensor": module.preprocess_input(pixels)}
    network = constructor(include_top=False, weights=weights, pooling="avg", **preprocessing)
    return keras.Model(pixels, network.output, name=network.name)


def _closest(found, names):
    return ", ".join(difflib.get_close_matches(found, names, n=5, cutoff=0))


def _is_depthwise(layer):
    return (
        isinstance(layer, keras.layers.Conv2D)
        and layer.groups > 1
        and layer.groups == layer.filters
    )


def _with_depthwise_layers(network):
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
    """Copy the weights of a network as shipped into ours, depthwise kernels transposed."""
    for source, target in zip(shipped.layers, backbone.layers, strict=True):
        weights = source.get_weights()
        if _is_depthwise(source):
            # (h, w, 1, channels) -> (h, w, channels, 1)
            weights[0] = weights[0].transpose(0, 1, 3, 2)
        target.set_weights(weights)


def imagenet_backbone(application, image_size):
    """Return the backbone with ImageNet weights, fetched once by Keras under its checksum.

    Raises InputError with directions when they cannot be fetched.
    """
    backbone = build_backbone(application, image_size)
    try:
        shipped = _as_shipped(application, image_size, weights="imagenet")
    except Exception as error:
        folder = Path(os.environ.get("KERAS_HOME", "~/.keras"), "models")
        raise InputError(
            f"ImageNet weights of {application}: {error}\n"
            "Keras fetches them from the address in this job's log (\"Downloading data "
            'from ...") and needs a network for it. On a machine without one, put the '
            f"file of that name into {folder} and run again, or set `weights: random` or "
            "a path to a .weights.h5 file for this backbone."
        ) from error
    _copy_weights(shipped, backbone)
    return backbone


def saved_backbone(application, image_size, path):
    """Return the backbone with weights that `model.save_weights` wrote for `application`.

    Raises InputError when the file does not fit the network.
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
    """Return the backbone with random weights through which a signal passes.

    A fresh network in inference mode normalises by means of 0 and variances of 1 and
    fades its signal to nothing, so the BatchNormalization statistics are set from one
    pass over `images`, uint8 (N, S, S, 3).
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
    """Write a backbone's starting weights (`.weights.h5`), in our layout.

    `settings` holds `application` and `weights`: "imagenet", "random" (then `images` and
    `splits` are the paths of images.npy and splits.csv: training images set the
    statistics) or a path (then `weights` is that path).
    """
    application = settings["application"]
    if settings["weights"] == "imagenet":
        backbone = imagenet_backbone(application, image_size)
    elif settings["weights"] == "random":
        ids = io.read_table(splits).query("split == 'train'")["id"].to_numpy()
        sample = np.random.default_rng(seed).permutation(ids)[:CALIBRATION_IMAGES]
        pixels = io.open_images(images)[np.sort(sample)]
        backbone = random_backbone(application, pixels, seed)
    else:
        backbone = saved_backbone(application, image_size, weights)
    with io.replacing(out) as temporary:
        backbone.save_weights(temporary)


def load_backbone(application, image_size, weights):
    """Return the backbone with the weights that `write_weights` wrote."""
    backbone = build_backbone(application, image_size)
    backbone.load_weights(weights)
    return backbone


def batch_normalizations(model):
    """Return every BatchNormalization layer of `model`, nested ones included."""
    found = []
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            found.append(layer)
        elif isinstance(layer, keras.Model):
            found.extend(batch_normalizations(layer))
    return found


def cut_backbone(backbone, boundary):
    """Return (trunk, top), which share the backbone's layers and variables.

    `boundary` names the last layer of the trunk. top(trunk(x)) equals backbone(x).
    """
    names = [layer.name for layer in backbone.layers]
    if boundary not in names:
        raise InputError(
            f"backbones: top: found {boundary!r}, expected the name of a layer of "
            f"{backbone.name}, such as {_closest(boundary, names)}"
        )
    cut = backbone.get_layer(boundary).output
    trunk = keras.Model(backbone.input, cut, name="trunk")
    try:
        top = keras.Model(cut, backbone.output, name="top")
    except ValueError as error:
        raise InputError(
            f"backbones: top: found {boundary!r}, which a shortcut of {backbone.name} "
            "bypasses, expected a layer that everything passes, such as the end of a block"
        ) from error
    return trunk, top
