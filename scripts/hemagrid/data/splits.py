"""Which image is for training, validation or test: stratified, near groups whole."""

import math
from collections import Counter

import numpy as np

from hemagrid.errors import InputError

COLUMNS = ["id", "label", "class_name", "source", "near_group", "split"]


def split(duplicates, shares, seed):
    """Divide the kept images among the splits named in `shares` (name to share, sum 1).

    Takes the table of `duplicates.deduplicate`; returns id, label, class_name, source,
    near_group, split of each kept image, by id. A near-duplicate group is never parted.
    Each class comes within one image of its shares wherever its groups leave room for
    that; the result depends on the images and `seed`, not on the order of the rows.

    Groups are placed one by one, first those of several classes, then by size, ties in
    random order; each goes where it exceeds the target counts least, then where most
    images are still due. Single images come last and fill what is left.

    Raises InputError for shares that are not a division of 1, and, naming class and
    count, where a class cannot have an image in each split.
    """
    if min(shares.values()) <= 0 or not math.isclose(sum(shares.values()), 1):
        raise InputError(f"splits: found {shares}, expected shares above 0 that add up to 1")
    kept = duplicates[duplicates["kept"]].sort_values("id", ignore_index=True)
    kept = kept.astype({"near_group": "int64"})
    groups = _groups(kept, seed)
    names = dict(zip(duplicates["label"], duplicates["class_name"], strict=True))
    images = Counter(kept["label"].tolist())
    waiting = Counter(label for counts in groups.values() for label in counts)
    for label, class_name in names.items():
        if waiting[label] < len(shares):
            raise _too_small(class_name, images[label], waiting[label], shares)

    due = {label: _targets(images[label], shares) for label in names}
    lacking = {label: set(shares) for label in names}
    split_of = {}
    for group, counts in groups.items():
        chosen = _choose(counts, due, lacking, waiting)
        split_of[group] = chosen
        for label, count in counts.items():
            due[label][chosen] -= count
            lacking[label].discard(chosen)
            waiting[label] -= 1
    for label, class_name in names.items():
        if lacking[label]:
            count = sum(label in counts for counts in groups.values())
            raise _too_small(class_name, images[label], count, shares)
    return kept.assign(split=kept["near_group"].map(split_of))[COLUMNS]


def _groups(kept, seed):
    """Map each near group to its images per label, in the order of placing them."""
    groups = {}
    pairs = zip(kept["near_group"].tolist(), kept["label"].tolist(), strict=True)
    for group, label in pairs:
        groups.setdefault(group, Counter())[label] += 1
    keys = sorted(groups)
    shuffled = [keys[i] for i in np.random.default_rng(seed).permutation(len(keys))]
    shuffled.sort(key=lambda key: (-len(groups[key]), -groups[key].total()))
    return {key: groups[key] for key in shuffled}


def _targets(count, shares):
    """Divide `count` by shares, rounded to whole images by largest remainder."""
    exact = {name: share * count for name, share in shares.items()}
    targets = {name: math.floor(value) for name, value in exact.items()}
    by_remainder = sorted(exact, key=lambda name: targets[name] - exact[name])
    for name in by_remainder[: count - sum(targets.values())]:
        targets[name] += 1
    return targets


def _choose(counts, due, lacking, waiting):
    """Choose the split for a group that has `counts[label]` images of each label."""

    def cost(name):
        # A class with no more groups to come than splits without it can spare none.
        robbed = sum(
            name not in lacking[label] and waiting[label] <= len(lacking[label])
            for label in counts
        )
        excess = sum(max(0, n - due[label][name]) for label, n in counts.items())
        served = sum(name in lacking[label] for label in counts)
        return robbed, excess, -served, -min(due[label][name] for label in counts)

    return min(next(iter(due.values())), key=cost)


def _too_small(class_name, images, groups, shares):
    return InputError(
        f"class {class_name!r}: found {images} images in {groups} near-duplicate groups"
        f" once duplicates are removed, expected enough to give each of"
        f" {', '.join(shares)} at least one, and groups are never parted; add images,"
        " leave the class out, or lower dataset.near_duplicate_distance"
    )
