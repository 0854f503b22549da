"""Weights from files in each form that Keras writes, and what a file that does not fit says."""

import h5py
import keras
import numpy as np
import pytest

from hemagrid.errors import InputError
from hemagrid.models.weight_files import load_weights

FORMS = ("own.weights.h5", "own.keras", "own.h5", "own_notop.h5")


def network(filters=4, top=False, name="first", seed=0):
    """Build a network with BatchNormalization and a model inside it, with random weights."""
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(2, 3, name=name)(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    inner = keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Conv2D(filters, 3)])
    x = keras.layers.GlobalAveragePooling2D()(inner(x))
    if top:
        x = keras.layers.Dense(5, name="predictions")(x)
    made = keras.Model(inputs, x)
    rng = np.random.default_rng(seed)
    made.set_weights([rng.uniform(size=values.shape) for values in made.get_weights()])
    return made


def write(model, path):
    """Write a model's weights in the form that the path says."""
    if path.name.endswith("_notop.h5"):
        model.save(path.with_suffix(".whole.h5"))
        with h5py.File(path.with_suffix(".whole.h5")) as source, h5py.File(path, "w") as target:
            for name in source["model_weights"]:
                source.copy(f"model_weights/{name}", target)
            target.attrs.update(source["model_weights"].attrs)
    elif path.name.endswith(".weights.h5"):
        model.save_weights(path)
    else:
        model.save(path)
    return path


def refusal(path, into):
    before = into.get_weights()
    with pytest.raises(InputError) as refused:
        load_weights(into, path, "THE NETWORK")
    for one, two in zip(before, into.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert "THE NETWORK" in str(refused.value)
    assert str(refused.value).startswith(f"{path}: ")
    return str(refused.value)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_weights(form, tmp_path):
    source, target = network(name="another_name"), network(seed=1)
    load_weights(target, write(source, tmp_path / form), "the network")
    for one, two in zip(source.get_weights(), target.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("form", FORMS)
def test_the_first_layer_that_does_not_fit_is_named_with_both_shapes(form, tmp_path):
    wider = write(network(filters=6), tmp_path / form)
    said = refusal(wider, network())
    assert "found (3, 3, 2, 6) and (6,) in the file, expected (3, 3, 2, 4) and (4,)" in said
    with_top = write(network(top=True), tmp_path / form)
    said = refusal(with_top, network())
    assert (
        "layer predictions: found (4, 5) and (5,) in the file, expected no such layer" in said
    )
    without = write(network(), tmp_path / form)
    said = refusal(without, network(top=True))
    assert "layer predictions: found nothing in the file, expected (4, 5) and (5,)" in said


@pytest.mark.parametrize("form", FORMS)
def test_a_damaged_file_is_refused(form, tmp_path):
    path = write(network(), tmp_path / form)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "cannot be read as weights" in refusal(path, network())


def test_what_holds_no_weights_of_keras_is_refused(tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["images"] = np.zeros(3)
    said = refusal(tmp_path / "other.h5", network())
    assert "layer first: found nothing in the file, expected (3, 3, 3, 2) and (2,)" in said
    wrong = write(network(), tmp_path / "own.weights.h5").rename(tmp_path / "own.h5")
    assert "a name that ends in .weights.h5" in refusal(wrong, network())
