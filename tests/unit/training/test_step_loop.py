"""Steps in a loop inside the graph are the steps that Keras takes one by one."""

import keras
import numpy as np
import pytest

from hemagrid.training import step_loop


@pytest.mark.parametrize("cause", ["backend", "size"])
def test_steps_without_a_loop_in_the_graph_are_the_same(cause, monkeypatch):
    random = np.random.default_rng(0)
    inputs = random.normal(size=(5, 4, 3)).astype("float32")
    labels, weights = (
        random.integers(0, 3, (5, 4)),
        random.uniform(size=(5, 4)).astype("float32"),
    )
    found = []
    for looped in (True, False):
        keras.utils.set_random_seed(1)
        layers = [keras.Input((3,)), keras.layers.Dense(3, activation="softmax")]
        model = keras.Sequential(layers)
        metrics = [
            keras.metrics.SparseCategoricalCrossentropy(name="cross_entropy"),
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
        ]
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(), metrics=metrics)
        if cause == "backend" and not looped:
            monkeypatch.setattr("keras.backend.backend", lambda: "jax")
        if cause == "size" and not looped:
            monkeypatch.setattr(step_loop, "LOOPED_VARIABLES", 1)
        take_steps = step_loop.training_steps(model, 4, inputs[0])
        monkeypatch.undo()
        calls, single = [], model.train_on_batch
        model.train_on_batch = lambda *a, **b: calls.append(1) or single(*a, **b)  # noqa: B023
        found.append((take_steps(inputs, labels, weights), *model.get_weights()))
        assert len(calls) == (0 if looped else 5)
    for in_the_graph, one_by_one in zip(*found, strict=True):
        np.testing.assert_allclose(in_the_graph, one_by_one, rtol=1e-6)
    assert found[0][0].shape == (5, 3)
