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
    Diverged,
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

COLUMNS = "phase epoch weighted_loss loss accuracy val_loss val_accuracy".split()
COLUMNS += "learning_rate seconds best".split()


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


@pytest.mark.parametrize("weighted", [True, False])
def test_class_weights_weigh_one_of_two_losses(weighted):
    inputs = np.random.default_rng(0).normal(size=(12, CLASSES))
    phase, labels = linear(inputs=inputs), np.array([0] * 8 + [1] * 4)
    few = Examples(inputs, labels)
    training = trainer(optimizer="sgd", class_weights=weighted)
    training.fit(Phase("training", phase.model, few, few, 4, 1, 1, 1e-12))
    probabilities = predict(phase.model, inputs)
    by_class = [score(probabilities[labels == k], labels[labels == k])[0] for k in (0, 1)]
    (row,) = training.history
    # Of three classes 8 and 4 images weigh 1/2 and 1: 4 in all instead of 8 and 4.
    even = np.mean(by_class) * 2 / 3 if weighted else row["val_loss"]
    assert row["weighted_loss"] == pytest.approx(even, rel=1e-5)
    assert row["loss"] == pytest.approx(row["val_loss"], rel=1e-5)
    assert row["weighted_loss"] != pytest.approx(row["loss"], rel=1e-3) or not weighted


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


# A loss that is no number


def test_inputs_that_are_no_numbers_end_the_run_with_their_cause():
    inputs = np.full((12, CLASSES), np.nan)
    with pytest.raises(InputError, match="found a loss of nan in step 1.*the inputs") as found:
        trainer().fit(linear(inputs=inputs))
    assert found.type is InputError  # nothing diverged


@pytest.mark.parametrize(
    ("loss", "weight", "found"),
    [(np.nan, 0, "a val_loss of nan"), (0.1, np.inf, "weights that are infinite")],
)
def test_an_epoch_without_numbers_ends_the_run(loss, weight, found, monkeypatch):
    script = Scripted(monkeypatch, [loss])
    phase = linear(epochs=3)
    # As the variance of a normalization may be infinite, and what it puts out is not.
    phase.model.add_weight((), lambda *a, **b: np.float32(weight), trainable=False)
    with pytest.raises(Diverged, match=f"epoch 1: found {found}.*learning rate"):
        script.training.fit(phase)


def broken_from(monkeypatch, call):
    """Let training steps give NaN, and leave NaN in the weights, from a call of them on."""
    build, calls = step_loop.training_steps, []

    def broken(model, *arguments):
        take = build(model, *arguments)

        def steps(*batches):
            results = take(*batches)
            calls.append(1)
            if len(calls) >= call:
                model.set_weights([np.full_like(each, np.nan) for each in model.get_weights()])
                results[-1] = np.nan
            return results

        return steps

    monkeypatch.setattr(step_loop, "training_steps", broken)
    return calls


def test_a_long_epoch_ends_at_its_first_step_without_a_number(monkeypatch, tmp_path, logged):
    monkeypatch.setattr("hemagrid.training.trainer.CALL_SECONDS", 0)  # a step in each call
    monkeypatch.setattr("hemagrid.training.trainer.SAVE_EVERY", 0)  # each is saved
    calls = broken_from(monkeypatch, call=5)
    checkpoint = checkpoints.Checkpoint("run", "key", tmp_path)
    training = Trainer("run", TRAINING, CLASSES, 3, checkpoint=checkpoint)
    phase, kept = linear(epochs=9), []
    monkeypatch.setattr(training, "say", lambda line: kept.extend(phase.model.get_weights()))
    training.fit(phase)
    # Three steps of the first epoch, two of the second, and no more.
    assert len(calls) == 5
    assert "training epoch 2: found a loss of nan in step 2" in logged()
    assert_equal_weights(phase.model.get_weights(), kept)
    first, second = training.history
    assert first["best"] and not second["best"]
    assert second["loss"] is second["accuracy"] is second["val_loss"] is None
    # Its checkpoint is JSON, which has no NaN; a resumed run goes straight to the next phase.
    again = Trainer("run", TRAINING, CLASSES, 3, checkpoint=checkpoint)
    resumed = linear(epochs=9)
    again.fit(resumed)
    assert_equal_weights(resumed.model.get_weights(), kept)
    assert again.history == training.history


def test_a_run_resumed_just_before_its_loss_is_no_number_ends_the_same(monkeypatch, tmp_path):
    monkeypatch.setattr("hemagrid.training.trainer.CALL_SECONDS", 0)
    monkeypatch.setattr("hemagrid.training.trainer.SAVE_EVERY", 0)
    checkpoint = checkpoints.Checkpoint("run", "key", tmp_path)
    broken_from(monkeypatch, call=5)
    save, saved = checkpoint.save, []

    def die(facts, arrays):
        save(facts, arrays)
        saved.append(facts)
        if len(saved) == 5:  # three steps, the end of the epoch, and a step
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", die)
    with pytest.raises(KeyboardInterrupt):
        Trainer("run", TRAINING, CLASSES, 3, checkpoint=checkpoint).fit(linear(epochs=9))
    monkeypatch.setattr(checkpoint, "save", save)
    again, phase = Trainer("run", TRAINING, CLASSES, 3, checkpoint=checkpoint), linear(epochs=9)
    broken_from(monkeypatch, call=1)
    again.fit(phase)
    assert [row["loss"] is None for row in again.history] == [False, True]
    assert all(np.isfinite(each).all() for each in phase.model.get_weights())


def test_a_later_phase_that_diverges_keeps_the_best_weights(monkeypatch, logged):
    script = Scripted(monkeypatch, [0.3, float("nan"), 0.1])
    first = linear(epochs=1)
    script.training.fit(first)
    script.training.fit(linear(epochs=5, patience=4, name="later", model=first.model))
    assert_equal_weights(first.model.get_weights(), script.weights[0])
    assert "later epoch 1: found a val_loss of nan" in logged()
    assert [row["phase"] for row in script.training.history] == ["training", "later"]


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


def test_bfloat16_that_overflows_keeps_the_best_weights(logged):
    backend.begin(1, "mixed_bfloat16")
    try:
        phase, training = linear(epochs=1), trainer()
        training.fit(phase)
        training.fit(linear(rate=1e38, epochs=5, name="later", model=phase.model))
    finally:
        backend.begin(1)
    assert "expected finite numbers; lower the learning rate (now 1e+38)" in logged()
    assert all(np.isfinite(each).all() for each in phase.model.get_weights())
