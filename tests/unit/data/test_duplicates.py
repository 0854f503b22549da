"""Hashes propose what comparing every pair would find; pixels decide about it."""

import io as memory

import imagehash
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from hemagrid.data import duplicates
from hemagrid.errors import InputError

SETTINGS = {
    "duplicates": "pixels",
    "duplicate_difference": 0.06,
    "near_duplicate_difference": 0.15,
    "near_duplicate_distance": 4,
    "label_conflicts": "keep_first",
}


def cell(seed, size=96, width=96):
    """Draw a cell with a textured nucleus, `width` across, on an even ground."""
    rng = np.random.default_rng(seed)
    scale = 4
    picture = Image.new("RGB", (96 * scale,) * 2, (236, 222, 226))
    draw = ImageDraw.Draw(picture)
    draw.ellipse([s * scale for s in (14, 14, 82, 82)], fill=(190, 160, 205))
    for x, y, r, dark in zip(
        *rng.uniform(26, 66, (2, 14)),
        rng.uniform(3, 11, 14),
        rng.integers(0, 80, 14),
        strict=True,
    ):
        box = [s * scale for s in (x - r, y - r, x + r, y + r)]
        draw.ellipse(box, fill=(90 + int(dark), 50 + int(dark), 130 + int(dark) // 2))
    canvas = Image.new("RGB", (size, size), (236, 222, 226))
    small = picture.resize((width, width), Image.Resampling.LANCZOS)
    canvas.paste(small, ((size - width) // 2,) * 2)
    return np.asarray(canvas)


def jpeg(pixels, quality):
    file = memory.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def rescaled(pixels):
    picture = Image.fromarray(pixels).resize((72, 72), Image.Resampling.LANCZOS)
    return np.asarray(picture.resize((96, 96), Image.Resampling.LANCZOS))


def brighter(pixels, factor):
    return np.clip(pixels * factor, 0, 255).astype("uint8")


def deduplicate(pictures, labels=None, **settings):
    images = np.stack(pictures)
    samples = pd.DataFrame(
        {
            "id": range(len(images)),
            "label": [0] * len(images) if labels is None else labels,
            "class_name": "a",
            "source": [f"a.npz[{row}]" for row in range(len(images))],
            "sha256": [pixels.tobytes().hex() for pixels in images],
        }
    )
    prints = duplicates.fingerprint(images)
    return duplicates.deduplicate(samples, prints, SETTINGS | settings)


@st.composite
def hash_tables(draw):
    """Hashes (n, views) of which many lie a few bits apart."""
    hashes = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8))
    for _ in range(draw(st.integers(0, 24))):
        bits = draw(st.sets(st.integers(0, 63), max_size=6))
        hashes.append(draw(st.sampled_from(hashes)) ^ sum(1 << bit for bit in bits))
    views = draw(st.integers(1, 3))
    hashes = hashes[: len(hashes) // views * views] or hashes[:1] * views
    return np.array(draw(st.permutations(hashes)), np.uint64).reshape(-1, views)


@given(hash_tables(), st.integers(0, 16), st.booleans())
def test_near_pairs_are_those_of_comparing_every_pair(hashes, distance, spread):
    if spread:  # among many others that are far away
        others = np.random.default_rng(0).integers(0, 2**64, (500, hashes.shape[1]), "uint64")
        hashes = np.concatenate([hashes, others])
    near = np.bitwise_count(hashes[:, None, :] ^ hashes[None, :, :1]) <= distance
    expected = {
        pair for pair in zip(*map(list, np.nonzero(near)), strict=True) if pair[0] < pair[1]
    }
    found = [
        pair
        for block in duplicates.near_pairs(hashes, distance)
        for pair in zip(*block, strict=True)
    ]
    assert len(found) == len(set(found)) and set(found) == expected


def test_hashes_are_those_of_imagehash_for_all_views():
    pixels = np.stack([cell(seed) for seed in range(6)])
    found = duplicates.fingerprint(pixels)
    for number, (transposed, upside_down, mirrored) in enumerate(duplicates.VIEWS):
        seen = pixels.swapaxes(1, 2) if transposed else pixels
        seen = seen[:, ::-1] if upside_down else seen
        seen = seen[:, :, ::-1] if mirrored else seen
        for row, picture in enumerate(seen):
            expected = int(str(imagehash.phash(Image.fromarray(picture))), 16)
            differing = int(found["hashes"][row, number]) ^ expected
            # Pillow's shrinking is not symmetric to the bit; the picture itself must agree.
            assert differing.bit_count() <= (2 if number else 0)
    table = duplicates.hash_table(found)
    assert table["phash"][0] == str(imagehash.phash(Image.fromarray(pixels[0])))


def test_fingerprints_do_not_depend_on_the_number_of_threads(monkeypatch):
    monkeypatch.setattr(duplicates, "IMAGES_PER_TASK", 3)
    pixels = np.random.default_rng(0).integers(0, 256, (10, 40, 40, 3), dtype="uint8")
    alone = duplicates.fingerprint(pixels)
    assert np.array_equal(duplicates.fingerprint(pixels, threads=2), alone)


@pytest.mark.parametrize("frame", [1, 2, 3, 4, 5])
def test_different_cells_are_kept_however_small_they_are(frame):
    pictures = [cell(seed, width=96 // frame) for seed in range(60)]
    table = deduplicate(pictures)
    assert table["kept"].all()
    published = deduplicate(pictures, duplicates="hash")
    assert published["kept"].all() == (frame == 1)


@pytest.mark.parametrize("frame", [1, 3])
@pytest.mark.parametrize(
    "copy",
    [
        *(lambda p, q=quality: jpeg(p, q) for quality in (60, 75, 95)),
        rescaled,
        lambda pixels: brighter(pixels, 1.1),
        lambda pixels: brighter(pixels, 0.9),
    ],
    ids=["jpeg 60", "jpeg 75", "jpeg 95", "rescaled", "brighter", "darker"],
)
def test_copies_are_found(copy, frame):
    pictures = [cell(seed, width=96 // frame) for seed in range(20)]
    table = deduplicate([*pictures, *map(copy, pictures)])
    assert table["kept"][:20].all()
    found = table["near_group"].where(table["kept"], table["exact_group"])[20:]
    # The hash misses a few: of a small cell it sees little but the ground.
    assert (found == np.arange(20)).sum() >= (20 if frame == 1 else 16)
    assert (table.loc[~table["kept"], "exact_group"] < 20).all()


@pytest.mark.parametrize("quality", [None, 75])
def test_mirrored_and_turned_copies_are_near_duplicates(quality):
    pictures = [cell(seed) for seed in range(6)]
    views = [
        np.ascontiguousarray(np.rot90(pixels if side else pixels[:, ::-1], turns))
        for pixels in pictures
        for turns in range(4)
        for side in (True, False)
    ]
    table = deduplicate(views if quality is None else [jpeg(view, quality) for view in views])
    assert table["kept"].all()
    assert (table["near_group"] == np.arange(48) // 8 * 8).all()
    assert (table["difference"] < 0.06).all()


def test_a_cell_photographed_again_is_a_near_duplicate():
    pixels = np.pad(cell(0), ((0, 2), (0, 2), (0, 0)), mode="edge")
    noise = np.random.default_rng(0).normal(0, 2, (96, 96, 3))
    again = np.clip(pixels[1:97, :96] + noise, 0, 255).astype("uint8")
    table = deduplicate([pixels[:96, :96], again], near_duplicate_distance=16)
    assert table["kept"].all() and table["near_group"].tolist() == [0, 0]


def test_flat_pictures_are_compared_by_colour():
    colours = [(0, 0, 0), (200, 180, 190), (201, 180, 190), (255, 255, 255), (180, 200, 190)]
    flat = [np.full((96, 96, 3), colour, "uint8") for colour in colours]
    speck = flat[1].copy()
    speck[40:42, 40:42] = 0
    table = deduplicate([*flat, speck, flat[1]])
    assert table["exact_group"].tolist() == [0, 1, 2, 3, 4, 5, 1]
    assert table["near_group"].dropna().tolist() == [0, 1, 2, 3, 4, 5]


def test_equal_brightness_in_another_colour_is_a_different_picture():
    pixels = cell(0)
    tinted = pixels.astype(float)
    tinted[..., 0] -= 40
    tinted[..., 1] += 40 * 0.299 / 0.587
    pictures = [pixels, np.clip(tinted, 0, 255).astype("uint8")]
    assert deduplicate(pictures, duplicates="hash")["kept"].sum() == 1
    assert deduplicate(pictures)["kept"].all()


def test_a_chain_does_not_grow_a_group_whose_ends_are_unlike():
    first, last = cell(1).astype(float), cell(2).astype(float)
    steps = [first + (last - first) * share for share in np.linspace(0, 1, 40)]
    images = np.stack(steps).astype("uint8")
    table = deduplicate(images, near_duplicate_distance=16)
    group = table["near_group"].where(table["kept"], table["exact_group"])
    prints = duplicates.fingerprint(images)
    neighbours = np.arange(39)
    own = np.zeros(39, int)
    alike = duplicates.differences(prints, neighbours, neighbours + 1, own, 1) <= 0.15
    assert alike.all() and group.nunique() > 2
    first = table.groupby(group)["id"].transform("min").to_numpy()
    found = duplicates.differences(prints, first, table["id"].to_numpy(), np.zeros(40, int), 1)
    assert (found <= 0.15).all()


def test_the_smallest_id_is_kept_and_labels_may_conflict():
    a, b, c = (cell(seed) for seed in range(3))
    pictures, labels = [a, b, jpeg(a, 95), c, b, a], [0, 1, 1, 0, 1, 0]
    table = deduplicate(pictures, labels)
    assert table["kept"].tolist() == [True, True, False, True, False, False]
    assert table["exact_group"].tolist() == [0, 1, 0, 3, 1, 0]
    assert table["near_group"].fillna(-1).tolist() == [0, 1, -1, 3, -1, -1]
    of_0, of_1 = "duplicate of 0", "duplicate of 1"
    assert table["reason"].tolist() == ["", "", of_0, "", of_1, of_0]
    assert table["difference"][2] > 0 and (table["difference"].drop(2) == 0).all()
    dropped = deduplicate(pictures, labels, label_conflicts="drop")
    assert dropped["kept"].tolist() == [False, True, False, True, False, False]
    conflict = "label conflict"
    assert dropped["reason"].tolist() == [conflict, "", conflict, "", of_1, conflict]


def test_labels_of_different_pictures_with_equal_hashes_do_not_conflict():
    pictures = [cell(seed, width=19) for seed in range(60)]
    table = deduplicate(pictures, list(range(60)), label_conflicts="drop")
    assert table["kept"].all()


def test_the_log_names_the_least_alike_of_those_dropped(caplog):
    with caplog.at_level("INFO", "hemagrid"):
        deduplicate([cell(0), cell(1), jpeg(cell(0), 95), cell(1)])
    first, second = caplog.messages
    assert first.startswith(
        "Duplicates: 2 of 4 images dropped, the least alike a.npz[2] and a.npz[0]"
    )
    assert second.startswith("Near duplicates: 0 images")


def test_near_duplicates_with_several_labels_are_told(caplog):
    pictures = [cell(0), cell(1), cell(0)[:, ::-1], cell(1)[::-1]]
    with caplog.at_level("INFO", "hemagrid"):
        table = deduplicate(pictures, [0, 0, 1, 0], label_conflicts="drop")
    assert table["kept"].all() and (table["near_group"] == [0, 1, 0, 1]).all()
    (told,) = [said for said in caplog.messages if "several labels" in said]
    assert ": 1, such as a.npz[0] (a) and a.npz[2] (a); all stay" in told
    caplog.clear()
    with caplog.at_level("INFO", "hemagrid"):
        deduplicate(pictures, [0, 0, 0, 0])
    assert "several labels" not in caplog.text


def test_limits_of_zero_leave_copies_of_the_same_bytes_and_their_views():
    limits = {"duplicate_difference": 0, "near_duplicate_difference": 0}
    pictures = [cell(0), jpeg(cell(0), 95), np.ascontiguousarray(cell(0)[:, ::-1]), cell(0)]
    table = deduplicate(pictures, **limits)
    assert table["kept"].tolist() == [True, True, True, False]
    assert table["near_group"].dropna()[1] == 1


def test_a_thousand_flat_pictures_are_no_crowd():
    shades = [(r, g, 120) for r in range(100, 140) for g in range(100, 125)]
    pictures = [np.full((32, 32, 3), shade, "uint8") for shade in shades]
    assert deduplicate(pictures)["kept"].all()


def test_fingerprints_of_other_images_are_refused():
    samples = pd.DataFrame({"id": [0, 1, 2]})
    prints = duplicates.fingerprint(np.stack([cell(0), cell(1)]))
    with pytest.raises(InputError, match="found 2 images, expected the 3 ids"):
        duplicates.deduplicate(samples, prints, SETTINGS)
