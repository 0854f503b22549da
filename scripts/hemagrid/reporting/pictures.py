"""Pictures for the report: which images to show of a run, each of them held once."""

import base64
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hemagrid import io

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
    content = BytesIO()
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


# Parents shown per class.
PER_CLASS = 2


GAP = 4


def write_contact_sheet(images, augmented, table, out):
    """Write a PNG: a row per class, in it originals, each followed by its copies.

    `images` (the originals) and `augmented` are uint8 (N, S, S, 3) arrays; `table` is the
    subset's table.
    """
    rows = []
    for _, members in table.groupby("label", sort=True):
        parents = members["parent_id"].unique()[:PER_CLASS]
        tiles = []
        for parent in parents:
            copies = members.loc[members["parent_id"] == parent, "id"]
            tiles += [images[parent], *augmented[copies.to_numpy()], None]
        rows.append(tiles[:-1])
    with io.replacing(out) as temporary:
        Image.fromarray(tiled(rows, images.shape[1])).save(temporary)


def tiled(rows, size):
    """Lay lists of tiles out as one picture, uint8 (H, W, 3), on white.

    A tile is uint8 (size, size, 3), None leaves its place empty.
    """
    columns = max(len(tiles) for tiles in rows)
    sheet = np.full(
        (len(rows) * (size + GAP) - GAP, columns * (size + GAP) - GAP, 3), 255, "uint8"
    )
    for y, tiles in enumerate(rows):
        for x, tile in enumerate(tiles):
            if tile is not None:
                top, left = y * (size + GAP), x * (size + GAP)
                sheet[top : top + size, left : left + size] = tile
    return sheet


SIDE = 96  # pixels that a picture of the sheet has at least


_FONT_SIZE = 12


def draw_sheet(pictures, spotlights, table, out):
    """Write a PNG: a row per true class, right answers left, wrong ones right.

    Each picture stands beside its spotlight; behind the two of a wrong answer stands what
    was predicted. `pictures` and `spotlights` are uint8 (N, S, S, 3); `table` holds `true`,
    `predicted`, `confidence` (0-1) and `right` ("true" or "false") of each, in this order.
    """
    factor = -(-SIDE // pictures.shape[1])
    pictures, spotlights = (
        array.repeat(factor, axis=1).repeat(factor, axis=2) for array in (pictures, spotlights)
    )
    side = pictures.shape[1]
    most = table[table["right"] == "true"].groupby("true").size().max()
    rows = []
    for true, members in table.groupby("true", sort=False):
        right, wrong = [], []
        for place, row in members.iterrows():
            pair = [pictures[place], spotlights[place]]
            if row["right"] == "true":
                right += pair
            else:
                said = _label([row["predicted"], f"{100 * row['confidence']:.0f} %"], side)
                wrong += [*pair, said]
        right += [None] * (2 * most - len(right))
        rows.append([_label([true], side), *right, None, *wrong])
    with io.replacing(out) as temporary:
        Image.fromarray(tiled(rows, side)).save(temporary)


def _label(lines, side):
    """Draw lines of text, each cut to fit, on a white square: uint8 (side, side, 3)."""
    square = Image.new("RGB", (side, side), "white")
    font = ImageFont.load_default(_FONT_SIZE)
    drawing = ImageDraw.Draw(square)
    for place, line in enumerate(lines):
        if font.getlength(line) > side:
            while font.getlength(line + "...") > side:
                line = line[:-1]
            line += "..."
        drawing.text((0, 1.5 * _FONT_SIZE * place), line, fill="black", font=font)
    return np.asarray(square)
