"""Which images are the same picture, and which are nearly the same.

Equal perceptual hashes (pHash: the low frequencies of the DCT of a 32x32 grey
thumbnail, 64 bits; Zauner, "Implementation and Benchmarking of Perceptual Image Hash
Functions", 2010) mark duplicates, of which one is kept. Hashes that differ in a few
bits mark near duplicates, which stay but share a split.
"""

import imagehash
import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hemagrid.errors import InputError

HASH_BITS = 64


BATCH = 512  # images per task of a worker


def fingerprint(images, threads=1):
    """Hash every image, uint8 (N, H, W, 3), in `threads` processes.

    Returns a table of id (row number) and phash (16 hex digits), the same for any
    `threads`. A memory-mapped array is not copied: joblib's workers map it themselves.
    """
    batches = (images[i : i + BATCH] for i in range(0, len(images), BATCH))
    hashes = Parallel(n_jobs=threads)(delayed(_hash_batch)(batch) for batch in batches)
    phash = [text for batch in hashes for text in batch]
    return pd.DataFrame({"id": np.arange(len(images)), "phash": phash})


def _hash_batch(images):
    return [str(imagehash.phash(Image.fromarray(pixels))) for pixels in images]


def exact_groups(hashes):
    """Give each hash, uint64 (n,), the first position of an equal one, int64 (n,)."""
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    return first[inverse]


def near_groups(hashes, distance):
    """Group hashes, uint64 (n,), that are linked by steps of at most `distance` bits.

    Returns the first position of each hash's group, int64 (n,). Two hashes within
    `distance` bits agree in at least one of `distance` + 1 chunks (pigeonhole
    principle), so only hashes that share a chunk are compared, and groups are the
    connected components of the pairs found (Manku, Jain, Das Sarma, "Detecting near-
    duplicates for web crawling", WWW 2007, section 3).
    """
    distinct, inverse = np.unique(hashes, return_inverse=True)
    pairs = [_near_pairs(distinct, distance, *chunk) for chunk in _chunks(distance)]
    left, right = np.concatenate(pairs, axis=1)
    links = coo_array((np.ones(len(left), bool), (left, right)), 2 * distinct.shape)
    _, component = connected_components(links, directed=False)
    return exact_groups(component[inverse])


def _chunks(distance):
    """Cut the bits of a hash into `distance` + 1 chunks: (first bit, width) of each."""
    bounds = np.linspace(0, HASH_BITS, distance + 2).astype(np.uint64)
    return zip(bounds[:-1], np.diff(bounds), strict=True)


def _near_pairs(hashes, distance, first_bit, width):
    """Pair hashes equal in one chunk and within `distance` bits: positions, (2, m).

    Sorted by the chunk, equal ones lie side by side: compare each with the next, then
    with the one after that, and so on, dropping those that have reached the end of
    their bucket.
    """
    chunk = (hashes >> first_bit) & np.uint64(2 ** int(width) - 1)
    order = np.argsort(chunk, kind="stable")
    chunk, ordered = chunk[order], hashes[order]
    end = np.searchsorted(chunk, chunk, side="right")
    position = np.arange(len(hashes))
    found = []
    step = 1
    while True:
        position = position[position + step < end[position]]
        if not position.size:
            break
        differing = np.bitwise_count(ordered[position] ^ ordered[position + step])
        near = position[differing <= distance]
        found.append(np.stack([order[near], order[near + step]]))
        step += 1
    return np.concatenate(found, axis=1) if found else np.empty((2, 0), np.int64)


def deduplicate(samples, phash, label_conflicts, near_duplicate_distance):
    """Decide which images are kept, and which of those are near duplicates.

    Takes the samples with an image and the table of `fingerprint`; returns one row per
    image: id, label, class_name, source, phash, exact_group (smallest id with an equal
    hash), near_group (smallest kept id of its near-duplicate group, empty if not kept),
    kept, reason ("", "duplicate of ID" or "label conflict").

    Of images with equal hashes the smallest id is kept, as published; where their
    labels disagree, `label_conflicts` "keep_first" does the same and "drop" keeps none.
    """
    if sorted(samples["id"]) != sorted(phash["id"]):
        raise InputError(
            f"phash.csv: found {len(phash)} images, expected the {len(samples)} ids of"
            " samples.csv; run the fingerprint rule again"
        )
    table = samples[["id", "label", "class_name", "source"]].merge(phash, on="id")
    table = table.sort_values("id", ignore_index=True)
    hashes = np.array([int(phash, 16) for phash in table["phash"]], dtype=np.uint64)
    ids = table["id"].to_numpy()

    table["exact_group"] = ids[exact_groups(hashes)]
    first = table["exact_group"] == table["id"]
    dropped = label_conflict(table) & (label_conflicts == "drop")
    kept = (first & ~dropped).to_numpy()

    table["near_group"] = pd.array([pd.NA] * len(table), dtype="Int64")
    groups = near_groups(hashes[kept], near_duplicate_distance)
    table.loc[kept, "near_group"] = ids[kept][groups]
    table["kept"] = kept
    duplicate_of = "duplicate of " + table["exact_group"].astype(str)
    table["reason"] = duplicate_of.mask(dropped, "label conflict").mask(kept, "")
    columns = ["id", "label", "class_name", "source", "phash"]
    return table[[*columns, "exact_group", "near_group", "kept", "reason"]]


def label_conflict(table):
    """Mark the images whose exact group holds more than one label, bool (n,)."""
    return table.groupby("exact_group")["label"].transform("nunique") > 1
