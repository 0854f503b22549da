"""The command as it is typed, without an installation; speeds and images of a small study."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest

from hemagrid.cli import speeds
from hemagrid.cli.estimate import Images, Job
from hemagrid.config.loading import load_config
from hemagrid.names import HOLDOUT

ROOT = Path(__file__).parents[3]
TINY = ROOT / "tests" / "workflow" / "tiny.yaml"


@pytest.fixture
def hemagrid(tmp_path):
    """A function that runs `hemagrid` with some words in a folder of its own."""

    def run(*words):
        unset = ("SNAKEMAKE_PROFILE", "KERAS_HOME")
        environment = {name: value for name, value in os.environ.items() if name not in unset}
        done = subprocess.run(
            [sys.executable, "-m", "hemagrid.cli.main", *map(str, words)],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(ROOT / "scripts")},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert "Traceback" not in done.stderr
        return SimpleNamespace(status=done.returncode, out=done.stdout, error=done.stderr)

    return run


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


def measured(device="cpu", threads=1, faster=1.0):
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


IMAGES = Images(
    1000, {"train": 1800, "val": 600, "test": 200, "test_augmented": 800, HOLDOUT: 400}, ""
)
TRAIN = Job("train", {"run": "vgg16_cfg1"}, "gpu", 120)


@pytest.fixture
def config():
    return load_config(
        values={
            "grid": {"cnns": [], "backbones": ["vgg16"], "heads": ["cfg1", "cfg2"]},
            "training": {
                "feature_extraction": {"epochs": 10},
                "finetune_top": {"epochs": 5},
                "finetune_all": {"epochs": 2},
            },
        }
    )


def jobs_of(text):
    """Read the table of jobs in a plan: {rule: cells}."""
    lines = text.split("\n\n")[1].splitlines()
    return {cells[0]: cells[1:] for cells in map(str.split, lines)}
