"""The optimizers that a study can name."""

import keras

from hemagrid.training.fused_adam import fuse_adam

OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}


UNDECAYED = ("bias", "beta", "gamma", "scale")


def build_optimizer(name, learning_rate, weight_decay=None, variables=()):
    """Build a Keras optimizer.

    Weight decay leaves biases, the scales and offsets of normalization, and LayerScale alone:
    they do not overfit, and pulling them towards 0 switches channels off. So do the training
    recipes of the networks themselves (e.g. Liu et al., ConvNeXt, CVPR 2022, through timm).

    Args:
        name: A key of `OPTIMIZERS`.
        learning_rate: A float.
        weight_decay: A number makes the optimizer AdamW, whatever the name: Adam with
            decoupled weight decay (Loshchilov & Hutter, ICLR 2019).
        variables: The variables to train.
    """
    if weight_decay is None:
        optimizer = OPTIMIZERS[name](learning_rate)
    else:
        optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay)
    if optimizer.weight_decay is not None:
        optimizer.exclude_from_weight_decay(
            [each for each in variables if each.ndim <= 1 or each.name in UNDECAYED]
        )
    return fuse_adam(optimizer)
