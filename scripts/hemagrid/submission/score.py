"""The package for the challenge's leaderboard, and its score as a stranger would measure it.

A package is a zip of two files: `model.py` with a class `Model`, and the network. It is
scored by a process of its own that sees nothing else of this project.
"""

import logging
import re
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
import zlib
from pathlib import Path

import numpy as np

from hemagrid import io
from hemagrid.data.readers import copy_npz
from hemagrid.errors import InputError
from hemagrid.evaluation import metrics, statistics
from hemagrid.io import class_names

logger = logging.getLogger(__name__)


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
    resampled = statistics.resampled_confusions(
        labels,
        predicted.astype(np.int64),
        groups,
        k,
        resamples=settings["bootstrap"],
        seed=settings["seed"],
    )
    accuracy = statistics.with_interval(
        (predicted == labels).mean(), metrics.accuracy(resampled)
    )
    io.write_json(
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
    logger.info(
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
        table = io.read_table(inputs["table"])
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
