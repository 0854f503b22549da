"""Training in phases: CNNs in one, transfer runs in three on caches and images.

`feature_extraction` trains the head on embeddings, `finetune_top` the backbone's final
layers with it on the trunk's activations, `finetune_all` the whole network on images.
Since everything below is frozen and in inference mode, the first two phases are the same
mathematics as training through the frozen network.
"""

import itertools
import logging
import time
from dataclasses import asdict, dataclass, field

import keras
import numpy as np
import pandas as pd

from hemagrid import io
from hemagrid.errors import InputError, Stopped
from hemagrid.training import embeddings, jobs, step_loop
from hemagrid.training.optimizers import build_optimizer

logger = logging.getLogger(__name__)


# As Keras clips probabilities in its own cross-entropy.
EPSILON = 1e-7


SAVE_EVERY = 600  # seconds within an epoch after which a checkpoint is due


# After an epoch a checkpoint is written if that takes no longer than this many seconds, or this
# part of the time since the last one: of short epochs of a large network some go by first.
SAVE_SECONDS, SAVE_SHARE = 0.5, 0.1


# Steps per call double while a call takes less than this, and reads less: small ones are mostly
# calling, and a signal to stop is seen between calls.
CALL_SECONDS, CALL_BYTES = 0.1, 32e6


DISK = 200e6  # bytes per second, a guess until one of the phase has been written and timed


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


def step_function(model, optimizer, batch_size, inputs, xla="auto"):
    """Compile a model; return the function by which it is trained, as `runtime.training_steps`.

    `xla` is Keras's `jit_compile`, which by itself is on where there is a GPU.
    """
    # Building before the first step and metrics as objects save one trace each.
    optimizer.build(model.trainable_variables)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=xla,
    )
    return step_loop.training_steps(model, batch_size, inputs)


@dataclass
class Position:
    """Where a phase stands: all that its next step depends on, but for the variables."""

    phase: str
    epoch: int = 1  # under way, counted from 1
    steps: list = field(default_factory=list)  # [loss, accuracy] of its steps so far
    seconds: float = 0.0  # spent on it before this process
    waited: int = 0  # epochs since the best one
    best_row: int | None = None  # place of this phase's best epoch in the history


class Trainer:
    """Runs phases one after another, keeps their history and the best weights.

    Early stopping watches `monitor` on the validation set. The best weights so far are
    carried from phase to phase, so that a phase that only does harm leaves no trace.

    With a `checkpoint` it saves its state after an epoch, if that is cheap beside the time
    since the last one, and on SIGTERM or SIGINT after the step under way, then raises Stopped;
    made anew it goes on from there and ends in the same weights. `phases` are the names to
    come, for people who look at its progress; `say` prints the line of an epoch.

    A `weight_decay` makes the optimizer AdamW, whatever `settings` name.
    """

    def __init__(
        self,
        run,
        settings,
        classes,
        seed,
        phases=(),
        checkpoint=None,
        weight_decay=None,
        say=logger.info,
    ):
        self.run, self.settings, self.classes, self.seed = run, settings, classes, seed
        self.phases, self.checkpoint = phases, checkpoint
        self.weight_decay, self.say = weight_decay, say
        self.history = []
        self.best = None
        self.saved_at = time.perf_counter()
        self.saved = checkpoint.load() if checkpoint else None
        if self.saved:
            facts, _ = self.saved
            self.history, self.best = facts["history"], facts["best"]

    def fit(self, phase):
        """Train one phase and restore the best weights of `phase.model`."""
        if self.saved and self.saved[0]["position"]["phase"] != phase.name:
            return  # finished before the checkpoint was written
        self._compile(phase)
        position, best_weights = self._start(phase)
        self.save_seconds = _saved_bytes(phase.model, best_weights) / DISK
        weight_of = (
            class_weights(phase.train.labels, self.classes)
            if self.settings["class_weights"]
            else np.ones(self.classes, "float32")
        )
        with jobs.stop_signals() as stop_signal:
            while position.epoch <= phase.epochs and position.waited < phase.patience:
                self._steps(phase, position, best_weights, weight_of, stop_signal)
                if self._finish_epoch(phase, position):
                    best_weights = phase.model.get_weights()
                if stop_signal() or self._save_is_cheap():
                    self._save(phase, position, best_weights)
                self._stop_if(stop_signal(), position)
        phase.model.set_weights(best_weights)
        if position.best_row is not None:
            self.history[position.best_row]["best"] = True

    def _start(self, phase):
        """Return position and best weights: those of the checkpoint, or the beginning."""
        if self.saved is None:
            return Position(phase.name), phase.model.get_weights()
        facts, arrays = self.saved
        self.saved = None
        position = Position(**facts["position"])
        for name, variable in _variables(phase.model).items():
            variable.assign(arrays[name])
        logger.info(
            f"{self.run:24} {phase.name:18} goes on in epoch {position.epoch}"
            f" after step {len(position.steps)}"
        )
        return position, [arrays[name] for name in sorted(arrays) if name.startswith("best")]

    def _save_is_cheap(self):
        since = time.perf_counter() - self.saved_at
        return self.save_seconds <= max(SAVE_SECONDS, SAVE_SHARE * since)

    def _save(self, phase, position, best_weights):
        if self.checkpoint is None:
            return
        begun = time.perf_counter()
        variables = _variables(phase.model).items()
        arrays = ((name, variable.numpy()) for name, variable in variables)
        best = ((f"best_{place:05}", weights) for place, weights in enumerate(best_weights))
        self.checkpoint.save(
            {"position": asdict(position), "history": self.history, "best": self.best},
            itertools.chain(arrays, best),
        )
        self.saved_at = time.perf_counter()
        self.save_seconds = self.saved_at - begun

    def _stop_if(self, signal, position):
        if signal:
            again = "goes on from there" if self.checkpoint else "begins it again"
            raise Stopped(
                f"{self.run}: by {signal} in epoch {position.epoch} of {position.phase} after "
                f"step {len(position.steps)}; the same command {again}"
            )

    def _finish_epoch(self, phase, position):
        """Validate, add the epoch's row to the history, move on; return if it is the best."""
        started = time.perf_counter()
        loss, accuracy = np.mean(position.steps, axis=0)
        val_loss, val_accuracy = score(
            embeddings.predict(phase.model, phase.val.inputs), phase.val.labels
        )
        row = {
            "phase": phase.name,
            "epoch": position.epoch,
            "loss": float(loss),
            "accuracy": float(accuracy),
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "learning_rate": phase.learning_rate,
            "seconds": position.seconds + time.perf_counter() - started,
            "best": False,
        }
        diverged = not np.isfinite([row["loss"], val_loss]).all()
        if diverged:
            self._diverged(phase, row)
        self.history.append(row)
        self._report(phase, row)
        improved = not diverged and self._improves(row)
        position.epoch += 1
        position.steps, position.seconds = [], 0.0
        position.waited = 0 if improved else phase.patience if diverged else position.waited + 1
        if improved:
            position.best_row = len(self.history) - 1
        return improved

    def _diverged(self, phase, row):
        """Say that a phase ends here, and blank what are no numbers in its last row.

        Raises InputError where no epoch has given weights to keep.
        """
        found = (
            f"{self.run}: {phase.name} epoch {row['epoch']}: found a loss of {row['loss']} and "
            f"a val_loss of {row['val_loss']}, expected numbers; lower the learning rate "
            f"(now {phase.learning_rate:g})"
        )
        if self.best is None:
            raise InputError(found)
        logger.info(f"{found}. The phase ends here, the best weights so far are kept")
        # Neither the answers of a network that computes no numbers are any.
        row |= dict.fromkeys(("loss", "accuracy", "val_loss", "val_accuracy"))

    def _compile(self, phase):
        optimizer = build_optimizer(
            self.settings["optimizer"], phase.learning_rate, self.weight_decay
        )
        size = min(phase.batch_size, len(phase.train.labels))
        self.take_steps = step_function(phase.model, optimizer, size, phase.train.inputs)
        self.steps_per_call = 1

    def _steps(self, phase, position, best_weights, weight_of, stop_signal):
        """Take the steps that the epoch under way still needs."""
        order = epoch_order(
            len(phase.train.labels), phase.batch_size, self.seed, phase.name, position.epoch
        )
        before, started = position.seconds, time.perf_counter()
        due = started + SAVE_EVERY
        while len(position.steps) < len(order):
            called = time.perf_counter()
            rows = order[len(position.steps) :][: self.steps_per_call]
            labels = phase.train.labels[rows]
            inputs = io.take(phase.train.inputs, rows)
            position.steps += self.take_steps(inputs, labels, weight_of[labels]).tolist()
            now = time.perf_counter()
            full = len(rows) == self.steps_per_call
            if full and now - called < CALL_SECONDS and inputs.nbytes < CALL_BYTES:
                self.steps_per_call *= 2
            position.seconds = before + now - started
            if stop_signal() or now > due:
                self._save(phase, position, best_weights)
                self._stop_if(stop_signal(), position)
                due = time.perf_counter() + SAVE_EVERY

    def _improves(self, row):
        value = row[self.settings["monitor"]]
        better = -value if self.settings["monitor"] == "val_loss" else value
        if self.best is None or better > self.best:
            self.best = better
            return True
        return False

    def _report(self, phase, row):
        if row["loss"] is not None:
            self.say(
                f"{self.run:24} {phase.name:18} epoch {row['epoch']:2}/{phase.epochs:<2}  "
                f"loss {row['loss']:7.4f}  val_loss {row['val_loss']:7.4f}  "
                f"val_accuracy {100 * row['val_accuracy']:5.1f} %  {row['seconds']:6.1f} s"
            )
        if self.checkpoint:
            names = ("phase", "epoch", "val_loss", "val_accuracy", "seconds")
            self.checkpoint.report(
                {name: row[name] for name in names}
                | {
                    "epochs": phase.epochs,
                    "phases": list(self.phases),
                    "images_per_second": len(phase.train.labels) / row["seconds"],
                }
            )

    def cost(self):
        """Return {phase: {"epochs", "seconds"}} of what was trained."""
        table = pd.DataFrame(self.history)
        return {
            name: {"epochs": len(rows), "seconds": float(rows["seconds"].sum())}
            for name, rows in table.groupby("phase", sort=False)
        }


def _variables(model):
    """Return {name: variable} of a compiled model: weights, dropout's seeds, optimizer."""
    return {
        f"{kind}_{place:05}": variable
        for kind, owner in (("model", model), ("optimizer", model.optimizer))
        for place, variable in enumerate(owner.variables)
    }


def _saved_bytes(model, best_weights):
    """Return the size of what `_save` writes of a compiled model and its best weights."""
    weights = sum(array.nbytes for array in best_weights)
    return weights + sum(
        int(np.prod(variable.shape)) * np.dtype(variable.dtype).itemsize
        for variable in _variables(model).values()
    )
