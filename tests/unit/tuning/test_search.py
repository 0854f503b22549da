"""A search runs the trials that Hyperband asks for, all of them, wherever it was killed."""

import itertools
import os
import signal
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pandas as pd
import pytest

from hemagrid import io
from hemagrid.config.hyperband import bracket_sizes, distinct_heads, expected_trials, heads_in
from hemagrid.errors import InputError, Stopped
from hemagrid.training.checkpoints import Checkpoint
from hemagrid.training.trainer import Trainer
from hemagrid.tuning import search
from hemagrid.tuning.search import COLUMNS, hyperparameters, proposals, search_head

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
ADAMW = SETTINGS | {"space": SPACE | {"weight_decay": [1e-4, 1e-2]}}
PROMOTED = 3


class Killed(BaseException):
    """As a process that dies: nothing below may catch it."""


# How many trials


def test_bracket_sizes_of_the_paper():
    # Li et al. 2018, table 1: the sizes of its most aggressive bracket need no rounding.
    assert bracket_sizes(81, 3)[4] == [81, 27, 9, 3, 1]
    assert bracket_sizes(9, 3) == {2: [9, 3, 1], 1: [5, 2], 0: [3]}
    assert list(bracket_sizes(9, 3)) == [2, 1, 0]
    assert expected_trials(9, 3, 1) == 23
    assert expected_trials(9, 3, 2) == 46


def run_through(settings):
    """Run a search of made-up scores; return its trials as Keras Tuner names them."""
    rng = np.random.default_rng(7)
    scores = rng.random(1000).round(1)  # some of them equal
    return [dict(values) for values in proposals(settings, scores.__getitem__)]


@pytest.mark.parametrize(
    "max_epochs, factor, iterations",
    [(1, 2, 1), (1, 3, 2), (2, 2, 1), (2, 3, 2), (3, 3, 1), (4, 2, 2), (8, 2, 1), (9, 3, 2)]
    + [(10, 3, 1), (16, 2, 1), (25, 5, 1), (26, 3, 1), (27, 3, 1), (30, 10, 1)],
)
def test_keras_tuner_runs_the_expected_trials(max_epochs, factor, iterations):
    hyperband = {"max_epochs": max_epochs, "factor": factor, "iterations": iterations}
    space = SPACE | {"neurons": {"min": 1, "max": 500, "step": 1}}
    found = run_through(SETTINGS | {"space": space, "hyperband": hyperband})
    assert len(found) == expected_trials(**hyperband)
    places = [(values["tuner/bracket"], values["tuner/round"]) for values in found]
    assert places == iterations * [
        (bracket, place)
        for bracket, sizes in bracket_sizes(max_epochs, factor).items()
        for place, size in enumerate(sizes)
        for _ in range(size)
    ]
    assert max(values["tuner/epochs"] for values in found) == max_epochs


@pytest.mark.parametrize("max_epochs, factor", [(243, 3), (1000, 10), (7777, 6), (10000, 2)])
def test_sizes_are_rounded_as_keras_tuner_rounds(max_epochs, factor):
    oracle = keras_tuner.oracles.HyperbandOracle("val_accuracy", max_epochs, factor)
    assert len(bracket_sizes(max_epochs, factor)) == oracle._get_num_brackets()
    for bracket, sizes in bracket_sizes(max_epochs, factor).items():
        rounds = range(oracle._get_num_rounds(bracket))
        assert sizes == [oracle._get_size(bracket, place) for place in rounds]


# Which trials


@pytest.mark.parametrize("layers", [(0, 0), (0, 2), (1, 2)])
@pytest.mark.parametrize("extra", [{}, {"weight_decay": [1e-4, 1e-2]}])
def test_the_heads_of_a_space_are_counted(layers, extra):
    space = {
        "layers": dict(zip(("min", "max"), layers, strict=True)),
        "neurons": {"min": 8, "max": 20, "step": 8},
        "dropout": {"min": 0, "max": 0.3, "step": 0.1},
        "learning_rate": [1e-2, 1e-3, 1e-2],
        **extra,
    }
    heads = [
        (dense, dropout)
        for n in range(layers[0], layers[1] + 1)
        for dense in itertools.product([8, 16], repeat=n)
        for dropout in itertools.product([0, 0.1, 0.2, 0.3], repeat=max(n, 1))
    ]
    assert heads_in(space) == len(heads) * 2 * (2 if extra else 1)


def test_a_search_draws_as_many_different_heads_as_it_has_first_trials():
    first = [values for values in drawn(1) if values["tuner/initial_epoch"] == 0]
    own = [{k: v for k, v in values.items() if "/" not in k} for values in first]
    assert len({str(sorted(head.items())) for head in own}) == distinct_heads(9, 3, 1)
    assert distinct_heads(9, 3, 2) == 2 * distinct_heads(9, 3, 1)


def drawn(seed, **space):
    settings = SETTINGS | {"seed": seed, "space": SPACE | space}
    return run_through(
        settings | {"hyperband": {"max_epochs": 9, "factor": 3, "iterations": 1}}
    )


@pytest.mark.parametrize("seed", [0, 42])
def test_a_seed_fixes_the_trials(seed):
    assert drawn(seed) == drawn(seed)
    assert drawn(seed) != drawn(seed + 1)


def test_rates_are_decimals_and_reach_both_ends():
    # In binary, 3 x 0.1 is more than 0.3, and (0.3 - 0) // 0.1 is 2.
    rates = {values["dropout_0"] for values in drawn(1, dropout=dict(min=0, max=0.3, step=0.1))}
    assert rates == {0.0, 0.1, 0.2, 0.3}
    rates = {values["dropout_0"] for values in drawn(1)}
    assert rates == {0.1, 0.2, 0.3, 0.4, 0.5}


def test_a_head_has_the_hyperparameters_of_its_layers_alone():
    found = drawn(1, layers={"min": 0, "max": 3})
    assert {values["layers"] for values in found} == {0, 1, 2, 3}
    for values in found:
        names = {"learning_rate", "layers", "dropout_0"}
        names |= {f"neurons_{layer}" for layer in range(values["layers"])}
        names |= {f"dropout_{layer}" for layer in range(values["layers"])}
        assert {name for name in values if "/" not in name} == names


def test_weight_decay_is_searched_where_the_space_has_it():
    assert "weight_decay" not in hyperparameters(SPACE)
    assert {values["weight_decay"] for values in drawn(1, weight_decay=[0, 1e-2])} == {0, 1e-2}


# From files to files


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """Embeddings of three overlapping clusters, 60 to train and 30 to validate."""
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


@pytest.fixture
def out(tmp_path):
    folder = tmp_path / "tuning"
    return {"head": folder / "a_tuned.json", "trials": folder / "a_tuned_trials.csv"}


def run_search(settings, inputs, out):
    search_head("a_tuned", settings, inputs, out, out["head"].parents[1] / "checkpoints")


def results(out):
    """Return head and trials without what a clock or the key of a search says."""
    head, table = io.read_json(out["head"]), io.read_table(out["trials"])
    head = {name: value for name, value in head.items() if name not in ("seconds", "key")}
    return head, table.drop(columns="seconds").to_dict("records")


@pytest.fixture(scope="module")
def undisturbed(inputs, tmp_path_factory):
    """The results of one search, which a test may hold against those of another."""
    import tensorflow

    folder = tmp_path_factory.mktemp("undisturbed")
    out = {"head": folder / "x" / "head.json", "trials": folder / "x" / "trials.csv"}
    tensorflow.config.run_functions_eagerly(True)
    run_search(SETTINGS, inputs, out)
    tensorflow.config.run_functions_eagerly(False)
    return results(out)


@pytest.fixture
def untrained(monkeypatch):
    """Scores instead of training, where it is not what a test looks at."""
    scores = itertools.cycle(np.random.default_rng(5).random(40).round(1).tolist())

    def fit(trainer, phase):
        score = next(scores)
        trainer.history = [{"val_accuracy": score, "val_loss": 1 - score, "best": True}]

    monkeypatch.setattr(Trainer, "fit", fit)


@pytest.fixture
def fits(monkeypatch):
    """A list of the trials trained so far, as (trainer, phase, weights before, and after).

    What is put into `fits.before` or `fits.after` under the number of a training is called
    then.
    """

    class Fits(list):
        before, after = {}, {}

    seen, fit = Fits(), Trainer.fit

    def watched(trainer, phase):
        number, start = len(seen), phase.model.get_weights()
        seen.append((trainer, phase, start, None))
        seen.before.get(number, lambda: None)()
        fit(trainer, phase)
        seen[number] = (trainer, phase, start, phase.model.get_weights())
        seen.after.get(number, lambda: None)()

    monkeypatch.setattr(Trainer, "fit", watched)
    seen.before, seen.after = {}, {}
    return seen


def test_a_search_from_files_to_files(inputs, out, eager, capsys):
    run_search(SETTINGS, inputs, out)
    said = capsys.readouterr().out
    assert {path.name for path in out["head"].parent.iterdir()} == {
        path.name for path in out.values()
    }
    assert not any((out["head"].parents[1] / "checkpoints").iterdir())

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
    for _, row in table.iterrows():
        dense = [int(n) for n in row["dense"].split(", ") if n]
        rates = [float(rate) for rate in row["dropout"].split(", ")]
        assert len(dense) == row["layers"] and len(rates) == max(len(dense), 1)
        assert set(dense) <= {4, 8, 12} and set(rates) <= {0.1, 0.2, 0.3, 0.4, 0.5}

    found = io.read_json(out["head"])
    best = table.loc[found["trial"] - 1]
    assert found["val_accuracy"] == best["val_accuracy"] == table["val_accuracy"].max()
    assert found["val_accuracy"] > 1 / CLASSES
    assert found | {"key": ""} == {
        "run": "a_tuned",
        "head": {
            "dense": [int(n) for n in best["dense"].split(", ") if n],
            "batch_norm": True,
            "dropout": [float(rate) for rate in best["dropout"].split(", ")],
            "learning_rate": best["learning_rate"],
            "weight_decay": None,
        },
        "trial": best["trial"],
        "val_accuracy": best["val_accuracy"],
        "trials": 6,
        "epochs": 3 + 2 + 2 * 3,
        "seconds": pytest.approx(table["seconds"].sum()),
        "key": "",
    }

    lines = [line for line in said.splitlines() if line.startswith("search a_tuned")]
    assert len(lines) == 6
    assert "trial     4/6  bracket 1 round 1  Dense" in lines[3]
    assert f"best {100 * found['val_accuracy']:5.1f} %" in lines[-1]
    assert said.count("epoch  1/") == 6


def test_a_promoted_trial_starts_from_the_best_weights_of_its_parent(inputs, out, eager, fits):
    run_search(SETTINGS, inputs, out)
    table = io.read_table(out["trials"])
    parent = int(table.loc[PROMOTED, "parent"]) - 1
    trained, start = fits[parent][3], fits[PROMOTED][2]
    for one, two in zip(start, trained, strict=True):
        np.testing.assert_array_equal(one, two)
    # Another order of the images than its parent's, and an optimizer of its own.
    assert [phase.name for _, phase, *_ in fits] == [f"round_{n}" for n in table["round"]]
    steps = [int(phase.model.optimizer.iterations) for _, phase, *_ in fits]
    assert steps == [2, 2, 2, 2 * 2, 3 * 2, 3 * 2]
    assert {type(phase.model.optimizer) for _, phase, *_ in fits} == {keras.optimizers.Adam}
    # The score is that of the best epoch, whose weights are restored.
    for (trainer, phase, *_), (_, row) in zip(fits, table.iterrows(), strict=True):
        history = pd.DataFrame(trainer.history)
        best = history.loc[history["val_accuracy"].idxmax()]
        assert (row["val_accuracy"], row["val_loss"]) == (
            best["val_accuracy"],
            best["val_loss"],
        )
        assert phase.patience == phase.epochs == len(history)


def test_weight_decay_means_adamw(inputs, out, eager, fits):
    run_search(ADAMW, inputs, out)
    table = io.read_table(out["trials"])
    for (_, phase, *_), decay in zip(fits, table["weight_decay"], strict=True):
        assert type(phase.model.optimizer) is keras.optimizers.AdamW
        assert phase.model.optimizer.weight_decay == decay
    found = io.read_json(out["head"])
    assert found["head"]["weight_decay"] == table.loc[found["trial"] - 1, "weight_decay"]


def test_every_trial_has_the_precision_of_the_study(inputs, out, untrained, fits):
    settings = SETTINGS["training"] | {"precision": "mixed_bfloat16"}
    try:
        run_search(SETTINGS | {"training": settings}, inputs, out)
    finally:
        keras.config.set_dtype_policy("float32")
    for _, phase, *_ in fits:
        policies = {layer.dtype_policy.name for layer in phase.model.layers[1:]}
        assert policies == {"mixed_bfloat16", "float32"}


# Killed, stopped, failed


def kill():
    raise Killed


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_killed_three_times_it_ends_in_the_same(
    inputs, out, eager, fits, undisturbed, monkeypatch, capsys
):
    # In the second trial; in the promoted one, once it has trained; and while the fifth
    # is being written down.
    fits.before[1] = kill
    fits.after[4] = kill
    for done in (0, 1):
        with pytest.raises(Killed):
            run_search(SETTINGS, inputs, out)
        assert not out["head"].exists() and not out["trials"].exists()
        said = capsys.readouterr().out
        assert said.count("search a_tuned") == (1, 3)[done]
    assert "goes on after trial 1/6" in said
    save = Checkpoint.save

    def killed(self, facts, arrays):
        if len(facts["trials"]) == 5:
            raise Killed
        save(self, facts, arrays)

    monkeypatch.setattr(Checkpoint, "save", killed)
    with pytest.raises(Killed):
        run_search(SETTINGS, inputs, out)
    monkeypatch.setattr(Checkpoint, "save", save)
    capsys.readouterr()
    run_search(SETTINGS, inputs, out)
    assert "goes on after trial 4/6" in capsys.readouterr().out
    assert len(fits) == 6 + 3
    assert results(out) == undisturbed


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_signal_costs_the_trial_under_way_at_most(
    inputs, out, eager, fits, undisturbed, monkeypatch, moment
):
    if moment == "after":
        fits.after[2] = terminate
        message = "by SIGTERM after trial 3/6"
    else:
        report = Trainer._report

        def stopped(trainer, phase, row):
            report(trainer, phase, row)
            if len(fits) == 5:
                fits.append(None)
                terminate()

        monkeypatch.setattr(Trainer, "_report", stopped)
        message = "a_tuned 5/6: by SIGTERM in epoch 2 of round_0 .*begins it again"
    with pytest.raises(Stopped, match=message):
        run_search(SETTINGS, inputs, out)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert not out["head"].exists()
    trained = len(fits)
    run_search(SETTINGS, inputs, out)
    assert len(fits) - trained == {"after": 3, "before": 2}[moment]
    assert results(out) == undisturbed


def test_an_error_in_a_trial_is_an_error(inputs, out, eager, fits, undisturbed):
    def broken():
        raise TypeError("a bug")

    fits.before[2] = broken
    with pytest.raises(TypeError, match="a bug"):
        run_search(SETTINGS, inputs, out)
    assert not out["head"].parent.exists()
    run_search(SETTINGS, inputs, out)
    assert len(fits) == 3 + 4
    assert results(out) == undisturbed


def test_a_loss_that_is_no_number_ends_the_search(inputs, out, eager, tmp_path):
    embeddings = np.load(inputs["embeddings_train"])
    embeddings[:, 0] = np.nan
    np.save(tmp_path / "train.npy", embeddings)
    with pytest.raises(InputError, match="a_tuned 1/6: round_0 epoch 1: found a loss of nan"):
        run_search(SETTINGS, inputs | {"embeddings_train": tmp_path / "train.npy"}, out)
    assert not out["head"].parent.exists()


def test_a_space_of_too_few_heads_is_refused_before_the_first_trial(inputs, out, fits):
    few = SPACE | {"layers": {"min": 0, "max": 0}, "dropout": dict(min=0.3, max=0.3, step=0.1)}
    few["learning_rate"] = [1e-2, 1e-3, 1e-4]
    settings = SETTINGS | {"space": few}
    # Three heads, one of which is promoted; no other is left for the second bracket.
    with pytest.raises(InputError, match="found 4 different trials, expected 6 .*widen tuning"):
        run_search(settings, inputs, out)
    assert not fits and not out["head"].parent.exists()


def test_a_search_that_shrinks_unseen_is_refused(inputs, out, untrained, monkeypatch):
    complete = search.proposals
    lengths = iter([6, 5])

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


def test_changed_settings_do_not_take_a_checkpoint_up(inputs, out, untrained, fits, capsys):
    fits.after[1] = kill
    with pytest.raises(Killed):
        run_search(SETTINGS, inputs, out)
    run_search(SETTINGS | {"seed": 43}, inputs, out)
    said = capsys.readouterr().out
    assert "is of other settings, data or code; it is not used" in said
    assert "goes on" not in said
    assert len(fits) == 2 + 6


def test_a_checkpoint_of_other_trials_is_refused(inputs, out, untrained, fits, monkeypatch):
    fits.after[1] = kill
    with pytest.raises(Killed):
        run_search(SETTINGS, inputs, out)
    load = Checkpoint.load

    def other(self):
        facts, arrays = load(self)
        facts["trials"][0]["values"]["learning_rate"] = 0.5
        return facts, arrays

    monkeypatch.setattr(Checkpoint, "load", other)
    with pytest.raises(InputError, match="as trial 0, expected .* delete this file"):
        run_search(SETTINGS, inputs, out)


def test_a_search_that_another_process_has_finished_is_left_alone(inputs, out, untrained, fits):
    run_search(SETTINGS, inputs, out)
    written = {path: path.stat().st_mtime_ns for path in out.values()}
    run_search(SETTINGS, inputs, out)
    assert {path: path.stat().st_mtime_ns for path in out.values()} == written
    assert len(fits) == 6
    out["trials"].unlink()
    run_search(SETTINGS, inputs, out)
    assert len(fits) == 12 and out["trials"].exists()


def test_progress_is_for_people(inputs, out, untrained, fits):
    def look():
        folder = Path(out["head"].parents[1], "checkpoints", "search_a_tuned")
        told = io.read_json(folder / "progress.json")
        assert (told["phase"], told["trial"], told["trials"]) == ("search", 2, 6)
        assert 0 <= told["best"] <= 1
        raise Killed

    fits.before[2] = look
    with pytest.raises(Killed):
        run_search(SETTINGS, inputs, out)
