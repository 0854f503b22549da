"""The package for the challenge's leaderboard, and its score as a stranger would measure it.

A package is a zip of two files: `model.py` with a class `Model`, and the network. It is
scored by a process of its own that sees nothing else of this project.
"""

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np

from hemagrid import evaluation, files
from hemagrid.errors import InputError
from hemagrid.logs import progress
from hemagrid.sources import class_names, copy_npz
from hemagrid.terminal import size

MODEL = Path(__file__).with_name("templates") / "model.py"
# What Keras has written into a model's config since 3.4, and the value that changes nothing.
# The challenge ran Keras of autumn 2024, which refuses keys that it does not know. Tried on
# a CNN and the four backbones of the study, saved by Keras 3.15.1: without these keys they
# load, and give the same labels, under Keras 3.4.1, 3.6.0, 3.8.0 and 3.10.0 on TensorFlow
# 2.17.0 and under 3.15.1 on 2.21.0; with them not under 3.4.1 and 3.6.0. Keras 3.3.3 reads
# neither.
NEWER_KEYS = {
    "input_axes": None,
    "output_axes": None,
    "quantization_config": None,
    "renorm": False,
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
}
_TAIL = 2000  # characters of what a failed package said last
# Runs in the package's folder: its arguments are the images and the result.
_DRIVER = """
import importlib.metadata, os, sys
import numpy as np
sys.path.insert(0, os.getcwd())
from model import Model
labels = Model().predict(np.load(sys.argv[1], mmap_mode="r"))
np.savez(sys.argv[2], labels=labels, keras=importlib.metadata.version("keras"))
"""


def package(run, inputs, out):
    """Write the package of a run: a zip of `model.py` and `model.keras`, nothing else.

    `inputs` holds the path `model`, `out` the path `submission`. One model gives one zip,
    byte for byte. Raises InputError where the model is no file that Keras saved.
    """
    with files.replacing(out["submission"]) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr(_entry("model.py"), MODEL.read_bytes())
            entry = _entry("model.keras", Path(inputs["model"]).stat().st_size)
            with archive.open(entry, "w") as network:
                _copy_network(inputs["model"], network)
    progress(f"{run}: packaged, {size(Path(out['submission']).stat().st_size)}")


def for_older_keras(config):
    """Return a model's config, as its `config.json` holds it, in the words of Keras 3.4.

    Only what changes nothing is left out: a key of `NEWER_KEYS` with another value stays.
    """
    if isinstance(config, list):
        return [for_older_keras(value) for value in config]
    if not isinstance(config, dict):
        return config
    config = {
        key: for_older_keras(value)
        for key, value in config.items()
        if not (key in NEWER_KEYS and value == NEWER_KEYS[key])
    }
    # Operations took no name then. Layers refer to the one beside the config, not in it.
    if str(config.get("module")).startswith("keras.src.ops."):
        config["config"].pop("name", None)
    return config


def _copy_network(path, target):
    """Copy a `.keras` file, itself a zip, to the stream `target`, for older Keras, too."""
    try:
        with zipfile.ZipFile(path) as saved, zipfile.ZipFile(target, "w") as copy:
            config = for_older_keras(json.loads(saved.read("config.json")))
            copy.writestr(_entry("config.json"), json.dumps(config))
            for name in ("metadata.json", "model.weights.h5"):
                entry = _entry(name, saved.getinfo(name).file_size)
                with saved.open(name) as content, copy.open(entry, "w") as written:
                    shutil.copyfileobj(content, written, 2**20)
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: no model that Keras saved, or a damaged one ({error}); remove it and "
            "run again"
        ) from error


def _entry(name, length=0):
    """Describe a zip's member of `length` bytes without the time and the user's umask."""
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o644 << 16
    entry.file_size = length  # from 2 GiB on the format is another one
    return entry


def score(run, inputs, out, settings):
    """Score a package in an empty folder, by a process that sees nothing but the package.

    `inputs` holds the path `submission` and either `hidden_set`, an npz with `images` and
    `labels` as in `sources.from_npz`, or `images`, uint8 (N, H, W, 3), and `table`, its CSV
    with `label` and `parent_id`. `out` holds the path `score`; `settings` holds `bootstrap`
    (resamples), `seed`, `classes` (names in the order of the labels; None: as in the table),
    `image_size` and `set`, what people call these images.

    The score is {"run", "set", "n", "accuracy": {"value", "low", "high"} (0-1, interval as
    in `evaluation.evaluate`), "keras" (its version), "seconds" (start-up included)}. Raises
    InputError for a damaged package, one that fails, and answers that are no labels.
    """
    with tempfile.TemporaryDirectory() as folder:
        unpacked = Path(folder, "package")
        _unpack(inputs["submission"], unpacked)
        images, labels, groups, k = _hidden_set(inputs, settings, folder)
        started = time.perf_counter()
        predicted, keras_version = _ask(inputs["submission"], unpacked, images, folder)
        seconds = time.perf_counter() - started
    _check_labels(inputs["submission"], predicted, len(labels), k)
    resampled = evaluation.resampled_confusions(
        labels,
        predicted.astype(np.int64),
        groups,
        k,
        resamples=settings["bootstrap"],
        seed=settings["seed"],
    )
    accuracy = evaluation.with_interval(
        (predicted == labels).mean(), evaluation.accuracy(resampled)
    )
    files.write_json(
        out["score"],
        {
            "run": run,
            "set": settings["set"],
            "n": len(labels),
            "accuracy": accuracy,
            "keras": keras_version,
            "seconds": seconds,
        },
    )
    progress(
        f"{run}: accuracy {100 * accuracy['value']:.1f} % on {len(labels)} images "
        f"({settings['set']}), from its package alone"
    )


def _hidden_set(inputs, settings, folder):
    """Return (path of the images, labels (n,), groups (n,), number of classes)."""
    if "hidden_set" in inputs:
        images = Path(folder, "images.npy")
        options = {key: settings[key] for key in ("classes", "image_size")}
        table = copy_npz(inputs["hidden_set"], images, **options, every_class=False)
        groups = table["id"]
    else:
        images = Path(inputs["images"]).absolute()
        table = files.read_table(inputs["table"])
        groups = table["parent_id"]
    k = len(settings["classes"] or class_names(table))
    return images, table["label"].to_numpy(), groups.to_numpy(), k


def _unpack(path, folder):
    """Unpack a package into a new folder. Raises InputError for a name that leads out of it."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if not re.fullmatch(r"\w[\w.-]*", name):
                    raise InputError(
                        f"{path}: holds {name!r}, expected files without folders; remove it "
                        "and run again"
                    )
            archive.extractall(folder)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: no zip, or a damaged one ({error}); remove it and run again"
        ) from error


def _ask(package, unpacked, images, folder):
    """Return (what the package in `unpacked` predicts, version of Keras in that process)."""
    result = Path(folder, "result.npz")
    # Isolated: neither PYTHONPATH nor the folder of this script is searched.
    done = subprocess.run(
        [sys.executable, "-I", "-c", _DRIVER, images, result],
        cwd=unpacked,
        capture_output=True,
        text=True,
        errors="replace",
    )
    if done.returncode:
        ended = f"with status {done.returncode}"
        if done.returncode < 0:
            ended = f"by {signal.Signals(-done.returncode).name}, perhaps for its memory"
        raise InputError(
            f"{package}: unpacked into an empty folder its model.py ended {ended}, expected "
            "labels from Model().predict(X); repair what it said last and run again:\n"
            f"{done.stderr[-_TAIL:].strip()}"
        )
    try:
        with np.load(result) as archive:
            return archive["labels"], str(archive["keras"])
    except ValueError as error:
        raise InputError(
            f"{package}: Model().predict(X) gave Python objects ({error}), expected integers "
            "(n,); repair its model.py"
        ) from error


def _check_labels(package, labels, n, k):
    where = f"{package}: Model().predict(X) gave"
    if labels.dtype.kind not in "iu" or labels.shape != (n,):
        raise InputError(
            f"{where} {labels.dtype} {labels.shape}, expected integers ({n},), one for each "
            "image; repair its model.py"
        )
    if labels.min() < 0 or labels.max() >= k:
        raise InputError(
            f"{where} labels from {labels.min()} to {labels.max()}, expected 0 to {k - 1}; "
            "repair its model.py, or score images of the classes that it was trained on"
        )
