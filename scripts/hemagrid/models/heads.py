"""Classifier heads: the layers between an embedding and the class probabilities."""

import keras


def build_head(head, features, classes):
    """Build a classifier head.

    Args:
        head: `dense` (neurons of each Dense layer), `batch_norm`, and `dropout`: one rate
            after each Dense layer, or a single one on the embedding if there is none.
        features: Width of the embedding.
        classes: Number of classes.

    Returns:
        A Keras model from embeddings (B, features) to probabilities (B, classes), float32.
    """
    inputs = keras.Input((features,), name="embedding")
    x = inputs
    if not head["dense"]:
        x = keras.layers.Dropout(head["dropout"][0])(x)
    for neurons, rate in zip(head["dense"], head["dropout"], strict=False):
        x = keras.layers.Dense(neurons, activation="relu")(x)
        if head["batch_norm"]:
            x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Dropout(rate)(x)
    outputs = keras.layers.Dense(
        classes, activation="softmax", dtype="float32", name="probabilities"
    )(x)
    return keras.Model(inputs, outputs, name="head")
