"""A picture file becomes a square RGB picture, or says why it cannot."""

import numpy as np
import pytest
from PIL import Image

from hemagrid.data.pictures import Unusable, read_picture

SIZE = 8
SQUARE = (SIZE, SIZE)


@pytest.fixture
def read(tmp_path):
    """A function that saves a picture and reads the file: uint8 (SIZE, SIZE, 3)."""

    def read(picture, name="a.png", strict=False, **options):
        picture.save(tmp_path / name, **options)
        return np.asarray(read_picture(tmp_path / name, SIZE, strict))

    return read


def test_modes_become_rgb(read):
    assert (read(Image.new("RGBA", SQUARE, (9, 9, 9, 0))) == 255).all()
    assert (read(Image.new("LA", SQUARE, (9, 255))) == 9).all()
    assert (read(Image.new("1", SQUARE, 1)) == 255).all()
    assert (read(Image.new("CMYK", SQUARE), "a.tiff") == 255).all()
    palette = Image.new("RGB", SQUARE, (1, 2, 3)).convert("P", palette=1)
    assert (read(palette) == [1, 2, 3]).all()
    assert (read(palette, transparency=palette.getpixel((0, 0))) == 255).all()
    deep = Image.fromarray(np.full(SQUARE, 257 * 100, np.uint16))
    for name in ("a.png", "a.tiff", "a.pgm"):
        assert (read(deep, name) == 100).all()


def test_exif_orientation_is_applied(read):
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise to show
    shown = read(Image.fromarray(pixels), exif=exif)
    assert (shown[:, -1] == 255).all() and not shown[:, :-1].any()


def test_centre_square_is_taken(read):
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 200
    assert (read(Image.fromarray(wide)) == 200).all()


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (Image.new("RGB", (8, 9)), "8x9 in mode RGB, expected 8x8 in mode RGB"),
        (Image.new("L", SQUARE), "8x8 in mode L"),
    ],
)
def test_strict_refuses_another_size_or_mode(read, picture, reason):
    read(picture)
    with pytest.raises(Unusable, match=reason):
        read(picture, strict=True)
