import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from snakemake.utils import update_config

from hemagrid.cli import estimate, plan, speeds
from hemagrid.cli.estimate import Estimate, Images, Job, Unmeasured
from hemagrid.config.grid import grid
from hemagrid.config.loading import load_config, study_config
from hemagrid.errors import InputError
from hemagrid.io import write_table
from hemagrid.reporting.provenance import write_config

ROOT = Path(__file__).parents[3]
TINY = ROOT / "tests" / "workflow" / "tiny.yaml"
TOP = "block4_pool"
# Round numbers: one row per stage of VGG16 at 96 pixels, with one thread.
MEASURED = {
    "start": (None, 5.0, None, None),
    "trunk": (20.0, 1.0, "6x6x512", 7_000_000),
    "top": (100.0, 0.0, "512", 7_000_000),
    "feature_extraction": (5000.0, 2.0, None, None),
    "finetune_top": (50.0, 3.0, None, None),
    "finetune_all": (4.0, 10.0, None, None),
}


def speeds(device="cpu", threads=1, faster=1.0):
    rows = [
        {
            "device": device,
            "application": "VGG16",
            "top": TOP,
            "stage": stage,
            "image_size": 96,
            "batch": 32,
            "threads": threads,
            "images_per_second": rate and rate * faster,
            "startup_seconds": startup,
            "output": output,
            "parameters": parameters,
        }
        for stage, (rate, startup, output, parameters) in MEASURED.items()
    ]
    return pd.DataFrame(rows, columns=speeds.COLUMNS)


def overlay(tmp_path, text):
    (tmp_path / "my.yaml").write_text(text)
    return load_config([tmp_path / "my.yaml"])


@pytest.fixture
def config(tmp_path):
    return overlay(
        tmp_path,
        """
grid: {cnns: [], backbones: [vgg16], heads: [cfg1, cfg2]}
training:
  feature_extraction: {epochs: 10}
  finetune_top: {epochs: 5}
  finetune_all: {epochs: 2}
""",
    )


def jobs_of(text):
    """Read the table of jobs: {rule: cells}."""
    lines = text.split("\n\n")[1].splitlines()
    return {cells[0]: cells[1:] for cells in map(str.split, lines)}


IMAGES = Images(
    1000, {"train": 1800, "val": 600, "test": 200, "test_augmented": 800, "external": 400}, ""
)
TRAIN = Job("train", {"run": "vgg16_cfg1"}, "gpu", 120)


def test_seconds_by_hand(config):
    estimate = Estimate(config, IMAGES, speeds())
    # Start, tracing, and 1800 + 600 images at 20 a second; at 100 a second.
    embed = Job("embed", {"backbone": "vgg16"}, "gpu", 120)
    assert estimate.seconds(embed, "cpu") == pytest.approx(5 + 1 + 2400 / 20 + 2400 / 100)
    by_phase = {
        "feature_extraction": 10 * 1800 / 5000,
        "finetune_top": 5 * (1800 / 50 + 600 / 100),
        "finetune_all": 2 * (1800 / 4 + 600 / 20 + 600 / 100),
        "predictions": 2000 / 20 + 2000 / 100,
        "start and tracing": 5 + 1 + 2 + 3 + 10,
    }
    assert estimate.seconds(TRAIN, "cpu") == pytest.approx(sum(by_phase.values()))
    assert estimate.seconds(Job("evaluate", {"run": "vgg16_cfg1"}, "local", 10), "cpu") is None


def test_a_search_by_hand(config):
    config["tuning"]["hyperband"] = {"max_epochs": 9, "factor": 3, "iterations": 1}
    # Brackets of 9, 3, 1 and of 5, 2 and of 3 trials, for 1, 3 and 9 epochs in the end.
    trials, epochs = 23, (9 * 1 + 3 * 2 + 1 * 6) + (5 * 3 + 2 * 6) + 3 * 9
    search = Job("search", {"run": "vgg16_tuned"}, "cpu", 240)
    assert Estimate(config, IMAGES, speeds()).seconds(search, "cpu") == pytest.approx(
        5 + 2 * trials + epochs * 1800 / 5000
    )


def test_what_finalists_will_cost_stands_below_the_table(config, tmp_path):
    write_table(tmp_path / speeds.OWN_SPEEDS, speeds())
    config["dataset"].update(source="smears", path=None)
    choice = Job("select_finalists", {}, "local", 10)
    text = " ".join(plan.describe([choice], config, tmp_path).split())
    assert "1 search and as many trainings more" in text
    assert "the slowest (vgg16_tuned)" in text and "CPU-core-hours" in text
    config["tuning"]["backbones"] = ["vgg16"]
    assert "Not in the table" not in plan.describe([choice], config, tmp_path)


def test_a_phase_without_epochs_costs_nothing(tmp_path, config):
    training = config["training"] | {
        "finetune_all": {"epochs": 0},
        "finetune_top": {"epochs": 0},
    }
    estimate = Estimate(config | {"training": training}, IMAGES, speeds())
    expected = 10 * 1800 / 5000 + 2000 / 20 + 2000 / 100 + 5 + 1 + 2
    assert estimate.seconds(TRAIN, "cpu") == pytest.approx(expected)


def test_core_hours_count_every_thread_and_time_goes_with_pixels(config):
    job = Job("embed", {"backbone": "vgg16"}, "cpu", 120)
    two = Estimate(config, IMAGES, speeds(threads=2))
    assert two.seconds(job, "cpu") == pytest.approx(5 + 1 + 2 * (2400 / 20 + 2400 / 100))
    config["dataset"]["image_size"] = 192
    large = Estimate(config, IMAGES, speeds())
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
    stored = {where: b for _, where, b in estimate.storage(Estimate(config, IMAGES, speeds()))}
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
        "results/*/predictions.npz": 3 * 2000 * (8 + 8 + 4 * 8),
        "checkpoints/": 8 * 4 * runs,
    }


def test_an_unmeasured_network_is_named_and_left_out(config, tmp_path):
    config["backbones"]["vgg16"]["top"] = "block3_pool"
    with pytest.raises(Unmeasured, match="VGG16, cut at block3_pool"):
        Estimate(config, IMAGES, speeds()).seconds(TRAIN, "cpu")
    text = plan.describe([TRAIN], config, tmp_path, "MEASURE IT")
    assert "Not measured and so left out: VGG16, cut at block3_pool" in text
    assert "MEASURE IT" in text
    assert any(
        line.split()[-1] == "-" for line in text.splitlines() if "results/trunks" in line
    )


def write_own(folder, table):
    write_table(folder / speeds.OWN_SPEEDS, table)


def test_without_a_gpus_speed_the_plan_says_so(config, tmp_path):
    text = plan.describe([TRAIN], config, tmp_path, "MEASURE IT")
    assert "those of ONE CPU core" in text.replace("\n", " ") and "  MEASURE IT" in text
    row = jobs_of(text)["train"]
    assert row[:2] == ["1", "GPU"] and row[-1] == "-" and float(row[-2]) > 0


def test_gpu_jobs_go_by_the_users_own_table(config, tmp_path, monkeypatch):
    write_own(tmp_path, pd.concat([speeds(), speeds("gpu", threads=4, faster=100)]))
    monkeypatch.setattr(plan, "count_images", lambda config, folder: IMAGES)
    augment = Job("augment", {"subset": "train"}, "cpu", 60)
    text = plan.describe([augment, TRAIN], config, tmp_path)
    assert "ONE CPU core" not in text
    *_, cores, gpus = jobs_of(text)["train"]
    # (3.6 + 210 + 972 + 120) / 100 + 21 seconds: threads do not count on a GPU.
    assert cores == "-" and gpus == "0.01"
    seconds = Estimate(config, IMAGES, speeds.read_speeds(tmp_path)).seconds(TRAIN, "gpu")
    assert seconds == pytest.approx((3.6 + 210 + 972 + 120) / 100 + 21)


def test_a_job_longer_than_it_asks_for_is_named(config, tmp_path):
    write_own(tmp_path, speeds())
    short, long = (Job("train", {"run": "vgg16_cfg1"}, "cpu", m) for m in (1, 10_000))
    assert "Longer than they ask for: train vgg16_cfg1." in plan.describe(
        [short], config, tmp_path
    )
    assert "Longer than" not in plan.describe([long], config, tmp_path)
    # A core's hours say nothing against what a GPU job asks for.
    gpu = Job("train", {"run": "vgg16_cfg1"}, "gpu", 1)
    assert "Longer than" not in plan.describe([gpu], config, tmp_path)


def test_images_of_the_published_study(tmp_path):
    images = estimate.count_images(load_config(), tmp_path)
    assert images.found == 11_959
    assert images.subsets == {
        "train": 3 * 7175,
        "val": 3 * 2392,
        "test": 2392,
        "test_augmented": 4 * 2392,
        "external": 3421,
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
    config = overlay(tmp_path, "dataset: {source: npz, path: set.npz}")
    images = estimate.count_images(config, tmp_path)
    assert (images.found, images.subsets["test"]) == (
        50,
        10,
    ) and "external" not in images.subsets
    (tmp_path / "set.npz").write_bytes(b"no zip")
    with pytest.raises(InputError, match="set.npz"):
        estimate.count_images(config, tmp_path)
    for name in ("a/1.png", "a/b/2.png", "c/3.png", "c/.hidden", "top.png"):
        path = tmp_path / "cells" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    config = overlay(tmp_path, "dataset: {source: folder, path: cells, classes: null}")
    assert estimate.count_images(config, tmp_path).found == 3
    config = overlay(tmp_path, "dataset: {source: folder, path: nowhere, classes: null}")
    with pytest.raises(InputError, match="nowhere"):
        estimate.count_images(config, tmp_path)


def test_a_new_measurement_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "resources" / "throughput.csv"
    speeds.add_speeds(path, speeds())
    speeds.add_speeds(path, speeds(faster=2).query("stage == 'trunk'"))
    table = speeds.read_table(path)
    assert len(table) == len(MEASURED)
    rates = table.set_index("stage")["images_per_second"]
    assert (rates["trunk"], rates["top"]) == (40, 100)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="throughput.csv: found no table of speeds"):
        speeds.read_speeds(tmp_path)


@pytest.mark.parametrize(
    ("stage", "column", "value"),
    [
        ("top", "images_per_second", "fast"),
        ("top", "images_per_second", 0),
        ("top", "images_per_second", None),
        ("top", "output", None),
        ("start", "startup_seconds", "soon"),
        ("start", "image_size", None),
    ],
)
def test_a_table_with_a_cell_that_is_no_measurement_is_refused(tmp_path, stage, column, value):
    path = tmp_path / "resources" / "throughput.csv"
    speeds.add_speeds(path, speeds())
    speeds.read_table(path)
    table = pd.read_csv(path).astype(object)
    table.loc[table["stage"] == stage, column] = value
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match="throughput.csv: found no table of speeds"):
        speeds.read_table(path)


def test_a_table_of_no_rows_tells_nothing(tmp_path):
    path = tmp_path / "resources" / "throughput.csv"
    speeds.add_speeds(path, speeds()[:0])
    assert len(speeds.read_speeds(tmp_path)) == len(speeds.read_table(speeds.SPEEDS))


def test_the_committed_table_covers_the_published_grid():
    config = load_config()
    estimate = Estimate(config, IMAGES, speeds.read_table(speeds.SPEEDS))
    for run in grid(config):
        assert estimate.seconds(Job("train", {"run": run}, "cpu", 1), "cpu") > 60
    for subset in ("train", "val", "test_augmented"):
        assert estimate.seconds(Job("augment", {"subset": subset}, "cpu", 1), "cpu") > 1


def test_configs_are_laid_over_each_other_as_snakemake_does(tmp_path):
    config = load_config()
    above = {"grid": {"heads": ["cfg1"]}, "heads": {"cfg1": {"dropout": [0.1]}}, "seed": 7}
    write_config(above, tmp_path / "my.yaml")
    expected = json.loads(json.dumps(config))
    update_config(expected, above)
    assert load_config([tmp_path / "my.yaml"]) == expected
    (tmp_path / "bad.yaml").write_text("[")
    for name in ("bad.yaml", "nowhere.yaml"):
        with pytest.raises(InputError, match=name):
            load_config([tmp_path / name])


def test_a_study_knows_its_config(tmp_path):
    assert study_config(tmp_path) == load_config()
    write_config(load_config([TINY]), tmp_path / "results" / "provenance" / "config.yaml")
    assert study_config(tmp_path) == load_config([TINY])


def run(script, *arguments, cwd):
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / script, *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_programs_as_typed(tmp_path):
    study = tmp_path / "study"
    study.mkdir()
    planned = run("plan.py", "--configfile", TINY, "--directory", study, cwd=tmp_path)
    assert planned.returncode == 0, planned.stderr
    assert planned.stderr == ""
    jobs = jobs_of(planned.stdout)
    assert {rule: jobs[rule][0] for rule in ("train", "embed", "augment", "evaluate")} == {
        "train": "4",
        "embed": "1",
        "augment": "3",
        "evaluate": "6",
    }
    assert jobs["smears"][1] == "local"
    assert planned.stdout.startswith("4 runs in the grid, ")
    assert not (study / "results").exists()
    begun = time.perf_counter()
    shown = run("status.py", "--directory", study, "--configfile", TINY, cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("4 runs: 4 waiting") and time.perf_counter() - begun < 30


def test_the_programs_name_a_mistake(tmp_path):
    (tmp_path / "bad.yaml").write_text("grid: {cnns: [nonsense]}\n")
    for script in ("plan.py", "status.py"):
        result = run(script, "--configfile", "bad.yaml", cwd=tmp_path)
        assert result.returncode == 1
        assert "grid.cnns[0]" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize("module", ["plan", "status", "usage", "config_files", "terminal"])
def test_no_keras_is_imported(module):
    code = f"import sys, hemagrid.{module}; print({{'keras', 'tensorflow'}} & {{*sys.modules}})"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "scripts",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.stdout.strip() == "set()", result.stderr
