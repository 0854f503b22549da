"""A training process killed twenty times ends in the bits of one never disturbed."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from hemagrid import io
from hemagrid.models import backbones
from hemagrid.training import checkpoints, embeddings

KILLS = 20
SEARCH_KILLS = 3
SPENT = dict.fromkeys(("seconds", "cpu_seconds", "peak_memory_mib"))
CLASSES = 3
SUBSETS = {"train": 24, "val": 8, "test": 8, "test_augmented": 8}
TRAINING = {
    "optimizer": "adam",
    "monitor": "val_loss",
    "class_weights": True,
    "precision": "float32",
}
EPOCHS = {
    # So many that it does not end before its kills, on a machine that is slow to send them.
    "cnn": {"training": 150},
    "transfer": {"feature_extraction": 20, "finetune_top": 10, "finetune_all": 8},
}
EPOCHS["search"] = {"search": 15}  # trials of max_epochs 4, factor 2
DELAY = {"cnn": 0.1, "transfer": 0.2, "search": 0.5}  # seconds, some epochs' time
PAUSE = {"cnn": 0.03, "transfer": 0.1, "search": 0}
SETTINGS = {
    "cnn": {
        "kind": "cnn",
        "model": {
            "filters": [4, 8],
            "dense": 8,
            "batch_norm": True,
            "dropout": 0.1,
            "dense_dropout": 0.1,
            "learning_rate": 1e-3,
            "epochs": 150,
            "patience": 150,
            "batch_size": 8,
        },
        "training": TRAINING,
        "seed": 42,
    },
    "transfer": {
        "kind": "transfer",
        "backbone": {"application": "VGG16", "top": "block4_pool", "batch_size": 8},
        # Everything that has a state of its own: statistics, and dropout's random numbers.
        "head": {
            "dense": [16],
            "batch_norm": True,
            "dropout": [0.3],
            "learning_rate": 1e-3,
            "weight_decay": 0.01,
        },
        "training": TRAINING
        | {
            phase: {"epochs": epochs, "patience": epochs, "learning_rate": 1e-4}
            for phase, epochs in EPOCHS["transfer"].items()
        },
        "seed": 42,
    },
    "search": {
        "space": {
            "layers": {"min": 0, "max": 3},
            "neurons": {"min": 8, "max": 32, "step": 8},
            "dropout": {"min": 0.1, "max": 0.5, "step": 0.1},
            "learning_rate": [1e-2, 1e-3],
            "weight_decay": [1e-2, 1e-3],
            "batch_norm": True,
        },
        "hyperband": {"max_epochs": 4, "factor": 2, "iterations": 1},
        "batch_size": 8,
        "training": {key: TRAINING[key] for key in ("optimizer", "class_weights", "precision")},
        "seed": 42,
    },
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Small files of everything that a transfer run reads; a CNN reads some of them."""
    folder = tmp_path_factory.mktemp("inputs")
    random = np.random.default_rng(0)
    inputs = {}
    for subset, count in SUBSETS.items():
        labels = np.arange(count) % CLASSES
        noise = random.integers(0, 128, (count, 32, 32, 3)) // (1 + labels[:, None, None, None])
        inputs[f"images_{subset}"] = folder / f"{subset}.npy"
        inputs[f"table_{subset}"] = folder / f"{subset}.csv"
        np.save(inputs[f"images_{subset}"], noise.astype("uint8"))
        names = np.array(["a", "b", "c"])[labels]
        table = pd.DataFrame({"label": labels, "class_name": names, "group": range(count)})
        io.write_table(inputs[f"table_{subset}"], table)
    inputs["weights"] = folder / "backbone.weights.h5"
    backbone = backbones.random_backbone("VGG16", np.load(inputs["images_train"]), seed=1)
    backbone.save_weights(inputs["weights"])
    trunk, top = backbones.cut_backbone(backbone, "block4_pool")
    for subset in ("train", "val"):
        inputs[f"activations_{subset}"] = folder / f"activations_{subset}.npy"
        inputs[f"embeddings_{subset}"] = folder / f"embeddings_{subset}.npy"
        activations = embeddings.predict(trunk, np.load(inputs[f"images_{subset}"]))
        np.save(inputs[f"activations_{subset}"], activations)
        np.save(inputs[f"embeddings_{subset}"], embeddings.predict(top, activations))
    return inputs


@pytest.fixture(scope="module")
def train(tmp_path_factory, environment, inputs):
    """A function that trains a kind of run with so many kills; returns files and children."""

    def train(kind, kills, terms=0.25):
        folder = tmp_path_factory.mktemp(f"{kind}_{kills}")
        names = ("model.keras", "history.csv", "cost.json")
        if kind == "search":
            names = ("head.json", "trials.csv")
        out = {name.split(".")[0]: str(folder / "results" / name) for name in names}
        (folder / "results").mkdir()
        used = {name: str(path) for name, path in inputs.items()}
        if kind == "cnn":
            used = {
                name: path for name, path in used.items() if "images" in name or "table" in name
            }
        if kind == "search":
            used = {
                f"{what}_{subset}": used[f"{what}_{subset}"]
                for what in ("embeddings", "table")
                for subset in ("train", "val")
            }
        job = {
            "run": "a_run",
            "kind": kind,
            "settings": SETTINGS[kind],
            "inputs": used,
            "out": out,
            "folder": str(folder / "checkpoints"),
            "kills": kills,
            "terms": terms,
            "delay": DELAY[kind],
            "pause": PAUSE[kind],
            "epochs": EPOCHS[kind],
            "seed": 5,
        }
        io.write_json(folder / "job.json", job)
        one_thread = {name: "1" for name in ("TF_NUM_INTRAOP_THREADS", "OMP_NUM_THREADS")}
        done = subprocess.run(
            [sys.executable, Path(__file__).with_name("killing.py"), folder / "job.json"],
            env=environment | one_thread | {"PYTHONPATH": str(Path(io.__file__).parents[1])},
            capture_output=True,
            text=True,
            timeout=900,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        children = json.loads((folder / "job.children").read_text())
        return SimpleNamespace(folder=folder, out=out, children=children)

    return train


def weights_in(model):
    with zipfile.ZipFile(model) as archive:
        return archive.read("model.weights.h5")


def assert_only_results_are_kept(folder):
    """Until the next job has read them, nothing else."""
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert left and {path.parent.suffix for path in left} == {checkpoints.KEPT}


@pytest.mark.parametrize("kind", ["cnn", "transfer"])
def test_a_run_killed_at_random_instants_ends_in_the_same_bits(kind, train):
    calm, killed = train(kind, 0), train(kind, KILLS)
    assert len(calm.children) == 1
    signals = [child["signal"] for child in killed.children if child["signal"]]
    assert len(signals) == KILLS
    assert set(signals) == {"SIGKILL", "SIGTERM"}
    log = "".join(child["log"] for child in killed.children)
    resumed = re.findall(r"(\w+) +continues in epoch +(\d+)", log)
    assert {phase for phase, _ in resumed} == set(EPOCHS[kind])
    assert len(set(resumed)) >= KILLS / 3, "the kills met the run in a few places only"

    assert weights_in(killed.out["model"]) == weights_in(calm.out["model"])
    histories = [io.read_table(study.out["history"]) for study in (killed, calm)]
    one, two = (history.drop(columns="seconds") for history in histories)
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    # The epochs of all processes took less than all processes.
    cost = io.read_json(killed.out["cost"])
    assert cost["seconds"] > sum(phase["seconds"] for phase in cost["phases"].values())
    for study in (killed, calm):
        assert_only_results_are_kept(study.folder / "checkpoints")
        left = {path.name for path in (study.folder / "results").iterdir()}
        assert left == {Path(path).name for path in study.out.values()}


def test_sigterm_saves_the_step_it_met(train):
    killed = train("cnn", 6, terms=1)
    stopped = [
        (re.search(r"in (epoch \d+) of training (after step \d+);", child["log"]), place)
        for place, child in enumerate(killed.children)
        if child["status"] == 3
    ]
    assert stopped
    for place_of_stop, child in stopped:
        epoch, step = place_of_stop.groups()
        # A child that is stopped while it starts says nothing and leaves all as it is.
        later = "".join(each["log"] for each in killed.children[child + 1 :])
        assert re.search(r"continues in (.*)", later).group(1) == f"{epoch} {step}"


def test_a_search_killed_three_times_ends_with_the_same_trials(train):
    calm, killed = train("search", 0), train("search", SEARCH_KILLS, terms=0)
    assert len(calm.children) == 1
    assert [child["signal"] for child in killed.children] == ["SIGKILL"] * SEARCH_KILLS + [None]
    log = "".join(child["log"] for child in killed.children)
    assert re.search(r"continues after trial \d+/15", log)
    one, two = (io.read_table(s.out["trials"]).drop(columns="seconds") for s in (calm, killed))
    assert len(one) == 15
    pd.testing.assert_frame_equal(one, two, check_exact=True)
    one, two = (io.read_json(study.out["head"]) for study in (calm, killed))
    assert one | SPENT == two | SPENT
    assert_only_results_are_kept(killed.folder / "checkpoints")
