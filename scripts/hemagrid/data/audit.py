"""What was found in the dataset, and what was done about it, for the report to show."""

from hemagrid.data.duplicates import label_conflict
from hemagrid.names import TEST, TRAIN, VAL

LISTED = 50  # entries of a list; its full count stands beside it


IDS_LISTED = 12  # images named of one group


def audit(samples, skipped, duplicates, splits, distance, label_conflicts):
    """Gather counts and examples of the dataset's making, ready for JSON.

    Takes the tables of `sources.read_samples`, `sources.read_skipped`,
    `duplicates.deduplicate` and `splits.split`, and the settings used. Returns
    - settings: near_duplicate_distance, label_conflicts
    - counts: found = skipped + images; images = duplicates_removed + conflicts_removed
      + kept; near_groups of two and more kept images, near_images in them;
      label_conflicts, the groups of equal hashes under several labels
    - classes: per class, in the order of the labels, class, found, kept, train, val,
      test
    - exact_groups, near_groups, label_conflicts, skipped: {count, examples}, groups
      with the largest first
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
    """List the groups of two images and more, largest first, then by smallest id."""
    repeated = images[images.duplicated(column, keep=False)]
    groups = [group for _, group in repeated.groupby(column)]
    return sorted(groups, key=lambda group: (-len(group), group["id"].iloc[0]))


def _listing(entries, describe):
    return {
        "count": len(entries),
        "examples": [describe(entry) for entry in entries[:LISTED]],
    }


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
        per_split = {name: int(counts.get((label, name), 0)) for name in (TRAIN, VAL, TEST)}
        rows.append(
            {
                "class": class_name,
                "found": int(size),
                "kept": sum(per_split.values()),
                **per_split,
            }
        )
    return rows
