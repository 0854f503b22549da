"""The two convolutional networks that the study trains from scratch."""

import keras


def build_cnn(settings, image_size, classes):
    """Return a model from pixels 0-255 (B, S, S, 3) to probabilities (B, classes), float32.

    Per entry of `filters` one block of Conv2D 3x3 + ReLU + MaxPooling2D, with
    BatchNormalization and Dropout where the settings ask for them; then one Dense layer
    and the output. Pixels are not normalised, as in the published study.
    """
    inputs = keras.Input((image_size, image_size, 3), name="pixels")
    x = inputs
    for filters in settings["filters"]:
        x = keras.layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = keras.layers.MaxPooling2D()(x)
        # Behind the pooling it normalises a quarter of the numbers.
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
