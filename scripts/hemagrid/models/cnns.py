"""The convolutional networks that the study trains from scratch."""

import keras


def build_cnn(settings, image_size, classes):
    """Build a CNN of Conv2D 3x3 + ReLU + MaxPooling2D blocks, one Dense layer and the output.

    Pixels are not normalised, as in the published study.

    Args:
        settings: `filters` (one number per block), `dense` (neurons), `batch_norm`, `dropout`
            (in each block) and `dense_dropout`; a dropout of 0 leaves the layer out.
        image_size: Height and width S of the images.
        classes: Number of classes.

    Returns:
        A Keras model from pixels 0-255 (B, S, S, 3) to probabilities (B, classes), float32.
    """
    inputs = keras.Input((image_size, image_size, 3), name="pixels")
    x = inputs
    for filters in settings["filters"]:
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D()(x)
        # After pooling, where it has a quarter of the numbers to normalise.
        if settings["batch_norm"]:
            x = keras.layers.BatchNormalization()(x)
        if settings["dropout"]:
            x = keras.layers.Dropout(settings["dropout"])(x)
    x = keras.layers.Flatten()(x)
    x = keras.layers.Dense(settings["dense"], activation="relu")(x)
    if settings["dense_dropout"]:
        x = keras.layers.Dropout(settings["dense_dropout"])(x)
    outputs = keras.layers.Dense(
        classes, activation="softmax", dtype="float32", name="probabilities"
    )(x)
    return keras.Model(inputs, outputs, name="cnn")
