"""Weights from a file of the user's, in any form that Keras writes or wrote."""

import contextlib
import io
import itertools
import tempfile
import zipfile
from pathlib import Path

import h5py
import numpy as np

from hemagrid.errors import InputError


def load_weights(network, path, what):
    """Load the weights of a file into a network. The file must hold this network and no more.

    Three forms are read: what `save_weights` of Keras 3 writes (`.weights.h5`); a whole model
    (`.keras`), of which only the weights count; and the HDF5 of Keras 2 (`.h5`), weights alone
    or a whole model, in which layers have an order and their names do not matter.

    Args:
        network: A Keras model.
        path: Path of the file.
        what: How to write the network in Python, for messages.

    Raises:
        InputError: if the file cannot be read, or a layer does not fit. The message names the
            first one, with its shapes in the file and in the network.
    """
    try:
        with _hdf5(path) as file:
            legacy = file.get("model_weights", file)
            if "layer_names" in legacy.attrs or "layer_names0" in legacy.attrs:
                _load_legacy(network, legacy, path, what)
                return
            _compare(_layers_of_keras_3(network, file), path, what)
        network.load_weights(path)
    except InputError:
        raise
    except Exception as error:  # damaged bytes can raise anything in h5py and Keras
        raise InputError(
            f"{path}: cannot be read as weights of {what} ({error}); write it again with "
            "model.save_weights, to a name that ends in .weights.h5"
        ) from error


@contextlib.contextmanager
def _hdf5(path):
    """Open the HDF5 of a file of weights, or the one inside a `.keras` file."""
    with contextlib.ExitStack() as stack:
        if Path(path).suffix == ".keras":
            archive = stack.enter_context(zipfile.ZipFile(path))
            path = io.BytesIO(archive.read("model.weights.h5"))
        yield stack.enter_context(h5py.File(path, "r"))


def _compare(layers, path, what):
    """Refuse a file at its first layer that does not fit.

    Args:
        layers: (name, shapes in the file, shapes in the network) of each, in order.
    """
    for name, found, expected in layers:
        if found != expected:
            raise InputError(
                f"{path}: layer {name}: found {_shapes(found) or 'nothing'} in the file, "
                f"expected {_shapes(expected) or 'no such layer'}, as in {what}; save the "
                "weights of that network"
            )


def _shapes(shapes):
    return " and ".join(map(str, shapes))


def _load_legacy(network, group, path, what):
    """Load what Keras 2 wrote: layers by their order, trainable weights before others."""
    ours = [
        (layer.name, [*layer.trainable_weights, *layer.non_trainable_weights])
        for layer in network.layers
        if layer.weights
    ]
    theirs = [
        (name, [group[name][weight] for weight in _names(group[name], "weight_names")])
        for name in _names(group, "layer_names")
    ]
    pairs = [
        (our or their, [w.shape for w in values], [tuple(v.shape) for v in variables])
        for (our, variables), (their, values) in itertools.zip_longest(
            ours, [pair for pair in theirs if pair[1]], fillvalue=("", [])
        )
    ]
    _compare(pairs, path, what)
    stored = itertools.chain.from_iterable(values for _, values in theirs)
    for variable, value in zip(
        itertools.chain.from_iterable(variables for _, variables in ours), stored, strict=True
    ):
        variable.assign(np.asarray(value))


def _names(group, key):
    """Return a list of names that Keras 2 kept as an attribute, or in parts of one."""
    parts = (f"{key}{part}" for part in itertools.count())
    found = (
        [key] if key in group.attrs else itertools.takewhile(group.attrs.__contains__, parts)
    )
    names = itertools.chain.from_iterable(group.attrs[part] for part in found)
    return [name.decode() if isinstance(name, bytes) else name for name in names]


def _layers_of_keras_3(network, file):
    """Pair the layers of a file with those that Keras would write for a network.

    Returns:
        (name, shapes in the file, shapes in the network) of each layer: in the network's order,
        and then those that only the file has.
    """
    order = {layer.name: place for place, layer in enumerate(network.layers)}
    with tempfile.TemporaryDirectory() as folder:
        own = Path(folder, "own.weights.h5")
        network.save_weights(own)
        with h5py.File(own, "r") as written:
            expected, names = _stored(written)
    found, their_names = _stored(file)

    def place(layer):
        # A layer inside another one has the place of the outer one.
        return order.get(names["/".join(layer.split("/")[:2])], len(order)), layer

    layers = [
        (names[layer], found.get(layer, []), expected[layer])
        for layer in sorted(expected, key=place)
    ]
    return layers + [
        (their_names.get(layer, layer), found[layer], [])
        for layer in sorted(found.keys() - expected.keys())
    ]


def _stored(file):
    """List what a file of Keras 3 holds.

    Returns:
        {path of a layer: the shapes of its weights}, and {path of a layer: its name}.
    """
    shapes, names = {}, {}

    def note(path, item):
        # As TensorFlow 2.13 called it.
        path = path.replace("_layer_checkpoint_dependencies", "layers")
        layer, _, key = path.partition("/vars")
        if not path.startswith("layers/") or "/vars" not in path:
            return
        if isinstance(item, h5py.Dataset):
            shapes.setdefault(layer, {})[key] = item.shape
        elif "name" in item.attrs:
            names[layer] = item.attrs["name"]

    file.visititems(note)
    in_order = {
        layer: [of[key] for key in sorted(of, key=lambda key: (len(key), key))]
        for layer, of in shapes.items()
    }
    return in_order, names
