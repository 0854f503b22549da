"""The networks of a finished study, trained the direct way (`direct_way.py`)."""

import tempfile
from functools import partial
from pathlib import Path

import direct_way
import keras
import numpy as np
import pandas as pd

from hemagrid import io
from hemagrid.config.grid import run_settings, search_settings
from hemagrid.config.loading import study_config
from hemagrid.models.cnns import build_cnn
from hemagrid.models.heads import build_head


def train_network(study, network, runs):
    """Search and train the runs of a backbone, or a CNN: the same epochs, random weights."""
    config, train, val = study_config(study), subset(study, "train"), subset(study, "val")
    classes = int(train[1].max()) + 1
    backbone = config["backbones"].get(network)
    base = backbone and direct_way.load_base(backbone["application"], train[0].shape[1])
    start = base and base.get_weights()
    for name in runs:
        settings = run_settings(config, name)
        history = pd.read_csv(study / "results" / name / "history.csv")
        epochs = history.groupby("phase", sort=False).size().to_dict()
        keras.utils.set_random_seed(settings["seed"])
        if not base:
            fit_cnn(settings, epochs, train, val, classes)
            continue
        base.set_weights(start)
        base.trainable = False
        found = study / "results" / "tuning" / f"{name}.json"
        if found.exists():
            search(study, config, name, base)
            settings["head"] = io.read_json(found)["head"]
        fit_transfer(settings, base, epochs, train, val, classes)


def subset(study, name):
    """Return the images, uint8, and the labels of a subset of a study."""
    folder = study / "results" / "dataset"
    labels = io.read_table(folder / f"{name}.csv")["label"].to_numpy()
    return np.load(folder / f"{name}.npy"), labels


def fit_cnn(settings, epochs, train, val, classes):
    ((phase, count),) = epochs.items()
    entry = settings["model"]
    model = build_cnn(entry, train[0].shape[1], classes)
    rate, batch = entry["learning_rate"], entry["batch_size"]
    direct_way.fit(model, train, val, phase, count, rate, batch, settings["seed"])


def fit_transfer(settings, base, epochs, train, val, classes):
    backbone, entry = settings["backbone"], settings["head"]
    head = build_head(entry, base.output_shape[-1], classes)
    phases = {
        phase: (count, settings["training"][phase].get("learning_rate", entry["learning_rate"]))
        for phase, count in epochs.items()
    }
    network = (backbone["application"], base, head, backbone["top"])
    batch, seed = backbone["batch_size"], settings["seed"]
    direct_way.fit_phases(*network, phases, train, val, batch, seed)


def search(study, config, name, base):
    """Search a head through the whole network."""
    folder, settings = study / "results" / "dataset", search_settings(config, name)
    application = run_settings(config, name)["backbone"]["application"]
    inputs = {f"table_{part}": folder / f"{part}.csv" for part in ("train", "val")}
    inputs |= {f"embeddings_{part}": folder / f"{part}.npy" for part in ("train", "val")}
    with tempfile.TemporaryDirectory() as scratch:
        out = {"head": Path(scratch, "head.json"), "trials": Path(scratch, "trials.csv")}
        direct_way.search_head(
            base.output_shape[-1],
            partial(direct_way.classifier, application, base),
            name,
            settings,
            inputs,
            out,
            Path(scratch),
        )
