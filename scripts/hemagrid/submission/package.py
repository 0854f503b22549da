"""The package for the challenge's leaderboard, and its score as a stranger would measure it.

A package is a zip of two files: `model.py` with a class `Model`, and the network. It is
scored by a process of its own that sees nothing else of this project.
"""

import json
import logging
import shutil
import zipfile
from pathlib import Path

from hemagrid import io
from hemagrid.errors import InputError
from hemagrid.reporting.text import size

logger = logging.getLogger(__name__)


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


def package(run, inputs, out):
    """Write the package of a run: a zip of `model.py` and `model.keras`, nothing else.

    `inputs` holds the path `model`, `out` the path `submission`. One model gives one zip,
    byte for byte. Raises InputError where the model is no file that Keras saved.
    """
    with io.replacing(out["submission"]) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr(_entry("model.py"), MODEL.read_bytes())
            entry = _entry("model.keras", Path(inputs["model"]).stat().st_size)
            with archive.open(entry, "w") as network:
                _copy_network(inputs["model"], network)
    logger.info(f"{run}: packaged, {size(Path(out['submission']).stat().st_size)}")


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
