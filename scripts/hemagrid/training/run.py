"""Training in phases: CNNs in one, transfer runs in three on caches and images.

`feature_extraction` trains the head on embeddings, `finetune_top` the backbone's final
layers with it on the trunk's activations, `finetune_all` the whole network on images.
Since everything below is frozen and in inference mode, the first two phases are the same
mathematics as training through the frozen network.
"""

import functools
import importlib
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from hemagrid import io
from hemagrid.io import class_names
from hemagrid.models.cnns import build_cnn
from hemagrid.names import FEATURE_EXTRACTION, FINETUNE_ALL, FINETUNE_TOP, TRAIN, VAL
from hemagrid.training import backend, checkpoints, embeddings, jobs
from hemagrid.training.predictions import write_predictions
from hemagrid.training.trainer import Examples, Phase, Trainer
from hemagrid.training.transfer import train_transfer


def train_cnn(run, settings, train, val, image_size, classes, checkpoint=None):
    """Train a CNN from scratch; return (model, trainer).

    `settings` is what `config.run_settings` gives; `train` and `val` are image Examples;
    `checkpoint` is taken up if it holds something.
    """
    backend.begin(settings["seed"], settings["training"]["precision"])
    cnn = settings["model"]
    model = build_cnn(cnn, image_size, classes)
    trainer = Trainer(
        run, settings["training"], classes, settings["seed"], ["training"], checkpoint
    )
    trainer.fit(
        Phase(
            "training",
            model,
            train,
            val,
            cnn["batch_size"],
            cnn["epochs"],
            cnn["patience"],
            cnn["learning_rate"],
        )
    )
    return model, trainer


def write_results(model, trainer, key, subsets, names, out):
    """Predict every subset and write a run's files.

    `subsets` is {name: (images uint8, labels, groups)}, `names` the classes; `out` holds
    the paths `model`, `history`, `predictions` and `cost`, of which the last one, written
    last, notes the `key` that it all rests on. The saved model takes pixels 0-255 and
    carries no optimizer state.
    """
    Path(out["cost"]).unlink(missing_ok=True)
    predictions, seconds = {}, []
    for name, (inputs, labels, groups) in subsets.items():
        outputs = []
        started = time.perf_counter()
        for _, probabilities in embeddings.batches(model, inputs):
            outputs.append(probabilities)
            seconds.append(time.perf_counter() - started)
            started = time.perf_counter()
        predictions[name] = (labels, np.concatenate(outputs), groups)
    write_predictions(out["predictions"], names, predictions)
    io.write_table(out["history"], pd.DataFrame(trainer.history))
    with io.replacing(out["model"]) as temporary:
        # A model that was never compiled carries no optimizer.
        keras.Model(model.input, model.output, name=model.name).save(temporary)
    io.write_json(
        out["cost"],
        {
            "key": key,
            "device": backend.device(),
            "backend": keras.backend.backend(),
            "parameters": model.count_params(),
            # Of the typical batch: the first one may pay for tracing.
            "images_per_second": embeddings.BATCH / float(np.median(seconds)),
            "peak_memory_mib": jobs.peak_memory_mib(),
            "phases": trainer.cost(),
        },
    )


def run_key(settings, inputs):
    """Return the hash of all that determines a run: settings, data, code, versions."""
    rooms = (Path(__file__).parent, Path(__file__).parents[1] / "models")
    sources = [source for room in rooms for source in sorted(room.glob("*.py"))]
    code = {source.name: source.read_text(encoding="utf-8") for source in sources}
    for package in (keras, np, importlib.import_module(keras.backend.backend())):
        code[package.__name__] = package.__version__
    return checkpoints.key_of(settings, inputs, code)


def train_run(run, settings, inputs, out, folder=checkpoints.FOLDER):
    """Train one run of the grid from files to files, once, wherever it was interrupted.

    `settings` is what `config.run_settings` gives. `inputs` maps names to paths:
    `images_{subset}` and `table_{subset}` for each subset; for a transfer run also
    `weights`, `embeddings_{train,val}` and `activations_{train,val}`; for a tuned run also
    `head`, the JSON that its search wrote. `out` is as in `write_results`. Checkpoints lie in
    `folder` until the results are complete. A second process for the same run waits, and has
    nothing to do once the first has finished. Raises InputError when files do not fit each
    other, Stopped on SIGTERM.
    """
    settings, inputs = _with_found_head(settings, inputs)
    key = run_key(settings, inputs)
    compute = functools.partial(_train, run, settings, inputs, out)
    checkpoints.compute_once(run, key, out, "cost", compute, folder)


def _with_found_head(settings, inputs):
    """Put the head that a search found where a head of the configuration stands."""
    if "head" not in inputs:
        return settings, inputs
    found = io.read_json(inputs["head"])["head"]
    others = {name: path for name, path in inputs.items() if name != "head"}
    return settings | {"head": found}, others


def _train(run, settings, inputs, out, checkpoint):
    subsets = [name.removeprefix("table_") for name in inputs if name.startswith("table_")]
    tables = {name: io.read_table(inputs[f"table_{name}"]) for name in subsets}
    images = {name: io.open_images(inputs[f"images_{name}"]) for name in subsets}
    labels = {name: table["label"].to_numpy() for name, table in tables.items()}
    names = class_names(tables[TRAIN])
    image_size, classes = images[TRAIN].shape[1], len(names)
    if settings["kind"] == "cnn":
        train, val = (Examples(images[name], labels[name]) for name in (TRAIN, VAL))
        model, trainer = train_cnn(run, settings, train, val, image_size, classes, checkpoint)
    else:
        arrays = {
            FEATURE_EXTRACTION: _pair(inputs, "embeddings"),
            FINETUNE_TOP: _pair(inputs, "activations"),
            FINETUNE_ALL: (images[TRAIN], images[VAL]),
        }
        model, trainer = train_transfer(
            run,
            settings,
            inputs["weights"],
            arrays,
            (labels[TRAIN], labels[VAL]),
            image_size,
            classes,
            checkpoint,
        )
    evaluated = {
        name: (images[name], labels[name], tables[name]["parent_id"].to_numpy())
        for name in subsets
        if name != TRAIN
    }
    checkpoint.still_ours()
    write_results(model, trainer, checkpoint.key, evaluated, names, out)


def _pair(inputs, kind):
    return tuple(np.load(inputs[f"{kind}_{subset}"], mmap_mode="r") for subset in (TRAIN, VAL))
