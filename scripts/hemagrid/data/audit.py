"""What was found in the data set, and what was done about it, for the report."""

import logging
import re
from collections import Counter

import pandas as pd

from hemagrid import io
from hemagrid.data.augmentation import BLANK, spreads
from hemagrid.data.duplicates import label_conflict
from hemagrid.io import class_names
from hemagrid.names import AUGMENTED, SPLITS, subset_title

logger = logging.getLogger(__name__)

FAINT = 5.0
"""A copy whose pixel values have a lower standard deviation holds hardly a picture."""
LISTED = 50  # entries of a list; the full count stands beside them
IDS_LISTED = 12  # images named per group


def audit(samples, skipped, duplicates, splits, settings, test_sets=None, groups=None):
    """Gather counts and examples of how the data set was made.

    Args:
        samples: Table of `readers.read_samples`.
        skipped: Table of `readers.read_skipped`.
        duplicates: Table of `duplicates.deduplicate`.
        splits: Table of `splits.split`.
        settings: The settings of `duplicates.deduplicate`.
        test_sets: {name: (table of its images, table of what was left out of it)}, as
            `test_sets.write_test_set` writes them.
        groups: Table of the rule `groups`, if the config has groups.

    Returns:
        A dict ready for JSON:
        - settings: as given;
        - counts: found = skipped + images; images = duplicates_removed + conflicts_removed +
          kept; near_groups of two or more kept images and the near_images in them;
          label_conflicts and near_label_conflicts, the groups of duplicates and of near
          duplicates under several labels;
        - classes: class, found, kept, train, val, test per class, in the order of labels;
        - files: class, read, changed ({what: count}), skipped ({kind of reason: count}) per
          class, and under "" for files outside the class folders;
        - exact_groups, near_groups, label_conflicts, near_label_conflicts: {count, examples}.
          An example has group (the id of its first image), size, difference (the largest from
          the first image), ids, sources, classes, differences (first image first, then the
          least alike) and labels. The group with the largest difference comes first;
        - skipped: {count, examples};
        - test_sets: {name: {kept (number of images), classes ({class: images}, in the order of
          labels), reasons ({kind: images and files left out}), left_out ({count, examples},
          those with the largest difference first)}};
        - groups: None, or of the groups that the config tells count, images (min, median, max
          per group, of the kept), splits ({split: groups}), units (what is left of them where
          duplicates join some), units_per_split, and, each as {count, examples}, largest
          (group, images, split) and joined (the groups and the size of a unit of several);
        - group_conflicts: {count, examples}, the duplicates that stand in several groups.
    """
    images = duplicates.sort_values("id")
    kept = images[images["kept"]].astype({"near_group": "int64"})
    # The difference of a kept image is from the first of its near duplicates.
    images = images.assign(difference=images["difference"].mask(images["kept"], 0))
    near = _groups(kept, "near_group")
    mixed = _groups(kept[label_conflict(kept, "near_group")], "near_group")
    conflicts = _groups(images[label_conflict(images)], "exact_group")
    reasons = images["reason"]
    return {
        "settings": settings,
        "counts": {
            "found": len(samples) + len(skipped),
            "skipped": len(skipped),
            "images": len(samples),
            "duplicates_removed": int(reasons.str.startswith("duplicate of").sum()),
            "conflicts_removed": int((reasons == "label conflict").sum()),
            "kept": len(kept),
            "near_groups": len(near),
            "near_images": sum(len(group) for group in near),
            "label_conflicts": len(conflicts),
            "near_label_conflicts": len(mixed),
        },
        "classes": _classes(samples, splits),
        "files": _files(samples, skipped),
        "exact_groups": _listing(_groups(images, "exact_group"), _describe),
        "near_groups": _listing(near, _describe),
        "label_conflicts": _listing(conflicts, _describe_conflict),
        "near_label_conflicts": _listing(mixed, _describe),
        "skipped": _listing(skipped[["source", "reason"]].to_dict("records"), dict),
        "test_sets": {
            name: _test_set(class_names(samples), *tables)
            for name, tables in (test_sets or {}).items()
        },
        "groups": None if groups is None else _groups_of_user(splits),
        "group_conflicts": _listing(_in_several(images, groups), _describe_groups),
    }


def _test_set(classes, table, left_out):
    """Count the images of a test set, and what was left out of it, by kind of reason."""
    per_class = table["class_name"].value_counts()
    # Which image it is a copy of does not matter here, which class is none of ours does.
    kinds = [
        reason if reason.startswith("class") else re.sub(r"( image) \d+$|:.*", r"\1", reason)
        for reason in left_out["reason"]
    ]
    listed = left_out.sort_values("difference", ascending=False, kind="stable")
    listed = listed.astype({"difference": object}).where(listed.notna(), None)
    return {
        "kept": len(table),
        "classes": {name: int(per_class.get(name, 0)) for name in classes},
        "reasons": dict(Counter(kinds).most_common()),
        "left_out": _listing(listed.to_dict("records"), dict),
    }


def _groups_of_user(splits):
    sizes = splits.groupby("group_name", sort=False).agg(
        size=("id", "size"), split=("split", "first")
    )
    sizes = sizes.sort_values("size", ascending=False, kind="stable")
    units = splits.groupby("near_group")
    joined = units["group_name"].unique()
    joined = joined[joined.str.len() > 1]
    return {
        "count": len(sizes),
        "images": {
            "min": int(sizes["size"].min()),
            "median": float(sizes["size"].median()),
            "max": int(sizes["size"].max()),
        },
        "splits": {name: int((sizes["split"] == name).sum()) for name in SPLITS},
        "units": len(units),
        "units_per_split": {
            name: int(splits.loc[splits["split"] == name, "near_group"].nunique())
            for name in SPLITS
        },
        "largest": _listing(
            [
                {"group": name, "images": int(size), "split": split}
                for name, size, split in sizes.itertuples()
            ],
            dict,
        ),
        "joined": _listing(
            [
                {"groups": list(names[:IDS_LISTED]), "size": len(units.groups[unit])}
                for unit, names in joined.items()
            ],
            dict,
        ),
    }


def _in_several(images, groups):
    """List the duplicates that stand in several of the user's groups."""
    if groups is None:
        return []
    images = images.merge(groups[["id", "group_name"]], on="id")
    count = images.groupby("exact_group")["group_name"].transform("nunique")
    return _groups(images[count > 1], "exact_group")


def audit_copies(inputs, out):
    """List all augmented copies with what is left of their picture, and say how many are blank.

    Args:
        inputs: Paths `images_{subset}` (.npy) and `table_{subset}` (.csv) of each subset of
            `names.AUGMENTED`.
        out: Path of the CSV to write, a row per copy, in the order of the images: subset,
            policy, spread (the standard deviation of all its pixel values, 0 to 127.5) and
            draws (how often it was drawn; more than once where a blank one was drawn again).
    """
    listed = []
    for subset in AUGMENTED:
        table = io.read_table(inputs[f"table_{subset}"])
        copies = pd.DataFrame({"subset": subset, "policy": table["policy"]})
        spread = spreads(io.open_images(inputs[f"images_{subset}"]))
        listed.append(copies.assign(spread=spread, draws=table.get("draws", 1)))
    listed = pd.concat(listed)
    io.write_table(out, listed)
    for row in count_copies(listed).itertuples():
        name = subset_title(row.subset)
        logger.info(f"{name}, {row.policy}: {row.blank} of {row.copies} copies are blank")


def count_copies(listed):
    """Count the copies that hold no picture any more.

    Args:
        listed: Table of `audit_copies`.

    Returns:
        Table with a row per subset and policy: subset, policy, copies, blank (with a spread
        below `augmentation.BLANK`), faint (below `FAINT`, blank ones included) and, if any copy
        was drawn more than once, redrawn.
    """
    kinds = listed.assign(
        copies=1,
        blank=listed["spread"] < BLANK,
        faint=listed["spread"] < FAINT,
        redrawn=listed["draws"] > 1,
    )
    columns = ["copies", "blank", "faint"]
    columns += ["redrawn"] if kinds["redrawn"].any() else []
    return kinds.groupby(["subset", "policy"], sort=False)[columns].sum().reset_index()


def blank_copies(listed, subset):
    """Tell which images of a subset are blank copies, bool (n,).

    Args:
        listed: Table of `audit_copies`.
        subset: A subset that is in it.
    """
    return listed.loc[listed["subset"] == subset, "spread"].to_numpy() < BLANK


def _groups(images, column):
    """List the groups of two images or more, the one with the largest difference first."""
    repeated = images[images.duplicated(column, keep=False)]
    groups = [group for _, group in repeated.groupby(column)]
    return sorted(groups, key=lambda group: (-group["difference"].max(), -len(group)))


def _listing(entries, describe):
    examples = [describe(entry) for entry in entries[:LISTED]]
    return {"count": len(entries), "examples": examples}


def _describe(group):
    others = group.iloc[1:].sort_values("difference", ascending=False, kind="stable")
    shown = pd.concat([group.head(1), others]).head(IDS_LISTED)
    return {
        "group": int(group["id"].iloc[0]),
        "size": len(group),
        "difference": float(group["difference"].max()),
        "ids": shown["id"].tolist(),
        "sources": shown["source"].tolist(),
        "classes": shown["class_name"].tolist(),
        "differences": shown["difference"].tolist(),
        "labels": group["class_name"].value_counts().to_dict(),
    }


def _describe_conflict(group):
    kept = group[group["kept"]]
    outcome = "all dropped"
    if len(kept):
        outcome = f"kept image {kept['id'].iloc[0]} as {kept['class_name'].iloc[0]}"
    return {**_describe(group), "outcome": outcome}


def _describe_groups(group):
    names = sorted(set(group["group_name"]))
    more = f" and {len(names) - IDS_LISTED} more" * (len(names) > IDS_LISTED)
    return {**_describe(group), "outcome": f"in {', '.join(names[:IDS_LISTED])}{more}"}


def _files(samples, skipped):
    """Count what became of the files of each class, and of those outside the classes."""
    rows = []
    for class_name in [*class_names(samples), ""]:
        read = samples[samples["class_name"] == class_name]
        words = [word for text in read["changes"] for word in text.split(", ") if word]
        reasons = skipped.loc[skipped["class_name"] == class_name, "reason"]
        kinds = Counter(reason.partition(":")[0] for reason in reasons)
        if class_name or kinds:
            row = {"class": class_name, "read": len(read)}
            rows.append(row | {"changed": dict(Counter(words)), "skipped": dict(kinds)})
    return rows


def _classes(samples, splits):
    found = samples.groupby("label")["class_name"].agg(["first", "size"]).sort_index()
    counts = splits.groupby(["label", "split"]).size()
    rows = []
    for label, class_name, size in found.itertuples():
        per_split = {name: int(counts.get((label, name), 0)) for name in SPLITS}
        row = {"class": class_name, "found": int(size), "kept": sum(per_split.values())}
        rows.append(row | per_split)
    return rows
