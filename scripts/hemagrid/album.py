"""Pictures for the report: which images to show of a run, each of them held once."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 96  # pixels at most: the size on the page
_QUALITY = 85


def data_uri(content, media_type):
    """Return bytes as a data URI, which an <img> shows and which asks nobody for anything."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def picture_file(path):
    """Read a PNG file as a data URI."""
    return data_uri(Path(path).read_bytes(), "image/png")


def picture(pixels):
    """Encode pixels, uint8 (H, W, 3), as the data URI of a JPEG of at most SIDE pixels."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((SIDE, SIDE))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=_QUALITY)
    return data_uri(content.getvalue(), "image/jpeg")


def mistakes(labels, probabilities, count):
    """Return the rows of the `count` most confident wrong answers, int (m,), m <= count.

    labels: int (n,); probabilities: float (n, k). Of equals the first.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    confidence = probabilities[wrong].max(axis=1)
    return wrong[np.argsort(-confidence, kind="stable")[:count]]


class Album:
    """Pictures of subsets, each held once however many runs show it.

    images: {subset: uint8 (N, H, W, 3)}. At most `limit` pictures are held: it bounds the
    page, whatever the size of the study.
    """

    def __init__(self, images, limit):
        self.images, self.limit = images, limit
        self.numbers, self.pictures = {}, []

    def cells(self, subset, labels, probabilities, count):
        """Choose up to `count` pictures for each cell of a confusion matrix.

        Returns {(true, predicted): [(number, confidence)]}: the number of a picture of the
        album and the probability of the predicted class. Pictures that are held already come
        first, because they cost nothing; of the others the most confident answers. Cells are
        served in turn, one picture each, so that the limit falls on all of them alike; wrong
        answers are served before right ones.
        """
        predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
        order = np.argsort(-confidence, kind="stable")
        held = np.array([(subset, int(row)) in self.numbers for row in order], bool)
        queues = {}
        for row in (*order[held], *order[~held]):
            cell = int(labels[row]), int(predicted[row])
            queues.setdefault(cell, []).append(int(row))
        chosen = {}
        for turn in range(count):
            for cell in sorted(queues, key=lambda cell: cell[0] == cell[1]):
                if turn < len(queues[cell]):
                    row = queues[cell][turn]
                    number = self._number(subset, row)
                    if number is not None:
                        chosen.setdefault(cell, []).append((number, float(confidence[row])))
        return chosen

    def _number(self, subset, row):
        """Return the number of a picture, None where the album is full and lacks it."""
        key = subset, row
        if key not in self.numbers and len(self.pictures) < self.limit:
            self.numbers[key] = len(self.pictures)
            self.pictures.append(picture(self.images[subset][row]))
        return self.numbers.get(key)
