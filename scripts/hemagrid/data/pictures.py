"""One picture file to one square RGB picture, or the reason why not.

Colour profiles and gamma are not applied: pixels are taken as they are stored.
"""

import contextlib
import sys
import warnings
from typing import NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

MAX_PIXELS = 64 * 2**20  # of one picture, read from its header before decoding
ORIENTATION = 0x0112  # the EXIF and TIFF tag
CROP, PAD = "crop", "pad"


class Unusable(Exception):
    """Why a file gives no picture. What comes before a colon is the kind of reason."""


class Deep(NamedTuple):
    """How a picture of more than 8 bits per channel is stored."""

    format: str
    stored_bits: int
    signed: bool
    white_is_zero: bool

    def __str__(self):
        return (
            f"{self.stored_bits}-bit {'signed ' * self.signed}{self.format}"
            f"{' with white as zero' * self.white_is_zero}"
        )


def read_picture(path, image_size, *, fit=PAD, strict=False, bits=None):
    """Read one picture file.

    EXIF orientation is applied, transparency is laid on white, deeper channels are scaled to
    8 bits, and only the first of several frames is used; see also `square`.

    Args:
        path: Path of the file.
        image_size: Edge of the result in pixels.
        fit: `crop` or `pad`, what makes a picture square.
        strict: Whether to refuse a picture that does not stay as it is.
        bits: Significant bits of deeper channels: a number for all, or a dict from the text of
            a `Deep`. Ways of storing that it lacks have all their bits, up to 16. Unless a
            number is given, pictures so dark that they may be of fewer bits are refused.

    Returns:
        A Pillow picture, RGB, `image_size` by `image_size`, and the list of what was changed
        to get it, such as "resized".

    Raises:
        Unusable: If the file gives no picture, or `strict` refuses it.
    """
    with _opened(path) as picture:
        stored = f"{picture.width}x{picture.height} in mode {picture.mode}"
        changes = []
        if getattr(picture, "is_animated", False):
            changes.append("first frame")
        # A loaded TIFF is turned already, and its tag is gone. A PNG must be loaded for it.
        turned = getattr(picture, "tag_v2", {}).get(ORIENTATION, 1)
        if deep := deep_storage(picture):
            changes.append("to 8 bits")
            rgb = _scaled(path, picture, deep, bits)
        elif picture.mode == "F":
            raise Unusable("floating-point values, whose range is unknown")
        elif picture.has_transparency_data:
            changes.append("on white")
            layer = picture.convert("RGBA")
            if not layer.getchannel("A").getextrema()[1]:
                raise Unusable("transparent all over")
            white = Image.new("RGBA", layer.size, "white")
            rgb = Image.alpha_composite(white, layer).convert("RGB")
        else:
            if picture.mode != "RGB":
                changes.append("to RGB")
            rgb = picture.convert("RGB")
        if picture.format in ("JPEG", "MPO"):
            _check_jpeg(path)
        rgb.getexif()[ORIENTATION] = orientation = picture.getexif().get(ORIENTATION, 1)
        if {turned, orientation} & set(range(2, 9)):
            changes.append("turned")
        result, squared = square(ImageOps.exif_transpose(rgb), image_size, fit)
        changes += squared
    if strict and changes:
        raise Unusable(
            f"{stored}, expected {image_size}x{image_size} in mode RGB, nothing to change"
            f" (would be: {', '.join(changes)})"
        )
    return result, changes


def read_peak(path):
    """Find the largest stored value of a picture of more than 8 bits per channel.

    Returns:
        Its `Deep` and the value, or None for any other picture.

    Raises:
        Unusable: If the file gives no picture.
    """
    with _opened(path) as picture:
        deep = deep_storage(picture)
        return deep and (deep, int(_colour(_values(path, picture), picture).max()))


def deep_storage(picture):
    """Return the `Deep` of an opened picture, or None for 8 bits and floating point."""
    tile = picture.tile[0] if getattr(picture, "tile", None) else None
    if tile and tile.codec_name == "ppm" and tile.args == ("RGB", 65535):
        return Deep("PPM", 16, signed=False, white_is_zero=False)
    integer = picture.mode == "I" or picture.mode.startswith("I;16")
    if not integer and (";16" not in _raw_mode(picture) or picture.mode == "CMYK"):
        return None
    tags = getattr(picture, "tag_v2", {})
    return Deep(
        picture.format,
        tags.get(258, (16,))[0],
        signed=tags.get(339, (1,))[0] == 2,
        white_is_zero=tags.get(262) == 0,
    )


def square(picture, size, fit=PAD):
    """Make a picture square and resize it by a Lanczos filter.

    Pillow's Lanczos filter widens with the scale, so shrinking does not alias. A picture of
    the right size keeps its pixels.

    Args:
        picture: A Pillow picture, RGB.
        size: Edge of the result in pixels.
        fit: `crop` to the centre square, or `pad` the shorter side with the median colour of
            the picture's edge.

    Returns:
        A Pillow picture, `size` by `size`, and the list of what was changed.
    """
    changes = []
    if fit == CROP and picture.width != picture.height:
        changes.append("cropped")
        side = min(picture.size)
        left, top = (picture.width - side) // 2, (picture.height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
    scale = size / max(picture.size)
    inner = tuple(max(1, round(scale * edge)) for edge in picture.size)
    if picture.width != picture.height:
        changes.append("padded")
        pixels = np.asarray(picture)
        edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
        canvas = Image.new("RGB", (size, size), tuple(np.median(edge, axis=0).astype(int)))
    if picture.size != inner:
        changes.append("resized")
        picture = picture.resize(inner, Image.Resampling.LANCZOS)
    if "padded" in changes:
        canvas.paste(picture, ((size - inner[0]) // 2, (size - inner[1]) // 2))
        picture = canvas
    return picture, changes


def printable(text):
    """Escape what no CSV should hold: control characters and undecodable bytes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextlib.contextmanager
def _opened(path):
    """Yield a picture whose header is read; turn whatever breaks it into `Unusable`."""
    if path.is_dir():
        raise Unusable("link to a folder, not followed")
    if not path.is_file():
        raise Unusable("not a file, or a broken link")
    if path.stat().st_size == 0:
        raise Unusable("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                width, height = picture.size
                if width * height > MAX_PIXELS:
                    raise Unusable(
                        f"too large: {width}x{height}, larger than {MAX_PIXELS} pixels"
                    )
                _refuse_what_pillow_misreads(path, picture)
                yield picture
    except Unusable:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise Unusable(f"too large: larger than {MAX_PIXELS} pixels") from None
    except Image.UnidentifiedImageError:
        raise Unusable("not a picture that Pillow knows") from None
    except Exception as error:  # Pillow's decoders raise many types on a broken file
        raise Unusable(f"unreadable: {printable(str(error))}") from error


def _refuse_what_pillow_misreads(path, picture):
    """Raise `Unusable` for the kinds of files that Pillow decodes to other pixels."""
    tags = getattr(picture, "tag_v2", {})
    bits, signed = tags.get(258, (8,))[0], tags.get(339, (1,))[0] == 2
    if bits > 8 and tags.get(284) == 2 and len(picture.getbands()) > 1:
        raise Unusable(f"misread by Pillow: TIFF of {bits} bits in separate planes")
    if bits == 8 and signed:
        raise Unusable("misread by Pillow: TIFF of signed 8-bit values")
    if picture.format == "JPEG2000" and len(picture.getbands()) > 1:
        start = path.read_bytes().partition(b"\xff\x4f\xff\x51")[2]  # the marker SIZ
        bits = (start[38] & 0x7F) + 1
        if bits > 8:
            # Its rounding turns the brightest values to black.
            raise Unusable(f"misread by Pillow: JPEG 2000 of {bits} bits in colour")


def _check_jpeg(path):
    """Raise `Unusable` if libjpeg warns of damage, which Pillow does not pass on.

    Decoded at an eighth of the size, it still reads every byte.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            simplejpeg.decode_jpeg(
                path.read_bytes(), "GRAY", min_height=1, min_width=1, min_factor=8
            )
        except ValueError as error:
            raise Unusable(f"damaged: {printable(str(error))}") from None


def _scaled(path, picture, deep, bits):
    """Return a deep picture as RGB of 8 bits."""
    premultiplied = _raw_mode(picture).startswith("RGBa")
    values = _values(path, picture)
    colour = _colour(values, picture)
    peak = colour.max()
    stated = isinstance(bits, int)
    if not stated:
        known = None if bits is None else bits.get(str(deep))
        bits = known or min(deep.stored_bits - deep.signed, 16)
    top = 2**bits - 1
    if colour.min() < 0 or peak > top:
        raise Unusable(
            f"out of range: values from {colour.min()} to {peak}, expected 0 to {top}"
        )
    if not stated and bits >= 12 and peak < 2 ** (bits - 4):
        raise Unusable(
            f"ambiguous range: no value above {peak} of {top}, so it is nearly black, or of"
            " fewer bits; set dataset.bit_depth, or convert it to 8 bits"
        )
    scaled = np.round(colour * (255 / top))
    if deep.white_is_zero:
        scaled = 255 - scaled
    if picture.mode == "RGBA":
        alpha = values[..., -1:]
        if not alpha.max():
            raise Unusable("transparent all over")
        alpha = alpha / (top if alpha.max() <= top else 2**deep.stored_bits - 1)
        scaled = scaled * (1 if premultiplied else alpha) + 255 * (1 - alpha)
    scaled = np.round(scaled).clip(0, 255).astype(np.uint8)
    return Image.fromarray(scaled[..., 0] if scaled.shape[-1] == 1 else scaled).convert("RGB")


def _colour(values, picture):
    """Return the values without those of transparency."""
    return values[..., :-1] if picture.mode == "RGBA" else values


def _values(path, picture):
    """Load a deep picture and return what it stores, int64 (H, W) or (H, W, channels).

    Of 16-bit colour Pillow keeps the high bytes. Told that the bytes have the other order, it
    keeps the low ones.
    """
    if picture.mode.startswith("I"):
        if picture.tile[0].codec_name == "libtiff":
            # libtiff has put the bytes in order already.
            _set_raw_mode(picture, lambda mode: mode.replace("BS", "S"))
        return np.asarray(picture).astype(np.int64)
    if picture.format == "PPM":
        start, count = picture.tile[0].offset, 3 * picture.width * picture.height
        values = np.frombuffer(path.read_bytes(), ">u2", count, start)
        return values.reshape(picture.height, picture.width, 3).astype(np.int64)
    raw_mode = _raw_mode(picture).replace("RGBa", "RGBA")
    if raw_mode == "LA;16B":
        _set_raw_mode(picture, lambda _: "RGBA")
        pairs = np.asarray(picture).astype(np.int64)
        return 256 * pairs[..., 0::2] + pairs[..., 1::2]
    with Image.open(path) as again:
        other = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}
        _set_raw_mode(again, lambda _: raw_mode[:-1] + other[raw_mode[-1]])
        low = np.asarray(again).astype(np.int64)
    _set_raw_mode(picture, lambda _: raw_mode)
    return 256 * np.asarray(picture).astype(np.int64) + low


def _raw_mode(picture):
    """Return how the file holds the pixels, in Pillow's words, such as "RGB;16B"."""
    args = picture.tile[0].args if getattr(picture, "tile", None) else ""
    args = args[0] if isinstance(args, tuple) and args else args
    return args if isinstance(args, str) else ""


def _set_raw_mode(picture, change):
    def changed(args):
        return change(args) if isinstance(args, str) else (change(args[0]), *args[1:])

    picture.tile = [tile._replace(args=changed(tile.args)) for tile in picture.tile]
