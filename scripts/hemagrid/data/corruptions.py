"""Worse pictures: what compression, focus, light, staining and dirt do to an image.

The kinds and their severities are those of MedMNIST-C for BloodMNIST (Di Salvo, Doerrich &
Ledig 2024, "MedMNIST-C: Comprehensive benchmark and improved classifier robustness by
simulating realistic image corruptions", with the values of its published code), and
`stain_shift` beside them. Lengths are given there for images of 224 pixels and scale with the
image's edge; the quality of a JPEG and the share of pixels that remain do not.

A corrupted image depends on (seed, image id, kind, severity) alone. What is drawn, such as
the places of bubbles, is the same at all severities, so that these differ in strength alone.
Arithmetic is on integers wherever processors round differently.
"""

import functools
import math
from io import BytesIO

import numpy as np
from PIL import Image

from hemagrid import io

_EDGE = 224  # pixels, to which the lengths below refer
_ONE = 2**16  # the weights of a blur sum to it
_BUBBLES, _GRAINS, _LUMPS = 12, 3, 6  # at most per image, and discs that make up one grain
_DEPOSIT = np.array([62, 36, 92])  # RGB of precipitated stain, a dark violet
_DENSITY = 1000  # steps of one unit of optical density (natural logarithm)
# Optical density of methylene blue and eosin (Landini's vectors for Giemsa in ImageJ's Colour
# Deconvolution); what is left has the third direction.
_BLUE, _EOSIN = (0.834750, 0.513556, 0.196330), (0.092789, 0.954111, 0.283111)


def corrupt(images, ids, kind, severity, seed):
    """Corrupt images; each depends on its own row alone.

    Args:
        images: uint8 (n, S, S, 3).
        ids: Image ids, integers (n,).
        kind: One of `names.CORRUPTIONS`.
        severity: 1 to 5.
        seed: Integer, at least 0.

    Returns:
        uint8 (n, S, S, 3), a new array.
    """
    function, strengths = _KINDS[kind]
    draws = (np.random.default_rng([seed, int(id_), *kind.encode()]) for id_ in ids)
    return function(images, strengths[severity - 1], draws)


class Corrupted:
    """Corrupted images that are made when their rows are read, and never stored.

    Args:
        images: uint8 (n, S, S, 3), memory-mapped or not.
        ids, kind, severity, seed: As in `corrupt`.
    """

    def __init__(self, images, ids, kind, severity, seed):
        self.images, self.ids = images, np.asarray(ids)
        self.how = kind, severity, seed

    def __len__(self):
        return len(self.images)

    def __getitem__(self, rows):
        return corrupt(io.take(self.images, rows), self.ids[rows], *self.how)


def _compress(images, quality, _):
    """JPEG, with its colours at half the resolution, as Pillow writes it."""
    compressed = np.empty_like(images)
    for image, out in zip(images, compressed, strict=True):
        content = BytesIO()
        Image.fromarray(image).save(content, "JPEG", quality=quality)
        out[:] = Image.open(content)
    return compressed


def _pixelate(images, factor, _):
    """Fewer pixels: the mean of boxes."""
    edge = images.shape[1]
    few = max(1, int(factor * edge))
    pixelated = np.empty_like(images)
    for image, out in zip(images, pixelated, strict=True):
        small = Image.fromarray(image).resize((few, few), Image.Resampling.BOX)
        out[:] = small.resize((edge, edge), Image.Resampling.NEAREST)
    return pixelated


def _defocus(images, radius, _):
    """The mean of a disc around each pixel."""
    steps = np.arange(-8, 9) / 8
    disc = np.array([(y, x) for y in steps for x in steps if x * x + y * y <= 1])
    kernel = _kernel(disc * radius * images.shape[1] / _EDGE, np.ones(len(disc)))
    return np.stack([_blur(image, kernel) for image in images])


def _move(images, strength, draws):
    """One half of a Gaussian along a line, cut at twice the radius, of -45 to 45 degrees."""
    radius, sigma = strength
    along = np.arange(2 * radius + 1)
    weights = np.exp(-(along**2) / (2 * sigma**2))
    moved = np.empty_like(images)
    for image, rng, out in zip(images, draws, moved, strict=True):
        angle = math.radians(rng.uniform(-45, 45))
        line = along[:, None] * [math.sin(angle), math.cos(angle)]
        out[:] = _blur(image, _kernel(line * images.shape[1] / _EDGE, weights))
    return moved


def _kernel(points, weights):
    """Spread weighted points over the four pixels around each.

    Args:
        points: float (m, 2), the offsets of points from the pixel in y and x.
        weights: float (m,).

    Returns:
        {(y, x): weight}: integers, the weights of `_ONE` in all.
    """
    corner = np.floor(points).astype(int)
    share = points - corner
    weights = weights / weights.sum() * _ONE
    low = corner.min(axis=0)
    spread = np.zeros(corner.max(axis=0) - low + 2)
    for y in (0, 1):
        for x in (0, 1):
            part = abs(1 - y - share[:, 0]) * abs(1 - x - share[:, 1])
            np.add.at(spread, tuple((corner - low + [y, x]).T), weights * part)
    spread = spread.round().astype(int)
    spread.flat[spread.argmax()] += _ONE - spread.sum()
    return {
        tuple((low + place).tolist()): int(spread[tuple(place)])
        for place in np.argwhere(spread)
    }


def _blur(image, kernel):
    """Take the weighted mean of an image's pixels at the kernel's offsets."""
    height, width, channels = image.shape
    margin = max(max(map(abs, offset)) for offset in kernel)
    padded = np.pad(image, [(margin, margin), (margin, margin), (0, 0)], "symmetric")
    rows = padded.reshape(len(padded), -1).astype(np.uint32)
    total = np.full((height, width * channels), _ONE // 2, np.uint32)
    part = np.empty_like(total)
    for (y, x), weight in kernel.items():
        left = channels * (margin + x)
        of = rows[margin + y : margin + y + height, left : left + width * channels]
        total += np.multiply(of, np.uint32(weight), out=part)
    return (total // _ONE).astype(np.uint8).reshape(image.shape)


def _brighten(images, factor, _):
    """Every value by the factor."""
    return _bytes(np.arange(256) * factor)[images]


def _contrast(images, factor, _):
    """Every value's distance from the image's mean grey by the factor."""
    changed = np.empty_like(images)
    for image, out in zip(images, changed, strict=True):
        mean = np.asarray(Image.fromarray(image).convert("L")).mean().round()
        out[:] = _bytes(mean + factor * (np.arange(256) - mean))[image]
    return changed


def _saturate(images, gain, _):
    """Saturation (of HSV) plus the gain; what has no colour stays without."""
    saturated = np.empty_like(images)
    for image, out in zip(images, saturated, strict=True):
        colours = np.moveaxis(image, -1, 0).astype(np.float32, order="C")
        top = np.maximum.reduce(colours)
        width = top - np.minimum.reduce(colours)
        wider = np.minimum(width + np.float32(gain) * top, top)
        colours = top - (top - colours) * (wider / np.maximum(width, 1))
        out[:] = np.moveaxis(_bytes(colours), 0, -1)
    return saturated


def _stain(images, strength, draws):
    """More of one stain and less of the other, which of them is drawn."""
    vectors = np.array([_BLUE, _EOSIN, np.cross(_BLUE, _EOSIN)])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    absorbed, transmitted = _densities()
    stained = np.empty_like(images)
    for image, rng, out in zip(images, draws, stained, strict=True):
        change = strength if rng.random() < 0.5 else -strength
        amounts = np.diag([math.exp(change), math.exp(-change), 1])
        mixing = np.linalg.inv(vectors) @ amounts @ vectors
        mixing = (mixing * 2**12).round().astype(np.int32)
        mixed = (absorbed[image] @ mixing + 2**11) >> 12
        out[:] = transmitted[mixed.clip(0, len(transmitted) - 1)]
    return stained


@functools.cache
def _densities():
    """Return two tables: a value's optical density in steps, and the value of a density."""
    absorbed = -np.log((np.arange(256) + 1) / 256) * _DENSITY
    transmitted = 256 * np.exp(-np.arange(absorbed.max() + 1) / _DENSITY) - 1
    return absorbed.round().astype(np.int32), _bytes(transmitted)


def _deposit(images, strength, draws):
    """Grains of precipitated stain on the lens, each a lump of dark discs."""
    most, radius = strength
    edge = images.shape[1]
    dirty = np.empty_like(images)
    for image, rng, out in zip(images, draws, dirty, strict=True):
        count = 1 + int(rng.random() * most)
        centres = rng.uniform(0.05, 0.95, (_GRAINS, 1, 2)) * edge
        radius_px = radius * edge / _EDGE
        lumps = centres + rng.uniform(-1, 1, (_GRAINS, _LUMPS, 2)) * radius_px
        sizes = rng.uniform(0.3, 1, (_GRAINS, _LUMPS)) * radius_px
        depth = _depth(edge, lumps[:count].reshape(-1, 2), sizes[:count].ravel())
        out[:] = _laid_over(image, _DEPOSIT, 230 * (depth + 0.5).clip(0, 1))
    return dirty


def _bubble(images, strength, draws):
    """Bubbles: bright discs, brighter at the rim."""
    largest, most = strength
    edge = images.shape[1]
    scale = edge / _EDGE
    covered = np.empty_like(images)
    for image, rng, out in zip(images, draws, covered, strict=True):
        count = 7 + int(rng.random() * (most - 6))
        drawn = rng.random((_BUBBLES, 3))[:count]
        radii = (3 + drawn[:, 2] * (largest - 3)) * scale
        depth = _depth(edge, drawn[:, :2] * edge, radii)
        inside, rim = (depth + 0.5).clip(0, 1), (depth + 2 * scale + 0.5).clip(0, 1)
        out[:] = _laid_over(image, 255, 130 * rim - 30 * inside)
    return covered


def _depth(edge, centres, radii):
    """Return how far each pixel lies inside the union of discs, in pixels, float (S, S)."""
    pixels = np.arange(edge) + 0.5
    y = (pixels - centres[:, :1]) ** 2
    x = (pixels - centres[:, 1:]) ** 2
    distances = np.sqrt(y[:, :, None] + x[:, None])
    return (radii[:, None, None] - distances).max(axis=0)


def _laid_over(image, colour, opacity):
    """Lay a colour over an image; opacity is float (S, S), 0 to 255."""
    opacity = opacity.round().astype(np.int32)[..., None]
    return (image * (255 - opacity) + colour * opacity + 127) // 255


def _bytes(values):
    return values.round().clip(0, 255).astype(np.uint8)


_KINDS = {
    "jpeg_compression": (_compress, (50, 30, 15, 10, 7)),
    "pixelate": (_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25)),
    "defocus_blur": (_defocus, (2, 3, 4, 5, 6)),
    "motion_blur": (_move, ((3, 3), (5, 5), (10, 5), (10, 7), (10, 9))),
    "brightness_up": (_brighten, (1.1, 1.2, 1.3, 1.35, 1.4)),
    "brightness_down": (_brighten, (0.9, 0.8, 0.7, 0.6, 0.5)),
    "contrast_up": (_contrast, (1.1, 1.15, 1.2, 1.25, 1.3)),
    "contrast_down": (_contrast, (0.9, 0.8, 0.7, 0.6, 0.5)),
    "saturate": (_saturate, (0.05, 0.1, 0.15, 0.17, 0.2)),
    "stain_shift": (_stain, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "stain_deposit": (_deposit, ((1, 8), (2, 8), (3, 8), (3, 9), (3, 11))),
    "bubble": (_bubble, ((5, 10), (7, 10), (10, 10), (12, 12), (15, 12))),
}
