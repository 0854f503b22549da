"""Splits are stratified and repeatable, and keep groups whole."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hemagrid.data.splits import joined, split, split_groups
from hemagrid.errors import InputError
from hemagrid.io import read_table, write_table

SHARES = {"train": 0.6, "val": 0.2, "test": 0.2}


def table_of(groups):
    """Make a duplicates table of groups, each a list of the labels of its images."""
    rows = []
    for labels in groups:
        group = len(rows)
        rows += [(len(rows) + i, label, group) for i, label in enumerate(labels)]
    table = pd.DataFrame(rows, columns=["id", "label", "near_group"])
    table["class_name"] = "class " + table["label"].astype(str)
    table["source"] = "a.npz[" + table["id"].astype(str) + "]"
    return table.assign(kept=True).astype({"near_group": "Int64"})


def counts_of(splits, label):
    counts = splits[splits["label"] == label]["split"].value_counts()
    return {name: int(counts.get(name, 0)) for name in SHARES}


def assert_within_one_image(splits, label):
    counts = counts_of(splits, label)
    total = sum(counts.values())
    for name, share in SHARES.items():
        assert abs(counts[name] - share * total) <= 1 and counts[name] > 0


mixed_groups = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), max_size=40)
seeds = st.integers(0, 2**32 - 1)


@given(mixed_groups, seeds)
def test_groups_stay_whole_and_rows_may_come_in_any_order(groups, seed):
    table = table_of(groups)
    assume(len(table))
    removed = table.tail(2).assign(kept=False, near_group=pd.NA)
    removed["id"] += len(table)
    table = pd.concat([table, removed])
    try:
        splits = split(table, SHARES, seed)
    except InputError:
        per_class = table[table["kept"]].groupby("label")["near_group"].nunique()
        several = any(len(set(labels)) > 1 for labels in groups)
        assert per_class.min() < len(SHARES) or several
        return
    assert splits["id"].tolist() == table.loc[table["kept"], "id"].tolist()
    assert (splits.groupby("near_group")["split"].nunique() == 1).all()
    assert (splits.groupby("label")["split"].nunique() == len(SHARES)).all()
    shuffled = table.sample(frac=1, random_state=1)
    assert split(shuffled, SHARES, seed).equals(splits)


@given(st.lists(st.integers(2, 5), max_size=10), st.integers(0, 40), seeds)
def test_shares_are_met_where_single_images_suffice(sizes, extra, seed):
    # The split that needs most images has room for a group as long as three times its size
    # is still to come: the group itself and twice as many single images.
    singles = max(2 * max(sizes, default=0), 3) + extra
    splits = split(table_of([[0] * n for n in sizes] + [[0]] * singles), SHARES, seed)
    assert_within_one_image(splits, 0)


@given(st.lists(st.lists(st.integers(0, 1), min_size=2, max_size=4), max_size=6), seeds)
def test_groups_of_several_classes_leave_every_class_its_shares(groups, seed):
    grouped = sum(map(len, groups))  # fewer than any split needs, wherever they go
    singles = [[label] for label in (0, 1) for _ in range(max(3, 5 * grouped))]
    splits = split(table_of(groups + singles), SHARES, seed)
    for label in (0, 1):
        assert_within_one_image(splits, label)


@given(st.integers(3, 200), seeds)
def test_single_images_are_divided_by_largest_remainder(count, seed):
    splits = split(table_of([[0]] * count), SHARES, seed)
    assert_within_one_image(splits, 0)


@pytest.mark.parametrize("sizes", [(34, 33, 33), (30, 30, 40), (98, 1, 1), (3, 3, 3)])
def test_three_large_groups_reach_three_splits(sizes):
    splits = split(table_of([[0] * size for size in sizes]), SHARES, 0)
    assert splits["split"].nunique() == 3
    assert counts_of(splits, 0)["train"] == max(sizes)


def test_seed_decides():
    table = table_of([[0]] * 50)
    assert not split(table, SHARES, 1).equals(split(table, SHARES, 2))


def test_a_table_from_disk_gives_the_same_splits(tmp_path):
    table = table_of([[0, 0], [0], [0], [0]])
    table.loc[4, ["kept", "near_group"]] = [False, pd.NA]
    write_table(tmp_path / "duplicates.csv", table)
    read = read_table(tmp_path / "duplicates.csv")
    assert split(read, SHARES, 0).equals(split(table, SHARES, 0))


@pytest.mark.parametrize(
    ("groups", "found"),
    [
        ([[0]] * 5 + [[1]] * 2, "'class 1': found 2 images in 2 near"),
        ([[0]] * 5 + [[1] * 9, [1]], "'class 1': found 10 images in 2 near"),
        ([[0]] * 5 + [[2]], "'class 2': found 0 images in 0 near"),
    ],
)
def test_a_class_too_small_is_refused(groups, found):
    table = table_of(groups)
    table.loc[table["label"] == 2, ["kept", "near_group"]] = [False, pd.NA]
    with pytest.raises(InputError, match=found):
        split(table, SHARES, 0)


@pytest.mark.parametrize(
    "shares",
    [{"train": 0.6, "val": 0.2, "test": 0.3}, {"train": 1.0, "val": 0.0, "test": 0.0}],
)
def test_shares_must_divide_one(shares):
    with pytest.raises(InputError, match="add up to 1"):
        split(table_of([[0]] * 9), shares, 0)


# Groups that the user names.


def named(table, names):
    """Make the table of the rule groups for a table of duplicates."""
    return pd.DataFrame({"id": table["id"], "group_name": names})


def patients(count, images, seed=0):
    """Make tables of `images` single images of three classes, of patients of many sizes."""
    random = np.random.default_rng(seed)
    table = table_of([[label] for label in random.integers(0, 3, images)])
    weights = random.lognormal(size=count)
    names = random.choice(count, images, p=weights / weights.sum())
    table["exact_group"] = table["id"]
    return table, named(table, [f"P{name}" for name in names])


@given(mixed_groups, st.integers(1, 12), st.sampled_from([0, 0.1, 0.5]), st.randoms(), seeds)
def test_no_group_spans_splits_and_shares_are_met_or_refused(
    groups, count, tolerance, random, seed
):
    table = table_of(groups)
    assume(len(table))
    table["exact_group"] = table["id"]
    given_groups = named(table, [f"P{random.randrange(count)}" for _ in table["id"]])
    try:
        splits = split_groups(table, given_groups, SHARES, seed, tolerance)
    except InputError as error:
        assert "groups are never divided" in str(error)
        return
    assert splits["id"].tolist() == table["id"].tolist()
    for column in ("group_name", "near_group"):
        assert (splits.groupby(column)["split"].nunique() == 1).all()
    # Near duplicates of the table stay together as well.
    assert (splits.groupby(table["near_group"])["split"].nunique() == 1).all()
    for label in splits["label"].unique():
        counts = counts_of(splits, label)
        total = sum(counts.values())
        for name, share in SHARES.items():
            assert counts[name] > 0
            assert abs(counts[name] - share * total) <= max(1, tolerance * total) + 1e-6
    shuffled = table.sample(frac=1, random_state=1), given_groups.sample(frac=1, random_state=2)
    assert split_groups(*shuffled, SHARES, seed, tolerance).equals(splits)


def test_patients_are_divided_within_the_default_tolerance():
    table, groups = patients(60, 1500)
    splits = split_groups(table, groups, SHARES, 0, 0.05)
    assert (splits.groupby("group_name")["split"].nunique() == 1).all()
    for label in range(3):
        counts = counts_of(splits, label)
        for name, share in SHARES.items():
            assert abs(counts[name] / sum(counts.values()) - share) <= 0.05
    assert not split_groups(table, groups, SHARES, 1, 0.05).equals(splits)


def test_groups_that_share_a_picture_become_one():
    # Near duplicates 0 and 1; 5 was dropped as a duplicate of 2, which is kept; the duplicates
    # 6 and 7 have several labels and were both dropped.
    table = table_of([[0, 0], [0], [0], [0], [0], [0], [0]])
    table["exact_group"] = [0, 1, 2, 3, 4, 2, 6, 6]
    table.loc[5:, ["kept", "near_group"]] = [False, pd.NA]
    found = joined(table, named(table, list("abcdecad")))
    assert found["id"].tolist() == [0, 1, 2, 3, 4]
    assert found["near_group"].tolist() == [0, 0, 2, 3, 4]
    found = joined(table, named(table, list("abcdeead")))  # e holds a duplicate of c's
    assert found["near_group"].tolist() == [0, 0, 2, 3, 2]
    assert found["group_name"].tolist() == list("abcde")


def test_one_group_for_each_image_divides_as_well_as_no_groups():
    table = table_of([[0]] * 50 + [[1]] * 7)
    table["exact_group"] = table["id"]
    splits = split_groups(table, named(table, table["id"].astype(str)), SHARES, 0, 0)
    for label in (0, 1):
        assert_within_one_image(splits, label)


@pytest.mark.parametrize("giant", ["P0", "P1"])
def test_a_giant_group_is_refused_with_the_sizes(giant):
    table, groups = patients(20, 400)
    groups.loc[: 400 if giant == "P0" else 350, "group_name"] = giant
    with pytest.raises(InputError, match="groups are never divided") as refusal:
        split_groups(table, groups, SHARES, 0, 0.05)
    said = str(refusal.value)
    assert "within 5 points (dataset.groups.tolerance)" in said
    assert f"the largest are {giant} (" in said and "of class 'class " in said
