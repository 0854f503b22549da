"""A picture file becomes a square RGB picture, or says why it cannot."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from hemagrid.data.pictures import CROP, PAD, Unusable, read_peak, read_picture

SIZE = 8
SQUARE = (SIZE, SIZE)
# Every level once, so that a picture of the wrong range or order cannot pass for it.
LEVELS = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOUR = np.dstack([LEVELS, LEVELS[::-1], LEVELS.T])


@pytest.fixture
def read(tmp_path):
    """A function that saves a picture, or bytes, and reads the file: pixels, changes."""

    def read(content, name="a.png", size=SIZE, save=None, **options):
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        else:
            content.save(tmp_path / name, **(save or {}))
        picture, changes = read_picture(tmp_path / name, size, **options)
        return np.asarray(picture), changes

    return read


def png(values):
    """A PNG of 16 bits: values (H, W, channels), of grey and alpha, RGB or RGBA."""
    height, width, channels = values.shape
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(lines)), (b"IEND", b""))
    chunks = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def tiff(values, photometric=1, order="<", planar=1, sample_format=1, alpha=None):
    """An uncompressed TIFF: values (H, W) or (H, W, channels) of integers."""
    data = values.transpose(2, 0, 1) if planar == 2 else values
    raw = data.astype(data.dtype.newbyteorder(order)).tobytes()
    channels = values.shape[2] if values.ndim == 3 else 1
    bits = 8 * values.dtype.itemsize
    size = len(raw) // (channels if planar == 2 else 1)
    strips = channels if planar == 2 else 1
    tags = {
        256: (values.shape[1],),
        257: (values.shape[0],),
        258: (bits,) * channels,
        259: (1,),
        262: (photometric,),
        273: tuple(size * strip for strip in range(strips)),
        277: (channels,),
        278: (values.shape[0],),
        279: (size,) * strips,
        284: (planar,),
        339: (sample_format,) * channels,
    }
    if alpha is not None:
        tags[338] = (alpha,)
    extra, start = b"", 8 + 2 + 12 * len(tags) + 4
    room = sum(4 * len(numbers) for numbers in tags.values() if len(numbers) > 1)
    tags[273] = tuple(offset + start + room for offset in tags[273])
    entries = b""
    for tag, numbers in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(numbers)}I", *numbers)
        if len(numbers) > 1:
            extra, packed = extra + packed, struct.pack(f"{order}I", start + len(extra))
        entries += struct.pack(f"{order}HHI", tag, 4, len(numbers)) + packed
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(f"{order}IH", 8, len(tags)) + entries + bytes(4)
    return head + extra + raw


def compressed(content, compression):
    """The same TIFF, compressed by libtiff. Pillow writes grey of 16 bits as it reads it."""
    out = BytesIO()
    Image.open(BytesIO(content)).save(out, "TIFF", compression=compression)
    return out.getvalue()


def test_modes_become_rgb(read):
    half = Image.new("RGBA", SQUARE, (9, 9, 9, 0))
    half.paste((9, 9, 9, 255), (0, 0, 4, 8))
    assert (read(half)[0] == np.repeat([9, 255], 4)[:, None]).all()
    assert (read(Image.new("LA", SQUARE, (9, 255)))[0] == 9).all()
    assert (read(Image.new("1", SQUARE, 1))[0] == 255).all()
    assert (read(Image.new("CMYK", SQUARE), "a.tiff")[0] == 255).all()
    assert (read(Image.new("CMYK", SQUARE), "a.jpg")[0] == 255).all()
    halves = Image.new("RGB", SQUARE, (1, 2, 3))
    halves.paste((4, 5, 6), (4, 0, 8, 8))
    palette = halves.convert("P", palette=1)
    assert (read(palette)[0] == np.asarray(halves)).all()
    seen, changes = read(palette, save={"transparency": palette.getpixel((7, 0))})
    assert (seen[:, :4] == [1, 2, 3]).all() and (seen[:, 4:] == 255).all()
    assert changes == ["on white"]


@pytest.mark.parametrize("name", ["a.png", "a.tiff", "a.jpg", "a.webp"])
def test_orientation_is_applied(read, name):
    pixels = np.zeros((SIZE, SIZE, 3), np.uint8)
    pixels[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate clockwise to show
    save = {"exif": exif, "quality": 100}
    shown, changes = read(Image.fromarray(pixels), name, save=save)
    assert shown[:, 4:].min() > 250 and shown[:, :4].max() < 5
    assert changes == ["turned"]


GREY16 = LEVELS.astype(np.uint16)
COLOUR16 = COLOUR.astype(np.uint16)
OPAQUE = np.full((16, 16, 1), 65535, np.uint16)


@pytest.mark.parametrize(
    ("content", "bits", "expected"),
    {
        "grey TIFF": (tiff(GREY16 * 257), 16, LEVELS),
        "grey TIFF, big-endian": (tiff(GREY16 * 257, order=">"), 16, LEVELS),
        "12 in 16": (tiff(GREY16 * 16 + 8), 12, LEVELS),
        "12 in 16, LZW": (compressed(tiff(GREY16 * 16 + 8), "tiff_lzw"), 12, LEVELS),
        "white as zero": (tiff(65535 - GREY16 * 257, 0), 16, LEVELS),
        "white as zero, 12 in 16": (tiff(4095 - GREY16 * 16, 0), 12, LEVELS),
        "white as zero, 8 bits": (tiff(255 - LEVELS, 0), 8, LEVELS),
        "signed": (tiff(LEVELS.astype(np.int16) * 128, sample_format=2), 15, LEVELS),
        "8 in 32": (tiff(LEVELS.astype(np.int32), sample_format=2), 8, LEVELS),
        "colour TIFF": (tiff(COLOUR16 * 257, 2), 16, COLOUR),
        "colour TIFF, 12 in 16": (tiff(COLOUR16 * 16 + 8, 2), 12, COLOUR),
        "the same, big-endian": (tiff(COLOUR16 * 16 + 8, 2, ">"), 12, COLOUR),
        "colour PNG": (png(COLOUR16 * 257), 16, COLOUR),
        "colour PNG, 10 in 16": (png(COLOUR16 * 4 + 2), 10, COLOUR),
        "colour PNG, 8 in 16": (png(COLOUR16), 8, COLOUR),
        "PNG with alpha": (png(np.dstack([COLOUR16 * 257, OPAQUE])), 16, COLOUR),
        "PNG with alpha of 16 bits": (png(np.dstack([COLOUR16 * 16, OPAQUE])), 12, COLOUR),
        "half transparent PNG": (
            png(np.dstack([COLOUR16 * 257, OPAQUE // 2])),
            16,
            (COLOUR16 + 255) / 2,
        ),
        "grey PNG with alpha": (png(np.dstack([GREY16 * 257, OPAQUE])), 16, LEVELS),
        "premultiplied": (
            tiff(np.dstack([COLOUR16 * 128, OPAQUE // 2]), 2, alpha=1),
            16,
            (COLOUR16 * 128 / 257 + 127.5),
        ),
        "PPM": (b"P6 16 16 65535\n" + (COLOUR16 * 257).astype(">u2").tobytes(), 16, COLOUR),
        "PPM, 8 in 16": (b"P6 16 16 65535\n" + COLOUR16.astype(">u2").tobytes(), 8, COLOUR),
        "PGM of 12 bits": (
            b"P5 16 16 4095\n" + (GREY16 * 16).astype(">u2").tobytes(),
            16,
            LEVELS,
        ),
    }.values(),
    ids=str,
)
def test_channels_of_more_bits_are_scaled_from_their_own_range(read, content, bits, expected):
    seen, _ = read(content, size=16, bits=bits)
    expected = expected if expected.ndim == 3 else np.dstack([expected] * 3)
    assert abs(seen.astype(float) - expected).max() <= 1


def test_a_deep_picture_that_may_be_of_fewer_bits_is_refused_unless_its_bits_are_stated(read):
    content = tiff(GREY16 * 16)
    with pytest.raises(Unusable, match="ambiguous range: no value above 4080 of 65535"):
        read(content, size=16)
    assert read(content, size=16, bits=16)[0].max() == 16
    with pytest.raises(Unusable, match="values from 0 to 4080, expected 0 to 1023"):
        read(content, size=16, bits=10)


@pytest.mark.parametrize("deep", [False, True])
def test_a_picture_of_nothing_but_transparency_is_refused(read, deep):
    content = np.dstack([COLOUR, np.zeros_like(LEVELS)])
    with pytest.raises(Unusable, match="transparent all over"):
        read(png(content) if deep else Image.fromarray(content), bits=8)


def test_the_peak_of_a_deep_picture_leaves_out_transparency(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(png(np.dstack([COLOUR16 * 16, OPAQUE])))
    deep, peak = read_peak(path)
    assert (str(deep), peak) == ("16-bit PNG", 4080)
    Image.fromarray(COLOUR).save(path)
    assert read_peak(path) is None


def jpeg2000(picture):
    """A JPEG 2000 file whose header promises 16 bits."""
    out = BytesIO()
    picture.save(out, "JPEG2000")
    content = bytearray(out.getvalue())
    at = content.index(b"\xff\x4f\xff\x51") + 42
    content[at] = 15
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (tiff(COLOUR16, 2, planar=2), "TIFF of 16 bits in separate planes"),
        (tiff(LEVELS.astype(np.int8), sample_format=2), "TIFF of signed 8-bit values"),
        (jpeg2000(Image.fromarray(COLOUR)), "JPEG 2000 of 16 bits in colour"),
    ],
)
def test_what_pillow_misreads_is_refused(read, content, message):
    with pytest.raises(Unusable, match=message):
        read(content)


def test_planes_of_8_bits_are_read(read):
    assert (read(tiff(COLOUR, 2, planar=2), size=16)[0] == COLOUR).all()


def damaged_jpegs(**options):
    """JPEGs that Pillow decodes without a word."""
    cell = np.kron(np.random.default_rng(0).integers(0, 256, (16, 16, 3)), np.ones((20, 20, 1)))
    out = BytesIO()
    Image.fromarray(cell.astype(np.uint8)).save(out, "JPEG", quality=95, **options)
    whole = out.getvalue()
    third, half = len(whole) // 3, len(whole) // 2
    return {
        "overwritten": whole[:third] + b"\x55" * 400 + whole[third + 400 :],
        "hole": whole[:third] + bytes(len(whole) - third - 2) + whole[-2:],
        "cut and closed": whole[:half] + b"\xff\xd9",
        "shortened": whole[:half] + whole[half + 400 :],
    }


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_rows": 1}])
def test_damaged_jpegs_are_refused(read, options):
    for content in damaged_jpegs(**options).values():
        Image.open(BytesIO(content)).load()
        with pytest.raises(Unusable, match="damaged: Corrupt JPEG data"):
            read(content, "a.jpg")


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_whole_jpegs_are_read(read, mode):
    for options in ({}, {"progressive": True}, {"restart_marker_rows": 1}):
        read(Image.fromarray(COLOUR).convert(mode), "a.jpg", save=options)


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.tif", "a.bmp", "a.webp"])
def test_truncated_files_are_refused(read, name):
    out = BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    Image.fromarray(noise).save(out, Image.registered_extensions()[name[1:]])
    with pytest.raises(Unusable, match="unreadable"):
        read(out.getvalue()[: len(out.getvalue()) * 9 // 10], name)


def test_only_the_first_frame_is_used(read):
    frames = [Image.new("RGB", SQUARE, colour) for colour in ("red", "blue")]
    for name in ("a.gif", "a.tif", "a.webp", "a.png"):
        save = {"save_all": True, "append_images": frames[1:], "lossless": True}
        seen, changes = read(frames[0], name, save=save)
        assert (seen == [255, 0, 0]).all() and "first frame" in changes


def test_a_wide_picture_is_padded_or_cropped(read):
    wide = np.full((16, 48, 3), 235, np.uint8)
    wide[4:12, 8:16] = 40  # left of the centre square
    padded, changes = read(Image.fromarray(wide), size=48, fit=PAD)
    assert changes == ["padded"]
    assert np.array_equal(padded[16:32], wide)
    assert (padded[:16] == 235).all() and (padded[32:] == 235).all()
    cropped, changes = read(Image.fromarray(wide), fit=CROP)
    assert changes == ["cropped", "resized"]
    assert (cropped == 235).all()


def test_a_very_wide_picture_takes_no_more_memory_than_it_has_pixels(read):
    seen, changes = read(Image.new("RGB", (60_000, 20), "red"))
    assert changes == ["padded", "resized"] and (seen == [255, 0, 0]).all()


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        (Image.new("RGB", (8, 9)), "8x9 in mode RGB, expected 8x8 in mode RGB, .*padded"),
        (Image.new("L", SQUARE), "8x8 in mode L, expected .*to RGB"),
    ],
)
def test_strict_refuses_whatever_would_change(read, picture, reason):
    read(picture)
    with pytest.raises(Unusable, match=reason):
        read(picture, strict=True)
    assert read(Image.new("RGB", SQUARE), strict=True)[1] == []
