"""A picture of originals and what augmentation made of them."""

import numpy as np
from PIL import Image

from hemagrid import files

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
    with files.replacing(out) as temporary:
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
