"""The predictions of a trained run: for test sets, and for new pictures of anybody's."""

import functools
import logging
import time
from pathlib import Path

import numpy as np

from hemagrid import io, logs, names
from hemagrid.config.loading import nearby
from hemagrid.config.messages import did_you_mean
from hemagrid.data.corruptions import Corrupted
from hemagrid.data.pictures import Unusable, printable, read_picture
from hemagrid.errors import InputError
from hemagrid.evaluation.ensembles import VIEWS, Combined, cost_of
from hemagrid.evaluation.predictions import (
    read_corrupted,
    read_predictions,
    stored_key,
    write_corrupted,
    write_predictions,
)
from hemagrid.training import backend, checkpoints

CORRUPTED = "corrupted_test"
"""What the predictions of corrupted test images are called beside those of test sets."""
LATENCY = "latency"
"""What the record of the latency is called beside them."""
WARM_UP, TIMED = 10, 100  # images that pass before the clock counts, and then at most
PATIENCE = 10.0  # seconds after which no further image is timed

_MODEL, _COST = Path(names.MODEL).name, Path(names.COST).name
_PREDICTIONS = f"{Path(names.PREDICTIONS).parent.name}/{names.VAL}.npz"

logger = logging.getLogger(__name__)


def predict_run(
    run, inputs, out, precision, corruptions=None, views=False, folder=checkpoints.FOLDER
):
    """Predict the test sets of a study with a trained run.

    Predictions that this network made of the same images are left as they are, so another test
    set costs its own predictions alone.

    Args:
        run: Name of the run.
        inputs: Paths `model`, `table_train`, which names the classes, and `images_{test set}`
            and `table_{test set}` of each test set.
        out: {test set: path of its predictions}. Their `key` is that of `checkpoints.key_of`
            for network, images, table and precision. With corruptions, `corrupted_test` is
            that of corrupted test images, as `names.CORRUPTED`. `latency`, if given, is
            that of what `measure_latency` returns, as `names.LATENCY`, with its `key`.
        precision: The config's `training.precision`.
        corruptions: `sets`, a list of (kind, severity), and the `seed` of what they draw; or
            nothing.
        views: Whether it looks at eight views of every image.
        folder: Where checkpoints lie, and the run's results until now.

    Raises:
        InputError: if Keras cannot load the model.
    """
    checkpoints.release(inputs.values(), folder)
    keys = {
        name: checkpoints.key_of(
            "predict",
            f"{precision}, eight views" if views else precision,
            _predicted_from(inputs, name),
        )
        for name in out
        if name not in (CORRUPTED, LATENCY)
    }
    stale = [name for name in keys if stored_key(out[name]) != keys[name]]
    if kept := [name for name in keys if name not in stale]:
        logger.info(f"{run}: predicted already: {', '.join(kept)}")
    class_names = io.class_names(io.read_table(inputs[f"table_{names.TRAIN}"]))

    @functools.cache
    def load():
        network = load_network(inputs["model"], precision)
        return Combined([network], views) if views else network

    for name in stale:
        images = io.open_images(inputs[f"images_{name}"])
        table = io.read_table(inputs[f"table_{name}"])
        probabilities = _predict(load(), images, f"Predicting {name} by {run}")
        write_predictions(
            out[name], class_names, table["label"], probabilities, table["group"], keys[name]
        )
    if corruptions:
        key = checkpoints.key_of(
            "corrupt", [precision, corruptions["seed"]], _predicted_from(inputs, names.TEST)
        )
        _predict_corrupted(run, inputs, out[CORRUPTED], corruptions, class_names, key, load)
    if LATENCY in out:
        of = f"{precision}, one image at a time"
        key = checkpoints.key_of("predict", of, {"model": inputs["model"]})
        path = Path(out[LATENCY])
        if not path.exists() or io.read_json(path)["key"] != key:
            images = io.open_images(inputs[f"images_{names.TEST}"])
            io.write_json(path, {"key": key} | measure_latency(load(), images))


def measure_latency(network, images):
    """Measure how long a network takes for one image that comes alone.

    The first `WARM_UP` images are not timed: the first of all is traced and compiled. The time
    is from the pixels in memory to the probabilities in memory, without reading a file. Other
    jobs on the same machine make it longer.

    Args:
        network: A Keras model, or `ensembles.Combined` ones.
        images: uint8 (N, S, S, 3); the first ones are used, again and again where they are few.

    Returns:
        {"images": how many were timed, "median_ms", "p95_ms", "environment": as in
        `environment.environment`: device, threads and precision among others}.
    """
    from hemagrid.training.environment import environment

    times, begun = [], time.monotonic()
    for place in range(WARM_UP + TIMED):
        image = io.take(images, slice(place % len(images), place % len(images) + 1))
        started = time.perf_counter()
        network.predict_on_batch(image)
        times.append(1000 * (time.perf_counter() - started))
        if place > WARM_UP and time.monotonic() - begun > PATIENCE:
            break
    median, p95 = np.percentile(times[WARM_UP:], [50, 95])
    return {
        "images": len(times) - WARM_UP,
        "median_ms": float(median),
        "p95_ms": float(p95),
        "environment": environment("predict"),
    }


def _predicted_from(inputs, name):
    """Return the inputs on which the predictions of a test set depend."""
    return {kind: inputs[kind] for kind in ("model", f"images_{name}", f"table_{name}")}


def _predict(network, images, description):
    from hemagrid.training import embeddings  # imports Keras

    batches = embeddings.batches(network, images)
    steps = logs.track(batches, description, total=len(images), step=embeddings.BATCH)
    return np.concatenate([answers for _, answers in steps])


def _predict_corrupted(run, inputs, out, corruptions, class_names, key, load):
    """Predict the corrupted test images that are not predicted yet."""
    stored = read_corrupted(out)[1] if stored_key(out) == key else {}
    if kept := [f"{kind} {severity}" for kind, severity in stored]:
        logger.info(f"{run}: predicted already: {', '.join(kept)}")
    images = io.open_images(inputs[f"images_{names.TEST}"])
    table = io.read_table(inputs[f"table_{names.TEST}"])
    answers = {}
    for kind, severity in corruptions["sets"]:
        answers[kind, severity] = stored.get((kind, severity))
        if answers[kind, severity] is None:
            copies = Corrupted(images, table["parent_id"], kind, severity, corruptions["seed"])
            description = f"Predicting {kind} {severity} by {run}"
            answers[kind, severity] = _predict(load(), copies, description)
    if answers.keys() != stored.keys():
        write_corrupted(out, class_names, table["label"], answers, table["group"], key)


def predict_views(run, inputs, out, precision):
    """Predict the test sets of a study with a run that looks at eight views of every image.

    Args:
        run: Name of the run with views.
        inputs: As in `predict_run`, and the path `cost` of the run.
        out: Paths `predictions_{test set}`, and `cost` of what the views cost.
        precision: The config's `training.precision`.

    Raises:
        InputError: if Keras cannot load the model.
    """
    predictions = {
        name.removeprefix("predictions_"): path for name, path in out.items() if name != "cost"
    }
    predict_run(run, inputs, predictions, precision, views=True)
    cost = {run.removesuffix(names.WITH_VIEWS): io.read_json(inputs["cost"])}
    io.write_json(out["cost"], cost_of(cost, VIEWS))


def find_run(run, directory):
    """Return the folder of a run that can predict.

    Args:
        run: Name of the run, of an ensemble, or of a run with views.
        directory: Folder of the study.

    Raises:
        InputError: if the run has no model or no predictions, or is an ensemble without its
            members. The message lists the runs that are there.
    """
    folder = Path(directory, names.MODEL.format(run=run)).parent
    missing = [name for name in (_MODEL, _PREDICTIONS) if not (folder / name).is_file()]
    if missing == [_MODEL] and (folder / _COST).is_file():  # made of other runs
        for member in io.read_json(folder / _COST).get("members", ()):
            find_run(member, directory)
            missing = []
    if missing:
        found = [path for name in (_MODEL, _COST) for path in folder.parent.glob(f"*/{name}")]
        trained = sorted({path.parent.name for path in found} - {run})
        raise InputError(
            f"{folder}: found no {' and no '.join(missing)}, expected a trained run; trained "
            f"in this study: {', '.join(trained) or 'none'}. Name one of them, or the study's "
            f"folder with --directory{did_you_mean(run, trained)}"
            f"{'' if trained else nearby(directory)}"
        )
    return folder


def find_pictures(paths):
    """List picture files.

    Args:
        paths: Files, and folders that are searched with their subfolders in the order of names.
            Hidden files and linked folders are left out.

    Returns:
        A list of Paths.

    Raises:
        InputError: if there are none.
    """
    pictures = []
    for path in map(Path, paths):
        if path.is_dir():
            pictures += sorted(
                found
                for found in path.rglob("*")
                if not found.is_dir()
                and not any(part.startswith(".") for part in found.relative_to(path).parts)
            )
        else:
            pictures.append(path)
    if not pictures:
        raise InputError(f"{', '.join(map(str, paths))}: found no files, expected pictures")
    return pictures


def run_classes(folder):
    """Return the class names of the run in `folder`, in the order of its labels."""
    return read_predictions([folder / _PREDICTIONS])[0]


def classify(folder, paths, refuse, look=None):
    """Yield the predictions of a run for pictures, in order.

    At most one batch of pictures is in memory. Keras starts once a picture can be read.

    Args:
        folder: Folder of the run, a Path.
        paths: Picture files, Paths.
        refuse: Function of (path as text, reason) that is called for each file that cannot be
            read.
        look: Function of (path, pixels uint8 (S, S, 3), changes) that is called for each other
            one, or None.

    Yields:
        (path as text, probabilities float32 (classes,)).

    Raises:
        InputError: if Keras cannot load the model.
    """
    record = folder.parents[1] / names.SOURCE
    reading = io.read_json(record).get("reading", {}) if record.exists() else {}
    paths = _from_first_readable(paths, refuse, reading)
    if not paths:
        return
    network = load_run(folder)
    from hemagrid.training import embeddings  # imports Keras

    # A few pictures need not be padded to a whole batch.
    batch_size = min(embeddings.BATCH, len(paths))
    for start in range(0, len(paths), batch_size):
        read, pixels = [], []
        for path in paths[start : start + batch_size]:
            try:
                picture, changes = read_picture(path, network.input_shape[1], **reading)
            except Unusable as reason:
                refuse(printable(str(path)), str(reason))
            else:
                read.append(printable(str(path)))
                pixels.append(np.asarray(picture))
                if look:
                    look(path, pixels[-1], changes)
        if pixels:
            found = embeddings.predict(network, np.stack(pixels), batch_size)
            yield from zip(read, found, strict=True)


def _from_first_readable(paths, refuse, reading):
    """Return the paths from the first picture that can be read on; refuse those before it."""
    for place, path in enumerate(paths):
        try:
            read_picture(path, 1, **reading)
        except Unusable as reason:
            refuse(printable(str(path)), str(reason))
        else:
            return paths[place:]
    return []


def load_run(folder):
    """Load what answers for a run: its network, or several as one.

    Args:
        folder: Folder of the run, of an ensemble, or of a run with views: a Path.

    Returns:
        A Keras model, or `ensembles.Combined` ones.

    Raises:
        InputError: if Keras cannot load a model.
    """
    if (folder / _MODEL).is_file():
        return load_network(folder / _MODEL)
    made_of = io.read_json(folder / _COST)
    networks = [load_network(folder.parent / run / _MODEL) for run in made_of["members"]]
    return Combined(networks, made_of["views"] > 1)


def load_network(path, precision="float32"):
    """Load the network of a run from its `model.keras`.

    Args:
        path: Path of the file.
        precision: As in `backend.begin`.

    Raises:
        InputError: if Keras cannot load it.
    """
    backend.begin(0, precision)
    import keras

    try:
        return keras.saving.load_model(path, compile=False)
    except Exception as error:  # Keras raises many types for a file that it cannot read
        raise InputError(
            f"{path}: Keras {keras.__version__} cannot load it ({error}); train the run "
            "again, or use the environment in which it was trained"
        ) from error
