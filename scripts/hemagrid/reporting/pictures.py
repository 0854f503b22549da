"""Pictures of the report: data URIs, the album of matrix cells, and sheets as PNG."""

import base64
from io import BytesIO

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hemagrid import io
from hemagrid.reporting.text import shorten

SIDE = 96  # pixels: at most on the page, at least on the Grad-CAM sheet
GAP = 4  # pixels between the pictures of a sheet
HEADING = 20  # pixels above them, for the words over each column
PARENTS = 2  # originals per class on a contact sheet

_QUALITY, _EFFORT = 85, 2  # of WebP; the effort, of 0 to 6, costs time alone
_FONT_SIZE = 12


def picture(pixels):
    """Encode pixels, uint8 (H, W, 3), as the data URI of a WebP of at most SIDE pixels."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((SIDE, SIDE))
    return _webp(image)


def sheet(path):
    """Encode a sheet, the path of a PNG, as the data URI of a WebP of the same size."""
    with Image.open(path) as image:
        return _webp(image.convert("RGB"))


def _webp(image):
    content = BytesIO()
    image.save(content, "WEBP", quality=_QUALITY, method=_EFFORT)
    return f"data:image/webp;base64,{base64.b64encode(content.getvalue()).decode()}"


def mistakes(labels, probabilities, count):
    """Find the most confident wrong answers.

    Args:
        labels: True classes, int (n,).
        probabilities: float (n, k).
        count: Number of rows to return at most.

    Returns:
        Row numbers, int (m,), the most confident first, ties in their order.
    """
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    confidence = probabilities[wrong].max(axis=1)
    return wrong[np.argsort(-confidence, kind="stable")[:count]]


class Album:
    """Pictures of several subsets; each is held once, however many runs show it.

    Args:
        images: {subset: uint8 (N, H, W, 3)}.
        limit: Number of pictures to hold at most. It bounds the size of the page.
        blank: {subset: bool (N,)}, the images without a picture, which are not shown.
    """

    def __init__(self, images, limit, blank):
        self.images, self.limit, self.blank = images, limit, blank
        self.numbers, self.pictures = {}, []

    def cells(self, subset, labels, probabilities, count):
        """Choose pictures for each cell of a confusion matrix.

        Pictures that the album already holds come first, because they cost nothing; among the
        others, the most confident answers do. Cells take turns, one picture each, so that the
        limit affects all of them alike; wrong answers take their turn before right ones.

        Args:
            subset: Name of the subset.
            labels: True classes, int (n,).
            probabilities: float (n, k).
            count: Number of pictures per cell at most.

        Returns:
            {(true, predicted): [(number, confidence)]}: the number of a picture in `pictures`
            and the probability of the predicted class.
        """
        predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
        order = np.argsort(-confidence, kind="stable")
        if subset in self.blank:
            order = order[~self.blank[subset][order]]
        held = np.array([(subset, int(row)) in self.numbers for row in order], bool)
        queues = {}
        for row in (*order[held], *order[~held]):
            cell = int(labels[row]), int(predicted[row])
            queues.setdefault(cell, []).append(int(row))
        chosen = {}
        for turn in range(count):
            for cell in sorted(queues, key=lambda cell: cell[0] == cell[1]):
                if turn >= len(queues[cell]):
                    continue
                row = queues[cell][turn]
                if (subset, row) not in self.numbers:
                    if len(self.pictures) >= self.limit:
                        continue
                    self.numbers[subset, row] = len(self.pictures)
                    self.pictures.append(picture(self.images[subset][row]))
                number = self.numbers[subset, row]
                chosen.setdefault(cell, []).append((number, float(confidence[row])))
        return chosen


def write_contact_sheet(images, augmented, table, out):
    """Write a PNG with a row per class: its name, and originals with their augmented copies.

    Args:
        images: The originals, uint8 (N, S, S, 3).
        augmented: The copies, uint8 (M, S, S, 3).
        table: Table of the augmented subset, with `id`, `parent_id`, `label` and `class_name`.
        out: Path of the PNG.
    """
    rows, most = [], 0
    side = images.shape[1] * _factor(images)
    for _, members in table.groupby("label", sort=True):
        tiles = [_label([members["class_name"].iloc[0]], side)]
        for parent in members["parent_id"].unique()[:PARENTS]:
            copies = members.loc[members["parent_id"] == parent, "id"].to_numpy()
            tiles += [*_enlarged(np.stack([images[parent], *augmented[copies]])), None]
            most = max(most, len(copies))
        rows.append(tiles[:-1])
    of_parent = ["original", *(f"copy {place + 1}" for place in range(most)), None]
    _write_sheet(rows, side, out, ["class", *of_parent * PARENTS])


def draw_sheet(pictures, spotlights, table, out):
    """Write the Grad-CAM sheet, a PNG with a row per true class.

    Right answers stand left, wrong ones right. Each picture is followed by its spotlight, and
    a wrong answer by what was predicted.

    Args:
        pictures: uint8 (N, S, S, 3).
        spotlights: uint8 (N, S, S, 3).
        table: Data frame with `true`, `predicted`, `confidence` (0-1) and `right` ("true" or
            "false"), one row per picture.
        out: Path of the PNG.
    """
    pictures, spotlights = _enlarged(pictures), _enlarged(spotlights)
    side = pictures.shape[1]
    if table.empty:
        _write_sheet([[_label(["no feature maps"], side)]], side, out, [None])
        return
    most = (table["right"] == "true").groupby(table["true"]).sum().max()  # 0 if none is right
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
    wrong = ["wrong", "where it looked", "taken for"]
    heading = ["true class", *["right", "where it looked"] * most, None]
    _write_sheet(rows, side, out, heading + wrong * len(table))


def _factor(pictures):
    return -(-SIDE // pictures.shape[1])


def _enlarged(pictures):
    """Repeat the pixels of small pictures, (N, S, S, 3), so that they have at least SIDE."""
    return pictures.repeat(_factor(pictures), axis=1).repeat(_factor(pictures), axis=2)


def _write_sheet(rows, side, out, heading):
    """Write rows of tiles on white, with a heading.

    Args:
        rows: Lists of tiles, uint8 (side, side, 3), or None for an empty place.
        side: Height and width of a tile.
        out: Path of the PNG.
        heading: Text or None per column; those of columns without any tile are left out.
    """
    step = side + GAP
    width = max(len(tiles) for tiles in rows)
    shape = (HEADING + len(rows) * step - GAP, width * step - GAP, 3)
    sheet = np.full(shape, 255, "uint8")
    for x, words in enumerate(heading[:width]):
        if words:
            sheet[:HEADING, x * step : x * step + side] = _label([words], side)[:HEADING]
    for y, tiles in enumerate(rows):
        top = HEADING + y * step
        for x, tile in enumerate(tiles):
            if tile is not None:
                sheet[top : top + side, x * step : x * step + side] = tile
    with io.replacing(out) as temporary:
        Image.fromarray(sheet).save(temporary)


def _label(lines, side):
    """Draw lines of text, each shortened to fit, on a white tile."""
    tile = Image.new("RGB", (side, side), "white")
    font = ImageFont.load_default(_FONT_SIZE)
    drawing = ImageDraw.Draw(tile)
    for place, line in enumerate(lines):
        line = shorten(line, side, font.getlength)
        drawing.text((0, 1.5 * _FONT_SIZE * place), line, fill="black", font=font)
    return np.asarray(tile)
