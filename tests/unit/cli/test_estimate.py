"""Seconds, parameters, storage and images, against numbers worked out by hand."""

import numpy as np
import pandas as pd
import pytest

from hemagrid.cli import estimate, speeds
from hemagrid.cli.estimate import Estimate, Job
from hemagrid.config.grid import grid
from hemagrid.config.loading import load_config
from hemagrid.errors import InputError
from hemagrid.io import write_table
from hemagrid.names import HOLDOUT

from .conftest import IMAGES, TINY, TRAIN, measured


def test_seconds_by_hand(config):
    estimate = Estimate(config, IMAGES, measured())
    # Start, tracing, and 1800 + 600 images at 20 a second; at 100 a second.
    embed = Job("embed", {"backbone": "vgg16"}, "gpu", 120)
    assert estimate.seconds(embed, "cpu") == pytest.approx(5 + 1 + 2400 / 20 + 2400 / 100)
    by_phase = {
        "feature_extraction": 10 * 1800 / 5000,
        "finetune_top": 5 * (1800 / 50 + 600 / 100),
        "finetune_all": 2 * (1800 / 4 + 600 / 20 + 600 / 100),
        "start and tracing": 5 + 1 + 2 + 3 + 10,
    }
    assert estimate.seconds(TRAIN, "cpu") == pytest.approx(sum(by_phase.values()))
    predict = Job("predict", {"run": "vgg16_cfg1"}, "gpu", 120)
    assert estimate.seconds(predict, "cpu") == pytest.approx(5 + 1 + 2000 / 20 + 2000 / 100)
    worse = config | {"corruptions": {"kinds": ["bubble", "saturate"], "severities": [1, 5]}}
    images = 2000 + 4 * IMAGES.subsets["test"]
    estimate = Estimate(worse, IMAGES, measured())
    assert estimate.seconds(predict, "cpu") == pytest.approx(5 + 1 + images / 20 + images / 100)
    views = Job("views", {"run": "vgg16_cfg1+views"}, "gpu", 120)
    images = 8 * 2000
    assert estimate.seconds(views, "cpu") == pytest.approx(5 + 1 + images / 20 + images / 100)
    assert estimate.seconds(Job("evaluate", {"run": "vgg16_cfg1"}, "local", 10), "cpu") is None


def test_a_search_by_hand(config):
    config["tuning"]["hyperband"] = {"max_epochs": 9, "factor": 3, "iterations": 1}
    # Brackets of 9, 3, 1 and of 5, 2 and of 3 trials, for 1, 3 and 9 epochs in the end.
    trials, epochs = 23, (9 * 1 + 3 * 2 + 1 * 6) + (5 * 3 + 2 * 6) + 3 * 9
    search = Job("search", {"run": "vgg16_tuned"}, "cpu", 240)
    assert Estimate(config, IMAGES, measured()).seconds(search, "cpu") == pytest.approx(
        5 + 2 * trials + epochs * 1800 / 5000
    )


def test_a_phase_without_epochs_costs_nothing(tmp_path, config):
    training = config["training"] | {
        "finetune_all": {"epochs": 0},
        "finetune_top": {"epochs": 0},
    }
    estimate = Estimate(config | {"training": training}, IMAGES, measured())
    expected = 10 * 1800 / 5000 + 5 + 2
    assert estimate.seconds(TRAIN, "cpu") == pytest.approx(expected)


def test_core_hours_count_every_thread_and_time_goes_with_pixels(config):
    job = Job("embed", {"backbone": "vgg16"}, "cpu", 120)
    two = Estimate(config, IMAGES, measured(threads=2))
    assert two.seconds(job, "cpu") == pytest.approx(5 + 1 + 2 * (2400 / 20 + 2400 / 100))
    config["dataset"]["image_size"] = 192
    large = Estimate(config, IMAGES, measured())
    assert large.seconds(job, "cpu") == pytest.approx(5 + 1 + 4 * (2400 / 20 + 2400 / 100))
    assert large.shape("vgg16", "trunk") == (12, 12, 512)
    assert large.shape("vgg16", "top") == (512,)


@pytest.mark.parametrize("name", ["baseline_cnn", "regularized_cnn"])
def test_cnns_by_hand(name):
    settings = load_config()["cnns"][name]
    parameters, multiplications = estimate.cnn_numbers(settings, 96, 8)
    # 3x3 kernels with bias, then 24 x 24 x 64 inputs to 128 neurons, then 8 classes.
    dense = 24 * 24 * 64 * 128
    by_hand = (27 * 32 + 32) + (9 * 32 * 64 + 64) + (dense + 128) + (128 * 8 + 8)
    assert parameters == by_hand + settings["batch_norm"] * 4 * (32 + 64)
    assert multiplications == 96**2 * 27 * 32 + 48**2 * 9 * 32 * 64 + dense + 128 * 8


def test_parameters_are_those_of_the_networks():
    """The numbers that Keras counted, in the README's table of a finished study."""
    config, images = load_config(), IMAGES
    estimate = Estimate(config, images, speeds.read_table(speeds.SPEEDS))
    found = {name: estimate.parameters(run) for name, run in grid(config).items()}
    assert found["regularized_cnn"] == 4_739_528
    assert found["mobilenetv3_cfg1"] == 3_004_040
    assert found["efficientnetv2m_cfg2"] == 53_812_412
    assert found["convnext_cfg3"] == 88_227_720
    assert found["vgg16_cfg1"] == 14_718_792


def test_storage_by_hand(config):
    stored = {
        where: b for _, where, b in estimate.storage(Estimate(config, IMAGES, measured()))
    }
    cfg1 = 14_000_000 + 512 * 8 + 8
    dense = 512 * 512 + 512 + 4 * 512
    cfg2 = 14_000_000 + dense + 512 * 8 + 8
    # One backbone, so one finalist; its head is not known, so the largest of the space.
    tuned = 14_000_000 + 3 * dense + 512 * 8 + 8
    runs = cfg1 + cfg2 + tuned
    assert stored == {
        "results/dataset/": (1000 + 3800) * 96 * 96 * 3,
        "resources/weights/": 4 * 14_000_000,
        "results/trunks/": 2400 * 6 * 6 * 512 * 4,
        "results/embeddings/": 2400 * 512 * 4,
        "results/*/model.keras": 4 * runs,
        "results/*/predictions/*.npz": 3 * 2000 * (8 + 8 + 4 * 8),
        "checkpoints/": 8 * 4 * runs,
    }


def test_images_of_the_published_study(tmp_path):
    images = estimate.count_images(load_config(), tmp_path)
    assert images.found == 11_959
    assert images.subsets == {
        "train": 3 * 7175,
        "val": 3 * 2392,
        "test": 2392,
        "test_augmented": 4 * 2392,
        HOLDOUT: 3421,
    }


def test_images_of_a_split_study_are_exact(tmp_path):
    config = load_config([TINY])
    folder = tmp_path / "results" / "dataset"
    split = ["train"] * 70 + ["val"] * 20 + ["test"] * 10
    write_table(folder / "splits.csv", pd.DataFrame({"split": split}))
    np.save(folder / "images.npy", np.zeros((111, 4, 4, 3), "uint8"))
    images = estimate.count_images(config, tmp_path)
    assert images.found == 111
    assert images.subsets == {"train": 140, "val": 20, "test": 10, "test_augmented": 20}
    assert "100 after duplicates" in images.source


def test_images_are_counted_without_reading_them(tmp_path):
    np.savez(tmp_path / "set.npz", images=np.zeros((50, 4, 4, 3), "uint8"), labels=np.zeros(50))
    config = load_config(values={"dataset": {"source": "npz", "path": "set.npz"}})
    images = estimate.count_images(config, tmp_path)
    assert (images.found, images.subsets["test"]) == (
        50,
        10,
    ) and HOLDOUT not in images.subsets
    (tmp_path / "set.npz").write_bytes(b"no zip")
    with pytest.raises(InputError, match="set.npz"):
        estimate.count_images(config, tmp_path)
    folder = {"source": "folder", "classes": None}
    for name in ("a/1.png", "a/b/2.png", "c/3.png", "c/.hidden", "c/Thumbs.db", "top.png"):
        path = tmp_path / "cells" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    config = load_config(values={"dataset": folder | {"path": "cells"}})
    assert estimate.count_images(config, tmp_path).found == 3
    lab = {"lab": {"source": "folder", "path": "cells", "classes": {"a": "ig", "c": None}}}
    config = load_config(values={"test_sets": lab})
    assert estimate.count_images(config, tmp_path).subsets["lab"] == 3
    config = load_config(values={"dataset": folder | {"path": "nowhere"}})
    with pytest.raises(InputError, match="nowhere"):
        estimate.count_images(config, tmp_path)


def test_the_committed_table_covers_the_published_grid():
    config = load_config()
    estimate = Estimate(config, IMAGES, speeds.read_table(speeds.SPEEDS))
    for run in grid(config):
        assert estimate.seconds(Job("train", {"run": run}, "cpu", 1), "cpu") > 60
    for subset in ("train", "val", "test_augmented"):
        assert estimate.seconds(Job("augment", {"subset": subset}, "cpu", 1), "cpu") > 1
