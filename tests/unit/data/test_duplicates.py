"""Duplicates and near duplicates are those that comparing every pair would find."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemagrid.data import duplicates
from hemagrid.errors import InputError
from hemagrid.io import open_images


def groups_by_brute_force(hashes, distance):
    """Compare every pair; pass the smallest position on until nothing changes."""
    distances = np.bitwise_count(hashes[:, None] ^ hashes[None, :])
    near = distances <= distance
    groups = np.arange(len(hashes))
    while True:
        spread = np.where(near, groups[None, :], len(hashes)).min(axis=1)
        if np.array_equal(spread, groups):
            return groups
        groups = spread


@st.composite
def hash_lists(draw):
    """Hashes of which many lie a few bits apart, so that chains form."""
    hashes = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=8))
    for _ in range(draw(st.integers(0, 25))):
        bits = draw(st.sets(st.integers(0, 63), max_size=6))
        hashes.append(draw(st.sampled_from(hashes)) ^ sum(1 << bit for bit in bits))
    return np.array(draw(st.permutations(hashes)), np.uint64)


@given(hash_lists(), st.integers(0, 12))
def test_near_groups_match_brute_force(hashes, distance):
    groups = duplicates.near_groups(hashes, distance)
    assert np.array_equal(groups, groups_by_brute_force(hashes, distance))


@given(hash_lists())
def test_distance_zero_groups_equal_hashes_only(hashes):
    exact = duplicates.exact_groups(hashes)
    assert np.array_equal(duplicates.near_groups(hashes, 0), exact)
    assert np.array_equal(hashes[exact], hashes)


def test_near_groups_of_none_and_of_crowded_chunks():
    assert duplicates.near_groups(np.empty(0, np.uint64), 4).size == 0
    crowded = np.arange(2000, dtype=np.uint64)  # four of five chunks are all equal
    assert not duplicates.near_groups(crowded, 4).any()


def test_fingerprint_is_the_same_for_any_number_of_processes(tmp_path, monkeypatch):
    monkeypatch.setattr(duplicates, "BATCH", 3)
    images = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), dtype=np.uint8)
    images[7] = images[2]
    np.save(tmp_path / "images.npy", images)
    images = open_images(tmp_path / "images.npy")
    table = duplicates.fingerprint(images)
    assert table["id"].tolist() == list(range(10))
    assert table["phash"].str.fullmatch("[0-9a-f]{16}").all()
    assert table["phash"][7] == table["phash"][2]
    assert table["phash"].nunique() == 9
    assert duplicates.fingerprint(images, threads=2).equals(table)


A, NEAR_A, B, C = (f"{value:016x}" for value in (2**63, 2**63 + 7, 2**40 - 1, 0xF0F0F0))


@pytest.fixture
def samples():
    labels = [0, 1, 1, 0, 1, 0]
    return pd.DataFrame(
        {
            "id": range(6),
            "label": labels,
            "class_name": [f"class {label}" for label in labels],
            "source": [f"a.npz[{row}]" for row in range(6)],
        }
    )


@pytest.fixture
def phash():
    return pd.DataFrame({"id": range(6), "phash": [A, B, A, NEAR_A, B, C]})


def test_keep_first_keeps_the_smallest_id(samples, phash):
    shuffled = samples.sample(frac=1, random_state=0)
    table = duplicates.deduplicate(shuffled, phash, "keep_first", 3)
    assert table["id"].tolist() == list(range(6))
    assert table["kept"].tolist() == [True, True, False, True, False, True]
    assert table["exact_group"].tolist() == [0, 1, 0, 3, 1, 5]
    assert table["near_group"].fillna(-1).tolist() == [0, 1, -1, 0, -1, 5]
    reasons = ["", "", "duplicate of 0", "", "duplicate of 1", ""]
    assert table["reason"].tolist() == reasons
    assert duplicates.label_conflict(table).tolist() == [True, False] * 2 + [False] * 2


def test_drop_keeps_no_image_of_a_label_conflict(samples, phash):
    table = duplicates.deduplicate(samples, phash, "drop", 3)
    assert table["kept"].tolist() == [False, True, False, True, False, True]
    reasons = ["label conflict", "", "label conflict", "", "duplicate of 1", ""]
    assert table["reason"].tolist() == reasons
    assert table["near_group"].fillna(-1).tolist() == [-1, 1, -1, 3, -1, 5]


def test_distance_decides_who_is_near(samples, phash):
    table = duplicates.deduplicate(samples, phash, "keep_first", 2)
    assert table["near_group"].fillna(-1).tolist() == [0, 1, -1, 3, -1, 5]


def test_hashes_of_other_images_are_refused(samples, phash):
    with pytest.raises(InputError, match="found 5 images, expected the 6 ids"):
        duplicates.deduplicate(samples, phash.head(5), "keep_first", 4)
