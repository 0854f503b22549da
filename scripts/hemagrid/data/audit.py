"""What was found in the data set and what was done about it, for the report."""

from hemagrid.data.duplicates import label_conflict
from hemagrid.names import SPLITS

LISTED = 50  # entries of a list; the full count stands beside them
IDS_LISTED = 12  # images named per group


def audit(samples, skipped, duplicates, splits, distance, label_conflicts):
    """Gather counts and examples of how the data set was made.

    Args:
        samples: Table of `readers.read_samples`.
        skipped: Table of `readers.read_skipped`.
        duplicates: Table of `duplicates.deduplicate`.
        splits: Table of `splits.split`.
        distance: Bits within which hashes are near.
        label_conflicts: "keep_first" or "drop".

    Returns:
        A dict ready for JSON:
        - settings: near_duplicate_distance, label_conflicts;
        - counts: found = skipped + images; images = duplicates_removed + conflicts_removed +
          kept; near_groups of two or more kept images and the near_images in them;
          label_conflicts, the groups of duplicates under several labels;
        - classes: class, found, kept, train, val, test per class, in the order of labels;
        - exact_groups, near_groups, label_conflicts, skipped: {count, examples}, the largest
          groups first.
    """
    images = duplicates.sort_values("id")
    kept = images[images["kept"]].astype({"near_group": "int64"})
    exact = _groups(images, "exact_group")
    near = _groups(kept, "near_group")
    conflicts = _groups(images[label_conflict(images)], "exact_group")
    reasons = images["reason"]
    return {
        "settings": {
            "near_duplicate_distance": int(distance),
            "label_conflicts": label_conflicts,
        },
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
        },
        "classes": _classes(samples, splits),
        "exact_groups": _listing(exact, _describe),
        "near_groups": _listing(near, _describe),
        "label_conflicts": _listing(conflicts, _describe_conflict),
        "skipped": _listing(skipped[["source", "reason"]].to_dict("records"), dict),
    }


def _groups(images, column):
    """List the groups of two images or more, largest first, then by smallest id."""
    repeated = images[images.duplicated(column, keep=False)]
    groups = [group for _, group in repeated.groupby(column)]
    return sorted(groups, key=lambda group: (-len(group), group["id"].iloc[0]))


def _listing(entries, describe):
    examples = [describe(entry) for entry in entries[:LISTED]]
    return {"count": len(entries), "examples": examples}


def _describe(group):
    shown = group.head(IDS_LISTED)
    return {
        "group": int(group["id"].iloc[0]),
        "size": len(group),
        "ids": shown["id"].tolist(),
        "sources": shown["source"].tolist(),
        "classes": shown["class_name"].tolist(),
        "labels": group["class_name"].value_counts().to_dict(),
    }


def _describe_conflict(group):
    kept = group[group["kept"]]
    outcome = "all dropped"
    if len(kept):
        outcome = f"kept image {kept['id'].iloc[0]} as {kept['class_name'].iloc[0]}"
    return {**_describe(group), "outcome": outcome}


def _classes(samples, splits):
    found = samples.groupby("label")["class_name"].agg(["first", "size"]).sort_index()
    counts = splits.groupby(["label", "split"]).size()
    rows = []
    for label, class_name, size in found.itertuples():
        per_split = {name: int(counts.get((label, name), 0)) for name in SPLITS}
        row = {"class": class_name, "found": int(size), "kept": sum(per_split.values())}
        rows.append(row | per_split)
    return rows
