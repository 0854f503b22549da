"""Training in phases: CNNs in one, transfer runs in three on caches and images.

`feature_extraction` trains the head on embeddings, `finetune_top` the backbone's final
layers with it on the trunk's activations, `finetune_all` the whole network on images.
Since everything below is frozen and in inference mode, the first two phases are the same
mathematics as training through the frozen network.
"""

import time
from dataclasses import dataclass

import keras
import numpy as np
import pandas as pd

from hemagrid import backbones, features, files, runtime
from hemagrid.cnns import build_cnn
from hemagrid.errors import InputError
from hemagrid.heads import build_head
from hemagrid.logs import progress
from hemagrid.predictions import write_predictions
from hemagrid.sources import class_names

OPTIMIZERS = {
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "sgd": keras.optimizers.SGD,
}
# As Keras clips probabilities in its own cross-entropy.
EPSILON = 1e-7


@dataclass(frozen=True)
class Examples:
    """Inputs (N, ...) of any kind, memory-mapped as a rule, with labels (N,) int."""

    inputs: np.ndarray
    labels: np.ndarray

    def __post_init__(self):
        if len(self.inputs) != len(self.labels):
            raise InputError(
                f"{len(self.inputs)} inputs but {len(self.labels)} labels; "
                "delete the file that is out of date and run again"
            )


@dataclass(frozen=True)
class Phase:
    """One phase: a model with its trainable flags set, what it learns from, for how long."""

    name: str
    model: keras.Model
    train: Examples
    val: Examples
    batch_size: int
    epochs: int
    patience: int
    learning_rate: float


def class_weights(labels, classes):
    """Return n / (classes x n_c) per class, float32 (classes,); 0 for an absent class."""
    counts = np.bincount(labels, minlength=classes)
    present = np.maximum(counts, 1)
    return np.where(counts, len(labels) / (classes * present), 0).astype("float32")


def score(probabilities, labels):
    """Return (mean cross-entropy in nats, accuracy) of probabilities (N, k) float32."""
    chosen = probabilities[np.arange(len(labels)), labels].astype("float64")
    loss = -np.log(np.clip(chosen, EPSILON, 1 - EPSILON)).mean()
    accuracy = (probabilities.argmax(axis=1) == labels).mean()
    return float(loss), float(accuracy)


def epoch_order(count, batch_size, seed, phase, epoch):
    """Return row numbers (steps, batch_size) in the order of this epoch.

    It follows from (seed, phase, epoch) alone. Rows that do not fill a batch sit this
    epoch out, others the next: a batch of another size would be traced anew.
    """
    size = min(batch_size, count)
    phase_key = int.from_bytes(phase.encode(), "little")
    order = np.random.default_rng([seed, phase_key, epoch]).permutation(count)
    return order[: count - count % size].reshape(-1, size)


class Trainer:
    """Runs phases one after another, keeps their history and the best weights.

    Early stopping watches `monitor` on the validation set. The best weights so far are
    carried from phase to phase, so that a phase that only does harm leaves no trace.
    """

    def __init__(self, run, settings, classes, seed):
        self.run, self.settings, self.classes, self.seed = run, settings, classes, seed
        self.history = []
        self.best = None

    def fit(self, phase):
        """Train one phase and restore the best weights of `phase.model`."""
        model = phase.model
        self._compile(phase)
        weight_of = (
            class_weights(phase.train.labels, self.classes)
            if self.settings["class_weights"]
            else np.ones(self.classes, "float32")
        )
        best_weights, waited, best_row = model.get_weights(), 0, None
        for epoch in range(1, phase.epochs + 1):
            started = time.perf_counter()
            logs = self._epoch(phase, epoch, weight_of)
            val_loss, val_accuracy = score(
                features.predict(model, phase.val.inputs), phase.val.labels
            )
            row = {
                "phase": phase.name,
                "epoch": epoch,
                "loss": float(logs["loss"]),
                "accuracy": float(logs["accuracy"]),
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
                "learning_rate": phase.learning_rate,
                "seconds": time.perf_counter() - started,
                "best": False,
            }
            self.history.append(row)
            self._report(phase, row)
            if not np.isfinite([row["loss"], val_loss]).all():
                raise InputError(
                    f"{self.run}: {phase.name} epoch {epoch}: found a loss of "
                    f"{row['loss']} and a val_loss of {val_loss}, expected numbers; lower "
                    f"the learning rate (now {phase.learning_rate:g})"
                )
            if self._improves(row):
                best_weights, waited, best_row = model.get_weights(), 0, row
            else:
                waited += 1
                if waited >= phase.patience:
                    break
        model.set_weights(best_weights)
        if best_row:
            best_row["best"] = True

    def _compile(self, phase):
        optimizer = OPTIMIZERS[self.settings["optimizer"]](phase.learning_rate)
        # Building before the first step and metrics as objects save one trace each.
        optimizer.build(phase.model.trainable_variables)
        phase.model.compile(
            optimizer=optimizer,
            loss=keras.losses.SparseCategoricalCrossentropy(),
            metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        )

    def _epoch(self, phase, epoch, weight_of):
        """Take the steps of one epoch; return the mean of their loss and accuracy."""
        logs = []
        for rows in epoch_order(
            len(phase.train.labels), phase.batch_size, self.seed, phase.name, epoch
        ):
            labels = phase.train.labels[rows]
            # Keras reports on this batch alone; all batches have one size.
            logs.append(
                phase.model.train_on_batch(
                    phase.train.inputs[rows],
                    labels,
                    sample_weight=weight_of[labels],
                    return_dict=True,
                )
            )
        return {name: np.mean([step[name] for step in logs]) for name in ("loss", "accuracy")}

    def _improves(self, row):
        value = row[self.settings["monitor"]]
        better = -value if self.settings["monitor"] == "val_loss" else value
        if self.best is None or better > self.best:
            self.best = better
            return True
        return False

    def _report(self, phase, row):
        progress(
            f"{self.run:24} {phase.name:18} epoch {row['epoch']:2}/{phase.epochs:<2}  "
            f"loss {row['loss']:7.4f}  val_loss {row['val_loss']:7.4f}  "
            f"val_accuracy {100 * row['val_accuracy']:5.1f} %  {row['seconds']:6.1f} s"
        )

    def cost(self):
        """Return {phase: {"epochs", "seconds"}} of what was trained."""
        table = pd.DataFrame(self.history)
        return {
            name: {"epochs": len(rows), "seconds": float(rows["seconds"].sum())}
            for name, rows in table.groupby("phase", sort=False)
        }


def train_cnn(run, settings, train, val, image_size, classes):
    """Train a CNN from scratch; return (model, trainer).

    `settings` is what `config.run_settings` gives; `train` and `val` are image Examples.
    """
    runtime.begin(settings["seed"], settings["training"]["precision"])
    cnn = settings["model"]
    model = build_cnn(cnn, image_size, classes)
    trainer = Trainer(run, settings["training"], classes, settings["seed"])
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


class TransferModel:
    """A backbone cut into trunk and top under a head, and the three models made of them.

    The models share layers and variables: training one trains the others. The backbone
    runs in inference mode in all of them.
    """

    def __init__(self, backbone, boundary, head, classes):
        self.trunk, self.top = backbones.cut_backbone(backbone, boundary)
        self.head = build_head(head, backbone.output.shape[-1], classes)
        cut = keras.Input(self.top.input.shape[1:], name="activations")
        pixels = keras.Input(backbone.input.shape[1:], name="pixels")
        # Not the head itself: it would carry its optimizer into the saved model.
        self.from_embeddings = keras.Model(self.head.input, self.head.output)
        self.from_activations = keras.Model(cut, self.head(self.top(cut, training=False)))
        self.from_images = keras.Model(
            pixels, self.head(backbone(pixels, training=False)), name="classifier"
        )

    def freeze_for(self, phase):
        """Set the trainable flags for a phase and return the model that it trains."""
        self.trunk.trainable = phase == "finetune_all"
        self.top.trainable = phase != "feature_extraction"
        self.head.trainable = True
        for norm in backbones.batch_normalizations(self.trunk):
            norm.trainable = False
        for norm in backbones.batch_normalizations(self.top):
            norm.trainable = False
        for norm in backbones.batch_normalizations(self.head):
            norm.trainable = phase != "finetune_all"
        return {
            "feature_extraction": self.from_embeddings,
            "finetune_top": self.from_activations,
            "finetune_all": self.from_images,
        }[phase]


def train_transfer(run, settings, weights, inputs, labels, image_size, classes):
    """Train a head, then the top, then the whole network; return (model, trainer).

    `weights` is the backbone's file; `inputs` holds per phase the pair (train, val) of
    arrays: embeddings (N, F), trunk activations (N, h, w, c), images uint8; `labels` the
    pair of label arrays that goes with each.
    """
    training, backbone_settings = settings["training"], settings["backbone"]
    runtime.begin(settings["seed"], training["precision"])
    backbone = backbones.load_backbone(backbone_settings["application"], image_size, weights)
    # Again, so that the head does not depend on how many draws the backbone took.
    keras.utils.set_random_seed(settings["seed"])
    network = TransferModel(backbone, backbone_settings["top"], settings["head"], classes)
    trainer = Trainer(run, training, classes, settings["seed"])
    rates = {"feature_extraction": settings["head"]["learning_rate"]}
    for name, (train, val) in inputs.items():
        plan = training[name]
        if plan["epochs"] == 0:
            continue
        trainer.fit(
            Phase(
                name,
                network.freeze_for(name),
                Examples(train, labels[0]),
                Examples(val, labels[1]),
                backbone_settings["batch_size"],
                plan["epochs"],
                plan["patience"],
                rates.get(name) or plan["learning_rate"],
            )
        )
    return network.from_images, trainer


def write_results(model, trainer, subsets, names, out):
    """Predict every subset and write a run's files.

    `subsets` is {name: (images uint8, labels, groups)}, `names` the classes; `out` holds
    the paths `model`, `history`, `predictions` and `cost`. The saved model takes pixels
    0-255 and carries no optimizer state.
    """
    predictions, seconds, images = {}, 0.0, 0
    # The first batch may pay for tracing and is not timed.
    features.predict(model, next(iter(subsets.values()))[0][:1])
    for name, (inputs, labels, groups) in subsets.items():
        started = time.perf_counter()
        predictions[name] = (labels, features.predict(model, inputs), groups)
        seconds += time.perf_counter() - started
        images += len(inputs)
    write_predictions(out["predictions"], names, predictions)
    files.write_table(out["history"], pd.DataFrame(trainer.history))
    files.write_json(
        out["cost"],
        {
            "device": runtime.device(),
            "backend": keras.backend.backend(),
            "parameters": model.count_params(),
            "images_per_second": images / seconds,
            "peak_memory_mib": runtime.peak_memory_mib(),
            "phases": trainer.cost(),
        },
    )
    with files.replacing(out["model"]) as temporary:
        # A model that was never compiled carries no optimizer.
        keras.Model(model.input, model.output, name=model.name).save(temporary)


def train_run(run, settings, inputs, out):
    """Train one run of the grid from files to files.

    `settings` is what `config.run_settings` gives. `inputs` maps names to paths:
    `images_{subset}` and `table_{subset}` for each subset; for a transfer run also
    `weights`, `embeddings_{train,val}` and `activations_{train,val}`. `out` is as in
    `write_results`. Raises InputError when files do not fit each other.
    """
    subsets = [name.removeprefix("table_") for name in inputs if name.startswith("table_")]
    tables = {name: files.read_table(inputs[f"table_{name}"]) for name in subsets}
    images = {name: files.open_images(inputs[f"images_{name}"]) for name in subsets}
    labels = {name: table["label"].to_numpy() for name, table in tables.items()}
    names = class_names(tables["train"])
    image_size, classes = images["train"].shape[1], len(names)
    if settings["kind"] == "cnn":
        train, val = (Examples(images[name], labels[name]) for name in ("train", "val"))
        model, trainer = train_cnn(run, settings, train, val, image_size, classes)
    else:
        arrays = {
            "feature_extraction": _pair(inputs, "embeddings"),
            "finetune_top": _pair(inputs, "activations"),
            "finetune_all": (images["train"], images["val"]),
        }
        model, trainer = train_transfer(
            run,
            settings,
            inputs["weights"],
            arrays,
            (labels["train"], labels["val"]),
            image_size,
            classes,
        )
    evaluated = {
        name: (images[name], labels[name], tables[name]["parent_id"].to_numpy())
        for name in subsets
        if name != "train"
    }
    write_results(model, trainer, evaluated, names, out)


def _pair(inputs, kind):
    return tuple(
        np.load(inputs[f"{kind}_{subset}"], mmap_mode="r") for subset in ("train", "val")
    )
