"""The contact sheet shows originals, each followed by its copies, a row per class."""

import numpy as np
import pandas as pd
from PIL import Image

from hemagrid.reporting.pictures import GAP, write_contact_sheet

SIZE = 6
WHITE = 255


def test_tiles_stand_where_they_belong(tmp_path):
    originals = np.stack([np.full((SIZE, SIZE, 3), 10 + i, "uint8") for i in range(5)])
    # Parents 4, 0, 3 of class 0 and 2 of class 1, two copies each.
    parents = np.repeat([4, 2, 0, 3], 2)
    copies = np.stack([np.full((SIZE, SIZE, 3), 100 + i, "uint8") for i in range(8)])
    table = pd.DataFrame({"id": range(8), "parent_id": parents})
    table["label"] = np.where(table["parent_id"] == 2, 1, 0)
    write_contact_sheet(originals, copies, table, tmp_path / "sheet.png")

    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.format == "PNG"
        sheet = np.asarray(picture.convert("RGB"))
    step = SIZE + GAP
    # Two parents of a class at most, an empty place between them.
    expected = [
        [14, 100, 101, WHITE, 10, 104, 105],
        [12, 102, 103, WHITE, WHITE, WHITE, WHITE],
    ]
    assert sheet.shape == (2 * step - GAP, 7 * step - GAP, 3)
    for row, values in enumerate(expected):
        for column, value in enumerate(values):
            top, left = row * step, column * step
            assert (sheet[top : top + SIZE, left : left + SIZE] == value).all()
    assert (sheet[SIZE:step] == WHITE).all()
