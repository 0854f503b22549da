"""Which image is for training, validation or test: stratified, groups whole.

A group is one of near duplicates or, with `dataset.groups`, whatever hangs together through
duplicates, near duplicates and the groups that the user names.
"""

import logging
import math
from collections import Counter

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hemagrid import io
from hemagrid.errors import InputError

ORDERS = 20  # in which groups that the user names are placed, until one is within the tolerance
LISTED = 5  # groups in one error message
COLUMNS = ["id", "label", "class_name", "source", "near_group", "split"]

logger = logging.getLogger(__name__)


def write_splits(inputs, out, shares, seed, tolerance=None):
    """Divide the kept images among splits, from files to a file.

    Args:
        inputs: Path `duplicates` and, if the user names groups, `groups`.
        out: Path of splits.csv.
        shares: As in `split`.
        seed: As in `split`.
        tolerance: As in `split_groups`.
    """
    duplicates = io.read_table(inputs["duplicates"])
    if inputs["groups"]:
        table = split_groups(
            duplicates, io.read_table(inputs["groups"]), shares, seed, tolerance
        )
    else:
        table = split(duplicates, shares, seed)
    io.write_table(out, table)


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
    _check_shares(shares)
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


def joined(duplicates, groups):
    """Put images into one group that are in one group of the user's, or duplicates.

    Two groups become one if they hold near duplicates, or if one holds a duplicate of a kept
    image of the other: whichever of them is right, the picture belongs to it.

    Args:
        duplicates: Table of `duplicates.deduplicate`.
        groups: Table with the columns id and group_name, a row for each image.

    Returns:
        Table of the kept images by id, with the column group_name, and near_group the smallest
        id of a kept image that hangs together with it.

    Raises:
        InputError: The groups are not those of the images.
    """
    table = duplicates.sort_values("id", ignore_index=True)
    names = groups.set_index("id")["group_name"]
    if sorted(names.index) != table["id"].tolist():
        raise InputError(
            f"groups.csv: found {len(names)} images, expected the {len(table)} of"
            " duplicates.csv; run the groups rule again"
        )
    table["group_name"] = table["id"].map(names)
    kept = table["kept"].to_numpy(bool)
    # An image is linked to its duplicate, its first near duplicate and its group.
    rows, count = np.arange(len(table)), len(table)
    exact = table["id"].searchsorted(table["exact_group"])
    near = table["id"].searchsorted(table.loc[kept, "near_group"].astype("int64"))
    of_user = count + pd.factorize(table["group_name"])[0]
    ends = np.concatenate([exact[kept[exact]], near, of_user])
    starts = np.concatenate([rows[kept[exact]], rows[kept], rows])
    links = coo_array((np.ones(len(ends)), (starts, ends)), (2 * count, 2 * count))
    _, component = connected_components(links, directed=False)
    table = table[kept].assign(near_group=component[:count][kept])
    table["near_group"] = table.groupby("near_group")["id"].transform("min")
    return table.reset_index(drop=True)


def split_groups(duplicates, groups, shares, seed, tolerance):
    """Divide the kept images among splits without parting a group that the user names.

    Groups of patients are large and hold several classes, so the shares of the classes are met
    about, not to the image. Groups are placed by descending size, each where it leaves the
    smallest sum of squared distances of the classes from their shares (as in scikit-learn's
    StratifiedGroupKFold, which takes the standard deviation), then moved one by one as long as
    that sum falls. If a class ends further from a share than the tolerance, up to `ORDERS`
    random orders are tried, and the first that is within it counts.

    Args:
        duplicates: Table of `duplicates.deduplicate`.
        groups: As for `joined`.
        shares: As for `split`.
        seed: As for `split`.
        tolerance: Largest distance of a class from its share of a split, of the class's images,
            0 to 1; one image is always allowed.

    Returns:
        Table as of `split`, with the column group_name. near_group is that of `joined`.

    Raises:
        InputError: As `split`, or no order is within the tolerance.
    """
    _check_shares(shares)
    kept = joined(duplicates, groups)
    units, keys = pd.factorize(kept["near_group"])
    classes = duplicates[["label", "class_name"]].drop_duplicates("label").sort_values("label")
    labels = classes["label"].searchsorted(kept["label"])
    counts = np.zeros((len(keys), len(classes)), int)
    np.add.at(counts, (units, labels), 1)
    images, wanted = counts.sum(axis=0), np.array(list(shares.values()))
    allowed = np.maximum(tolerance, 1 / np.maximum(images, 1)) + 1e-9

    random, best = np.random.default_rng(seed), None
    for attempt in range(ORDERS):
        order = random.permutation(len(keys))
        if attempt == 0:
            order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
        places = _place(counts / np.maximum(images, 1), wanted, order)
        reached = np.stack([counts[places == i].sum(axis=0) for i in range(len(shares))])
        distance = np.abs(reached / np.maximum(images, 1) - wanted[:, None])
        excess = np.where(reached > 0, distance - allowed, 1)
        if best is None or excess.max() < best[0].max():
            best = excess, reached, places
        if excess.max() <= 0:
            break
    excess, reached, places = best
    if excess.max() > 0:
        name, label = np.unravel_index(excess.argmax(), excess.shape)
        raise InputError(
            _refusal(
                kept,
                classes["class_name"].iloc[label],
                list(shares)[name],
                wanted[name],
                (reached[name, label], images[label], (counts[:, label] > 0).sum()),
                tolerance,
            )
        )
    distance = np.abs(reached / np.maximum(images, 1) - wanted[:, None]).max()
    logger.info(
        f"Groups: {kept['group_name'].nunique()}, which duplicates join into {len(keys)}; every"
        f" class is within {100 * distance:.1f} points of its shares"
    )
    kept["split"] = np.array(list(shares), object)[places[units]]
    return kept[[*COLUMNS, "group_name"]]


def _check_shares(shares):
    if min(shares.values()) <= 0 or not math.isclose(sum(shares.values()), 1):
        raise InputError(f"splits: found {shares}, expected shares above 0 that add up to 1")


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


def _place(weights, wanted, order):
    """Place groups in splits.

    Args:
        weights: Shares of the classes in each group, float (groups, classes).
        wanted: Shares of the splits, float (splits,).
        order: Order of the groups, int (groups,).

    Returns:
        The split of each group, int (groups,).
    """
    due = np.repeat(wanted[:, None], weights.shape[1], axis=1)
    places = np.full(len(weights), -1)

    def gain(group):  # of the sum of squares, for each split
        return ((due - weights[group]) ** 2 - due**2).sum(axis=1)

    for group in order:
        places[group] = gain(group).argmin()
        due[places[group]] -= weights[group]
    moved = True
    while moved:
        moved = False
        for group in order:
            here = places[group]
            due[here] += weights[group]
            gains = gain(group)
            best = gains.argmin()
            if gains[best] < gains[here] - 1e-12:
                places[group], moved = best, True
            due[places[group]] -= weights[group]
    return places


def _refusal(kept, class_name, split, wanted, found, tolerance):
    reached, images, units = found
    sizes = kept.groupby("near_group")["group_name"].agg(["size", "unique"])
    sizes = sizes.sort_values("size", ascending=False, kind="stable")
    largest = []
    for size, names in sizes.head(LISTED).itertuples(index=False):
        others = f" with {len(names) - 1} more, joined by duplicates" * (len(names) > 1)
        largest.append(f"{names[0]}{others} ({size} images)")
    share = f"{100 * reached / images:.1f} %" if images else "none"
    return (
        f"splits: the best division found gives {split} {reached} of the {images} images of"
        f" class {class_name!r} ({share}), expected {100 * wanted:.1f} % within"
        f" {100 * tolerance:g} points (dataset.groups.tolerance) and at least one image; groups"
        f" are never divided. The class is in {units} of {len(sizes)} groups; the largest are"
        f" {', '.join(largest)}. Add images of other groups, divide these groups more finely if"
        " that is true to them, leave the class out, or raise the tolerance"
    )
