"""A stage whose results change gets a higher revision, so that finished studies rerun it.

Each stage makes something tiny from fixed inputs, and numbers about it are compared with those
in results.json. To record new ones after raising a stage's revision:

    HEMAGRID_RECORD=1 pytest tests/unit/test_results.py
"""

import json
import os
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest

from hemagrid import io
from hemagrid.data import augmentation, duplicates, groups, readers, splits, synthetic
from hemagrid.data.corruptions import corrupt
from hemagrid.models import backbones
from hemagrid.models.heads import build_head
from hemagrid.names import CORRUPTIONS
from hemagrid.revisions import REVISIONS
from hemagrid.training.embeddings import cache_features, predict
from hemagrid.training.run import train_run
from hemagrid.training.trainer import Examples, Phase, Trainer
from hemagrid.tuning.search import search_head

RECORD = Path(__file__).with_name("results.json")
# In shares of an array's spread. TensorFlow with other instructions of the processor
# (TF_ENABLE_ONEDNN_OPTS=0, or ONEDNN_MAX_CPU_ISA=SSE41) differs by up to a tenth of it.
TOLERANCE = 3e-3
SIZE, APPLICATION, BOUNDARY = 32, "MobileNet", "conv_pw_11_relu"
LABELS = {"train": np.repeat([0, 1, 2], [12, 8, 6]), "val": np.arange(9) % 3}
TRAINING = {
    "optimizer": "adam",
    "monitor": "val_loss",
    "class_weights": True,
    "precision": "float32",
    "feature_extraction": {"epochs": 2, "patience": 2},
    "finetune_top": {"epochs": 1, "patience": 1, "learning_rate": 1e-3},
    "finetune_all": {"epochs": 1, "patience": 1, "learning_rate": 1e-4},
}
HEAD = {
    "dense": [8],
    "batch_norm": False,
    "dropout": [0.3],
    "learning_rate": 1e-2,
    "weight_decay": 0.1,
}
RUNS = {
    "cnn": {
        "kind": "cnn",
        "model": {
            "filters": [4, 8],
            "dense": 8,
            "batch_norm": True,
            "dropout": 0.2,
            "dense_dropout": 0.2,
            "learning_rate": 1e-3,
            "epochs": 2,
            "patience": 2,
            "batch_size": 8,
        },
    },
    "transfer": {
        "kind": "transfer",
        "backbone": {"application": APPLICATION, "top": BOUNDARY, "batch_size": 8},
        "head": HEAD,
    },
}


def numbers(values):
    """Sum up an array: mean, spread, and a sum in which each place has a weight of its own."""
    values = np.asarray(values, "float64").ravel()
    weights = np.random.default_rng(len(values)).standard_normal(len(values))
    return [values.mean(), values.std(), values @ weights / np.sqrt(len(values)), len(values)]


def table_numbers(table):
    """Sum up the columns of a table; the value of a text is its place among the texts."""
    columns = {}
    for name, column in table.items():
        if not pd.api.types.is_numeric_dtype(column):
            column = pd.factorize(column.astype(str), sort=True)[0]
        columns[name] = numbers(pd.Series(column).fillna(-1))
    return columns


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A function that makes what a stage makes, with all it needs, and returns its numbers."""
    folder = tmp_path_factory.mktemp("stages")
    done = {}

    def make(stage):
        if stage not in done:
            done[stage] = globals()[f"make_{stage}"](folder, make)
        return done[stage]

    return make


def make_smears(folder, make):
    counts = {"per_class": 6, "duplicates": 3, "near_duplicates": 3, "junk": 2}
    synthetic.write_smears(folder / "smears", image_size=SIZE, seed=1, **counts)
    shape = {"classes": None, "image_size": SIZE, "fit": "pad", "bit_depth": None}
    out = {"images": folder / "images.npy", "samples": folder / "samples.csv"}
    settings = {"source": "smears", "strict": False} | shape
    readers.acquire(settings, folder / "smears", out)
    return {"images": numbers(np.load(out["images"]))}


def make_acquire_dataset(folder, make):
    make("smears")
    samples = io.read_table(folder / "samples.csv").drop(columns="sha256")
    return table_numbers(samples) | {"images": numbers(np.load(folder / "images.npy"))}


def make_fingerprint(folder, make):
    make("smears")
    found = duplicates.fingerprint(io.open_images(folder / "images.npy"))
    np.save(folder / "fingerprints.npy", found)
    bits = np.unpackbits(found["hashes"].view("uint8"))
    return {"bits": numbers(bits)}


def make_deduplicate(folder, make):
    make("fingerprint")
    settings = {
        "duplicates": "pixels",
        "duplicate_difference": 2.0,
        "near_duplicate_difference": 12.0,
        "near_duplicate_distance": 4,
        "label_conflicts": "keep_first",
    }
    samples = readers.read_samples(folder / "samples.csv")
    found = duplicates.deduplicate(samples, np.load(folder / "fingerprints.npy"), settings)
    io.write_table(folder / "duplicates.csv", found)
    return table_numbers(found[["exact_group", "near_group", "kept"]])


def make_split(folder, make):
    make("deduplicate")
    shares = {"train": 0.6, "val": 0.2, "test": 0.2}
    found = splits.split(io.read_table(folder / "duplicates.csv"), shares, 1)
    io.write_table(folder / "splits.csv", found)
    return table_numbers(found[["id", "split"]])


def make_groups(folder, make):
    make("deduplicate")
    table = io.read_table(folder / "duplicates.csv")
    settings = {"key": None, "csv": None, "pattern": r"(?P<group>\d+|artefact)\D*\.png"}
    found = table[["id"]].assign(group_name=groups.name_groups(settings, table["source"]))
    shares = {"train": 0.6, "val": 0.2, "test": 0.2}
    divided = splits.split_groups(table, found, shares, 1, 0.5)
    return table_numbers(found) | table_numbers(divided[["near_group", "split"]])


def make_originals(folder, make):
    make("split")
    out = {"images": folder / "test.npy", "table": folder / "test.csv"}
    augmentation.originals(folder / "images.npy", folder / "splits.csv", "test", out)
    table = io.read_table(out["table"]).drop(columns="sha256")
    return table_numbers(table) | {"images": numbers(np.load(out["images"]))}


def make_augment(folder, make):
    make("split")
    out = {"images": folder / "copies.npy", "table": folder / "copies.csv"}
    policies = {"randaugment": {"n": 3, "m": 0.7}, "augmix": {"k": 3, "m": 0.7}}
    paths = (folder / "images.npy", folder / "splits.csv")
    augmentation.augment(
        *paths, "val", {"copies": 2} | policies, "alternate", 1, threads=1, out=out
    )
    table = io.read_table(out["table"]).drop(columns="sha256")
    return table_numbers(table) | {"images": numbers(np.load(out["images"]))}


def make_corrupt(folder, make):
    rng = np.random.default_rng(1)
    images = np.stack([synthetic.draw_cell("monocyte", 64, rng) for _ in range(4)])
    return {
        kind: numbers([corrupt(images, range(4), kind, how, seed=1) for how in range(1, 6)])
        for kind in CORRUPTIONS
    }


def subsets(folder):
    """Write small subsets that no stage makes; return their paths."""
    inputs = {}
    for name, labels in LABELS.items():
        random = np.random.default_rng(len(labels))
        images = random.integers(0, 128, (len(labels), 8, 8, 3), dtype="uint8")
        images[np.arange(len(labels)), :, :, labels] += 100
        images = images.repeat(SIZE // 8, axis=1).repeat(SIZE // 8, axis=2)
        table = pd.DataFrame({"id": range(len(labels)), "label": labels, "split": name})
        table["class_name"] = np.array(["a", "b", "c"])[labels]
        table["group"] = table["id"]
        shape = (len(labels), 16)
        embeddings = 1e-6 * (random.standard_normal(shape) + labels[:, None])
        inputs |= {
            f"images_{name}": folder / f"{name}_images.npy",
            f"table_{name}": folder / f"{name}_table.csv",
            f"small_embeddings_{name}": folder / f"{name}_embeddings.npy",
        }
        np.save(inputs[f"images_{name}"], images)
        np.save(inputs[f"small_embeddings_{name}"], embeddings.astype("float32"))
        io.write_table(inputs[f"table_{name}"], table)
    return inputs


def make_backbone_weights(folder, make):
    inputs = subsets(folder)
    settings = {"application": APPLICATION, "weights": "random"}
    out = folder / "backbone.weights.h5"
    paths = {"images": inputs["images_train"], "splits": inputs["table_train"]}
    backbones.write_weights(out, settings, SIZE, 1, **paths)
    settings["top"] = BOUNDARY
    weights = backbones.load_backbone(settings, SIZE, out)[0].get_weights()
    return {
        "kernel": numbers(weights[0]),
        "all": numbers(np.concatenate(list(map(np.ravel, weights)))),
    }


def make_embed(folder, make):
    make("backbone_weights")
    inputs = {"weights": folder / "backbone.weights.h5"}
    inputs |= {name: folder / f"{name}_images.npy" for name in LABELS}
    out = {
        f"{kind}_{name}": folder / f"{kind}_{name}.npy"
        for kind in ("activations", "embeddings")
        for name in LABELS
    }
    out["cost"] = folder / "embed.json"
    settings = {"application": APPLICATION, "top": BOUNDARY}
    cache_features("network", settings, "float32", inputs, out, folder / "checkpoints")
    return {name: numbers(np.load(path)) for name, path in out.items() if name != "cost"}


def make_train(folder, make):
    make("embed")
    inputs = subsets(folder)
    caches = {"weights": folder / "backbone.weights.h5"}
    caches |= {
        f"{kind}_{name}": folder / f"{kind}_{name}.npy"
        for kind in ("activations", "embeddings")
        for name in LABELS
    }
    found = {}
    for name, settings in RUNS.items():
        files = {key: path for key, path in inputs.items() if "small" not in key}
        found |= trained(folder, name, settings, files | (caches if name == "transfer" else {}))
    # Heads alone, on small embeddings, at which what Adam adds to a denominator matters.
    small = [Examples(np.load(inputs[f"small_embeddings_{n}"]), LABELS[n]) for n in LABELS]
    for name, decay in (("adam", None), ("adamw", 1.0)):
        keras.utils.set_random_seed(1)
        head = build_head(HEAD | {"dense": []}, 16, 3)
        trainer = Trainer(name, TRAINING, 3, 1, weight_decay=decay)
        trainer.fit(Phase("feature_extraction", head, *small, 8, 2, 2, 1e-2))
        losses = pd.DataFrame(trainer.history)["loss"]
        kernel, bias = head.get_weights()
        for what, values in (("loss", losses), ("kernel", kernel), ("bias", bias)):
            found[f"{name} {what}"] = numbers(values)
    return found


def trained(folder, name, settings, inputs):
    """Train a run; return numbers of its history, its last layer and its predictions."""
    names = ("model.keras", "history.csv", "cost.json")
    out = {each.split(".")[0]: folder / name / each for each in names}
    settings = settings | {"training": TRAINING, "seed": 1}
    train_run(name, settings, inputs, out, folder / "checkpoints")
    history = io.read_table(out["history"])
    model = keras.models.load_model(out["model"])
    kernels = [weights for weights in model.get_weights() if weights.ndim > 1]
    probabilities = predict(model, io.open_images(inputs["images_val"]))
    return {
        **{f"{name} {m}": numbers(history[m]) for m in ("weighted_loss", "loss")},
        f"{name} last kernel": numbers(kernels[-1]),
        f"{name} probabilities": numbers(probabilities),
    }


def make_search(folder, make):
    files = subsets(folder)
    inputs = {f"table_{name}": files[f"table_{name}"] for name in LABELS}
    for name in LABELS:
        inputs[f"embeddings_{name}"] = folder / f"search_{name}.npy"
        np.save(inputs[f"embeddings_{name}"], 1e6 * np.load(files[f"small_embeddings_{name}"]))
    settings = {
        "space": {
            "layers": {"min": 0, "max": 2},
            "neurons": {"min": 8, "max": 32, "step": 8},
            "dropout": {"min": 0.1, "max": 0.5, "step": 0.1},
            "learning_rate": [1e-2, 1e-3],
            "weight_decay": [1e-2, 1e-3],
            "batch_norm": False,
        },
        "hyperband": {"max_epochs": 2, "factor": 2, "iterations": 1},
        "batch_size": 8,
        "training": TRAINING,
        "seed": 1,
    }
    out = {"head": folder / "head.json", "trials": folder / "trials.csv"}
    search_head("searched", settings, inputs, out, folder / "checkpoints")
    table = io.read_table(out["trials"])
    return table_numbers(table[["epochs", "dense", "dropout", "learning_rate", "val_loss"]])


STAGES = [name.removeprefix("make_") for name in list(globals()) if name.startswith("make_")]


@pytest.mark.parametrize("stage", STAGES)
def test_results_that_changed_have_a_higher_revision(stage, made, request):
    if stage != "augment":  # which has its own graphs
        request.getfixturevalue("eager")
    recorded = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    former, found = recorded.get(stage), made(stage)
    if former and former["revision"] == REVISIONS[stage]:
        again = "HEMAGRID_RECORD=1 pytest tests/unit/test_results.py"
        assert not (changed := changes(former["values"], found)), (
            f"results of {stage} changed ({'; '.join(changed)}): raise REVISIONS[{stage!r}] in "
            f"hemagrid/revisions.py and run {again} to record them"
        )
        return
    assert os.environ.get("HEMAGRID_RECORD") == "1", f"no results of this revision of {stage}"
    recorded[stage] = {"revision": REVISIONS[stage], "values": found}
    io.write_json(RECORD, dict(sorted(recorded.items())))


def changes(former, found):
    """Name what differs by more than the tolerance, with how much, in shares of the spread."""
    if former.keys() != found.keys():
        return [f"found {', '.join(found)}, recorded {', '.join(former)}"]
    changed = []
    for name, (*recorded, count) in former.items():
        *numbers_now, count_now = found[name]
        spread = max(recorded[1], 0.02 * abs(recorded[0]), 1e-12)
        off = np.abs(np.subtract(numbers_now, recorded)).max() / spread
        if count != count_now or not off <= TOLERANCE:
            changed.append(f"{name} by {off:.2g}")
    return changed


def test_a_change_is_named_and_rounding_is_not():
    former = {"loss": numbers([1.0, 2.0, 3.0]), "kernel": numbers([1.0, 1.0])}
    assert not changes(former, {name: values[:] for name, values in former.items()})
    rounded = {"loss": numbers([1.0, 2.0, 3.0001]), "kernel": numbers([1.0, 1.00001])}
    assert not changes(former, rounded)
    assert changes(former, former | {"loss": numbers([1.0, 2.1, 3.0])})[0].startswith("loss by")
    assert changes(former, former | {"loss": numbers([2.0, 1.0, 3.0])})  # of another order
    assert changes(former, former | {"loss": numbers([1.0, 2.0, np.nan])})
    assert changes(former, {"loss": former["loss"]})
