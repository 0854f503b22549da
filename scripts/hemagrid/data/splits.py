"""Which image is for training, validation or test: stratified, near-duplicate groups whole."""

import math
from collections import Counter

import numpy as np

from hemagrid.errors import InputError

COLUMNS = ["id", "label", "class_name", "source", "near_group", "split"]


def split(duplicates, shares, seed):
    """Divide the kept images among splits without parting a near-duplicate group.

    Groups are placed one by one: those of several classes first, then by size, ties in
    random order. Each goes to the split whose target counts it exceeds least, then to the one
    that still needs most images. Single images come last and fill the gaps. Each class ends
    within one image of its shares wherever its groups leave room for that. The result does
    not depend on the order of the rows.

    Args:
        duplicates: Table of `duplicates.deduplicate`.
        shares: Dict from the name of a split to its share; the shares sum to 1.
        seed: Integer, at least 0.

    Returns:
        Table of the kept images by id: id, label, class_name, source, near_group, split.

    Raises:
        InputError: The shares do not divide 1, or a class cannot have an image in each split.
    """
    if min(shares.values()) <= 0 or not math.isclose(sum(shares.values()), 1):
        raise InputError(f"splits: found {shares}, expected shares above 0 that add up to 1")
    kept = duplicates[duplicates["kept"]].sort_values("id", ignore_index=True)
    kept = kept.astype({"near_group": "int64"})
    groups = _groups(kept, seed)
    class_names = dict(zip(duplicates["label"], duplicates["class_name"], strict=True))
    images = Counter(kept["label"].tolist())
    groups_of = Counter(label for counts in groups.values() for label in counts)
    due = {label: _targets(images[label], shares) for label in class_names}
    lacking = {label: set(shares) for label in class_names}
    waiting = groups_of.copy()

    def cost(name, counts):
        # A class with no more groups to come than splits without it can spare none.
        robbed = sum(
            name not in lacking[label] and waiting[label] <= len(lacking[label])
            for label in counts
        )
        excess = sum(max(0, count - due[label][name]) for label, count in counts.items())
        served = sum(name in lacking[label] for label in counts)
        return robbed, excess, -served, -min(due[label][name] for label in counts)

    split_of = {}
    for group, counts in groups.items():
        chosen = min(shares, key=lambda name: cost(name, counts))
        split_of[group] = chosen
        for label, count in counts.items():
            due[label][chosen] -= count
            lacking[label].discard(chosen)
            waiting[label] -= 1
    for label, class_name in class_names.items():
        if lacking[label]:
            raise InputError(
                f"class {class_name!r}: found {images[label]} images in {groups_of[label]}"
                " near-duplicate groups once duplicates are removed, expected enough to give"
                f" each of {', '.join(shares)} at least one, and groups are never divided; add"
                " images, leave the class out, or lower dataset.near_duplicate_distance"
            )
    return kept.assign(split=kept["near_group"].map(split_of))[COLUMNS]


def _groups(kept, seed):
    """Map each near-duplicate group to its images per label, in the order of placing them."""
    groups = {}
    for group, label in zip(kept["near_group"].tolist(), kept["label"].tolist(), strict=True):
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
