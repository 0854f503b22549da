"""Which images are the same picture, and which nearly so: hashes propose, pixels decide.

The perceptual hash (pHash: the low frequencies of the DCT of a 32x32 grey thumbnail, 64 bits;
Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010) proposes
pairs only: small cells on an even background have equal hashes and are different pictures.

Two images are duplicates if their hashes are equal and their pixels agree; one of them is kept.
They are near duplicates if the hash of one differs in a few bits from that of the other, or of
the other mirrored or turned by 90 degrees, and their pixels agree in that view but for a small
shift. Both stay, and share a split. Mirrored and turned pictures are copies that somebody's
augmentation made, so their pixels must agree as closely as those of duplicates.
"""

import functools
import itertools
import logging

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image
from scipy import fft

from hemagrid import io, logs
from hemagrid.errors import InputError

HASH_BITS = 64
THUMBNAIL = 32  # edge of the thumbnail that is hashed; a quarter of its frequencies count
DETAIL_THUMBNAIL, DETAIL = 64, 32  # edge of the thumbnail compared; its frequencies used
GREY_LEVELS = 5  # coefficients well above this count alike, those below it hardly at all
COLOURS = 8  # edge of the thumbnail whose colours are compared
SHIFT = 1  # how far near duplicates may be shifted, in 64ths of the edge
LEAST = 0.65  # correlation that a shift leaves at least
ROUNDING = 1e-6  # of a correlation
DENSE = 64  # more than one of so many pairs of a block: faster to correlate all of them
FLAT = 3  # grey levels around its mean colour within which a picture is flat
VIEWS = tuple(itertools.product((False, True), repeat=3))
"""The eight views of a picture: transposed, then upside down, then mirrored (each or not)."""

FINGERPRINT = np.dtype(
    [
        ("hashes", "u8", len(VIEWS)),
        ("detail", "i1", (DETAIL, DETAIL)),
        ("colours", "u1", (COLOURS, COLOURS, 3)),
        ("spread", "u1"),
    ]
)
"""Of one image: the hashes of its views, its own first; the levelled DCT coefficients of its
brightness; its coarse colours; the largest distance from its mean colour, in grey levels."""

IMAGES_PER_TASK = 256
PAIRS_PER_BLOCK = 2**21
SPREAD = np.uint64(0x9E3779B97F4A7C15)  # multiplicative hashing (Knuth, vol. 3, section 6.4)

logger = logging.getLogger(__name__)


def fingerprint(images, threads=1, out=None):
    """Compute what images are compared by.

    Args:
        images: uint8 (N, H, W, 3), memory-mapped or not.
        threads: Number of threads. The result does not depend on it.
        out: Array (N,) of `FINGERPRINT` to fill, memory-mapped or not. None makes one.

    Returns:
        The array. `hashes[:, 0]` is the pHash, bit for bit that of the package imagehash except
        for flat and symmetric pictures, whose bits depend on rounding there.
    """
    out = np.empty(len(images), FINGERPRINT) if out is None else out
    starts = range(0, len(images), IMAGES_PER_TASK)
    parts = Parallel(n_jobs=threads, prefer="threads", return_as="generator")(
        delayed(_fingerprint)(images, slice(start, start + IMAGES_PER_TASK)) for start in starts
    )
    parts = logs.track(parts, "Fingerprints", len(images), step=IMAGES_PER_TASK)
    for start, part in zip(starts, parts, strict=True):
        out[start : start + len(part)] = part
        io.release(out)
    return out


def _fingerprint(images, rows):
    images = io.take(images, rows)
    found = np.zeros(len(images), FINGERPRINT)
    small = np.empty((len(images), THUMBNAIL, THUMBNAIL), "float64")
    large = np.empty((len(images), DETAIL_THUMBNAIL, DETAIL_THUMBNAIL), "float32")
    for place, pixels in enumerate(images):
        picture = Image.fromarray(pixels)
        grey = picture.convert("L")
        small[place] = grey.resize(small.shape[1:], Image.Resampling.LANCZOS)
        large[place] = grey.resize(large.shape[1:], Image.Resampling.LANCZOS)
        found["colours"][place] = picture.resize((COLOURS, COLOURS), Image.Resampling.BOX)
        extremes = (
            np.array(picture.getextrema()) - found["colours"][place].mean(axis=(0, 1))[:, None]
        )
        found["spread"][place] = np.abs(extremes).max()
    # Rounded, because noise far below a grey level would decide about a flat picture's bits.
    low = fft.dctn(small, axes=(1, 2))[:, : THUMBNAIL // 4, : THUMBNAIL // 4].round(6)
    for place, view in enumerate(VIEWS):
        found["hashes"][:, place] = _hash(_seen(low, view))
    detail = fft.dctn(large, axes=(1, 2), norm="ortho")[:, :DETAIL, :DETAIL]
    detail[:, 0, 0] = 0
    detail /= np.abs(detail) + GREY_LEVELS
    largest = np.abs(detail).max(axis=(1, 2), keepdims=True)
    found["detail"] = np.rint(127 * detail / np.maximum(largest, 1e-6))
    return found


def _seen(coefficients, view):
    """Return the DCT coefficients (n, k, k) of a view from those of the picture."""
    transposed, upside_down, mirrored = view
    if transposed:
        coefficients = coefficients.swapaxes(1, 2)
    signs = np.where(np.arange(coefficients.shape[1]) % 2, -1, 1).astype("int8")
    if upside_down:
        coefficients = coefficients * signs[:, None]
    return coefficients * signs if mirrored else coefficients


def _hash(low):
    bits = low > np.median(low, axis=(1, 2), keepdims=True)
    return np.packbits(bits.reshape(len(low), HASH_BITS), axis=1).view(">u8").ravel()


def hash_table(fingerprints):
    """Return the table of phash.csv: id and phash, 16 hex digits."""
    phash = [f"{value:016x}" for value in fingerprints["hashes"][:, 0]]
    return pd.DataFrame({"id": np.arange(len(phash)), "phash": phash})


def differences(fingerprints, left, right, views, shift=0):
    """Compare the pixels of pairs of images.

    The measure is 1 - the correlation of their brightness, in which all frequencies that stand
    out count about alike (phase correlation: Kuglin, Hines, "The phase correlation image
    alignment method", 1975). An even background, most of the pixels around a small cell, counts
    for nothing, and neither do contrast and brightness. Where it is larger, the measure is how
    far colours differ: the root mean square difference of 8x8 thumbnails made equally bright,
    as a share of 255. Flat pictures have no correlation: they differ by 0 if their colours
    are the same in whole grey levels, else by 1.

    Args:
        fingerprints: Array of `fingerprint`.
        left: Positions of the first images, integers (n,).
        right: Positions of the second images, integers (n,).
        views: Which of `VIEWS` of the first image is compared, integers (n,).
        shift: How far a picture may be moved to fit the other, in 64ths of its edge.

    Returns:
        Differences, float (n,), from 0 (the same picture) to 2.
    """
    found = np.empty(len(left))
    for start in range(0, len(left), IMAGES_PER_TASK):
        part = slice(start, start + IMAGES_PER_TASK)
        first, second = fingerprints[left[part]], fingerprints[right[part]]
        for number in np.unique(views[part]):
            rows = views[part] == number
            found[part][rows] = _differences(first[rows], second[rows], VIEWS[number], shift)
    return found


def _differences(first, second, view, shift):
    a = _seen(first["detail"], view).astype("float32")
    b = second["detail"].astype("float32")
    norms = np.linalg.norm(a, axis=(1, 2)) * np.linalg.norm(b, axis=(1, 2))
    products = (a * b).sum(axis=(1, 2))
    if shift:
        a, b = _levelled(a), _levelled(b)
        for moves in itertools.product(range(-shift, shift + 1), repeat=2):
            moved = np.roll(a, moves, axis=(1, 2))
            products = np.maximum(products, (moved * b).sum(axis=(1, 2)))
    colours = first["colours"].swapaxes(1, 2) if view[0] else first["colours"]
    colours = colours[:, ::-1] if view[1] else colours
    colours = colours[:, :, ::-1] if view[2] else colours
    a = colours.reshape(len(first), -1).astype("float32")
    b = second["colours"].reshape(len(second), -1).astype("float32")
    gain = (a * b).sum(axis=1) / np.maximum((a * a).sum(axis=1), 1)
    colour = np.sqrt(((b - gain[:, None] * a) ** 2).mean(axis=1)) / 255
    flat = (first["spread"] <= FLAT) & (second["spread"] <= FLAT)
    unlike = np.maximum(1 - products / np.maximum(norms, 1), colour)
    unlike[unlike < ROUNDING] = 0
    return np.where(flat, (a != b).any(axis=1), unlike)


def _levelled(coefficients):
    """Return the pictures (n, 64, 64) with these levelled coefficients (n, 32, 32)."""
    full = (DETAIL_THUMBNAIL, DETAIL_THUMBNAIL)
    return fft.idctn(coefficients, s=full, axes=(1, 2), norm="ortho")


def near_pairs(hashes, distance):
    """Find the pairs of images of which one has a view with a hash near the other's hash.

    Hashes within `distance` bits agree in at least two of `distance` + 2 chunks (pigeonhole
    principle), so only hashes that share two chunks are compared (Manku, Jain, Das Sarma,
    "Detecting near-duplicates for web crawling", WWW 2007, section 3), or all of them where
    so many share chunks that this is faster.

    Args:
        hashes: uint64 (n, views), the hashes of each image's views, its own first.
        distance: Number of bits, 0 to 62.

    Yields:
        Blocks of pairs: (left, right, view), integers (m,), left < right, such that the hash
        of that view of the left image is near the right image's own. Each comes once.
    """
    count = len(hashes)
    hashes = np.ascontiguousarray(hashes.T)
    own = hashes[0]
    bounds = np.linspace(0, HASH_BITS, distance + 3).astype(int).tolist()
    chunks = [2**end - 2**begin for begin, end in itertools.pairwise(bounds)]
    masks = [np.uint64(a | b) for a, b in itertools.combinations(chunks, 2)]
    bits = max(8, count.bit_length())

    def bucket(values, mask):
        return ((values & mask) * SPREAD >> np.uint64(HASH_BITS - bits)).astype("int64")

    sizes = (np.bincount(bucket(own, mask), minlength=2**bits) for mask in masks)
    # A pair found by its bucket costs about 15 times one of a sweep over all pairs.
    if 15 * sum(float(size @ size) for size in sizes) > count**2:
        rows = max(1, PAIRS_PER_BLOCK // count)
        for start, view in itertools.product(range(0, count, rows), range(len(hashes))):
            values = hashes[view, start : start + rows, None]
            near = np.bitwise_count(values ^ own[None, start:]) <= distance
            left, right = np.nonzero(np.triu(near, 1))
            yield left + start, right + start, np.full(len(left), view)
        return
    for place, mask in enumerate(masks):
        of_own = bucket(own, mask)
        order = np.argsort(of_own, kind="stable")
        size = np.bincount(of_own, minlength=2**bits)
        first = np.cumsum(size) - size
        for view, values in enumerate(hashes):
            of_view = of_own if view == 0 else bucket(values, mask)
            matches = size[of_view]
            total = np.cumsum(matches)
            blocks = np.arange(0, total[-1], PAIRS_PER_BLOCK)
            cuts = np.unique([*np.searchsorted(total, blocks), count])
            for begin, end in itertools.pairwise(cuts):
                here = matches[begin:end]
                left = np.repeat(np.arange(begin, end), here)
                offset = np.arange(len(left)) - np.repeat(np.cumsum(here) - here, here)
                right = order[np.repeat(first[of_view[begin:end]], here) + offset]
                differing = values[left] ^ own[right]
                near = (np.bitwise_count(differing) <= distance) & (left < right)
                left, right, differing = left[near], right[near], differing[near]
                new = np.ones(len(left), bool)
                for earlier in masks[:place]:
                    new &= (differing & earlier) != 0
                yield left[new], right[new], np.full(new.sum(), view)


def deduplicate(samples, fingerprints, settings):
    """Decide which images are kept, and which of those are near duplicates.

    Of duplicates the one with the smallest id is kept, as published. Where their labels
    disagree, `label_conflicts` "keep_first" does the same and "drop" keeps none of them. Groups
    do not grow along chains: an image agrees with the first image of its group.

    Args:
        samples: Table of `readers.read_samples`.
        fingerprints: Array of `fingerprint`, one entry per row of images.npy.
        settings: The config's `dataset`: `duplicates` ("pixels", or "hash" to call equal
            hashes duplicates without a look at the pixels), `duplicate_difference` and
            `near_duplicate_difference` (largest of `differences` at which pixels agree),
            `near_duplicate_distance` (in bits) and `label_conflicts`.

    Returns:
        Table with one row per image: id, label, class_name, source, phash, exact_group (the
        smallest id of its duplicates), near_group (the smallest kept id of its near
        duplicates, empty if not kept), difference (from the image that near_group names, or
        exact_group if not kept), kept, reason ("", "duplicate of ID" or "label conflict").

    Raises:
        InputError: The fingerprints are not those of the samples.
    """
    if sorted(samples["id"]) != list(range(len(fingerprints))):
        raise InputError(
            f"fingerprints.npy: found {len(fingerprints)} images, expected the {len(samples)}"
            " ids of samples.csv; run the fingerprint rule again"
        )
    samples = samples.sort_values("id", ignore_index=True)
    table = samples[["id", "label", "class_name", "source"]].merge(hash_table(fingerprints))
    # Equal bytes need no comparison, and thousands of copies would make millions of pairs.
    same = table.groupby(samples["sha256"])["id"].transform("min").to_numpy()
    distinct = np.flatnonzero(same == table["id"])
    left, right, views = candidates(fingerprints, distinct, settings)
    exact, difference = exact_groups(fingerprints, left, right, views, settings)
    exact, difference = exact[same], difference[same]
    table["exact_group"] = exact
    conflicts = label_conflict(table) & (settings["label_conflicts"] == "drop")
    kept = ((exact == table["id"]) & ~conflicts).to_numpy()

    both = kept[left] & kept[right]
    pairs = left[both], right[both], views[both]
    near, near_difference = groups(fingerprints, *pairs, near_limits(settings), SHIFT)
    table["near_group"] = pd.Series(near, dtype="Int64").where(kept)
    table["difference"] = np.where(kept, near_difference, difference).round(4)
    table["kept"] = kept
    duplicate_of = "duplicate of " + table["exact_group"].astype(str)
    table["reason"] = duplicate_of.mask(conflicts, "label conflict").mask(kept, "")
    _log(table)
    return table


def _log(table):
    dropped = table[table["reason"].str.startswith("duplicate of")]
    grouped = table[table["kept"] & table.duplicated("near_group", keep=False)]
    worst = ""
    if dropped["difference"].max() > 0:
        row = dropped.loc[dropped["difference"].idxmax()]
        worst = (
            f", the least alike {row['source']} and"
            f" {table.at[row['exact_group'], 'source']} (difference {row['difference']:.3f})"
        )
    logger.info(f"Duplicates: {len(dropped)} of {len(table)} images dropped{worst}")
    conflicts = (table["reason"] == "label conflict").sum()
    if conflicts:
        logger.info(f"Label conflicts: {conflicts} images dropped")
    logger.info(
        f"Near duplicates: {len(grouped)} images kept, in groups that share a split:"
        f" {grouped['near_group'].nunique()}"
    )
    mixed = grouped[label_conflict(grouped, "near_group")]
    if len(mixed):
        group = mixed[mixed["near_group"] == mixed["near_group"].iloc[0]]
        pair = group.drop_duplicates("label").head(2)
        said = [f"{row.source} ({row.class_name})" for row in pair.itertuples()]
        logger.info(
            f"Groups of near duplicates with several labels: {mixed['near_group'].nunique()},"
            f" such as {' and '.join(said)}; all stay, whatever dataset.label_conflicts says,"
            " so check the labels"
        )


def candidates(fingerprints, rows, settings):
    """Return the pairs whose hashes are near and whose pixels may agree.

    Small cells on an even background nearly all have near hashes. So a quick look at the pixels
    goes with each block of pairs, and only pairs that may be in one group are returned.

    Args:
        fingerprints: Array of `fingerprint`.
        rows: Positions to look at, in order, integers (m,).
        settings: As for `deduplicate`.

    Returns:
        left, right, view: positions and views of pairs, integers (3, n), left < right.
    """
    limits = near_limits(settings)
    least = 1 - np.maximum(limits, settings["duplicate_difference"]) - ROUNDING
    least[0] = min(least[0], LEAST)
    # Flat pictures have no frequencies; equal colours have one number, other pictures none.
    colour = -np.arange(len(rows)) - 1
    flat = np.flatnonzero(fingerprints["spread"][rows] <= FLAT)
    if len(flat):
        colours = fingerprints["colours"][rows[flat]]
        colour[flat] = np.unique(colours, axis=0, return_inverse=True)[1]
    all_units = functools.cache(lambda: _units(fingerprints["detail"][rows], VIEWS[0]))
    found = [np.empty((3, 0), int)]
    hashes = fingerprints["hashes"][rows]
    for left, right, view in near_pairs(hashes, settings["near_duplicate_distance"]):
        if not len(left):
            continue
        number, first, end = view[0], left[0], left[-1] + 1
        if len(left) * DENSE > (end - first) * len(rows):
            units = _units(fingerprints["detail"][rows[first:end]], VIEWS[number])
            correlation = (units @ all_units().T)[left - first, right]
            maybe = correlation >= least[number]
        else:
            maybe = np.empty(len(left), bool)
            for start in range(0, len(left), IMAGES_PER_TASK):
                part = slice(start, start + IMAGES_PER_TASK)
                a = _units(fingerprints["detail"][rows[left[part]]], VIEWS[number])
                b = _units(fingerprints["detail"][rows[right[part]]], VIEWS[0])
                maybe[part] = (a * b).sum(axis=1) >= least[number]
        maybe |= (colour[left] == colour[right]) & (number == 0)
        found.append(np.stack([rows[left[maybe]], rows[right[maybe]], view[maybe]]))
    return np.concatenate(found, axis=1)


def _units(detail, view):
    """Return coefficients (n, 32, 32) in a view as vectors of length 1, float32 (n, 1024)."""
    vectors = _seen(detail, view).reshape(len(detail), -1).astype("float32")
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1)


def exact_groups(fingerprints, left, right, views, settings):
    """Return the position of the first duplicate of each image, and the difference from it.

    Takes the pairs of `candidates`. Images without a duplicate count as the first.
    """
    own = fingerprints["hashes"][:, 0]
    if settings["duplicates"] == "pixels":
        equal = (views == 0) & (own[left] == own[right])
        pairs = left[equal], right[equal], views[equal]
        return groups(fingerprints, *pairs, settings["duplicate_difference"])
    _, first, inverse = np.unique(own, return_index=True, return_inverse=True)
    exact, images = first[inverse], np.arange(len(own))
    return exact, differences(fingerprints, exact, images, np.zeros(len(own), int))


def near_limits(settings):
    """Return the largest difference of near duplicates in each of `VIEWS`, float (8,)."""
    limits = np.full(len(VIEWS), settings["duplicate_difference"])
    limits[0] = settings["near_duplicate_difference"]
    return limits


def groups(fingerprints, left, right, views, limit, shift=0):
    """Put each image into the group whose first image it agrees with best, if there is any.

    So any two images of a group agree at least through its first one. If each correlates with
    that by c, they correlate with each other by 2 c^2 - 1 or more.

    Args:
        fingerprints: Array of `fingerprint`.
        left: Positions of images, integers (n,).
        right: Positions of later images that may be like them, integers (n,).
        views: Which view of the left image is meant, integers (n,).
        limit: Largest difference at which two images agree, one for all views or for each.
        shift: As for `differences`.

    Returns:
        The position of each image's first one, int (N,), and its difference from that.
    """
    first = np.arange(len(fingerprints))
    difference = np.zeros(len(fingerprints))
    possible = np.unique(views)
    limits = np.broadcast_to(limit, len(VIEWS))
    order = np.lexsort((left, right))
    left, right, views = left[order], right[order], views[order]
    images, starts = np.unique(right, return_index=True)
    bounds = itertools.pairwise([*starts, len(right)])
    for image, (start, end) in zip(images, bounds, strict=True):
        heads = first[left[start:end]]
        direct = heads == left[start:end]
        # A hash proposed this view of a first image; of one that stands behind, any may fit.
        others = np.setdiff1d(heads, heads[direct])
        heads = np.concatenate([heads[direct], np.repeat(others, len(possible))])
        seen = np.concatenate([views[start:end][direct], np.tile(possible, len(others))])
        image_again = np.full(len(heads), image)
        found = differences(fingerprints, heads, image_again, seen, shift)
        best = np.where(found <= limits[seen], found, np.inf).argmin()
        if found[best] <= limits[seen[best]]:
            first[image], difference[image] = heads[best], found[best]
    return first, difference


def label_conflict(table, group="exact_group"):
    """Mark the images whose duplicates carry more than one label, bool (n,)."""
    return table.groupby(group)["label"].transform("nunique") > 1
