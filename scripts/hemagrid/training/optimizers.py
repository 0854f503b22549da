"""The optimizers that train the networks of a study, by name."""

import keras

from hemagrid.training import fused_adam

CLASSES = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}


def build_optimizer(name, learning_rate, weight_decay=None):
    """Return a Keras optimizer; a `weight_decay` makes it AdamW, whatever the name.

    AdamW is Adam with decoupled weight decay (Loshchilov & Hutter, ICLR 2019).
    """
    if weight_decay is None:
        optimizer = CLASSES[name](learning_rate)
    else:
        optimizer = keras.optimizers.AdamW(learning_rate, weight_decay=weight_decay)
    return fused_adam.fuse_adam(optimizer)
