"""One picture file to one square RGB picture, or the reason why not."""

import warnings

import numpy as np
from PIL import Image, ImageOps

MAX_PIXELS = 64 * 2**20  # of one picture, read from its header before decoding


class Unusable(Exception):
    """Why a file gives no picture."""


def read_picture(path, image_size, strict=False):
    """Read one picture file.

    EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled to 8
    bits, and only the first of several frames is used; see also `square`.

    Args:
        path: Path of the file.
        image_size: Edge of the result in pixels.
        strict: Whether to refuse a picture that is not RGB of that size already.

    Returns:
        A Pillow picture, RGB, `image_size` by `image_size`.

    Raises:
        Unusable: If the file gives no picture, or `strict` refuses it.
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


def square(picture, size):
    """Crop a picture to its centre square and resize that by a Lanczos filter.

    Pillow's Lanczos filter widens with the scale, so shrinking does not alias. A picture of
    the right size keeps its pixels.

    Args:
        picture: A Pillow picture.
        size: Edge of the result in pixels.

    Returns:
        A Pillow picture, `size` by `size`.
    """
    if picture.size == (size, size):
        return picture
    side = min(picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    centre = picture.crop((left, top, left + side, top + side))
    return centre.resize((size, size), Image.Resampling.LANCZOS)


def printable(text):
    """Escape what no CSV should hold: control characters and undecodable bytes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


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
