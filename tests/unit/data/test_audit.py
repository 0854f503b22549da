"""The audit counts what was found and done, and is plain JSON."""

import numpy as np
import pandas as pd
import pytest

from hemagrid.data import audit, duplicates
from hemagrid.data.splits import split, split_groups
from hemagrid.io import read_json, read_table, write_json, write_table

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}
SETTINGS = {
    "duplicates": "pixels",
    "duplicate_difference": 0.06,
    "near_duplicate_difference": 0.15,
    "near_duplicate_distance": 4,
    "label_conflicts": "keep_first",
}


def dataset(label_conflicts="keep_first"):
    """Twelve pictures, 5 mirrored, 14 copies of 0 of which one is lossy, some mislabelled."""
    settings = SETTINGS | {"label_conflicts": label_conflicts}
    coarse = np.random.default_rng(0).integers(40, 216, (12, 6, 6, 3))
    pictures = coarse.repeat(8, axis=1).repeat(8, axis=2).astype("uint8")
    lossy = pictures[0].copy()
    lossy[20, 20] += 9
    copies = np.repeat(pictures[:1], 13, axis=0)
    images = np.concatenate([pictures, pictures[5:6, :, ::-1], copies, lossy[None]])
    labels = [row % 2 for row in range(13)] + [0] * 10 + [1] * 4
    samples = pd.DataFrame(
        {
            "id": range(27),
            "label": labels,
            "class_name": [("blast", "<b>ig</b>")[label] for label in labels],
            "source": [f"a.npz[{row}]" for row in range(27)],
            "sha256": [pixels.tobytes().hex() for pixels in images],
            "changes": ["padded, resized", "resized", *[""] * 25],
        }
    )
    skipped = pd.DataFrame(
        {
            "class_name": ["blast"] * 59 + [""],
            "source": [f"blast/{row}.txt" for row in range(60)],
            "reason": ["unreadable: cut off"] * 2 + ["no picture"] * 57 + ["no class folder"],
        }
    )
    prints = duplicates.fingerprint(images)
    table = duplicates.deduplicate(samples, prints, settings)
    return samples, skipped, table, split(table, SHARES, 0), settings


@pytest.fixture
def published(tmp_path):
    write_json(tmp_path / "audit.json", audit.audit(*dataset()))
    return read_json(tmp_path / "audit.json")


def test_counts_add_up(published):
    assert published["counts"] == {
        "found": 87,
        "skipped": 60,
        "images": 27,
        "duplicates_removed": 14,
        "conflicts_removed": 0,
        "kept": 13,
        "near_groups": 1,
        "near_images": 2,
        "label_conflicts": 1,
        "near_label_conflicts": 1,
    }
    classes = published["classes"]
    assert [row["class"] for row in classes] == ["blast", "<b>ig</b>"]
    assert [row["found"] for row in classes] == [17, 10]
    assert [row["kept"] for row in classes] == [7, 6]
    for row in classes:
        assert row["kept"] == row["train"] + row["val"] + row["test"]
    assert published["settings"] == SETTINGS


def test_files_are_counted_per_class_by_what_was_done_and_why_not(published):
    assert published["files"] == [
        {
            "class": "blast",
            "read": 17,
            "changed": {"padded": 1, "resized": 1},
            "skipped": {"unreadable": 2, "no picture": 57},
        },
        {"class": "<b>ig</b>", "read": 10, "changed": {"resized": 1}, "skipped": {}},
        {"class": "", "read": 0, "changed": {}, "skipped": {"no class folder": 1}},
    ]


def test_the_least_alike_are_listed_first(published):
    (exact,) = published["exact_groups"]["examples"]
    assert exact["size"] == 15 and exact["group"] == 0
    assert exact["ids"] == [0, 26, *range(13, 23)]
    assert exact["sources"][1] == "a.npz[26]"
    assert exact["difference"] == exact["differences"][1] > 0 == exact["differences"][0]
    assert exact["labels"] == {"blast": 11, "<b>ig</b>": 4}
    (near,) = published["near_groups"]["examples"]
    assert near["ids"] == [5, 12] and near["classes"] == ["<b>ig</b>", "blast"]
    assert published["near_label_conflicts"]["examples"] == [near]


def test_the_group_with_the_largest_difference_comes_first():
    samples, skipped, table, splits, settings = dataset()
    table.loc[[1, 3, 7, 9], ["exact_group", "kept"]] = [[1, True], [1, False]] * 2
    table.loc[[7, 9], "exact_group"] = 7
    table.loc[[3, 9], "difference"] = [0.01, 0.05]
    found = audit.audit(samples, skipped, table, splits, settings)["exact_groups"]
    assert [example["group"] for example in found["examples"]][0] == 7
    largest = [example["difference"] for example in found["examples"]]
    assert found["count"] == 3 and largest == sorted(largest, reverse=True)


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
    assert skipped["examples"][2] == {"source": "blast/2.txt", "reason": "no picture"}


def test_what_was_left_out_of_a_test_set_is_counted_and_listed():
    kept = pd.DataFrame({"class_name": ["<b>ig</b>"] * 5})
    left_out = pd.DataFrame({"source": list("xyzv"), "class_name": "ig"})
    left_out["reason"] = ["class left out: eos", "duplicate of study image 7"] + [
        "duplicate of study image 9",
        "unreadable: cut off",
    ]
    left_out["difference"] = [None, 0, 0.1, None]
    found = audit.audit(*dataset(), {"raabin": (kept, left_out)})["test_sets"]["raabin"]
    assert found["kept"] == 5 and found["classes"] == {"blast": 0, "<b>ig</b>": 5}
    assert found["reasons"] == {
        "duplicate of study image": 2,
        "class left out: eos": 1,
        "unreadable": 1,
    }
    assert found["left_out"]["count"] == 4
    examples = found["left_out"]["examples"]
    assert [entry["source"] for entry in examples] == ["z", "y", "x", "v"]
    assert [entry["difference"] for entry in examples] == [0.1, 0, None, None]


def test_groups_are_counted_per_split_and_the_largest_listed():
    samples, skipped, table, _, settings = dataset()
    # Image 1 is alone, 2 and 26 are of one patient, and 26 is a duplicate of 0.
    names = ["a", "b", "c", *"defghijkl", "m", *["a"] * 13, "c"]
    groups = pd.DataFrame({"id": range(27), "group_name": names})
    splits = split_groups(table, groups, SHARES, 0, 0.5)
    audited = audit.audit(samples, skipped, table, splits, settings, None, groups)
    found = audited["groups"]
    # a hangs together with c, and f with m: 5 and 12 are near duplicates.
    assert (found["count"], found["units"]) == (13, 11)
    assert found["images"] == {"min": 1, "median": 1.0, "max": 1}
    assert sum(found["splits"].values()) == 13 and sum(found["units_per_split"].values()) == 11
    joined = [(entry["groups"], entry["size"]) for entry in found["joined"]["examples"]]
    assert joined == [(["a", "c"], 2), (["f", "m"], 2)]
    assert found["largest"]["examples"][0]["images"] == 1
    (conflict,) = audited["group_conflicts"]["examples"]
    assert conflict["size"] == 15 and conflict["outcome"] == "in a, c"


def test_without_groups_there_are_none(published):
    assert published["groups"] is None and published["group_conflicts"]["count"] == 0


def test_copies_are_listed_with_what_is_left_of_their_picture(tmp_path, caplog):
    caplog.set_level("INFO")
    pictures = np.zeros((4, 8, 8, 3), "uint8")
    pictures[1, 0, 0], pictures[2, :4], pictures[3, :4] = 2, 6, 200
    inputs = {}
    for subset, draws in (("train", None), ("val", [1, 3, 1, 1]), ("test_augmented", None)):
        inputs[f"images_{subset}"] = tmp_path / f"{subset}.npy"
        inputs[f"table_{subset}"] = tmp_path / f"{subset}.csv"
        np.save(inputs[f"images_{subset}"], pictures)
        table = pd.DataFrame({"id": range(4), "policy": ["augmix", "randaugment"] * 2})
        write_table(
            inputs[f"table_{subset}"], table if draws is None else table.assign(draws=draws)
        )
    audit.audit_copies(inputs, tmp_path / "copies.csv")
    listed = read_table(tmp_path / "copies.csv")
    spread = pictures.reshape(4, -1).std(axis=1)
    np.testing.assert_allclose(listed["spread"], np.tile(spread, 3), rtol=1e-6)
    assert list(audit.blank_copies(listed, "val")) == [True, True, False, False]
    counts = audit.count_copies(listed).set_index(["subset", "policy"])
    assert list(counts.loc["val", "augmix"]) == [2, 1, 2, 0]
    assert list(counts.loc["val", "randaugment"]) == [2, 1, 1, 1]
    assert "augmented test, randaugment: 1 of 2 copies are blank" in caplog.text
    assert "redrawn" not in audit.count_copies(listed.assign(draws=1))
