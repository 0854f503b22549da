"""The search for a head: Hyperband (Li et al. 2018, JMLR 18(185)) on cached embeddings.

Keras Tuner's oracle says which trial comes next. The loop around it is ours: an error in a
trial ends the search instead of passing for a bad score, and after each trial a checkpoint
holds what was found, so that a search that was killed goes on with the same trials in the
same order.
"""

import functools
import logging
import tempfile
import time
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pandas as pd

from hemagrid import io
from hemagrid.config.hyperband import bracket_sizes, expected_trials, rates
from hemagrid.errors import InputError, Stopped
from hemagrid.io import class_names
from hemagrid.models.heads import build_head
from hemagrid.names import TRAIN, VAL
from hemagrid.training import backend, checkpoints, jobs, run
from hemagrid.training.trainer import Examples, Phase, Trainer
from hemagrid.tuning.trials import best_trial

logger = logging.getLogger(__name__)


COLUMNS = [
    "trial",
    "bracket",
    "round",
    "parent",
    "initial_epoch",
    "epochs",
    "layers",
    "dense",
    "dropout",
    "learning_rate",
    "weight_decay",
    "val_accuracy",
    "val_loss",
    "seconds",
]


def search_key(settings, inputs):
    """Return the hash of all that determines a search: that of its trainings and more."""
    code = {
        "search.py": Path(__file__).read_text(encoding="utf-8"),
        "keras_tuner": keras_tuner.__version__,
    }
    return checkpoints.key_of(run.run_key(settings, inputs), {}, code)


def search_head(run, settings, inputs, out, folder=checkpoints.FOLDER):
    """Search the head of the tuned run `run`, once, wherever it was interrupted.

    `settings` is what `config.search_settings` gives; with `weight_decay` in its space all
    trials train with AdamW. `inputs` holds the paths `embeddings_{train,val}` (float32
    (N, F)) and `table_{train,val}`. `out` holds `trials`, a CSV of one row per trial, and
    `head`, a JSON with the best one: of the highest accuracy on the validation set, of
    those the lowest loss, of those the first. It is written last and notes the key that it
    rests on. Checkpoints lie in `folder` until then; a second process for the same search
    waits, and has nothing to do once the first has finished. Raises InputError when files
    do not fit each other or the space is too small, Stopped on SIGTERM.
    """
    key = search_key(settings, inputs)
    compute = functools.partial(_find_head, run, settings, inputs, out)
    checkpoints.compute_once(f"search_{run}", key, out, "head", compute, folder)


def _find_head(run, settings, inputs, out, checkpoint):
    backend.begin(settings["seed"], settings["training"]["precision"])
    rows = _Search(run, settings, inputs, checkpoint).trials()
    checkpoint.still_ours()
    _write(run, checkpoint.key, rows, settings["space"]["batch_norm"], out)


def _write(run, key, rows, batch_norm, out):
    Path(out["head"]).unlink(missing_ok=True)
    table = pd.DataFrame(rows)[COLUMNS].astype({"parent": "Int64"})
    table[["trial", "parent"]] += 1  # for people the first is 1, as on the screen
    for column in ("dense", "dropout"):
        table[column] = table[column].map(_listed)
    io.write_table(out["trials"], table)
    best = rows[best_trial(table).name]
    io.write_json(
        out["head"],
        {
            "run": run,
            "head": _head(best, batch_norm),
            "trial": best["trial"] + 1,
            "val_accuracy": best["val_accuracy"],
            "trials": len(rows),
            "epochs": sum(row["epochs"] - row["initial_epoch"] for row in rows),
            "seconds": sum(row["seconds"] for row in rows),
            "key": key,
        },
    )


def _head(row, batch_norm):
    return {
        "dense": row["dense"],
        "batch_norm": batch_norm,
        "dropout": row["dropout"],
        "learning_rate": row["learning_rate"],
        "weight_decay": row["weight_decay"],
    }


def _listed(values):
    return ", ".join(map(str, values))


# What Keras Tuner is asked


def hyperparameters(space):
    """Return Keras Tuner's hyperparameters for a space of the configuration.

    Those of a layer that a head does not have are inactive: two heads that differ in
    nothing else are one.
    """
    found = keras_tuner.HyperParameters()
    most = space["layers"]["max"]
    found.Int("layers", space["layers"]["min"], most)
    # Behind the first Dense layer, or on the embedding where there is none.
    found.Choice("dropout_0", rates(**space["dropout"]))
    for layer in range(most):
        with found.conditional_scope("layers", list(range(layer + 1, most + 1))):
            neurons = space["neurons"]
            found.Int(f"neurons_{layer}", neurons["min"], neurons["max"], neurons["step"])
            if layer:
                found.Choice(f"dropout_{layer}", rates(**space["dropout"]))
    for name in ("learning_rate", "weight_decay"):
        if name in space:
            found.Choice(name, [float(value) for value in space[name]])
    return found


def proposals(settings, score_of):
    """Yield the hyperparameters of one trial after another, as Keras Tuner names them.

    `score_of(number)`, called when the next trial is asked for, returns the accuracy that
    trial `number`, counted from 0, has reached by then.
    """
    hyperband = settings["hyperband"]
    oracle = keras_tuner.oracles.HyperbandOracle(
        keras_tuner.Objective("val_accuracy", "max"),
        max_epochs=hyperband["max_epochs"],
        factor=hyperband["factor"],
        hyperband_iterations=hyperband["iterations"],
        seed=settings["seed"] + 1,  # it takes 0 for none
        hyperparameters=hyperparameters(settings["space"]),
    )
    oracle.verbose = 0
    # It insists on writing files, which nobody reads.
    with tempfile.TemporaryDirectory() as scratch:
        oracle._set_project_dir(scratch, "oracle")
        while (trial := oracle.create_trial("search")).status == "RUNNING":
            yield trial.hyperparameters.values
            accuracy = score_of(int(trial.trial_id))
            oracle.update_trial(trial.trial_id, {"val_accuracy": accuracy})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)


class _Search:
    """The trials so far, and the weights from which later ones may start."""

    def __init__(self, run, settings, inputs, checkpoint):
        self.run, self.settings, self.checkpoint = run, settings, checkpoint
        tables = {name: io.read_table(inputs[f"table_{name}"]) for name in (TRAIN, VAL)}
        self.train, self.val = (
            Examples(
                np.load(inputs[f"embeddings_{name}"], mmap_mode="r"), table["label"].to_numpy()
            )
            for name, table in tables.items()
        )
        self.classes = len(class_names(tables[TRAIN]))
        hyperband = settings["hyperband"]
        self.sizes = bracket_sizes(hyperband["max_epochs"], hyperband["factor"])
        self.expected = expected_trials(**hyperband)
        self.rows, self.weights = [], {}

    def trials(self):
        """Run the trials that the checkpoint does not hold; return a row for each of all."""
        # Which heads are drawn does not depend on scores: a space that is too small shows
        # before the first epoch.
        self._check_count(sum(1 for _ in proposals(self.settings, lambda number: 0.0)))
        self._take_up()
        scored = proposals(self.settings, lambda number: self.rows[number]["val_accuracy"])
        with jobs.stop_signals() as stop_signal:
            for number, values in enumerate(scored):
                if number < len(self.rows):
                    self._check_replayed(number, values)
                    continue
                self._keep(*self._run_trial(number, values))
                self._save()
                self._report()
                if stop_signal():
                    raise Stopped(
                        f"{self.run}: by {stop_signal()} after trial {self._count(number)}; "
                        "the same command goes on from there"
                    )
        self._check_count(len(self.rows))
        return self.rows

    def _count(self, number):
        """Return which trial of how many one is: the first is 1/23."""
        return f"{number + 1}/{self.expected}"

    def _check_count(self, found):
        if found != self.expected:
            hyperband = self.settings["hyperband"]
            raise InputError(
                f"{self.run}: found {found} different trials, expected {self.expected} of "
                + ", ".join(f"{name} {value}" for name, value in hyperband.items())
                + ": the space holds too few heads; widen tuning.space or lower "
                "tuning.hyperband.max_epochs"
            )

    def _take_up(self):
        saved = self.checkpoint.load()
        if saved is None:
            return
        facts, arrays = saved
        self.rows = facts["trials"]
        for name in sorted(arrays):
            self.weights.setdefault(int(name.split("_")[1]), []).append(arrays[name])
        logger.info(
            f"search {self.run:24} goes on after trial {self._count(len(self.rows) - 1)}"
        )

    def _check_replayed(self, number, values):
        if values != self.rows[number]["values"]:
            raise InputError(
                f"{self.checkpoint.path}: found {self.rows[number]['values']} as trial "
                f"{number}, expected {values}; delete this file and search anew"
            )

    def _run_trial(self, number, values):
        """Train one head; return its row and its best weights."""
        started = time.perf_counter()
        row = _described(number, values)
        # From (seed, trial) alone, whatever this process has done before.
        seed = np.random.SeedSequence([self.settings["seed"], number]).generate_state(1)[0]
        keras.utils.set_random_seed(int(seed))
        head = _head(row, self.settings["space"]["batch_norm"])
        model = build_head(head, self.train.inputs.shape[1], self.classes)
        if row["parent"] is not None:
            model.set_weights(self.weights[row["parent"]])
        trainer = Trainer(
            f"{self.run} {self._count(number)}",
            self.settings["training"] | {"monitor": "val_accuracy"},
            self.classes,
            self.settings["seed"],
            weight_decay=head["weight_decay"],
            say=logger.debug,
        )
        epochs = row["epochs"] - row["initial_epoch"]
        trainer.fit(
            Phase(
                f"round_{row['round']}",
                model,
                self.train,
                self.val,
                self.settings["batch_size"],
                epochs,
                epochs,
                head["learning_rate"],
            )
        )
        best = next(epoch for epoch in trainer.history if epoch["best"])
        row |= {name: best[name] for name in ("val_accuracy", "val_loss")}
        row["seconds"] = time.perf_counter() - started
        return row, model.get_weights()

    def _keep(self, row, weights):
        """Note a trial; of the weights keep those that may yet be promoted."""
        self.rows.append(row)
        self.weights.pop(row["parent"], None)
        later = self.sizes[row["bracket"]][row["round"] + 1 :]
        if later:
            self.weights[row["trial"]] = weights
            rivals = [n for n in self.weights if self.rows[n]["round"] == row["round"]]
            rivals.sort(key=lambda n: (-self.rows[n]["val_accuracy"], n))
            for beaten in rivals[later[0] :]:
                del self.weights[beaten]

    def _save(self):
        arrays = (
            (f"trial_{number:05}_{place:05}", array)
            for number, weights in self.weights.items()
            for place, array in enumerate(weights)
        )
        self.checkpoint.save({"trials": self.rows}, arrays)

    def _report(self):
        row, best = self.rows[-1], best_trial(pd.DataFrame(self.rows))
        decay = "" if row["weight_decay"] is None else f"decay {row['weight_decay']:<6g}  "
        logger.info(
            f"search {self.run:24} trial {self._count(row['trial']):>7}  "
            f"bracket {row['bracket']} round {row['round']}  "
            f"Dense {_listed(row['dense']) or 'none':14} "
            f"dropout {_listed(row['dropout']):14} rate {row['learning_rate']:<6g}  {decay}"
            f"val_accuracy {100 * row['val_accuracy']:5.1f} %  "
            f"best {100 * best['val_accuracy']:5.1f} %  {row['seconds']:6.1f} s"
        )
        self.checkpoint.report(
            {
                "phase": "search",
                "trial": len(self.rows),
                "trials": self.expected,
                "best": float(best["val_accuracy"]),
                "seconds": row["seconds"],
            }
        )


def _described(number, values):
    """Return the row of a trial that has not run yet, `values` as Keras Tuner names them."""
    layers, parent = values["layers"], values.get("tuner/trial_id")
    return {
        "trial": number,
        "bracket": values["tuner/bracket"],
        "round": values["tuner/round"],
        "parent": None if parent is None else int(parent),
        "initial_epoch": values["tuner/initial_epoch"],
        "epochs": values["tuner/epochs"],
        "layers": layers,
        "dense": [values[f"neurons_{layer}"] for layer in range(layers)],
        "dropout": [values[f"dropout_{layer}"] for layer in range(max(layers, 1))],
        "learning_rate": values["learning_rate"],
        "weight_decay": values.get("weight_decay"),
        "values": values,
    }
