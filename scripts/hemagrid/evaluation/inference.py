"""What a trained run says about new pictures, read as its training pictures were."""

from pathlib import Path

import numpy as np

from hemagrid.errors import InputError
from hemagrid.training import backend
from hemagrid.training.predictions import read_predictions

_MODEL, _PREDICTIONS = "model.keras", "predictions.npz"


def find_run(run, directory):
    """Return the folder of a trained run in the study at `directory`.

    Raises InputError, naming the runs that there are, where it has no model.
    """
    results = Path(directory, "results")
    missing = [name for name in (_MODEL, _PREDICTIONS) if not (results / run / name).is_file()]
    if missing:
        trained = sorted(path.parent.name for path in results.glob(f"*/{_MODEL}"))
        raise InputError(
            f"{results / run}: found no {' and no '.join(missing)}, expected those of a "
            f"trained run; trained in this study: {', '.join(trained) or 'none'}. Name one "
            "of them, or say with --directory where the study is"
        )
    return results / run


def find_pictures(paths):
    """Return the files among `paths` and in the folders among them, as Paths.

    Folders are searched with their folders, in the order of their names; hidden files and
    linked folders are left out. Raises InputError where nothing is found.
    """
    pictures = []
    for path in map(Path, paths):
        pictures += _files(path) if path.is_dir() else [path]
    if not pictures:
        raise InputError(f"{', '.join(map(str, paths))}: found no files, expected pictures")
    return pictures


def _files(folder):
    return sorted(
        path
        for path in folder.rglob("*")
        if not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def run_classes(folder):
    """Return the class names of the run in `folder`, in the order of its labels."""
    return read_predictions(folder / _PREDICTIONS)[0]


def classify(folder, pictures, refuse):
    """Yield (path as text, probabilities (k,) float32) for each of `pictures`, in order.

    `folder` is that of a run. `refuse(path as text, reason)` is called for a file that gives
    no picture. At most a batch of pictures is in memory. Raises InputError for a model that
    does not load.
    """
    network = load_network(folder / _MODEL)
    from hemagrid.training import embeddings  # not above, because it imports Keras

    # A single picture need not wait for a whole batch of padding.
    batch_size = min(embeddings.BATCH, len(pictures))
    for start in range(0, len(pictures), batch_size):
        names, pixels = [], []
        for path in pictures[start : start + batch_size]:
            name = pictures.printable(str(path))
            try:
                picture = pictures.read_picture(path, network.input_shape[1])
            except pictures.Unusable as reason:
                refuse(name, str(reason))
            else:
                names.append(name)
                pixels.append(np.asarray(picture))
        if pixels:
            found = embeddings.predict(network, np.stack(pixels), batch_size)
            yield from zip(names, found, strict=True)


def load_network(path):
    """Return the network of a run's `model.keras`. Raises InputError where Keras cannot."""
    backend.begin(0)
    import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises many types on a file it cannot read
        raise InputError(
            f"{path}: Keras {keras.__version__} cannot load it ({error}); train the run "
            "again, or use the environment in which it was trained"
        ) from error
