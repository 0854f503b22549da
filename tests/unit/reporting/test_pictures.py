import base64
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hemagrid.reporting.pictures import (
    GAP,
    HEADING,
    SIDE,
    Album,
    draw_sheet,
    mistakes,
    picture,
    sheet,
    write_contact_sheet,
)


@pytest.fixture
def images():
    """Ten flat pictures, each of a grey of its own."""
    return np.full((10, 8, 8, 3), 20 * np.arange(10)[:, None, None, None], np.uint8)


def decoded(uri):
    kind, _, content = uri.partition(";base64,")
    image = Image.open(BytesIO(base64.b64decode(content)))
    assert kind == f"data:image/{image.format.lower()}"
    return image


def grey(uri):
    """Return the row of `images` that a picture shows."""
    return round(np.asarray(decoded(uri)).mean() / 20)


def answers(predicted, confidence, k=2):
    """Probabilities, float (n, k), with these largest values in these places."""
    others = (1 - np.asarray(confidence, float)) / (k - 1)
    probabilities = np.repeat(others[:, None], k, axis=1)
    probabilities[np.arange(len(predicted)), predicted] = confidence
    return probabilities


@pytest.mark.parametrize(
    ("shape", "size"),
    [((32, 32), (32, 32)), ((200, 100), (SIDE // 2, SIDE)), ((96, 96), (96, 96))],
)
def test_a_picture_is_as_large_as_the_page_shows_it_at_most(shape, size):
    colour = np.array([200, 40, 120], np.uint8)
    image = decoded(picture(np.broadcast_to(colour, (*shape, 3))))
    assert (image.format, image.size) == ("WEBP", size)
    assert np.abs(np.asarray(image).astype(int) - colour).max() < 8


def test_a_sheet_keeps_its_size(tmp_path):
    Image.new("RGB", (40, 20), "purple").save(tmp_path / "sheet.png")
    image = decoded(sheet(tmp_path / "sheet.png"))
    assert (image.format, image.size) == ("WEBP", (40, 20))


def test_mistakes_are_the_most_confident_wrong_answers():
    labels = np.array([0, 1, 0, 1, 0, 1])
    probabilities = answers([1, 1, 1, 0, 0, 0], [0.6, 0.99, 0.9, 0.7, 0.99, 0.9])
    assert mistakes(labels, probabilities, 3).tolist() == [2, 5, 3]
    assert mistakes(labels, probabilities, 9).tolist() == [2, 5, 3, 0]
    assert mistakes(labels, answers(labels, [0.9] * 6), 3).tolist() == []


def test_a_cell_shows_its_most_confident_images(images):
    labels = np.array([0, 0, 0, 0, 1, 1])
    probabilities = answers([0, 0, 0, 1, 1, 0], [0.6, 0.9, 0.7, 0.8, 0.95, 0.55])
    album = Album({"test": images}, 100, {})
    cells = album.cells("test", labels, probabilities, 2)
    shown = {
        cell: [(grey(album.pictures[number]), round(sure, 2)) for number, sure in chosen]
        for cell, chosen in cells.items()
    }
    assert shown == {
        (0, 0): [(1, 0.9), (2, 0.7)],
        (0, 1): [(3, 0.8)],
        (1, 1): [(4, 0.95)],
        (1, 0): [(5, 0.55)],
    }


def test_a_picture_is_held_once_and_chosen_again(images):
    labels = np.zeros(4, int)
    album = Album({"test": images, "test_augmented": images[::-1]}, 100, {})
    first = album.cells("test", labels, answers([0] * 4, [0.9, 0.6, 0.8, 0.7]), 2)
    assert [number for number, _ in first[0, 0]] == [0, 1]
    assert [grey(uri) for uri in album.pictures] == [0, 2]
    # Another run is surest of others, but the page has these already: in its own order.
    again = album.cells("test", labels, answers([0] * 4, [0.6, 0.95, 0.7, 0.9]), 2)
    assert [number for number, _ in again[0, 0]] == [1, 0] and len(album.pictures) == 2
    # The same row of another subset is another picture.
    album.cells("test_augmented", labels, answers([0] * 4, [0.9, 0.6, 0.8, 0.7]), 1)
    assert [grey(uri) for uri in album.pictures] == [0, 2, 9]


def test_a_full_album_falls_on_all_cells_alike_and_spares_the_mistakes(images):
    labels = np.array([0] * 6 + [1] * 4)
    predicted = [0, 0, 0, 1, 1, 1, 1, 1, 0, 0]
    probabilities = answers(predicted, np.linspace(0.99, 0.6, 10))
    turns = {
        2: {(0, 1): [3], (1, 0): [8]},
        4: {(0, 1): [3], (1, 0): [8], (0, 0): [0], (1, 1): [6]},
        5: {(0, 1): [3, 4], (1, 0): [8], (0, 0): [0], (1, 1): [6]},
        9: {(0, 1): [3, 4, 5], (1, 0): [8, 9], (0, 0): [0, 1], (1, 1): [6, 7]},
    }
    for limit, rows in turns.items():
        album = Album({"test": images}, limit, {})
        cells = album.cells("test", labels, probabilities, 3)
        assert len(album.pictures) == limit
        assert {
            cell: [grey(album.pictures[number]) for number, _ in chosen]
            for cell, chosen in cells.items()
        } == rows
    # What is held may still be shown when nothing more fits.
    full = album.cells("test", labels, probabilities, 1)
    assert full == {cell: chosen[:1] for cell, chosen in cells.items()}
    assert Album({"test": images}, 0, {}).cells("test", labels, probabilities, 3) == {}


def test_an_image_without_a_picture_is_not_shown(images):
    labels, blank = np.zeros(4, int), np.array([False, True, False, True])
    probabilities = answers([0, 0, 0, 1], [0.7, 0.9, 0.8, 0.6])
    album = Album({"test_augmented": images}, 100, {"test_augmented": blank})
    cells = album.cells("test_augmented", labels, probabilities, 2)
    assert cells.keys() == {(0, 0)}
    assert [grey(album.pictures[number]) for number, _ in cells[0, 0]] == [2, 0]


def test_only_images_that_are_shown_are_read(images):
    class Counting:
        read = 0

        def __getitem__(self, row):
            self.read += 1
            return images[row]

    counting = Counting()
    Album({"test": counting}, 3, {}).cells(
        "test", np.zeros(10, int), answers([0] * 10, [0.9] * 10), 6
    )
    assert counting.read == 3


def assert_tiles(sheet, rows, height=None):
    """Compare a sheet with its rows, a value per tile; long texts end within their tile."""
    side, top = 3 * 40, 0 if height else HEADING
    height, step = height or side, side + GAP
    assert sheet.shape == (top + len(rows) * (height + GAP) - GAP, len(rows[0]) * step - GAP, 3)
    for row, values in enumerate(rows):
        for column, value in enumerate(values):
            tile = sheet[top + row * step :, column * step :][:height, :side]
            if value == "text":
                assert 0 < (tile < 128).mean() < 0.3
            else:
                assert (tile == value).all(), (row, column)
    for column in range(1, len(rows[0])):
        assert (sheet[:, column * step - GAP : column * step] == 255).all()


def test_a_contact_sheet_has_a_row_per_class(tmp_path):
    size = 40
    originals = np.stack([np.full((size, size, 3), 10 + i, "uint8") for i in range(5)])
    # Parents 4, 0, 3 of class 0 and 2 of class 1, two copies each.
    parents = np.repeat([4, 2, 0, 3], 2)
    copies = np.stack([np.full((size, size, 3), 100 + i, "uint8") for i in range(8)])
    table = pd.DataFrame({"id": range(8), "parent_id": parents})
    table["label"] = np.where(table["parent_id"] == 2, 1, 0)
    table["class_name"] = np.where(table["label"], "ig", "basophil")
    write_contact_sheet(originals, copies, table, tmp_path / "sheet.png")

    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.format == "PNG"
        sheet = np.asarray(picture.convert("RGB"))
    # Two parents of a class at most, an empty place between them; the name of the class first.
    expected = [
        ["text", 14, 100, 101, 255, 10, 104, 105],
        ["text", 12, 102, 103, 255, 255, 255, 255],
    ]
    assert_tiles(sheet, expected)
    words = ["text", *["text"] * 3, 255, *["text"] * 3]
    assert_tiles(sheet[:HEADING], [words], HEADING)


def test_the_grad_cam_sheet_shows_right_answers_left_and_wrong_ones_right(tmp_path):
    size, long = (
        40,
        "\N{DROP OF BLOOD}<b>" + 196 * "x",
    )  # enlarged three times, to at least SIDE
    pictures = np.stack([np.full((size, size, 3), 10 + n, "uint8") for n in range(4)])
    lit = pictures + 100
    table = pd.DataFrame(
        [
            ("ig", "ig", 0.9, "true"),
            ("ig", long, 0.8, "false"),
            (long, long, 0.7, "true"),
            (long, long, 0.6, "true"),
        ],
        columns=["true", "predicted", "confidence", "right"],
    )
    draw_sheet(pictures, lit, table, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.format == "PNG"
        sheet = np.asarray(picture.convert("RGB"))
    # Name, two pairs of right answers, a gap, a pair of a wrong one and what was predicted.
    text, white = "text", 255
    expected = [
        [text, 10, 110, white, white, white, 11, 111, text],
        [text, 12, 112, 13, 113, white, white, white, white],
    ]
    assert_tiles(sheet, expected)
    # Every place has a heading but the gap between right and wrong answers.
    words = [white if column == 5 else text for column in range(9)]
    assert_tiles(sheet[:HEADING], [words], HEADING)


def test_a_sheet_of_a_run_that_is_never_right(tmp_path):
    table = pd.DataFrame(
        [["a", "b", 0.9, "false"]], columns=["true", "predicted", "confidence", "right"]
    )
    tile = np.full((1, 32, 32, 3), 10, np.uint8)
    draw_sheet(tile, tile, table, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        # Name, a gap, the pair and what was predicted.
        assert picture.width == 5 * (3 * 32 + GAP) - GAP
