"""The search for a head: Hyperband (Li et al. 2018, JMLR 18(185)) on cached embeddings.

Keras Tuner's oracle chooses the trials, and the loop around it is ours. An error in a trial
ends the search instead of counting as a bad score, and a checkpoint after each trial lets a
search that was killed continue with the same trials in the same order.
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
from hemagrid.config.hyperband import bracket_sizes, expected_trials, rates, trained_epochs
from hemagrid.errors import InputError, Stopped
from hemagrid.io import class_names
from hemagrid.models.heads import build_head
from hemagrid.names import TRAIN, VAL
from hemagrid.training import backend, checkpoints, jobs
from hemagrid.training.environment import environment
from hemagrid.training.trainer import Diverged, Examples, Phase, Trainer
from hemagrid.tuning.trials import best_trial

logger = logging.getLogger(__name__)

COLUMNS = [
    *("trial", "bracket", "round", "parent", "initial_epoch", "epochs", "layers", "dense"),
    *("dropout", "learning_rate", "weight_decay", "val_accuracy", "val_loss", "seconds"),
]
"""Columns of the table of trials."""


def search_head(run, settings, inputs, out, folder=checkpoints.FOLDER):
    """Find the head of a tuned run, from files to files.

    The best trial has the highest accuracy on the validation set; ties go to the lower loss,
    then to the earlier trial. A second process for the same run waits for the first one.

    Args:
        run: Name of the tuned run.
        settings: What `config.grid.search_settings` returns. If its space has `weight_decay`,
            all trials train with AdamW.
        inputs: Paths `embeddings_train` and `embeddings_val`, float32 (N, F), and `table_train`
            and `table_val`, their CSVs.
        out: Paths `trials`, a CSV with one row per trial (`COLUMNS`), and `head`, a JSON with
            the best one and the `environment` of the search, which is written last.
        folder: Where checkpoints are kept until the search is complete.

    Raises:
        InputError: if the files do not fit each other or hold no numbers, the space holds too
            few heads, or every trial diverges. One that does counts as the worst.
        Stopped: on SIGTERM or SIGINT, after the current trial or within it.
    """
    checkpoints.release(inputs.values(), folder)
    key = checkpoints.key_of("search", settings, inputs, keras_tuner)
    compute = functools.partial(_search, run, settings, inputs, out)
    checkpoints.compute_once(f"search_{run}", key, out, "head", compute, folder)


def hyperparameters(space):
    """Translate a search space of the config into Keras Tuner's hyperparameters.

    Those of a layer that a head does not have are inactive, so that two heads that differ in
    nothing else count as one.

    Args:
        space: The config's `tuning.space`.
    """
    found = keras_tuner.HyperParameters()
    most = space["layers"]["max"]
    found.Int("layers", space["layers"]["min"], most)
    # After the first Dense layer, or on the embedding if there is none.
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
    """Yield the hyperparameters of each trial in turn, {name in Keras Tuner: value}.

    Args:
        settings: As in `search_head`.
        score_of: Function from the number of a trial, from 0, to its validation accuracy. It is
            called when the next trial is asked for.
    """
    hyperband = settings["hyperband"]
    oracle = keras_tuner.oracles.HyperbandOracle(
        keras_tuner.Objective("val_accuracy", "max"),
        max_epochs=hyperband["max_epochs"],
        factor=hyperband["factor"],
        hyperband_iterations=hyperband["iterations"],
        seed=settings["seed"] + 1,  # the oracle takes 0 for no seed
        hyperparameters=hyperparameters(settings["space"]),
    )
    oracle.verbose = 0
    # The oracle insists on writing files, which nobody reads.
    with tempfile.TemporaryDirectory() as scratch:
        oracle._set_project_dir(scratch, "oracle")
        while (trial := oracle.create_trial("search")).status == "RUNNING":
            yield trial.hyperparameters.values
            accuracy = score_of(int(trial.trial_id))
            oracle.update_trial(trial.trial_id, {"val_accuracy": accuracy})
            trial.status = "COMPLETED"
            oracle.end_trial(trial)


def _search(run, settings, inputs, out, checkpoint):
    """Run the trials that the checkpoint does not hold, then write the results."""
    backend.begin(settings["seed"], settings["training"]["precision"])
    made_with = environment("search", keras_tuner)
    tables = {subset: io.read_table(inputs[f"table_{subset}"]) for subset in (TRAIN, VAL)}
    train, val = (
        Examples(
            np.load(inputs[f"embeddings_{subset}"], mmap_mode="r"), table["label"].to_numpy()
        )
        for subset, table in tables.items()
    )
    classes = len(class_names(tables[TRAIN]))
    sizes = bracket_sizes(settings["hyperband"]["max_epochs"], settings["hyperband"]["factor"])
    total = expected_trials(**settings["hyperband"])
    # Scores do not change which heads are drawn, so a space that is too small shows here.
    _check_count(run, settings, sum(1 for _ in proposals(settings, lambda number: 0.0)))

    rows, weights = [], {}  # weights: of the trials that may yet be promoted
    if saved := checkpoint.load():
        rows = saved[0]["trials"]
        for name, array in sorted(saved[1].items()):
            weights.setdefault(int(name.split("_")[1]), []).append(array)
        logger.info(f"search {run:24} continues after trial {len(rows)}/{total}")

    with jobs.stop_signals() as stop_signal:
        scored = proposals(settings, lambda number: rows[number]["val_accuracy"])
        for number, values in enumerate(scored):
            if number < len(rows):
                if values != rows[number]["values"]:
                    raise InputError(
                        f"{checkpoint.path}: found {rows[number]['values']} as trial {number}, "
                        f"expected {values}; delete this file and search again"
                    )
                continue
            row = _describe(number, values)
            start = weights.pop(row["parent"], None)
            model = _run_trial(
                f"{run} {number + 1}/{total}", settings, row, start, train, val, classes
            )
            rows.append(row)
            if later := sizes[row["bracket"]][row["round"] + 1 :]:
                weights[number] = model.get_weights()
                rivals = [n for n in weights if rows[n]["round"] == row["round"]]
                rivals.sort(key=lambda n: (-rows[n]["val_accuracy"], n))
                for beaten in rivals[later[0] :]:
                    del weights[beaten]
            arrays = (
                (f"trial_{n:05}_{place:05}", array)
                for n, kept in weights.items()
                for place, array in enumerate(kept)
            )
            checkpoint.save({"trials": rows}, arrays)
            _report(run, settings, rows, total, checkpoint)
            if stop_signal():
                raise Stopped(
                    f"{run}: by {stop_signal()} after trial {number + 1}/{total}; run the same "
                    "command to continue"
                )
    _check_count(run, settings, len(rows))

    checkpoint.still_ours()
    Path(out["head"]).unlink(missing_ok=True)
    table = pd.DataFrame(rows)[COLUMNS].astype({"parent": "Int64"})
    table[["trial", "parent"]] += 1  # people count from 1
    for column in ("dense", "dropout"):
        table[column] = table[column].map(_listed)
    io.write_table(out["trials"], table)
    best = rows[best_trial(table).name]
    if best["val_loss"] is None:
        raise InputError(f"{run}: every trial diverged; lower tuning.space.learning_rate")
    io.write_json(
        out["head"],
        {
            "run": run,
            "head": _head(best, settings),
            "trial": best["trial"] + 1,
            "val_accuracy": best["val_accuracy"],
            "trials": len(rows),
            "epochs": sum(row["epochs"] - row["initial_epoch"] for row in rows),
            **checkpoint.spent(),
            "key": checkpoint.key,
            "environment": made_with,
        },
    )


def _check_count(run, settings, found):
    expected = expected_trials(**settings["hyperband"])
    if found != expected:
        hyperband = ", ".join(f"{name} {n}" for name, n in settings["hyperband"].items())
        raise InputError(
            f"{run}: found {found} different trials, expected {expected} ({hyperband}). The "
            "space holds too few heads; widen tuning.space or lower tuning.hyperband.max_epochs"
        )


def _describe(number, values):
    """Return the row of a trial that has not run yet from Keras Tuner's `values`."""
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


def _head(row, settings):
    return {
        "dense": row["dense"],
        "batch_norm": settings["space"]["batch_norm"],
        "dropout": row["dropout"],
        "learning_rate": row["learning_rate"],
        "weight_decay": row["weight_decay"],
    }


def _run_trial(name, settings, row, start, train, val, classes):
    """Train one head, from the weights `start` if there are any; complete its row."""
    started = time.perf_counter()
    # From (seed, trial) alone, whatever this process did before.
    seed = np.random.SeedSequence([settings["seed"], row["trial"]]).generate_state(1)[0]
    keras.utils.set_random_seed(int(seed))
    model = build_head(_head(row, settings), train.inputs.shape[1], classes)
    if start is not None:
        model.set_weights(start)
    trainer = Trainer(
        name,
        settings["training"] | {"monitor": "val_accuracy"},
        classes,
        settings["seed"],
        weight_decay=row["weight_decay"],
        say=logger.debug,
    )
    epochs = row["epochs"] - row["initial_epoch"]
    phase = Phase(
        f"round_{row['round']}",
        model,
        train,
        val,
        settings["batch_size"],
        epochs,
        epochs,
        row["learning_rate"],
    )
    best = {"val_accuracy": 0.0, "val_loss": None}
    try:
        trainer.fit(phase)
        best = next(epoch for epoch in trainer.history if epoch["best"])
    except Diverged as reason:
        logger.info(f"{reason}. The trial counts as the worst")
    row |= {score: best[score] for score in ("val_accuracy", "val_loss")}
    row["seconds"] = time.perf_counter() - started
    return model


def _report(run, settings, rows, total, checkpoint):
    """Log the last trial and how long the others will take; write the progress record."""
    row, best = rows[-1], 100 * max(row["val_accuracy"] for row in rows)
    done = sum(row["epochs"] - row["initial_epoch"] for row in rows)
    left = sum(row["seconds"] for row in rows) * (
        trained_epochs(**settings["hyperband"]) / done - 1
    )
    decay = "" if row["weight_decay"] is None else f"decay {row['weight_decay']:<6g}  "
    place = f"{row['trial'] + 1}/{total}"
    logger.info(
        f"search {run:24} trial {place:>7}  bracket {row['bracket']} round {row['round']}  "
        f"Dense {_listed(row['dense']) or 'none':14} dropout {_listed(row['dropout']):14} "
        f"rate {row['learning_rate']:<6g}  {decay}val_accuracy "
        f"{100 * row['val_accuracy']:5.1f} %  best {best:5.1f} %  {row['seconds']:6.1f} s, "
        f"about {left / 60:.0f} min left"
    )
    facts = {"phase": "search", "trial": len(rows), "trials": total, "best": best / 100}
    checkpoint.report(facts | {"seconds": row["seconds"], "left": left})


def _listed(numbers):
    return ", ".join(map(str, numbers))
