"""Trained networks as the challenge wants them: `Model().predict(X)`, with NumPy and Keras."""

import os

import keras
import numpy as np

BATCH = 64  # pictures in the networks at once
VIEWS = False  # whether the networks also see every picture turned and mirrored


class Model:
    """The networks of all `.keras` files in the folder of this file, which answer as one."""

    def __init__(self):
        folder = os.path.dirname(os.path.abspath(__file__))
        self.networks = [
            keras.saving.load_model(os.path.join(folder, name), compile=False)
            for name in sorted(os.listdir(folder))
            if name.endswith(".keras")
        ]

    def predict(self, X):
        """Predict the classes of pictures.

        Args:
            X: Pictures, uint8 or float (n, S, S, 3), pixels 0-255. If S is not the size that
                the network was trained on, they are resized as its training images were.

        Returns:
            Class numbers, int64 (n,).

        Raises:
            ValueError: X is anything else.
        """
        X = np.asarray(X)
        square = X.ndim == 4 and X.shape[1] == X.shape[2] > 0 and X.shape[3] == 3
        if not square or X.dtype.kind not in "uif":
            raise ValueError(
                f"X: found {X.dtype} {X.shape}, expected uint8 or float (n, S, S, 3) with "
                "pixels 0-255"
            )
        labels = np.empty(len(X), np.int64)
        for start in range(0, len(X), BATCH):
            rows = resized(X[start : start + BATCH], self.networks[0].input_shape[1])
            # Padded to a full batch, because another shape would be compiled anew.
            padding = [(0, BATCH - len(rows)), (0, 0), (0, 0), (0, 0)]
            views = eight_views(np.pad(rows, padding)) if VIEWS else [np.pad(rows, padding)]
            answers = [
                network.predict_on_batch(view) for view in views for network in self.networks
            ]
            probabilities = np.mean(answers, axis=0)
            labels[start : start + BATCH] = probabilities[: len(rows)].argmax(axis=1)
        return labels


def eight_views(pictures):
    """List the turns by quarters of pictures (n, S, S, 3) and of their mirror images."""
    return [
        np.rot90(side, turns, axes=(1, 2))
        for side in (pictures, pictures[:, :, ::-1])
        for turns in range(4)
    ]


def resized(pictures, size):
    """Resize square pictures (n, S, S, 3) to float32 (n, size, size, 3).

    This is the Lanczos filter of Pillow, which resized the training images: it widens with
    the scale when it shrinks, works along rows and then along columns, and rounds to whole
    pixel values after each.
    """
    pictures = pictures.astype("float32")
    if pictures.shape[1] == size:
        return pictures
    weights = lanczos(pictures.shape[1], size)
    for rows_and_columns in (2, 1):
        pictures = np.moveaxis(pictures, rows_and_columns, -1) @ weights.T
        pictures = np.clip(np.floor(np.moveaxis(pictures, -1, rows_and_columns) + 0.5), 0, 255)
    return pictures


def lanczos(old, new):
    """Return the weights, float32 (new, old), that resize a line of pixels."""
    scale = old / new
    width = max(scale, 1.0)
    centres = (np.arange(new)[:, None] + 0.5) * scale
    # Pillow leaves out pixels whose centre is further away than the filter reaches.
    first = np.maximum(np.floor(centres - 3 * width + 0.5), 0)
    last = np.minimum(np.floor(centres + 3 * width + 0.5), old)
    pixels = np.arange(old)
    x = (pixels + 0.5 - centres) / width
    weights = np.where(abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0)
    weights *= (first <= pixels) & (pixels < last)
    return (weights / weights.sum(axis=1, keepdims=True)).astype("float32")
