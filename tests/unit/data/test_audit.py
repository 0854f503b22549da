"""The audit counts what was found and done, and is plain JSON."""

import pandas as pd
import pytest

from hemagrid.data import audit
from hemagrid.data.duplicates import deduplicate
from hemagrid.data.splits import split
from hemagrid.io import read_json, write_json

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def dataset(policy):
    """Twelve distinct images, one near them, 14 copies of image 0, some mislabelled."""
    values = [7 << (5 * position) for position in range(12)]
    hashes = [*values, values[5] ^ 1 << 63, *[values[0]] * 14]
    labels = [row % 2 for row in range(13)] + [0] * 10 + [1] * 4
    samples = pd.DataFrame(
        {
            "id": range(27),
            "label": labels,
            "class_name": [("blast", "<b>ig</b>")[label] for label in labels],
            "source": [f"a.npz[{row}]" for row in range(27)],
        }
    )
    phash = pd.DataFrame({"id": range(27), "phash": [f"{h:016x}" for h in hashes]})
    skipped = pd.DataFrame(
        {
            "class_name": "blast",
            "source": [f"blast/{row}.txt" for row in range(60)],
            "reason": "no picture",
        }
    )
    duplicates = deduplicate(samples, phash, policy, 1)
    splits = split(duplicates, SHARES, 0)
    return samples, skipped, duplicates, splits, 1, policy


@pytest.fixture
def published(tmp_path):
    write_json(tmp_path / "audit.json", audit.audit(*dataset("keep_first")))
    return read_json(tmp_path / "audit.json")


def test_counts_add_up(published):
    counts = published["counts"]
    assert counts == {
        "found": 87,
        "skipped": 60,
        "images": 27,
        "duplicates_removed": 14,
        "conflicts_removed": 0,
        "kept": 13,
        "near_groups": 1,
        "near_images": 2,
        "label_conflicts": 1,
    }
    classes = published["classes"]
    assert [row["class"] for row in classes] == ["blast", "<b>ig</b>"]
    assert [row["found"] for row in classes] == [17, 10]
    assert [row["kept"] for row in classes] == [7, 6]
    for row in classes:
        assert row["kept"] == row["train"] + row["val"] + row["test"]
    assert published["settings"] == {
        "near_duplicate_distance": 1,
        "label_conflicts": "keep_first",
    }


def test_groups_are_described_and_capped(published):
    (exact,) = published["exact_groups"]["examples"]
    assert exact["size"] == 15 and exact["group"] == 0
    assert exact["ids"] == [0, *range(13, 24)]
    assert exact["sources"][1] == "a.npz[13]"
    assert exact["labels"] == {"blast": 11, "<b>ig</b>": 4}
    (near,) = published["near_groups"]["examples"]
    assert near["ids"] == [5, 12] and near["classes"] == ["<b>ig</b>", "blast"]


def test_conflicts_say_what_was_done(published):
    (conflict,) = published["label_conflicts"]["examples"]
    assert conflict["outcome"] == "kept image 0 as blast"
    dropped = audit.audit(*dataset("drop"))
    (conflict,) = dropped["label_conflicts"]["examples"]
    assert conflict["outcome"] == "all dropped"
    assert dropped["counts"]["conflicts_removed"] == 15
    assert dropped["counts"]["duplicates_removed"] == 0
    assert dropped["counts"]["kept"] == 12


def test_lists_are_capped_beside_their_full_count(published):
    skipped = published["skipped"]
    assert skipped["count"] == 60 and len(skipped["examples"]) == audit.LISTED
    assert skipped["examples"][0] == {"source": "blast/0.txt", "reason": "no picture"}
