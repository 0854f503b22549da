"""Training one run of the grid, from files to files."""

import functools
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from hemagrid import io
from hemagrid.models.cnns import build_cnn
from hemagrid.names import FEATURE_EXTRACTION, FINETUNE_ALL, FINETUNE_TOP, LEARNED, TRAIN, VAL
from hemagrid.training import backend, checkpoints, embeddings
from hemagrid.training.environment import environment
from hemagrid.training.trainer import Examples, Phase, Trainer
from hemagrid.training.transfer import train_transfer


def train_run(run, settings, inputs, out, folder=checkpoints.FOLDER):
    """Train one run of the grid, wherever it was interrupted before.

    A second process for the same run waits, and has nothing to do once the first has finished.

    Args:
        run: Name of the run.
        settings: What `config.grid.run_settings` gives.
        inputs: Paths `images_{train,val}` and `table_{train,val}`; for a transfer run also
            `weights`, `embeddings_{train,val}` and `activations_{train,val}`; for a tuned run
            also `head`, the JSON that its search wrote.
        out: Paths of `model`, which takes pixels 0-255 and has no optimizer state, `history`
            (see `Trainer`), and `cost`, which is written last: the `key` of it all,
            `environment`, `parameters`, `images_per_second` (through the network in batches of
            64), `phases` ({name: {epochs, seconds}}), and `seconds`, `cpu_seconds` and
            `peak_memory_mib` of all processes that worked on the run.
        folder: Where checkpoints lie until the results are complete.

    Raises:
        InputError: if files do not fit each other, or the run diverges at once.
        Stopped: on SIGTERM or SIGINT.
    """
    checkpoints.release(inputs.values(), folder)
    if "head" in inputs:
        settings = settings | {"head": io.read_json(inputs["head"])["head"]}
        inputs = {name: path for name, path in inputs.items() if name != "head"}
    key = checkpoints.key_of("train", settings, inputs)
    compute = functools.partial(_train, run, settings, inputs, out)
    checkpoints.compute_once(run, key, out, "cost", compute, folder)


def _train(run, settings, inputs, out, checkpoint):
    """Train the run and write all files."""
    tables = {name: io.read_table(inputs[f"table_{name}"]) for name in LEARNED}
    images = {name: io.open_images(inputs[f"images_{name}"]) for name in LEARNED}
    labels = {name: table["label"].to_numpy() for name, table in tables.items()}
    classes = len(io.class_names(tables[TRAIN]))
    image_size, seed = images[TRAIN].shape[1], settings["seed"]
    backend.begin(seed, settings["training"]["precision"])
    made_with = environment("train")
    if settings["kind"] == "cnn":
        cnn = settings["model"]
        model = build_cnn(cnn, image_size, classes)
        trainer = Trainer(run, settings["training"], classes, seed, ["training"], checkpoint)
        trainer.fit(
            Phase(
                "training",
                model,
                *(Examples(images[name], labels[name]) for name in LEARNED),
                cnn["batch_size"],
                cnn["epochs"],
                cnn["patience"],
                cnn["learning_rate"],
            )
        )
    else:
        caches = {
            kind: [np.load(inputs[f"{kind}_{name}"], mmap_mode="r") for name in LEARNED]
            for kind in ("embeddings", "activations")
        }
        arrays = {
            FEATURE_EXTRACTION: caches["embeddings"],
            FINETUNE_TOP: caches["activations"],
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

    checkpoint.still_ours()
    Path(out["cost"]).unlink(missing_ok=True)
    io.write_table(out["history"], pd.DataFrame(trainer.history))
    with io.replacing(out["model"]) as temporary:
        # A model that was never compiled carries no optimizer.
        keras.Model(model.input, model.output, name=model.name).save(temporary)
    io.write_json(
        out["cost"],
        {
            "key": checkpoint.key,
            "environment": made_with,
            "parameters": model.count_params(),
            "images_per_second": embeddings.throughput(model, images[VAL]),
            "phases": trainer.cost(),
            **checkpoint.spent(),
        },
    )
