"""Training repeats, learns, stops early and keeps the best weights."""

import keras
import numpy as np
import pandas as pd
import pytest

from hemagrid.errors import InputError
from hemagrid.models.cnns import build_cnn
from hemagrid.models.heads import build_head
from hemagrid.training import backend, checkpoints, step_loop
from hemagrid.training.embeddings import predict
from hemagrid.training.trainer import (
    Examples,
    Phase,
    Trainer,
    class_weights,
    epoch_order,
    score,
)

from .conftest import (
    CLASSES,
    CNN,
    HEAD,
    LABELS,
    TRAINING,
    assert_different_weights,
    assert_equal_weights,
)

COLUMNS = "phase epoch loss accuracy val_loss val_accuracy learning_rate seconds best".split()


@pytest.mark.parametrize(("count", "shape"), [(23, (5, 4)), (3, (1, 3))])
def test_an_epoch_takes_every_row_once_that_fills_a_batch(count, shape):
    order = epoch_order(count, 4, seed=1, phase="training", epoch=1)
    assert order.shape == shape
    assert len(set(order.ravel())) == order.size
    assert set(order.ravel()) <= set(range(count))


def test_the_order_follows_from_seed_phase_and_epoch():
    def order(**changes):
        key = {"seed": 1, "phase": "finetune_top", "epoch": 1} | changes
        return epoch_order(40, 8, **key).tolist()

    orders = [order(), order(seed=2), order(phase="finetune_all"), order(epoch=2)]
    assert order() == orders[0]
    assert all(one != two for i, one in enumerate(orders) for two in orders[:i])


def test_class_weights_balance_the_classes():
    labels = np.array([0, 0, 0, 0, 1, 1])
    np.testing.assert_allclose(class_weights(labels, 2), [0.75, 1.5])
    np.testing.assert_allclose(class_weights(labels, 3), [0.5, 1.0, 0.0])
    assert class_weights(labels, 2)[labels].mean() == 1


def test_the_score_is_cross_entropy_and_accuracy():
    probabilities = np.array([[0.5, 0.5], [0.25, 0.75], [1, 0]], "float32")
    labels = np.array([0, 0, 0])
    loss, accuracy = score(probabilities, labels)
    assert loss == pytest.approx(np.log([2, 4, 1]).mean(), rel=1e-6)
    assert accuracy == pytest.approx(2 / 3)
    measured = keras.losses.SparseCategoricalCrossentropy()(labels, probabilities)
    assert loss == pytest.approx(float(measured), rel=1e-6)
    certain_mistake = score(np.array([[1, 0]], "float32"), np.array([1]))
    assert certain_mistake == (pytest.approx(-np.log(1e-7)), 0)


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
    assert list(history.columns) == COLUMNS
    assert list(history["epoch"]) == [1, 2, 3, 4]
    assert set(history["phase"]) == {"training"}
    assert (history["learning_rate"] == 0.1).all()
    assert history["val_loss"].is_monotonic_decreasing
    assert list(history["best"]) == [False, False, False, True]
    found = score(predict(phase.model, phase.val.inputs), LABELS)
    assert found == tuple(history.loc[3, ["val_loss", "val_accuracy"]])
    assert training.cost() == {"training": {"epochs": 4, "seconds": history["seconds"].sum()}}


def test_the_history_holds_the_mean_of_all_steps_of_an_epoch():
    # At this rate nothing changes, so training and validation score the same network.
    inputs = np.random.default_rng(0).normal(size=(12, CLASSES))
    training = trainer(optimizer="sgd", class_weights=False)
    training.fit(linear(rate=1e-12, epochs=1, inputs=inputs))
    (row,) = training.history
    assert row["loss"] == pytest.approx(row["val_loss"], rel=1e-5)
    assert row["accuracy"] == pytest.approx(row["val_accuracy"])
    assert 0 < row["accuracy"] < 1


def test_class_weights_weigh_the_loss():
    inputs = np.random.default_rng(0).normal(size=(12, CLASSES))
    phase = linear(rate=1e-12, epochs=1, inputs=inputs)
    labels = np.array([0] * 8 + [1] * 4)
    few = Examples(inputs, labels)
    training = trainer(optimizer="sgd")
    training.fit(Phase("training", phase.model, few, few, 4, 1, 1, 1e-12))
    probabilities = predict(phase.model, inputs)
    by_class = [score(probabilities[labels == k], labels[labels == k])[0] for k in (0, 1)]
    # 2 / 3 of eight images and 4 / 3 of half as many (1/2 and 1 of three classes).
    assert training.history[0]["loss"] == pytest.approx(np.mean(by_class) * 2 / 3, rel=1e-5)


def test_rows_are_read_batch_by_batch(sparing, monkeypatch):
    monkeypatch.setattr("hemagrid.training.trainer.CALL_SECONDS", 0)
    phase = linear(epochs=1)
    few = Examples(sparing(np.eye(CLASSES, dtype="float32")[LABELS], most=4), LABELS)
    trainer().fit(Phase("training", phase.model, few, phase.val, 4, 1, 1, 0.1))


def trained_head(monkeypatch, call_seconds):
    """Train a head with dropout; return its history, its weights, the steps of each call."""
    monkeypatch.setattr("hemagrid.training.trainer.CALL_SECONDS", call_seconds)
    keras.utils.set_random_seed(5)
    inputs = np.random.default_rng(0).normal(size=(68, CLASSES)).astype("float32")
    examples = Examples(inputs, np.arange(68) % CLASSES)
    head = build_head(HEAD, CLASSES, CLASSES)
    calls, build = [], step_loop.training_steps

    def watched(*arguments):
        take = build(*arguments)
        return lambda *batches: calls.append(len(batches[0])) or take(*batches)

    monkeypatch.setattr(step_loop, "training_steps", watched)
    training = trainer()
    training.fit(Phase("training", head, examples, examples, 4, 2, 2, 0.1))
    monkeypatch.undo()
    history = [{**row, "seconds": 0} for row in training.history]
    return history, head.get_weights(), calls


def test_a_call_reads_no_more_than_it_may(monkeypatch):
    # A step has four rows of three float32; two steps are enough.
    monkeypatch.setattr("hemagrid.training.trainer.CALL_BYTES", 2 * 4 * CLASSES * 4)
    _, _, calls = trained_head(monkeypatch, float("inf"))
    assert calls == [1, *[2] * 16, 1]


def test_many_steps_in_a_call_learn_the_same_to_the_bit(monkeypatch):
    history, weights, calls = trained_head(monkeypatch, 0)
    assert calls == [1] * 34
    many_history, many_weights, many_calls = trained_head(monkeypatch, float("inf"))
    assert many_calls == [1, 2, 4, 8, 2, 16, 1]
    assert many_history == history
    assert_equal_weights(many_weights, weights)


class Scripted:
    """A trainer with given validation scores, and the weights that got each of them."""

    def __init__(self, monkeypatch, losses, **settings):
        self.losses = iter(losses)
        self.weights = []
        self.training = trainer(**settings)
        monkeypatch.setattr("hemagrid.training.embeddings.predict", self.predict)
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


def test_a_phase_that_only_makes_things_worse_leaves_no_trace(monkeypatch):
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
    monkeypatch, tmp_path, logged
):
    script = Scripted(monkeypatch, [0.3, float("nan"), 0.1])
    script.training.checkpoint = checkpoints.Checkpoint("a_run", "key", tmp_path)
    first = linear(epochs=1)
    script.training.fit(first)
    script.training.fit(linear(epochs=5, patience=4, name="later", model=first.model))
    assert_equal_weights(first.model.get_weights(), script.weights[0])
    assert "later epoch 1: found a loss of" in logged()
    # The checkpoint is JSON, which has no NaN; the next phase continues from it.
    facts, _ = script.training.checkpoint.load()
    assert [row["val_loss"] for row in facts["history"]] == [0.3, None]
    again = Trainer("run", TRAINING, CLASSES, 3, checkpoint=script.training.checkpoint)
    resumed = linear(epochs=5, patience=4, name="later", model=first.model)
    again.fit(resumed)
    assert_equal_weights(resumed.model.get_weights(), script.weights[0])
    assert len(again.history) == 2


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_every_optimizer_trains(optimizer):
    training = trainer(optimizer=optimizer)
    training.fit(linear())
    losses = [row["loss"] for row in training.history]
    assert losses[-1] < losses[0]


def test_a_weight_decay_makes_the_optimizer_adamw():
    phase = linear(epochs=1)
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
