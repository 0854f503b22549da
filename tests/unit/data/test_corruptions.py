"""A corrupted image depends on (seed, image id, kind, severity) alone, and is worse."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from hemagrid.data.corruptions import corrupt
from hemagrid.data.synthetic import draw_cell
from hemagrid.names import CORRUPTIONS

SIZE, SEED = 96, 42
DRAWN = ("motion_blur", "stain_shift", "stain_deposit", "bubble")
every_kind = pytest.mark.parametrize("kind", CORRUPTIONS)


@pytest.fixture(scope="module")
def cells():
    """12 drawn cells, uint8 (12, 96, 96, 3), to be read only."""
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_cell(kind, SIZE, rng) for kind in ("basophil", "monocyte") * 6])
    drawn.flags.writeable = False
    return drawn


def distances(images, corrupted):
    return abs(corrupted.astype(int) - images).mean(axis=(1, 2, 3))


@every_kind
def test_every_image_changes_more_with_every_severity(cells, kind):
    found = [distances(cells, corrupt(cells, range(12), kind, s, SEED)) for s in range(1, 6)]
    assert min(found[0]) > 0
    assert (np.diff(np.mean(found, axis=1)) > 0).all()


@every_kind
def test_an_image_depends_neither_on_its_batch_nor_on_its_place_nor_on_threads(cells, kind):
    ids = np.arange(12) + 7
    together = corrupt(cells, ids, kind, 3, SEED)
    assert together.dtype == np.uint8 and together.shape == cells.shape
    order = np.random.default_rng(1).permutation(12)
    assert np.array_equal(corrupt(cells[order], ids[order], kind, 3, SEED), together[order])

    def alone(row):
        return corrupt(cells[row : row + 1], ids[row : row + 1], kind, 3, SEED)[0]

    with ThreadPoolExecutor(4) as threads:
        assert np.array_equal(np.stack(list(threads.map(alone, range(12)))), together)


@pytest.mark.parametrize("kind", DRAWN)
def test_ids_and_seeds_draw_differently(cells, kind):
    same = np.repeat(cells[:1], 12, axis=0)
    drawn = corrupt(same, range(12), kind, 3, SEED)
    assert len({image.tobytes() for image in drawn}) > 1
    assert not np.array_equal(corrupt(same, range(12), kind, 3, SEED + 1), drawn)


@pytest.mark.parametrize("kind", sorted(set(CORRUPTIONS) - set(DRAWN)))
def test_without_draws_ids_do_not_matter(cells, kind):
    one, other = (corrupt(cells, ids, kind, 3, SEED) for ids in (range(12), [9] * 12))
    assert np.array_equal(one, other)


@every_kind
@pytest.mark.parametrize("size", (1, 28))
@pytest.mark.parametrize("value", (0, 128, 255))
def test_blank_and_tiny_images(kind, size, value):
    blank = np.full((2, size, size, 3), value, np.uint8)
    for severity in (1, 5):
        corrupted = corrupt(blank, [0, 1], kind, severity, SEED)
        assert corrupted.dtype == np.uint8 and corrupted.shape == blank.shape
    unchanged = ("blur", "pixelate", "jpeg", "contrast", "saturate")
    if kind.endswith(unchanged) or kind.startswith(unchanged):
        assert distances(blank, corrupted).max() < 2


@every_kind
@pytest.mark.parametrize("size", (28, 212))
def test_every_kind_changes_small_and_large_images(cells, kind, size):
    edge = np.linspace(0, SIZE - 1, size).astype(int)
    images = cells[:4, edge][:, :, edge]
    assert distances(images, corrupt(images, range(4), kind, 1, SEED)).min() > 0


def test_a_blur_scales_with_the_image():
    dots = {size: np.zeros((1, size, size, 3), np.uint8) for size in (112, 224)}
    for size, dot in dots.items():
        middle = slice(size // 2 - size // 28, size // 2 + size // 28)
        dot[0, middle, middle] = 255
    small, large = (corrupt(dot, [0], "defocus_blur", 5, SEED) for dot in dots.values())
    halved = large.reshape(1, 112, 2, 112, 2, 3).mean(axis=(2, 4))
    assert abs(halved - small).max() < 8


def test_a_blur_is_a_weighted_mean():
    """Of an even picture nothing changes, and light is neither lost nor made."""
    dot = np.zeros((1, 64, 64, 3), np.uint8)
    dot[0, 32, 32] = 255
    for kind in ("defocus_blur", "motion_blur"):
        blurred = corrupt(dot, [0], kind, 3, SEED)
        assert blurred.sum() == pytest.approx(dot.sum(), rel=0.05)


def test_brightness_and_contrast_as_defined():
    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    brighter = corrupt(image, [0], "brightness_up", 1, SEED)
    assert np.array_equal(brighter, (image * 1.1).round().clip(0, 255))
    grey = np.round(image @ [0.299, 0.587, 0.114]).mean().round()
    flatter = corrupt(image, [0], "contrast_down", 5, SEED)
    assert abs(flatter - (grey + 0.5 * (image - grey))).max() <= 1.5


def test_saturation_is_that_of_hsv():
    from colorsys import hsv_to_rgb, rgb_to_hsv

    image = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 3), dtype=np.uint8)
    found = corrupt(image, [0], "saturate", 3, SEED)
    for before, after in zip(image.reshape(-1, 3), found.reshape(-1, 3), strict=True):
        h, s, v = rgb_to_hsv(*before / 255)
        assert 255 * np.array(hsv_to_rgb(h, min(s + 0.15, 1), v)) == pytest.approx(after, abs=1)
    grey = np.full((1, 4, 4, 3), 200, np.uint8)
    assert np.array_equal(corrupt(grey, [0], "saturate", 5, SEED), grey)


def test_a_shift_of_the_stain_leaves_white_white_and_turns_it_both_ways():
    white = np.full((32, 4, 4, 3), 255, np.uint8)
    assert np.array_equal(corrupt(white, range(32), "stain_shift", 5, SEED), white)
    purple = np.full((32, 4, 4, 3), (140, 90, 170), np.uint8)
    red = corrupt(purple, range(32), "stain_shift", 5, SEED)[:, 0, 0, 0]
    assert (red > 140).any() and (red < 140).any()
