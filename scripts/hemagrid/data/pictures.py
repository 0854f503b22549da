"""Where images come from: an npz or class folders, made one array and one table.

Every source keeps one contract: `images.npy`, uint8 (N, S, S, 3), and `samples.csv`
with the columns of `COLUMNS`. A row with an image has its row number in `images.npy` as
id; rows of skipped files come last, without id and label, and say why they were
skipped.
"""

import warnings

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 64 * 2**20  # of one picture, read from its header before decoding


def square(picture, size):
    """Crop a picture to its centre square and resize that to `size`, by Lanczos filter.

    Pillow's Lanczos widens with the scale, so shrinking does not alias. A picture that
    is `size` by `size` already keeps its pixels.
    """
    if picture.size == (size, size):
        return picture
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    centre = picture.crop((left, top, left + side, top + side))
    return centre.resize((size, size), Image.Resampling.LANCZOS)


def read_picture(path, image_size, strict=False):
    """Decode one picture file to an RGB picture of `image_size` by `image_size`.

    EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled to
    8 bits, of several frames the first is taken; then `square`. Raises `Unusable` with
    the reason where that gives no picture, and with `strict` where it changes anything.
    """
    if path.name.startswith("."):
        raise Unusable("hidden")
    if path.is_dir():
        raise Unusable("link to a folder, not followed")
    if not path.is_file():
        raise Unusable("not a file, or a broken link")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                _check_picture(picture, image_size, strict)
                return square(_to_rgb(ImageOps.exif_transpose(picture)), image_size)
    except Unusable:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise Unusable(f"larger than {MAX_PIXELS} pixels, not decoded") from None
    except Image.UnidentifiedImageError:
        raise Unusable("not a picture that Pillow knows") from None
    except Exception as error:  # Pillow's decoders raise many types on a broken file
        raise Unusable(f"unreadable: {printable(str(error))}") from error


class Unusable(Exception):
    """Why a file gives no picture."""


def _check_picture(picture, image_size, strict):
    width, height = picture.size
    if width * height > MAX_PIXELS:
        raise Unusable(f"{width}x{height} is larger than {MAX_PIXELS} pixels, not decoded")
    expected = (image_size, image_size)
    if strict and (picture.size != expected or picture.mode != "RGB"):
        raise Unusable(
            f"{width}x{height} in mode {picture.mode},"
            f" expected {image_size}x{image_size} in mode RGB"
        )


def _to_rgb(picture):
    if picture.mode == "I" or picture.mode.startswith("I;16"):
        # Pillow would clip. 65535 / 257 = 255; mode I is what a 16-bit PGM gives.
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise Unusable("32-bit values outside the range of 16 bits")
        return Image.fromarray(np.round(values / 257).astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise Unusable("floating-point values, whose range is unknown")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        return Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def printable(text):
    """Escape what no CSV should hold: control characters, undecodable bytes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
