"""A copy depends on (seed, image id, copy) alone; the policies are keras-cv's."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ks_2samp

import hemagrid
from hemagrid import io
from hemagrid.data.augmentation import (
    BLANK,
    DRAWS,
    POLICIES,
    SEQUENCE,
    assign_policies,
    augment,
    augment_rows,
    originals,
    spreads,
)

SIZE, SEED = 48, 42
# The strongest settings of the study.
SETTINGS = {"copies": 4, "randaugment": {"n": 4, "m": 1.0}, "augmix": {"k": 4, "m": 0.8}}
COLUMNS = ["id", "label", "class_name", "source", "sha256", "parent_id", "group"]
COLUMNS += ["copy", "policy"]
TWINS = (0, 1)  # the same picture under two ids


@pytest.fixture(scope="module")
def data_set(tmp_path_factory, draw):
    """Paths of images.npy and splits.csv: 100 test images, not in the order of ids."""
    folder = tmp_path_factory.mktemp("dataset")
    ids = np.arange(110)
    pixels = draw(ids % 3, SIZE)
    # With texture no operation leaves a picture as it is.
    pixels ^= np.random.default_rng(0).integers(0, 16, pixels.shape, dtype="uint8")
    pixels[TWINS[1]] = pixels[TWINS[0]]
    np.save(folder / "images.npy", pixels)
    table = pd.DataFrame({"id": ids, "label": ids % 3})
    table["class_name"] = np.array(["NA", "007", "ig"])[table["label"]]
    table["source"] = "cells.npz"
    table["near_group"] = ids // 2 * 2
    table["split"] = np.where(ids < 100, "test", "val")
    table = table.sample(frac=1, random_state=0)
    io.write_table(folder / "splits.csv", table)
    return folder / "images.npy", folder / "splits.csv"


@pytest.fixture(scope="module")
def augmented(data_set, tmp_path_factory):
    """The copies of the test images and their table, made with one thread."""
    with pytest.MonkeyPatch.context() as environment:
        # `augment` sets both; the context restores them.
        environment.setenv("KERAS_BACKEND", "tensorflow")
        environment.setenv("CUDA_VISIBLE_DEVICES", "")
        folder = tmp_path_factory.mktemp("augmented")
        out = {"images": folder / "out.npy", "table": folder / "out.csv"}
        augment(*data_set, "test_augmented", SETTINGS, "alternate", SEED, 1, out)
        assert {path.name for path in folder.iterdir()} == {"out.npy", "out.csv"}
        yield io.open_images(out["images"]), io.read_table(out["table"])


def test_copies_and_their_table(augmented, data_set):
    copies, table = augmented
    assert (copies.shape, copies.dtype) == ((400, SIZE, SIZE, 3), np.uint8)
    assert list(table.columns) == COLUMNS
    assert list(table["id"]) == list(range(400))
    parents = io.read_table(data_set[1]).query("split == 'test'")
    assert list(table["parent_id"]) == list(parents["id"].repeat(4))
    for column in ("label", "class_name", "source"):
        assert list(table[column]) == list(parents[column].repeat(4))
    assert list(table["group"]) == list(parents["near_group"].repeat(4))
    assert list(table["copy"]) == [0, 1, 2, 3] * 100
    digests = [hashlib.sha256(copy.tobytes()).hexdigest() for copy in copies]
    assert list(table["sha256"]) == digests


def test_policies_take_turns(augmented):
    _, table = augmented
    for _, copies in table.groupby("parent_id"):
        first, second = copies["policy"].iloc[:2]
        assert {first, second} == set(POLICIES)
        assert list(copies["policy"]) == [first, second] * 2
    # Either begins for about half of the images.
    assert 30 < (table.query("copy == 0")["policy"] == "augmix").sum() < 70


def test_another_process_with_more_threads_makes_the_same_bytes(
    augmented, data_set, tmp_path, monkeypatch
):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    # The backend of the networks does not matter.
    monkeypatch.setenv("KERAS_BACKEND", "numpy")
    code = (
        "from hemagrid.training import jobs; jobs.prepare(threads=4)\n"
        "from hemagrid.data.augmentation import augment\n"
        f"out = {{'images': {str(tmp_path / 'out.npy')!r}, "
        f"'table': {str(tmp_path / 'out.csv')!r}}}\n"
        f"augment({str(data_set[0])!r}, {str(data_set[1])!r}, 'test_augmented', {SETTINGS}, "
        f"'alternate', {SEED}, 4, out)"
    )
    monkeypatch.setenv("PYTHONPATH", str(Path(hemagrid.__file__).parents[1]))
    subprocess.run([sys.executable, "-c", code], check=True)
    copies, table = np.load(tmp_path / "out.npy"), io.read_table(tmp_path / "out.csv")
    np.testing.assert_array_equal(copies, augmented[0])
    pd.testing.assert_frame_equal(table, augmented[1])


def test_order_and_number_of_the_rows_do_not_matter_but_the_seed_does(augmented, data_set):
    copies, table = augmented
    rows = np.array([399, 17, 240, 3, 241, 100])
    plan = table.iloc[rows].reset_index(drop=True)
    found = np.zeros((len(rows), SIZE, SIZE, 3), "uint8")
    augment_rows(io.open_images(data_set[0]), plan, SETTINGS, SEED, found)
    np.testing.assert_array_equal(found, copies[rows])
    augment_rows(io.open_images(data_set[0]), plan, SETTINGS, SEED + 1, found)
    assert (found != copies[rows]).any(axis=(1, 2, 3)).sum() > len(rows) / 2


def test_another_id_or_copy_makes_another_draw(augmented):
    copies, table = augmented
    rows = np.flatnonzero(table["parent_id"].isin(TWINS))
    assert len(rows) == 8
    assert len({copies[row].tobytes() for row in rows}) == 8


def test_strength_is_distributed_as_in_keras_cv(augmented, data_set):
    """Compare the distance of copies from their parents with that of upstream's layers."""
    import keras_cv
    import tensorflow as tf

    layers = {
        "randaugment": keras_cv.layers.RandAugment(
            value_range=(0, 255), augmentations_per_image=4, magnitude=1.0, seed=1
        ),
        "augmix": keras_cv.layers.AugMix(
            value_range=(0, 255), num_chains=4, severity=0.8, seed=1
        ),
    }
    copies, table = augmented
    images = io.open_images(data_set[0])
    for policy, layer in layers.items():
        rows = table.query("policy == @policy")
        parents = images[rows["parent_id"].to_numpy()].astype("float32")
        upstream = tf.function(lambda one, layer=layer: layer(one))
        expected = np.stack([upstream(parent) for parent in parents])
        found = copies[rows.index].astype("float32")
        distances = [
            np.abs(pixels - parents).mean(axis=(1, 2, 3)) for pixels in (found, expected)
        ]
        assert ks_2samp(*distances).pvalue > 1e-3, policy


@settings(deadline=None)
@given(
    ids=st.lists(st.integers(0, 20_000), min_size=1, max_size=30, unique=True),
    copies=st.integers(1, 6),
    seed=st.integers(0, 2**32),
)
def test_policies_follow_from_seed_and_id(ids, copies, seed):
    policies = assign_policies(ids, copies, seed, "alternate")
    assert policies.shape == (len(ids), copies)
    counts = (policies == "augmix").sum(axis=1)
    assert np.isin(counts, [copies // 2, (copies + 1) // 2]).all()
    np.testing.assert_array_equal(
        assign_policies(ids[::-1], copies, seed, "alternate")[::-1], policies
    )


def test_policies_can_be_drawn_for_each_copy():
    policies = assign_policies(range(500), 4, SEED, "random")
    assert set(policies.ravel()) == set(POLICIES)
    share = (policies == "augmix").mean(axis=0)
    assert (np.abs(share - 0.5) < 0.1).all()
    # Copies do not take turns.
    assert (policies[:, 0] == policies[:, 1]).mean() == pytest.approx(0.5, abs=0.1)


def test_in_sequence_augmix_follows_randaugment(augmented, data_set):
    assert (assign_policies([3, 5], 4, SEED, "sequence") == SEQUENCE).all()
    copies, table = augmented
    rows = np.flatnonzero(table["policy"] == "randaugment")[:40]
    plan = table.iloc[rows].assign(policy=SEQUENCE)
    found = np.zeros((len(rows), SIZE, SIZE, 3), "uint8")
    augment_rows(io.open_images(data_set[0]), plan, SETTINGS, SEED, found)
    first = copies[rows].astype(int)
    # RandAugment draws as it does alone, so what it emptied stays empty.
    empty = first.std(axis=(1, 2, 3)) == 0
    assert empty.any() and (found[empty].std(axis=(1, 2, 3)) < 1).all()
    assert (found[~empty] != first[~empty]).any(axis=(1, 2, 3)).mean() > 0.9
    other = abs(np.roll(found, 1, axis=0) - first).mean()
    assert abs(found - first).mean() < other


def test_blank_copies_are_drawn_again_and_no_others(augmented, data_set, tmp_path):
    copies, table = augmented
    blank = spreads(copies) < BLANK
    assert 5 < blank.sum() < 100
    some = io.read_table(data_set[1]).query("split == 'test'").iloc[::-1]
    some = some[some["id"].isin(table.loc[blank, "parent_id"])]
    io.write_table(tmp_path / "splits.csv", some)
    out = {"images": tmp_path / "out.npy", "table": tmp_path / "out.csv"}
    paths = data_set[0], tmp_path / "splits.csv"
    augment(*paths, "test_augmented", SETTINGS, "alternate", SEED, 2, out, redraw=True)
    found, listed = io.open_images(out["images"]), io.read_table(out["table"])
    former = table.set_index(["parent_id", "copy"])["id"]
    former = former.loc[listed.set_index(["parent_id", "copy"]).index].to_numpy()
    assert (spreads(found) >= BLANK).all()
    assert ((listed["draws"] > 1) == blank[former]).all() and listed["draws"].max() < DRAWS
    np.testing.assert_array_equal(found[~blank[former]], copies[former][~blank[former]])


def test_originals_are_left_untouched(data_set, tmp_path):
    out = {"images": tmp_path / "test.npy", "table": tmp_path / "test.csv"}
    originals(*data_set, "val", out)
    table = io.read_table(out["table"])
    assert list(table.columns) == COLUMNS
    assert sorted(table["parent_id"]) == list(range(100, 110))
    assert list(table["id"]) == list(range(10))
    assert list(table["group"]) == list(table["parent_id"] // 2 * 2)
    assert set(table["policy"]) == {"original"}
    copies, images = io.open_images(out["images"]), io.open_images(data_set[0])
    np.testing.assert_array_equal(copies, images[table["parent_id"].to_numpy()])
    digests = [hashlib.sha256(copy.tobytes()).hexdigest() for copy in copies]
    assert list(table["sha256"]) == digests
    labels = table["parent_id"] % 3
    assert list(table["label"]) == list(labels)
    assert list(table["class_name"]) == list(np.array(["NA", "007", "ig"])[labels])
