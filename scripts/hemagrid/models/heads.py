"""Classifier heads: what stands between an embedding and the class probabilities."""

import keras


def build_head(head, features, classes):
    """Return a model from embeddings (B, features) to probabilities (B, classes), float32.

    `head` holds `dense` (neurons per layer), `batch_norm` and `dropout`: one rate behind
    each Dense layer, or a single one on the embedding itself where there is no Dense.
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
