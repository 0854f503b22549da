"""The score of a package, measured as the leaderboard does: by a process that sees it alone."""

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
from hemagrid.errors import InputError
from hemagrid.evaluation.metrics import scores_with_intervals
from hemagrid.io import class_names

logger = logging.getLogger(__name__)

_TAIL = 2000  # characters that are quoted of a failed package's output

# Runs in the folder of the package, without the hemagrid that `make venv` installs. Its
# arguments are the paths of the images and the result.
_DRIVER = """
import importlib.metadata, os, sys
import numpy as np
sys.path = [path for path in sys.path if not os.path.isdir(os.path.join(path, "hemagrid"))]
sys.path.insert(0, os.getcwd())
from model import Model
labels = Model().predict(np.load(sys.argv[1], mmap_mode="r"))
np.savez(sys.argv[2], labels=labels, keras=importlib.metadata.version("keras"))
"""


def score(run, inputs, out, settings):
    """Score a package that is unpacked into an empty folder.

    Writes {"run", "set", "n", "accuracy" (as in `metrics.scores_with_intervals`), "keras" (its
    version), "seconds" (start-up included)} as JSON.

    Args:
        run: Name of the run.
        inputs: Paths `submission` of the package, `images`, uint8 (N, S, S, 3), `table`, its
            CSV with `label` and `group`, and `train`, the CSV of the training images, in which
            every class occurs.
        out: Path `score` of the result.
        settings: `bootstrap` (number of resamples), `seed` and `set` (name of the images).

    Raises:
        InputError: The package is damaged, fails, or returns anything but labels.
    """
    images, table = Path(inputs["images"]).absolute(), io.read_table(inputs["table"])
    labels, k = table["label"].to_numpy(), len(class_names(io.read_table(inputs["train"])))
    with tempfile.TemporaryDirectory() as folder:
        unpacked = Path(folder, "package")
        _unpack(inputs["submission"], unpacked)
        started = time.perf_counter()
        predicted, keras_version = _ask(inputs["submission"], unpacked, images, folder)
        seconds = time.perf_counter() - started
    _check_labels(inputs["submission"], predicted, len(labels), k)
    accuracy = scores_with_intervals(
        labels,
        predicted.astype(np.int64),
        table["group"].to_numpy(),
        k,
        resamples=settings["bootstrap"],
        seed=settings["seed"],
    )["accuracy"]
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


def _unpack(path, folder):
    """Unpack a package into a new folder, unless a name leads out of it."""
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if not re.fullmatch(r"\w[\w.-]*", name):
                    raise InputError(
                        f"{path}: contains {name!r}, expected files without folders; remove "
                        "it and run again"
                    )
            archive.extractall(folder)
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: damaged, or not a zip ({error}); remove it and run again"
        ) from error


def _ask(package, unpacked, images, folder):
    """Return what an unpacked package predicts, and the version of Keras that it used."""
    result = Path(folder, "result.npz")
    # -I: neither PYTHONPATH nor the folder of this script is searched for modules.
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
            ended = f"by {signal.Signals(-done.returncode).name}, perhaps for lack of memory"
        raise InputError(
            f"{package}: in an empty folder, its model.py ended {ended}, expected labels from "
            "Model().predict(X); fix this and run again:\n"
            f"{done.stderr[-_TAIL:].strip()}"
        )
    try:
        with np.load(result) as archive:
            return archive["labels"], str(archive["keras"])
    except ValueError as error:
        raise InputError(
            f"{package}: Model().predict(X) returned Python objects ({error}), expected "
            "integers (n,); fix its model.py"
        ) from error


def _check_labels(package, labels, n, k):
    where = f"{package}: Model().predict(X) returned"
    if labels.dtype.kind not in "iu" or labels.shape != (n,):
        raise InputError(
            f"{where} {labels.dtype} {labels.shape}, expected integers ({n},), one per "
            "image; fix its model.py"
        )
    if labels.min() < 0 or labels.max() >= k:
        raise InputError(
            f"{where} labels from {labels.min()} to {labels.max()}, expected 0 to {k - 1}; "
            "fix its model.py, or score images of the classes that it was trained on"
        )
