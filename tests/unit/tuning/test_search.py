"""A search runs exactly the trials that Hyperband asks for, however often it is killed."""

import itertools
import logging
import os
import signal
from types import SimpleNamespace

import keras
import keras_tuner
import numpy as np
import pandas as pd
import pytest

from hemagrid import io
from hemagrid.config.hyperband import bracket_sizes, distinct_heads, expected_trials
from hemagrid.errors import InputError, Stopped
from hemagrid.revisions import REVISIONS
from hemagrid.training.checkpoints import Checkpoint, release
from hemagrid.training.trainer import Diverged, Trainer
from hemagrid.tuning import search
from hemagrid.tuning.search import COLUMNS, proposals, search_head
from hemagrid.tuning.trials import read_trials

CLASSES, FEATURES = 3, 8
SPACE = {
    "layers": {"min": 0, "max": 2},
    "neurons": {"min": 4, "max": 12, "step": 4},
    "dropout": {"min": 0.1, "max": 0.5, "step": 0.1},
    "learning_rate": [1e-2, 1e-3],
    "batch_norm": True,
}
SETTINGS = {
    "space": SPACE,
    # Six trials: rounds of 3 and 1, then one of 2.
    "hyperband": {"max_epochs": 3, "factor": 3, "iterations": 1},
    "batch_size": 30,
    "training": {"optimizer": "adam", "class_weights": True, "precision": "float32"},
    "seed": 42,
}
PROMOTED = 3


class Killed(BaseException):
    """Stands for a process that dies: nothing may catch it."""


# Which trials
SPENT = ("seconds", "cpu_seconds", "peak_memory_mib")


def drawn(settings=SETTINGS, max_epochs=9, factor=3, iterations=1, **space):
    """Run a search with made-up scores, some of them equal; return its proposals."""
    scores = np.random.default_rng(7).random(1000).round(1)
    hyperband = {"max_epochs": max_epochs, "factor": factor, "iterations": iterations}
    settings = settings | {"space": SPACE | space, "hyperband": hyperband}
    return [dict(values) for values in proposals(settings, scores.__getitem__)]


@pytest.mark.parametrize(
    "max_epochs, factor, iterations",
    [(1, 2, 1), (2, 3, 2), (4, 2, 2), (10, 3, 1), (25, 5, 1), (26, 3, 1)],
)
def test_keras_tuner_runs_the_expected_trials(max_epochs, factor, iterations):
    found = drawn(
        max_epochs=max_epochs,
        factor=factor,
        iterations=iterations,
        neurons={"min": 1, "max": 500, "step": 1},
    )
    assert len(found) == expected_trials(max_epochs, factor, iterations)
    places = [(values["tuner/bracket"], values["tuner/round"]) for values in found]
    assert places == iterations * [
        (bracket, place)
        for bracket, sizes in bracket_sizes(max_epochs, factor).items()
        for place, size in enumerate(sizes)
        for _ in range(size)
    ]
    assert max(values["tuner/epochs"] for values in found) == max_epochs


def test_a_search_draws_the_expected_number_of_different_heads():
    first = [values for values in drawn() if values["tuner/initial_epoch"] == 0]
    heads = [{k: v for k, v in values.items() if "/" not in k} for values in first]
    assert len({str(sorted(head.items())) for head in heads}) == distinct_heads(9, 3, 1)


def test_the_seed_decides():
    first, again, other = (drawn(SETTINGS | {"seed": seed}, max_epochs=3) for seed in (0, 0, 1))
    assert first == again != other


def test_rates_are_decimals_and_reach_both_ends():
    # In binary, 3 x 0.1 is more than 0.3, and (0.3 - 0) // 0.1 is 2.
    found = drawn(dropout={"min": 0, "max": 0.3, "step": 0.1})
    assert {values["dropout_0"] for values in found} == {0.0, 0.1, 0.2, 0.3}
    assert {values["dropout_0"] for values in drawn()} == {0.1, 0.2, 0.3, 0.4, 0.5}


def test_a_head_has_only_the_hyperparameters_of_its_layers():
    found = drawn(layers={"min": 0, "max": 3}, weight_decay=[0, 1e-2])
    assert {values["layers"] for values in found} == {0, 1, 2, 3}
    assert {values["weight_decay"] for values in found} == {0, 1e-2}
    for values in found:
        names = {"learning_rate", "weight_decay", "layers", "dropout_0"}
        names |= {f"neurons_{layer}" for layer in range(values["layers"])}
        names |= {f"dropout_{layer}" for layer in range(values["layers"])}
        assert {name for name in values if "/" not in name} == names


# From files to files


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Embeddings of three overlapping clusters, 60 to train on and 30 to validate on."""
    folder = tmp_path_factory.mktemp("embeddings")
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(CLASSES, FEATURES))
    paths = {}
    for subset, count in {"train": 60, "val": 30}.items():
        labels = np.arange(count) % CLASSES
        embeddings = 2 * centres[labels] + rng.normal(size=(count, FEATURES))
        paths[f"embeddings_{subset}"] = folder / f"{subset}.npy"
        paths[f"table_{subset}"] = folder / f"{subset}.csv"
        np.save(paths[f"embeddings_{subset}"], embeddings.astype("float32"))
        table = pd.DataFrame({"id": np.arange(count), "label": labels})
        table["class_name"] = np.array(["NA", "007", "true"])[labels]
        io.write_table(paths[f"table_{subset}"], table)
    return paths


def paths(folder):
    return {"head": folder / "x" / "a_tuned.json", "trials": folder / "x" / "a_trials.csv"}


@pytest.fixture
def out(tmp_path):
    return paths(tmp_path)


def run_search(settings, inputs, out):
    search_head("a_tuned", settings, inputs, out, out["head"].parents[1] / "checkpoints")


def results(out):
    """Return head and trials without what a clock or the key of the search says."""
    head, table = io.read_json(out["head"]), io.read_table(out["trials"])
    head = {name: head[name] for name in head.keys() - {*SPENT, "key", "environment"}}
    return head, table.drop(columns="seconds").to_dict("records")


@pytest.fixture
def untrained(monkeypatch):
    """Replace training by random scores; the list holds (trainer, phase) of each trial."""
    rng, fits = np.random.default_rng(5), []

    def fit(trainer, phase):
        fits.append((trainer, phase))
        score = round(rng.random(), 1)
        trainer.history = [{"val_accuracy": score, "val_loss": 1 - score, "best": True}]

    monkeypatch.setattr(Trainer, "fit", fit)
    return fits


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    """One whole search: its files, lines and trainings, as (trainer, phase, start, end)."""
    import tensorflow

    tensorflow.config.run_functions_eagerly(True)
    found = SimpleNamespace(out=paths(tmp_path_factory.mktemp("search")), fits=[], lines=[])
    fit = Trainer.fit

    def watched(trainer, phase):
        start = phase.model.get_weights()
        fit(trainer, phase)
        found.fits.append((trainer, phase, start, phase.model.get_weights()))

    handler = logging.Handler()
    handler.emit = lambda record: found.lines.append((record.levelname, record.getMessage()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "fit", watched)
        patch.setattr(search.logger, "level", logging.DEBUG)
        search.logger.addHandler(handler)
        run_search(SETTINGS, inputs, found.out)
        search.logger.removeHandler(handler)
    tensorflow.config.run_functions_eagerly(False)
    return found


def test_a_search_from_files_to_files(undisturbed):
    out = undisturbed.out
    assert set(out["head"].parent.iterdir()) == set(out.values())
    kept = out["head"].parents[1] / "checkpoints"
    release([out["head"]], kept)
    assert not any(kept.iterdir())
    table = io.read_table(out["trials"])
    assert list(table.columns) == COLUMNS
    assert list(table["trial"]) == list(range(1, 7))
    assert list(table["bracket"]) == [1, 1, 1, 1, 0, 0]
    assert list(table["round"]) == [0, 0, 0, 1, 0, 0]
    assert list(table["initial_epoch"]) == [0, 0, 0, 1, 0, 0]
    assert list(table["epochs"]) == [1, 1, 1, 3, 3, 3]
    first = table["val_accuracy"][:3]
    assert list(table["parent"]) == ["", "", "", str(first.idxmax() + 1), "", ""]
    assert set(table["weight_decay"]) == {""}
    assert table["learning_rate"].isin(SPACE["learning_rate"]).all()
    assert (table["seconds"] > 0).all() and (table["val_loss"] > 0).all()

    found = io.read_json(out["head"])
    best = table.loc[found["trial"] - 1]
    assert found["val_accuracy"] == best["val_accuracy"] == table["val_accuracy"].max()
    assert found["val_accuracy"] > 1 / CLASSES
    assert found["head"] == {
        "dense": [int(n) for n in best["dense"].split(", ") if n],
        "batch_norm": True,
        "dropout": [float(rate) for rate in best["dropout"].split(", ")],
        "learning_rate": best["learning_rate"],
        "weight_decay": None,
    }
    assert (found["run"], found["trials"], found["epochs"]) == ("a_tuned", 6, 3 + 2 + 2 * 3)
    # With the start of the process, which no trial counts.
    assert found["seconds"] > table["seconds"].sum() > 0
    assert found["cpu_seconds"] > 0 and found["peak_memory_mib"] > 0
    assert found["environment"]["revision"] == REVISIONS["search"]
    assert found["environment"]["packages"]["keras_tuner"] == keras_tuner.__version__
    assert found["environment"]["precision"] == "float32"


def test_a_search_says_how_far_it_is(undisturbed):
    told = [line for level, line in undisturbed.lines if level == "INFO"]
    assert len(told) == 6
    assert "trial     4/6  bracket 1 round 1  Dense" in told[PROMOTED]
    best = io.read_json(undisturbed.out["head"])["val_accuracy"]
    assert f"best {100 * best:5.1f} %" in told[-1]
    assert all(line.endswith("min left") for line in told)
    epochs = [line for level, line in undisturbed.lines if level == "DEBUG"]
    assert sum("epoch  1/" in line for line in epochs) == 6


def test_a_promoted_trial_starts_from_the_best_weights_of_its_parent(undisturbed):
    table, fits = io.read_table(undisturbed.out["trials"]), undisturbed.fits
    parent = int(table.loc[PROMOTED, "parent"]) - 1
    for one, two in zip(fits[PROMOTED][2], fits[parent][3], strict=True):
        np.testing.assert_array_equal(one, two)
    # It sees the images in another order than its parent, with an optimizer of its own.
    assert [phase.name for _, phase, *_ in fits] == [f"round_{n}" for n in table["round"]]
    steps = [int(phase.model.optimizer.iterations) for _, phase, *_ in fits]
    assert steps == [2, 2, 2, 2 * 2, 3 * 2, 3 * 2]
    # The score is that of the best epoch, whose weights are restored.
    for (trainer, phase, *_), (_, row) in zip(fits, table.iterrows(), strict=True):
        history = pd.DataFrame(trainer.history)
        best = history.loc[history["val_accuracy"].idxmax()]
        assert row["val_accuracy"] == best["val_accuracy"]
        assert row["val_loss"] == best["val_loss"]
        assert phase.patience == phase.epochs == len(history)


def test_trials_train_with_the_weight_decay_and_precision_of_the_settings(
    inputs, out, untrained
):
    settings = SETTINGS | {"space": SPACE | {"weight_decay": [1e-4, 1e-2]}}
    settings["training"] = settings["training"] | {"precision": "mixed_bfloat16"}
    try:
        run_search(settings, inputs, out)
    finally:
        keras.config.set_dtype_policy("float32")
    table = io.read_table(out["trials"])
    assert [trainer.weight_decay for trainer, _ in untrained] == list(table["weight_decay"])
    found = io.read_json(out["head"])
    assert found["head"]["weight_decay"] == table.loc[found["trial"] - 1, "weight_decay"]
    for _, phase in untrained:
        policies = {layer.dtype_policy.name for layer in phase.model.layers[1:]}
        assert policies == {"mixed_bfloat16", "float32"}


# Killed, stopped, failed


def test_however_it_ends_it_continues_to_the_same_results(
    inputs, out, eager, undisturbed, monkeypatch, caplog
):
    """It dies in trial 2 and while saving 3, fails in 4, is told to stop in 5 and after it."""
    fit, save, fits = Trainer.fit, Checkpoint.save, []
    ending = None

    def interrupted(trainer, phase):
        number = len(fits)
        fits.append(phase)
        if (ending, number) == ("kill", 1):
            raise Killed
        if ending == "fail" and "4/6" in trainer.run:
            raise TypeError("a bug")
        fit(trainer, phase)
        if ending == "stop" and "5/6" in trainer.run:
            os.kill(os.getpid(), signal.SIGTERM)

    def interrupted_save(checkpoint, facts, arrays):
        if ending == "save" and len(facts["trials"]) == 3:
            raise Killed
        save(checkpoint, facts, arrays)

    class Stopper(logging.Handler):
        def emit(self, record):
            if ending == "signal" and "5/6" in record.getMessage():
                os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "fit", interrupted)
    monkeypatch.setattr(Checkpoint, "save", interrupted_save)
    caplog.set_level(logging.DEBUG, "hemagrid")
    stopper = Stopper()
    search.logger.addHandler(stopper)
    seen = []
    for planned, error, message in (
        ("kill", Killed, None),
        ("save", Killed, None),
        ("fail", TypeError, "a bug"),
        ("signal", Stopped, "SIGTERM in epoch 2 of round_0"),
        ("stop", Stopped, "SIGTERM after trial 5/6"),
    ):
        ending = planned
        with pytest.raises(error, match=message):
            run_search(SETTINGS, inputs, out)
        assert not out["head"].exists() and not out["trials"].exists()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        seen.append(len(fits))
    ending = None
    run_search(SETTINGS, inputs, out)
    search.logger.removeHandler(stopper)
    # Only the trial under way is repeated: 2, 3, 4 and 5, once each.
    assert len(fits) == 6 + 4 and seen == [2, 4, 6, 8, 9]
    assert "continues after trial 5/6" in caplog.text
    assert results(out) == results(undisturbed.out)


def test_a_loss_that_is_not_a_number_ends_the_search(inputs, out, eager, tmp_path):
    embeddings = np.load(inputs["embeddings_train"])
    embeddings[:, 0] = np.nan
    np.save(tmp_path / "train.npy", embeddings)
    with pytest.raises(InputError, match="a_tuned 1/6: round_0 epoch 1: found a loss of nan"):
        run_search(SETTINGS, inputs | {"embeddings_train": tmp_path / "train.npy"}, out)
    assert not out["head"].parent.exists()


@pytest.mark.parametrize("share", ["some", "all"])
def test_a_trial_that_diverges_counts_as_the_worst(share, inputs, out, untrained, monkeypatch):
    fit = Trainer.fit

    def diverge(trainer, phase):
        fit(trainer, phase)
        if share == "all" or len(untrained) in (1, 5):
            raise Diverged("found a loss of nan")

    monkeypatch.setattr(Trainer, "fit", diverge)
    if share == "all":
        with pytest.raises(InputError, match="every trial diverged; lower"):
            run_search(SETTINGS, inputs, out)
        assert not out["head"].exists()
        return
    run_search(SETTINGS, inputs, out)
    table = read_trials(out["trials"])
    assert list(table["trial"][table["val_loss"].isna()]) == [1, 5]
    assert (table["val_accuracy"][table["val_loss"].isna()] == 0).all()
    assert io.read_json(out["head"])["trial"] not in (1, 5)


def test_a_space_of_too_few_heads_is_refused_before_the_first_trial(inputs, out, untrained):
    few = SPACE | {"layers": {"min": 0, "max": 0}, "dropout": dict(min=0.3, max=0.3, step=0.1)}
    few["learning_rate"] = [1e-2, 1e-3, 1e-4]
    # Three heads, one of which is promoted; none is left for the second bracket.
    with pytest.raises(InputError, match="found 4 different trials, expected 6 .*widen tuning"):
        run_search(SETTINGS | {"space": few}, inputs, out)
    assert not untrained and not out["head"].parent.exists()


def test_a_search_that_runs_short_is_refused(inputs, out, untrained, monkeypatch):
    complete, lengths = search.proposals, iter([6, 5])

    def shrinking(settings, score_of):
        return itertools.islice(complete(settings, score_of), next(lengths))

    monkeypatch.setattr(search, "proposals", shrinking)
    with pytest.raises(InputError, match="found 5 different trials, expected 6"):
        run_search(SETTINGS, inputs, out)
    assert not out["head"].parent.exists()


# What is kept


def test_only_weights_that_may_be_promoted_are_kept(inputs, out, untrained, monkeypatch):
    kept, save = [], Checkpoint.save

    def note(self, facts, arrays):
        arrays = dict(arrays)
        trials = {int(name.split("_")[1]) for name in arrays}
        kept.append((trials, {row["trial"]: row["val_accuracy"] for row in facts["trials"]}))
        save(self, facts, arrays.items())

    monkeypatch.setattr(Checkpoint, "save", note)
    hyperband = {"max_epochs": 4, "factor": 2, "iterations": 1}
    run_search(SETTINGS | {"hyperband": hyperband}, inputs, out)
    table = io.read_table(out["trials"])
    sizes = bracket_sizes(4, 2)
    assert len(kept) == len(table) == expected_trials(**hyperband)
    for (trials, scores), (_, row) in zip(kept, table.iterrows(), strict=True):
        later = table[(table["trial"] > row["trial"]) & (table["parent"] != "")]
        later = later[later["bracket"] == row["bracket"]]
        needed = {int(parent) - 1 for parent in later["parent"]}
        assert needed & set(scores) <= trials
        rounds = table.loc[list(trials), "round"].value_counts()
        for place, count in rounds.items():
            assert count <= sizes[row["bracket"]][place + 1]
    assert kept[-1][0] == set()


def interrupt(inputs, out, untrained, monkeypatch):
    """Kill a search after its second trial; return its progress record."""
    save = Checkpoint.save

    def killed(self, facts, arrays):
        if len(facts["trials"]) == 3:
            raise Killed
        save(self, facts, arrays)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "save", killed)
        with pytest.raises(Killed):
            run_search(SETTINGS, inputs, out)
    folder = out["head"].parents[1] / "checkpoints" / "search_a_tuned"
    return io.read_json(folder / "progress.json")


@pytest.mark.parametrize("changed", ["settings", "revision", "embeddings"])
def test_what_the_result_rests_on_starts_a_new_search(
    changed, inputs, out, untrained, monkeypatch, caplog, tmp_path
):
    caplog.set_level(logging.INFO, "hemagrid")
    told = interrupt(inputs, out, untrained, monkeypatch)
    assert (told["phase"], told["trial"], told["trials"]) == ("search", 2, 6)
    assert 0 <= told["best"] <= 1
    settings = SETTINGS | {"seed": 43} if changed == "settings" else SETTINGS
    if changed == "revision":
        monkeypatch.setitem(REVISIONS, "search", REVISIONS["search"] + 1)
    if changed == "embeddings":
        np.save(tmp_path / "val.npy", np.load(inputs["embeddings_val"]) + 1)
        inputs = inputs | {"embeddings_val": tmp_path / "val.npy"}
    run_search(settings, inputs, out)
    assert "it is not used" in caplog.text and "continues" not in caplog.text
    assert len(untrained) == 3 + 6
    # Complete, it is left alone.
    written = {path: path.stat().st_mtime_ns for path in out.values()}
    run_search(settings, inputs, out)
    assert {path: path.stat().st_mtime_ns for path in out.values()} == written
    assert len(untrained) == 3 + 6


def test_a_checkpoint_of_other_trials_is_refused(inputs, out, untrained, monkeypatch):
    interrupt(inputs, out, untrained, monkeypatch)
    load = Checkpoint.load

    def other(self):
        facts, arrays = load(self)
        facts["trials"][0]["values"]["learning_rate"] = 0.5
        return facts, arrays

    monkeypatch.setattr(Checkpoint, "load", other)
    with pytest.raises(InputError, match="as trial 0, expected .* delete this file"):
        run_search(SETTINGS, inputs, out)
