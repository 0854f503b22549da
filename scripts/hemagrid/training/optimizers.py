"""The optimizers that a study can name."""

import keras

from hemagrid.training.fused_adam import fuse_adam

OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}


def build_optimizer(name, learning_rate, weight_decay=None):
    """Build a Keras optimizer.

    Args:
        name: A key of `OPTIMIZERS`.
        learning_rate: A float.
        weight_decay: A number makes the optimizer AdamW, whatever the name: Adam with
            decoupled weight decay (Loshchilov & Hutter, ICLR 2019).
    """
    if weight_decay is None:
        return fuse_adam(OPTIMIZERS[name](learning_rate))
    return fuse_adam(keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay))
