"""Training one phase after another: steps, validation, early stopping, checkpoints."""

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

EPSILON = 1e-7  # Keras clips probabilities to it in its own cross-entropy

SAVE_EVERY = 600  # seconds within an epoch after which a checkpoint is due

# After an epoch a checkpoint is written if that takes at most this many seconds, or this share
# of the time since the last one. Short epochs of a large network are saved now and then.
SAVE_SECONDS, SAVE_SHARE = 0.5, 0.1

# The steps in one call double as long as a call takes less than this and reads less than this.
# Short calls are mostly overhead, and long ones delay the answer to a signal.
CALL_SECONDS, CALL_BYTES = 0.1, 32e6

DISK = 200e6  # bytes per second, assumed until the phase's first checkpoint was timed


@dataclass(frozen=True)
class Examples:
    """Inputs (N, ...), usually memory-mapped, with their labels (N,) int."""

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


@dataclass
class Position:
    """Where a phase stands: everything its next step depends on, except the variables."""

    phase: str
    epoch: int = 1  # the current one, counted from 1
    steps: list = field(default_factory=list)  # step_loop.RESULTS of the epoch's steps
    seconds: float = 0.0  # spent on the epoch so far
    waited: int = 0  # epochs since the best one
    best_row: int | None = None  # the history row of this phase's best epoch


def class_weights(labels, classes):
    """Weight each class by n / (classes * n_c), so that all classes count the same.

    Args:
        labels: Integers (N,).
        classes: Number of classes.

    Returns:
        float32 (classes,); 0 for a class that does not occur.
    """
    counts = np.bincount(labels, minlength=classes)
    present = np.maximum(counts, 1)
    return np.where(counts, len(labels) / (classes * present), 0).astype("float32")


def score(probabilities, labels):
    """Return the mean cross-entropy in nats and the accuracy, each class weighing the same.

    Args:
        probabilities: float32 (N, k).
        labels: Integers (N,).
    """
    chosen = probabilities[np.arange(len(labels)), labels].astype("float64")
    loss = -np.log(np.clip(chosen, EPSILON, 1 - EPSILON)).mean()
    accuracy = (probabilities.argmax(axis=1) == labels).mean()
    return float(loss), float(accuracy)


def epoch_order(count, batch_size, seed, phase, epoch):
    """Shuffle the rows of a training set for one epoch, from (seed, phase, epoch) alone.

    Rows that do not fill a batch sit this epoch out, because a batch of another size would be
    traced again. The next epoch leaves out others.

    Args:
        count: Number of rows.
        batch_size: Rows per step; `count` where that is smaller.
        seed: The study's seed.
        phase: Name of the phase.
        epoch: Number of the epoch, from 1.

    Returns:
        Row numbers, int (steps, batch_size).
    """
    size = min(batch_size, count)
    phase_key = int.from_bytes(phase.encode(), "little")
    order = np.random.default_rng([seed, phase_key, epoch]).permutation(count)
    return order[: count - count % size].reshape(-1, size)


def step_function(model, optimizer, batch_size, inputs, xla="auto"):
    """Compile a model and return the function that trains it.

    Args:
        model: A Keras model that ends in class probabilities.
        optimizer: A Keras optimizer.
        batch_size: Rows per step.
        inputs: The array (N, ...) that batches are taken from.
        xla: Keras's `jit_compile`. "auto" turns it on where there is a GPU.

    Returns:
        The function that `step_loop.training_steps` describes.
    """
    # Building first, and metrics as objects instead of names, save one trace each.
    optimizer.build(model.trainable_variables)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=[
            keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy"),
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
        ],
        jit_compile=xla,
    )
    return step_loop.training_steps(model, batch_size, inputs)


class Diverged(InputError):
    """Training diverged before any epoch gave weights to keep."""


class Trainer:
    """Trains phases in order, keeps their history and the best weights so far.

    A row of the history has `phase`, `epoch`, `weighted_loss` (the mean cross-entropy that
    training lowers, with class weights if `settings` ask for them), `loss` and `accuracy` (of
    the same batches, each image weighing the same, as in `val_loss` and `val_accuracy`; with
    dropout, and before each step's update), `learning_rate`, `seconds` and `best` (whether the
    phase's best weights are of this epoch). An epoch that gave no numbers has None instead.

    Early stopping watches `settings["monitor"]` on the validation set. The best weights are
    carried from phase to phase, so a phase that makes things worse leaves no trace.

    With a checkpoint, the state is saved after an epoch if that is cheap, every ten minutes
    within one, and after the current step on SIGTERM or SIGINT, which then raises `Stopped`.
    A new trainer with the same checkpoint continues there and ends in the same weights.

    Args:
        run: Name of the run, for messages.
        settings: The config's `training`: `optimizer`, `monitor` and `class_weights` are read.
        classes: Number of classes.
        seed: The study's seed.
        phases: Names of all phases to come, for the progress record.
        checkpoint: A `checkpoints.Checkpoint`, or None.
        weight_decay: A number makes the optimizer AdamW, whatever `settings` name.
        say: Called with one line per epoch.
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
        self.best = None  # the best value of the monitored metric, higher is better
        self.best_weights = None
        self.saved_at, self.save_seconds = time.perf_counter(), 0.0
        self.saved = checkpoint.load() if checkpoint else None
        if self.saved:
            facts, _ = self.saved
            self.history, self.best = facts["history"], facts["best"]

    def fit(self, phase):
        """Train one phase and leave `phase.model` with the best weights so far.

        Args:
            phase: A `Phase`.

        Raises:
            InputError: if the very first loss is not a number.
            Diverged: if a later one is not, before any epoch gave weights to keep.
            Stopped: on SIGTERM or SIGINT.
        """
        if self.saved and self.saved[0]["position"]["phase"] != phase.name:
            return  # finished before the checkpoint was written
        model, inputs, labels = phase.model, phase.train.inputs, phase.train.labels
        optimizer = build_optimizer(
            self.settings["optimizer"],
            phase.learning_rate,
            self.weight_decay,
            model.trainable_variables,
        )
        size = min(phase.batch_size, len(labels))
        take_steps = step_function(model, optimizer, size, inputs)
        position, self.best_weights = Position(phase.name), model.get_weights()
        if self.saved:
            position = self._resume(model)
        weight_of = np.ones(self.classes, "float32")
        if self.settings["class_weights"]:
            weight_of = class_weights(labels, self.classes)
        stored = [*_variables(model).values(), *self.best_weights]
        self.save_seconds = sum(
            int(np.prod(each.shape)) * np.dtype(each.dtype).itemsize for each in stored
        )
        self.save_seconds /= DISK
        per_call = 1
        with jobs.stop_signals() as stop_signal:
            while position.epoch <= phase.epochs and position.waited < phase.patience:
                order = epoch_order(
                    len(labels), phase.batch_size, self.seed, phase.name, position.epoch
                )
                started = time.perf_counter() - position.seconds
                due = time.perf_counter() + SAVE_EVERY
                while len(position.steps) < len(order):
                    called = time.perf_counter()
                    rows = order[len(position.steps) :][:per_call]
                    batches = io.take(inputs, rows)
                    weights = weight_of[labels[rows]]
                    results = take_steps(batches, labels[rows], weights)
                    position.steps += results.tolist()
                    now = time.perf_counter()
                    position.seconds = now - started
                    if not np.isfinite(results).all():
                        break  # before a checkpoint is written
                    short = now - called < CALL_SECONDS and batches.nbytes < CALL_BYTES
                    if len(rows) == per_call and short:
                        per_call *= 2
                    if stop_signal() or now > due:
                        self._save(model, position, stop_signal())
                        due = time.perf_counter() + SAVE_EVERY
                self._finish_epoch(phase, position, started)
                since = time.perf_counter() - self.saved_at
                if stop_signal() or self.save_seconds <= max(SAVE_SECONDS, SAVE_SHARE * since):
                    self._save(model, position, stop_signal())
        model.set_weights(self.best_weights)
        if position.best_row is not None:
            self.history[position.best_row]["best"] = True

    def _finish_epoch(self, phase, position, started):
        """Validate, add a row to the history, and keep the weights if they are the best.

        If a step, the validation or the weights gave no numbers, the phase ends.
        """
        found, epoch, error = None, position.epoch, Diverged
        advice = f"lower the learning rate (now {phase.learning_rate:g})"
        finite = np.isfinite(position.steps).all(axis=1)
        weighted_loss, loss, accuracy = np.mean(position.steps, axis=0).tolist()
        val_loss = val_accuracy = improved = None
        if not finite.all():
            step = int(finite.argmin())
            found = f"a loss of {position.steps[step][0]} in step {step + 1}"
            if epoch == 1 and step == 0:
                error = InputError
                advice = (
                    "nothing was learned yet, so look for them in the inputs or the weights"
                )
        else:
            val_loss, val_accuracy = score(
                embeddings.predict(phase.model, phase.val.inputs), phase.val.labels
            )
            value = -val_loss if self.settings["monitor"] == "val_loss" else val_accuracy
            improved = self.best is None or value > self.best
            weights = phase.model.get_weights() if improved else []
            if not np.isfinite(val_loss):
                found = f"a val_loss of {val_loss}"
            elif not all(np.isfinite(each).all() for each in weights):
                found = "weights that are infinite or not numbers"
        row = {
            "phase": phase.name,
            "epoch": epoch,
            "weighted_loss": weighted_loss,
            "loss": loss,
            "accuracy": accuracy,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "learning_rate": phase.learning_rate,
            "seconds": time.perf_counter() - started,
            "best": False,
        }
        self.history.append(row)
        position.epoch, position.steps, position.seconds = epoch + 1, [], 0.0
        position.waited += 1
        if found:
            found = (
                f"{self.run}: {phase.name} epoch {epoch}: found {found}, expected finite "
                f"numbers; {advice}"
            )
            if self.best is None:
                raise error(found)
            logger.info(f"{found}. The phase ends here and the best weights so far are kept")
            # Its accuracy means nothing either.
            blank = ("weighted_loss", "loss", "accuracy", "val_loss", "val_accuracy")
            row |= dict.fromkeys(blank)
            position.waited = phase.patience
        else:
            if improved:
                self.best, self.best_weights = value, weights
                position.waited, position.best_row = 0, len(self.history) - 1
            self.say(
                f"{self.run:24} {phase.name:18} epoch {epoch:2}/{phase.epochs:<2}  "
                f"loss {loss:7.4f}  val_loss {val_loss:7.4f}  "
                f"val_accuracy {100 * val_accuracy:5.1f} %  {row['seconds']:6.1f} s"
            )
        if self.checkpoint:
            names = ("phase", "epoch", "val_loss", "val_accuracy", "seconds")
            self.checkpoint.report(
                {name: row[name] for name in names}
                | {
                    "epochs": phase.epochs,
                    "phases": list(self.phases),
                    "trained_images_per_second": len(phase.train.labels) / row["seconds"],
                }
            )

    def _resume(self, model):
        """Put the checkpoint's values into a compiled model; return its position."""
        facts, arrays = self.saved
        self.saved = None
        position = Position(**facts["position"])
        for name, variable in _variables(model).items():
            variable.assign(arrays[name])
        self.best_weights = [arrays[name] for name in sorted(arrays) if name[:4] == "best"]
        logger.info(
            f"{self.run:24} {position.phase:18} continues in epoch {position.epoch}"
            f" after step {len(position.steps)}"
        )
        return position

    def _save(self, model, position, signal):
        """Write a checkpoint, then raise Stopped if a signal has come."""
        if self.checkpoint:
            begun = time.perf_counter()
            arrays = ((name, each.numpy()) for name, each in _variables(model).items())
            best = ((f"best_{place:05}", each) for place, each in enumerate(self.best_weights))
            self.checkpoint.save(
                {"position": asdict(position), "history": self.history, "best": self.best},
                itertools.chain(arrays, best),
            )
            self.saved_at = time.perf_counter()
            self.save_seconds = self.saved_at - begun
        if signal:
            again = "continues from there" if self.checkpoint else "starts it again"
            raise Stopped(
                f"{self.run}: by {signal} in epoch {position.epoch} of {position.phase} after "
                f"step {len(position.steps)}; the same command {again}"
            )

    def cost(self):
        """Return {phase: {"epochs": int, "seconds": float}} of the phases that were trained."""
        table = pd.DataFrame(self.history)
        return {
            name: {"epochs": len(rows), "seconds": float(rows["seconds"].sum())}
            for name, rows in table.groupby("phase", sort=False)
        }


def _variables(model):
    """Return {name: variable} of a compiled model: weights, dropout seeds, optimizer state."""
    return {
        f"{kind}_{place:05}": variable
        for kind, owner in (("model", model), ("optimizer", model.optimizer))
        for place, variable in enumerate(owner.variables)
    }
