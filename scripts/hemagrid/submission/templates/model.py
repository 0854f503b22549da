"""A trained network as the challenge wants it: `Model().predict(X)`, on NumPy and Keras."""

import os

import keras
import numpy as np

BATCH = 64  # pictures in the network at once, however many there are


class Model:
    """The network of the file `model.keras`, which lies beside this one."""

    def __init__(self):
        folder = os.path.dirname(os.path.abspath(__file__))
        self.network = keras.saving.load_model(
            os.path.join(folder, "model.keras"), compile=False
        )

    def predict(self, X):
        """Return the class numbers, int64 (n,), of pictures X.

        X is uint8 or float (n, 96, 96, 3), or of the size that the network was trained on,
        with pixels 0-255. Raises ValueError on anything else.
        """
        X = np.asarray(X)
        expected = self.network.input_shape[1:]
        if X.ndim != 4 or X.shape[1:] != expected or X.dtype.kind not in "uif":
            raise ValueError(
                f"X: found {X.dtype} {X.shape}, expected uint8 or float (n, "
                f"{', '.join(map(str, expected))}) with pixels 0-255"
            )
        labels = np.empty(len(X), np.int64)
        for start in range(0, len(X), BATCH):
            rows = X[start : start + BATCH].astype("float32")
            # Padded to full size, because another shape would be traced anew.
            padding = [(0, BATCH - len(rows)), (0, 0), (0, 0), (0, 0)]
            probabilities = np.asarray(self.network.predict_on_batch(np.pad(rows, padding)))
            labels[start : start + BATCH] = probabilities[: len(rows)].argmax(axis=1)
        return labels
