"""Training repeats, keeps what is frozen, and learns from caches what networks teach."""

import json
import os
import signal
import zipfile
from io import BytesIO

import h5py
import keras
import numpy as np
import pandas as pd
import pytest

from hemagrid import io
from hemagrid.errors import InputError, Stopped
from hemagrid.models import backbones
from hemagrid.models.cnns import build_cnn
from hemagrid.models.heads import build_head
from hemagrid.training import backend, checkpoints, step_loop
from hemagrid.training.embeddings import predict
from hemagrid.training.run import run_key, train_run
from hemagrid.training.trainer import (
    Examples,
    Phase,
    Trainer,
    class_weights,
    epoch_order,
    score,
)
from hemagrid.training.transfer import TransferModel

CLASSES = 3
LABELS = np.arange(12) % CLASSES
HEAD = {
    "dense": [16],
    "batch_norm": True,
    "dropout": [0.3],
    "learning_rate": 1e-3,
    "weight_decay": None,
}
TRAINING = {
    "optimizer": "adam",
    "monitor": "val_loss",
    "class_weights": True,
    "precision": "float32",
}
CNN = {
    "filters": [4, 8],
    "dense": 8,
    "batch_norm": True,
    "dropout": 0.1,
    "dense_dropout": 0.1,
    "learning_rate": 1e-3,
    "epochs": 3,
    "patience": 3,
    "batch_size": 8,
}
HISTORY = [
    "phase",
    "epoch",
    "loss",
    "accuracy",
    "val_loss",
    "val_accuracy",
    "learning_rate",
    "seconds",
    "best",
]


def assert_equal_weights(found, expected):
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, two)


def assert_different_weights(found, expected):
    pairs = zip(found, expected, strict=True)
    assert any((one != two).any() for one, two in pairs)


def statistics(model):
    """List gamma, beta, mean and variance of every BatchNormalization."""
    norms = backbones.batch_normalizations(model)
    return [values for norm in norms for values in norm.get_weights()]


# What one epoch's order is made of


def test_epoch_order_takes_every_row_once():
    order = epoch_order(23, 4, seed=1, phase="training", epoch=1)
    assert order.shape == (5, 4)
    assert len(set(order.ravel())) == 20
    assert set(order.ravel()) < set(range(23))


def test_a_set_smaller_than_a_batch_is_one_batch():
    order = epoch_order(3, 32, seed=1, phase="training", epoch=1)
    assert order.shape == (1, 3)


def test_epoch_order_follows_from_seed_phase_and_epoch():
    def order(**changes):
        key = {"seed": 1, "phase": "finetune_top", "epoch": 1} | changes
        return epoch_order(40, 8, **key).tolist()

    orders = [order(), order(seed=2), order(phase="finetune_all"), order(epoch=2)]
    assert order() == orders[0]
    assert all(one != two for i, one in enumerate(orders) for two in orders[:i])


# Known answers


def test_class_weights_even_the_classes_out():
    labels = np.array([0, 0, 0, 0, 1, 1])
    np.testing.assert_allclose(class_weights(labels, 2), [0.75, 1.5])
    np.testing.assert_allclose(class_weights(labels, 3), [0.5, 1.0, 0.0])
    assert class_weights(labels, 2)[labels].mean() == 1


def test_score_is_cross_entropy_and_accuracy():
    probabilities = np.array([[0.5, 0.5], [0.25, 0.75], [1, 0]], "float32")
    labels = np.array([0, 0, 0])
    loss, accuracy = score(probabilities, labels)
    assert loss == pytest.approx(np.log([2, 4, 1]).mean(), rel=1e-6)
    assert accuracy == pytest.approx(2 / 3)
    measured = keras.losses.SparseCategoricalCrossentropy()(labels, probabilities)
    assert loss == pytest.approx(float(measured), rel=1e-6)


def test_a_certain_mistake_costs_a_finite_loss():
    loss, accuracy = score(np.array([[1, 0]], "float32"), np.array([1]))
    assert (loss, accuracy) == (pytest.approx(-np.log(1e-7)), 0)


def test_inputs_without_labels_are_refused():
    with pytest.raises(InputError, match="12 inputs but 11 labels"):
        Examples(np.zeros((12, 4)), LABELS[1:])


# One phase, on a network of one layer


def linear(rate=0.1, epochs=4, patience=4, name="training", inputs=None, model=None):
    """A phase that trains softmax regression on three separable clusters."""
    keras.utils.set_random_seed(1)
    if model is None:
        model = keras.Sequential(
            [keras.Input((CLASSES,)), keras.layers.Dense(CLASSES, activation="softmax")]
        )
    examples = Examples(np.eye(CLASSES)[LABELS] if inputs is None else inputs, LABELS)
    return Phase(name, model, examples, examples, 4, epochs, patience, rate)


def trainer(**settings):
    return Trainer("run", TRAINING | settings, CLASSES, seed=3)


def test_training_learns_and_keeps_a_history():
    phase, training = linear(), trainer()
    training.fit(phase)
    history = pd.DataFrame(training.history)
    assert list(history.columns) == HISTORY
    assert list(history["epoch"]) == [1, 2, 3, 4]
    assert set(history["phase"]) == {"training"}
    assert (history["learning_rate"] == 0.1).all()
    assert history["val_loss"].is_monotonic_decreasing
    assert list(history["best"]) == [False, False, False, True]
    found = score(predict(phase.model, phase.val.inputs), LABELS)
    assert found == tuple(history.loc[3, ["val_loss", "val_accuracy"]])
    assert training.cost() == {"training": {"epochs": 4, "seconds": history["seconds"].sum()}}


def test_the_history_holds_the_mean_over_all_steps_of_an_epoch():
    # At this rate nothing moves, so that training and validation score the same images.
    inputs = np.random.default_rng(0).normal(size=(12, CLASSES))
    training = trainer(optimizer="sgd", class_weights=False)
    training.fit(linear(rate=1e-12, epochs=1, inputs=inputs))
    (row,) = training.history
    assert row["loss"] == pytest.approx(row["val_loss"], rel=1e-5)
    assert row["accuracy"] == pytest.approx(row["val_accuracy"])
    assert 0 < row["accuracy"] < 1


@pytest.fixture
def one_step_per_call(monkeypatch):
    monkeypatch.setattr("hemagrid.training.trainer.CALL_SECONDS", 0)


def test_rows_are_read_batch_by_batch(sparing, one_step_per_call):
    inputs = np.eye(CLASSES, dtype="float32")[LABELS]
    phase = linear(epochs=1)
    few = Examples(sparing(inputs, most=4), LABELS)
    trainer().fit(Phase("training", phase.model, few, phase.val, 4, 1, 1, 0.1))
    assert isinstance(few.inputs, sparing)


def dropped(monkeypatch, *, many):
    """Train a head with dropout; return its history, its weights, the steps of each call."""
    monkeypatch.setattr("hemagrid.training.trainer.CALL_SECONDS", float("inf") if many else 0)
    keras.utils.set_random_seed(5)
    inputs = np.random.default_rng(0).normal(size=(68, CLASSES)).astype("float32")
    examples = Examples(inputs, np.arange(68) % CLASSES)
    phase = Phase(
        "training", build_head(HEAD, CLASSES, CLASSES), examples, examples, 4, 2, 2, 0.1
    )
    calls, build = [], step_loop.training_steps

    def watched(*arguments):
        take = build(*arguments)
        return lambda *batches: calls.append(len(batches[0])) or take(*batches)

    monkeypatch.setattr("hemagrid.training.runtime.training_steps", watched)
    training = trainer()
    training.fit(phase)
    monkeypatch.undo()
    history = [{**row, "seconds": 0} for row in training.history]
    return history, phase.model.get_weights(), calls


def test_a_call_reads_no_more_than_it_may(monkeypatch):
    # Four rows of three float32 in a step: two of them are enough.
    monkeypatch.setattr("hemagrid.training.trainer.CALL_BYTES", 2 * 4 * CLASSES * 4)
    _, _, calls = dropped(monkeypatch, many=True)
    assert calls == [1, *[2] * 16, 1]


def test_many_steps_in_a_call_learn_the_same_to_the_bit(monkeypatch):
    history, weights, calls = dropped(monkeypatch, many=False)
    assert calls == [1] * 34
    many_history, many_weights, many_calls = dropped(monkeypatch, many=True)
    assert many_calls == [1, 2, 4, 8, 2, 16, 1]
    assert many_history == history
    assert_equal_weights(many_weights, weights)


class Scripted:
    """A trainer whose validation scores are given, to see what it makes of them."""

    def __init__(self, monkeypatch, losses, **settings):
        self.losses = iter(losses)
        self.weights = []
        self.training = trainer(**settings)
        monkeypatch.setattr("hemagrid.training.features.predict", self.predict)
        monkeypatch.setattr("hemagrid.training.trainer.score", self.score)

    def predict(self, model, inputs):
        self.weights.append(model.get_weights())

    def score(self, probabilities, labels):
        loss = next(self.losses)
        return loss, 1 - loss


@pytest.mark.parametrize("monitor", ["val_loss", "val_accuracy"])
def test_early_stopping_restores_the_best_epoch(monkeypatch, monitor):
    script = Scripted(monkeypatch, [0.5, 0.3, 0.4, 0.35, 0.1], monitor=monitor)
    phase = linear(epochs=5, patience=2)
    script.training.fit(phase)
    assert [row["best"] for row in script.training.history] == [0, 1, 0, 0]
    assert_equal_weights(phase.model.get_weights(), script.weights[1])
    assert_different_weights(script.weights[1], script.weights[3])


def test_a_phase_that_only_does_harm_leaves_no_trace(monkeypatch):
    script = Scripted(monkeypatch, [0.3, 0.4, 0.5])
    first = linear(epochs=1)
    script.training.fit(first)
    script.training.fit(linear(epochs=5, patience=2, name="later", model=first.model))
    history = pd.DataFrame(script.training.history)
    assert list(history["phase"]) == ["training", "later", "later"]
    assert list(history["best"]) == [True, False, False]
    assert_equal_weights(first.model.get_weights(), script.weights[0])
    assert script.training.cost()["later"]["epochs"] == 2


def test_a_loss_that_is_no_number_ends_the_run():
    inputs = np.eye(CLASSES)[LABELS]
    inputs[3] = np.nan
    with pytest.raises(InputError, match="training epoch 1: found a loss of nan"):
        trainer().fit(linear(inputs=inputs))


def test_a_network_that_breaks_in_the_last_step_ends_the_run(monkeypatch):
    script = Scripted(monkeypatch, [float("nan")])
    with pytest.raises(InputError, match="val_loss of nan, .*learning rate"):
        script.training.fit(linear(epochs=1))


def test_a_later_phase_that_diverges_ends_and_keeps_the_best_weights(
    monkeypatch, tmp_path, capsys
):
    script = Scripted(monkeypatch, [0.3, float("nan"), 0.1])
    script.training.checkpoint = checkpoints.Checkpoint("a_run", "key", tmp_path)
    first = linear(epochs=1)
    script.training.fit(first)
    script.training.fit(linear(epochs=5, patience=4, name="later", model=first.model))
    assert_equal_weights(first.model.get_weights(), script.weights[0])
    assert "later epoch 1: found a loss of" in capsys.readouterr().out
    # Its checkpoint is JSON, which has no NaN; the next phase goes on from it.
    facts, _ = script.training.checkpoint.load()
    assert [row["val_loss"] for row in facts["history"]] == [0.3, None]
    again = trainer()
    again.checkpoint = script.training.checkpoint
    again.saved = again.checkpoint.load()
    again.history, again.best = facts["history"], facts["best"]
    resumed = linear(epochs=5, patience=4, name="later", model=first.model)
    again.fit(resumed)
    assert_equal_weights(resumed.model.get_weights(), script.weights[0])
    assert len(again.history) == 2


def test_class_weights_can_be_left_out():
    inputs = np.eye(CLASSES)[LABELS]
    few = Examples(inputs[LABELS != 0], LABELS[LABELS != 0])
    even, plain = (linear(epochs=1), linear(epochs=1))
    for phase, weighted in ((even, True), (plain, False)):
        trainer(class_weights=weighted).fit(
            Phase("training", phase.model, few, phase.val, 4, 1, 1, 0.1)
        )
    # Two even classes of three weigh 2/3 each, and Adam hardly minds: the loss shows it.
    one, two = (
        phase.model.evaluate(few.inputs, few.labels, verbose=0) for phase in (even, plain)
    )
    assert one == pytest.approx(two, rel=0.05)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_optimizer_trains(optimizer):
    training = trainer(optimizer=optimizer)
    training.fit(linear())
    losses = [row["loss"] for row in training.history]
    assert losses[-1] < losses[0]


def test_a_weight_decay_makes_the_optimizer_adamw():
    phase = linear()
    training = trainer(optimizer="sgd")
    training.weight_decay = 0.05
    training.fit(phase)
    assert isinstance(phase.model.optimizer, keras.optimizers.AdamW)
    assert phase.model.optimizer.weight_decay == 0.05


def test_bfloat16_trains_and_gives_float32_probabilities(draw):
    backend.begin(1, "mixed_bfloat16")
    try:
        model = build_cnn(CNN, 32, CLASSES)
        pictures = Examples(draw(LABELS, 32), LABELS)
        training = trainer()
        training.fit(Phase("training", model, pictures, pictures, 4, 1, 1, 1e-3))
    finally:
        backend.begin(1)
    assert {layer.compute_dtype for layer in model.layers} == {"bfloat16", "float32"}
    assert model.output.dtype == "float32"
    assert np.isfinite(training.history[0]["loss"])


# Caches against the frozen network, for each backbone of the study


def transfer(network):
    """Cut the network under a head that starts from the same weights and dropout seeds."""
    keras.utils.set_random_seed(7)
    return TransferModel(network.backbone, network.boundary, HEAD, CLASSES)


@pytest.fixture
def train(monkeypatch):
    """A function that trains some steps of four examples, the same for the same phase."""

    def fit(phase, model, inputs):
        examples = Examples(inputs, LABELS[: len(inputs)])
        # The validation, which only costs time here, is left out.
        training = Scripted(monkeypatch, [0.5]).training
        training.fit(Phase(phase, model, examples, examples, 4, 1, 1, 1e-3))

    return fit


def assert_learned_the_same(found, expected, network):
    """Hold weights to the bit, ConvNeXt's to a tenth of what a step changes.

    Its features differ in the last bits with the place of an image in its batch, and Adam
    divides small gradients by small numbers.
    """
    tolerance = 1e-4 if network.application == "ConvNeXtBase" else 0
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, two, rtol=0, atol=tolerance)


def test_head_on_embeddings_learns_what_the_frozen_network_teaches(network, draw, train):
    pixels = draw(LABELS[:8])
    embeddings = predict(network.backbone, pixels, batch_size=4)
    cached = transfer(network)
    start = cached.head.get_weights()
    train("feature_extraction", cached.freeze_for("feature_extraction"), embeddings)
    assert_equal_weights(network.backbone.get_weights(), network.weights)

    whole = transfer(network)
    assert_equal_weights(whole.head.get_weights(), start)
    network.backbone.trainable = False
    train("feature_extraction", whole.from_images, pixels)
    assert_equal_weights(network.backbone.get_weights(), network.weights)
    assert_different_weights(whole.head.get_weights(), start)
    assert_learned_the_same(cached.head.get_weights(), whole.head.get_weights(), network)


def test_top_on_activations_learns_what_the_frozen_trunk_teaches(network, draw, train):
    pixels = draw(LABELS[:8])
    norms = statistics(network.backbone)
    cached = transfer(network)
    activations = predict(cached.trunk, pixels, batch_size=4)
    trunk, top = cached.trunk.get_weights(), cached.top.get_weights()
    train("finetune_top", cached.freeze_for("finetune_top"), activations)
    from_cache = cached.from_images.get_weights()
    assert_equal_weights(cached.trunk.get_weights(), trunk)
    assert_equal_weights(statistics(network.backbone), norms)
    assert_different_weights(cached.top.get_weights(), top)

    network.backbone.set_weights(network.weights)
    whole = transfer(network)
    names = [layer.name for layer in network.backbone.layers]
    for place, layer in enumerate(network.backbone.layers):
        normalizes = isinstance(layer, keras.layers.BatchNormalization)
        layer.trainable = place > names.index(network.boundary) and not normalizes
    train("finetune_top", whole.from_images, pixels)
    assert_learned_the_same(from_cache, whole.from_images.get_weights(), network)


def test_finetune_all_trains_all_but_batch_normalization(network, draw, train):
    model = transfer(network)
    trained = model.freeze_for("finetune_all")
    norms = statistics(model.from_images)
    trunk, top = model.trunk.get_weights(), model.top.get_weights()
    train("finetune_all", trained, draw(LABELS[:4]))
    assert_equal_weights(statistics(model.from_images), norms)
    assert_different_weights(model.trunk.get_weights(), trunk)
    assert_different_weights(model.top.get_weights(), top)


# Those with layers that a file may not bring back: operations, a class of its own. A
# MobileNetV3 is loaded below, EfficientNetV2 is made of the same layers.
@pytest.mark.parametrize("session_network", ["vgg16", "convnext"], indirect=True)
def test_a_saved_network_gives_the_same_from_pixels(network, draw, tmp_path):
    model = transfer(network).from_images
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    pixels = draw(range(4))
    np.testing.assert_array_equal(
        predict(loaded, pixels, batch_size=4),
        predict(model, pixels, batch_size=4),
    )


# A whole run, from files to files


@pytest.fixture(scope="module")
def data_set(tmp_path_factory, draw):
    """Files of 60 pictures; returns what `train_run` takes for a CNN."""
    folder = tmp_path_factory.mktemp("dataset")
    sizes = {"train": 30, "val": 10, "test": 8, "test_augmented": 12}
    inputs = {}
    for seed, (subset, count) in enumerate(sizes.items()):
        labels = np.arange(count) % CLASSES
        inputs[f"images_{subset}"] = folder / f"{subset}.npy"
        inputs[f"table_{subset}"] = folder / f"{subset}.csv"
        np.save(inputs[f"images_{subset}"], draw(labels, 32, seed))
        table = pd.DataFrame({"id": np.arange(count), "label": labels})
        # Names that a CSV reader likes to take for something else.
        table["class_name"] = np.array(["NA", "007", "true"])[labels]
        table["parent_id"] = 100 + table["id"] // 2
        io.write_table(inputs[f"table_{subset}"], table)
    return inputs


@pytest.fixture(scope="module")
def caches(data_set, draw, tmp_path_factory):
    """Weights and caches of MobileNetV3Large in addition."""
    folder = tmp_path_factory.mktemp("caches")
    boundary = "expanded_conv_12_project_bn"
    backbone = backbones.random_backbone(
        "MobileNetV3Large", np.load(data_set["images_train"]), seed=1
    )
    backbone.save_weights(folder / "backbone.weights.h5")
    trunk, top = backbones.cut_backbone(backbone, boundary)
    inputs = data_set | {"weights": folder / "backbone.weights.h5"}
    for subset in ("train", "val"):
        inputs[f"activations_{subset}"] = folder / f"activations_{subset}.npy"
        inputs[f"embeddings_{subset}"] = folder / f"embeddings_{subset}.npy"
        activations = predict(trunk, np.load(data_set[f"images_{subset}"]))
        np.save(inputs[f"activations_{subset}"], activations)
        np.save(inputs[f"embeddings_{subset}"], predict(top, activations))
    return inputs


def paths(folder):
    return {
        "model": folder / "model.keras",
        "history": folder / "history.csv",
        "predictions": folder / "predictions.npz",
        "cost": folder / "cost.json",
    }


def train_afresh(run, settings, inputs, out):
    """Train whether or not the files are there already."""
    folder = out["model"].parent
    for path in out.values():
        path.unlink(missing_ok=True)
    train_run(run, settings, inputs, out, folder.with_name("checkpoints"))
    assert not any(folder.with_name("checkpoints").iterdir())


CNN_RUN = {"kind": "cnn", "model": CNN, "training": TRAINING, "seed": 42}
TRANSFER_RUN = {
    "kind": "transfer",
    "backbone": {
        "application": "MobileNetV3Large",
        "top": "expanded_conv_12_project_bn",
        "batch_size": 16,
    },
    "head": HEAD,
    "training": TRAINING
    | {
        "feature_extraction": {"epochs": 2, "patience": 2},
        "finetune_top": {"epochs": 1, "patience": 1, "learning_rate": 1e-4},
        "finetune_all": {"epochs": 1, "patience": 1, "learning_rate": 1e-5},
    },
    "seed": 42,
}


def contents(model):
    """List the groups and arrays of a `.keras` file, and the keys of its config."""
    with zipfile.ZipFile(model) as archive:
        weights = BytesIO(archive.read("model.weights.h5"))
        config = archive.read("config.json").decode()
    names = [config]
    with h5py.File(weights) as groups:
        groups.visit(names.append)
    return names


def check_run(out, phases, data_set):
    """Hold the files of a run against their contract."""
    assert {path.name for path in out["model"].parent.iterdir()} == {
        path.name for path in out.values()
    }
    history = io.read_table(out["history"])
    assert list(history.columns) == HISTORY
    assert list(history["phase"].unique()) == list(phases)
    for phase, rows in history.groupby("phase"):
        assert list(rows["epoch"]) == list(range(1, len(rows) + 1))
        assert (rows["learning_rate"] == phases[phase]).all()
        assert rows["best"].sum() <= 1

    cost = json.loads(out["cost"].read_text())
    assert (cost["device"], cost["backend"]) == ("cpu", "tensorflow")
    assert cost["images_per_second"] > 0
    assert cost["peak_memory_mib"] > 100
    epochs = {phase: entry["epochs"] for phase, entry in cost["phases"].items()}
    assert epochs == history["phase"].value_counts(sort=False).to_dict()

    loaded = keras.models.load_model(out["model"], safe_mode=True)
    assert not any("optimizer" in name for name in contents(out["model"]))
    assert cost["parameters"] == loaded.count_params()
    predictions = np.load(out["predictions"])
    assert list(predictions["class_names"]) == ["NA", "007", "true"]
    for subset in ("val", "test", "test_augmented"):
        table = io.read_table(data_set[f"table_{subset}"])
        images = io.open_images(data_set[f"images_{subset}"])
        np.testing.assert_array_equal(predictions[f"{subset}_labels"], table["label"])
        np.testing.assert_array_equal(predictions[f"{subset}_groups"], table["parent_id"])
        probabilities = predictions[f"{subset}_probabilities"]
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
        np.testing.assert_array_equal(probabilities, predict(loaded, images))
    assert len(predictions.files) == 1 + 3 * 3
    return history, dict(predictions)


def test_a_cnn_from_files_to_files(data_set, tmp_path):
    out = paths(tmp_path / "run")
    train_afresh("regularized_cnn", CNN_RUN, data_set, out)
    history, first = check_run(out, {"training": 1e-3}, data_set)
    assert len(history) == 3

    train_afresh("regularized_cnn", CNN_RUN, data_set, out)
    _, again = check_run(out, {"training": 1e-3}, data_set)
    assert all((first[name] == again[name]).all() for name in first)

    train_afresh("regularized_cnn", CNN_RUN | {"seed": 43}, data_set, out)
    _, other = check_run(out, {"training": 1e-3}, data_set)
    assert (first["test_probabilities"] != other["test_probabilities"]).any()


def test_a_transfer_run_from_files_to_files(caches, tmp_path, eager):
    rates = {"feature_extraction": 1e-3, "finetune_top": 1e-4, "finetune_all": 1e-5}
    out = paths(tmp_path / "run")
    train_afresh("mobilenetv3_cfg2", TRANSFER_RUN, caches, out)
    history, first = check_run(out, rates, caches)
    assert list(history["phase"].value_counts(sort=False)) == [2, 1, 1]
    best = history[history["best"]]
    assert best["val_loss"].is_monotonic_decreasing
    kept = score(first["val_probabilities"], first["val_labels"])
    assert kept == pytest.approx(tuple(best.iloc[-1][["val_loss", "val_accuracy"]]))

    train_afresh("mobilenetv3_cfg2", TRANSFER_RUN, caches, out)
    again = dict(np.load(out["predictions"]))
    assert all((first[name] == again[name]).all() for name in first)


def test_a_tuned_run_is_the_run_of_the_head_that_was_found(caches, tmp_path, eager):
    found = tmp_path / "found.json"
    head = HEAD | {"dense": [8, 4], "dropout": [0.1, 0.2], "weight_decay": 0.01}
    io.write_json(found, {"run": "mobilenetv3_tuned", "head": head, "trial": 3})
    settings = {key: value for key, value in TRANSFER_RUN.items() if key != "head"}
    tuned, fixed = (paths(tmp_path / name) for name in ("tuned", "fixed"))
    train_afresh("mobilenetv3_tuned", settings, caches | {"head": found}, tuned)
    train_afresh("mobilenetv3_cfg2", settings | {"head": head}, caches, fixed)
    one, two = (dict(np.load(out["predictions"])) for out in (tuned, fixed))
    assert all((one[name] == two[name]).all() for name in two)
    # The head alone makes the key, whatever else its search noted; another one, another.
    keys = [io.read_json(out["cost"])["key"] for out in (tuned, fixed)]
    assert keys[0] == keys[1] == run_key(settings | {"head": head}, caches)
    assert keys[0] != run_key(settings | {"head": HEAD}, caches)


def test_a_phase_of_no_epochs_is_left_out(caches, tmp_path, eager):
    none = {"epochs": 0, "patience": 1, "learning_rate": 1e-4}
    training = TRANSFER_RUN["training"] | {"finetune_top": none, "finetune_all": none}
    out = paths(tmp_path / "run")
    train_afresh("mobilenetv3_cfg2", TRANSFER_RUN | {"training": training}, caches, out)
    history = io.read_table(out["history"])
    assert set(history["phase"]) == {"feature_extraction"}
    assert set(json.loads(out["cost"].read_text())["phases"]) == {"feature_extraction"}


def test_a_cache_of_another_data_set_is_refused(caches, data_set, tmp_path):
    stale = tmp_path / "stale.npy"
    np.save(stale, np.load(caches["embeddings_train"])[:-1])
    with pytest.raises(InputError, match="29 inputs but 30 labels"):
        train_afresh(
            "run",
            TRANSFER_RUN,
            caches | {"embeddings_train": stale},
            paths(tmp_path / "run"),
        )
    assert not (tmp_path / "run").exists()


# Interrupted, and done already


def test_a_run_that_another_process_has_finished_is_left_alone(data_set, tmp_path, capsys):
    out = paths(tmp_path / "run")
    train_afresh("regularized_cnn", CNN_RUN, data_set, out)
    written = {path: path.stat().st_mtime_ns for path in out.values()}
    train_run("regularized_cnn", CNN_RUN, data_set, out, tmp_path / "checkpoints")
    assert "another process has finished this meanwhile" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.values()} == written

    changed = CNN_RUN | {"seed": 43}
    train_run("regularized_cnn", changed, data_set, out, tmp_path / "checkpoints")
    assert all(path.stat().st_mtime_ns > written[path] for path in out.values())


def stopped_run(settings, data_set, tmp_path, monkeypatch):
    """Start a CNN and have it stopped after its second epoch; return its files."""
    out = paths(tmp_path / "run")
    report, epochs = Trainer._report, []

    def stop(self, phase, row):
        report(self, phase, row)
        epochs.append(row)
        if len(epochs) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_report", stop)
    with pytest.raises(Stopped, match="by SIGTERM in epoch 3 of training after step 0"):
        train_run("regularized_cnn", settings, data_set, out, tmp_path / "checkpoints")
    monkeypatch.undo()
    return out


def test_changed_settings_do_not_take_a_checkpoint_up(data_set, tmp_path, monkeypatch, capsys):
    out = stopped_run(CNN_RUN, data_set, tmp_path, monkeypatch)
    assert not out["model"].exists()
    # What a killed writer left; this process is the only one now.
    litter = out["model"].with_name(".01234567.model.keras")
    litter.parent.mkdir(exist_ok=True)
    litter.write_bytes(b"half")
    capsys.readouterr()
    changed = CNN_RUN | {"model": CNN | {"dropout": 0.2}}
    train_run("regularized_cnn", changed, data_set, out, tmp_path / "checkpoints")
    said = capsys.readouterr().out
    assert "is of other settings, data or code; it is not used" in said
    assert "goes on" not in said
    assert not litter.exists()
    assert not any((tmp_path / "checkpoints").iterdir())


def test_a_torn_checkpoint_starts_the_run_anew(data_set, tmp_path, monkeypatch, capsys):
    out = stopped_run(CNN_RUN, data_set, tmp_path, monkeypatch)
    (saved,) = (tmp_path / "checkpoints" / "regularized_cnn").glob("*.npz")
    saved.write_bytes(saved.read_bytes()[:-100])
    train_run("regularized_cnn", CNN_RUN, data_set, out, tmp_path / "checkpoints")
    assert "set aside as" in capsys.readouterr().out
    torn = dict(np.load(out["predictions"]))
    train_afresh("regularized_cnn", CNN_RUN, data_set, out)
    afresh = dict(np.load(out["predictions"]))
    assert all((torn[name] == afresh[name]).all() for name in afresh)


@pytest.fixture
def saved(monkeypatch):
    """The (epoch, steps of it) at which checkpoints are written, in their order."""
    places = []
    save = checkpoints.Checkpoint.save

    def note(self, facts, arrays):
        places.append((facts["position"]["epoch"], len(facts["position"]["steps"])))
        save(self, facts, arrays)

    monkeypatch.setattr(checkpoints.Checkpoint, "save", note)
    return places


def test_a_checkpoint_within_a_long_epoch(
    data_set, tmp_path, monkeypatch, saved, one_step_per_call
):
    monkeypatch.setattr("hemagrid.training.trainer.SAVE_EVERY", 0)
    monkeypatch.setattr("hemagrid.training.trainer.SAVE_SHARE", float("inf"))
    train_afresh("regularized_cnn", CNN_RUN, data_set, paths(tmp_path / "run"))
    assert saved[:5] == [(1, 1), (1, 2), (1, 3), (2, 0), (2, 1)]


@pytest.mark.parametrize(
    ("disk", "expected"), [(float("inf"), [(2, 0), (3, 0), (4, 0)]), (1.0, [])]
)
def test_a_checkpoint_waits_until_it_costs_a_tenth(
    data_set, tmp_path, monkeypatch, saved, disk, expected
):
    monkeypatch.setattr("hemagrid.training.trainer.DISK", disk)
    now = iter(range(10**6))
    # By this clock everything takes whole seconds, and a checkpoint one of them.
    monkeypatch.setattr("hemagrid.training.trainer.SAVE_SHARE", 0.2)
    monkeypatch.setattr("hemagrid.training.time.perf_counter", lambda: float(next(now)))
    train_afresh("regularized_cnn", CNN_RUN, data_set, paths(tmp_path / "run"))
    assert saved == expected
