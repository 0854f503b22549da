"""The package for the challenge's leaderboard: a zip of `model.py` and the networks."""

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

# Keys that Keras writes into a model's config since 3.4, each with the value that changes
# nothing. The challenge ran Keras of autumn 2024, which refuses unknown keys. Tested with a CNN
# and the study's four backbones, saved by Keras 3.15.1: without these keys they load and give
# the same labels with Keras 3.4.1, 3.6.0, 3.8.0 and 3.10.0 on TensorFlow 2.17.0, and with
# 3.15.1 on 2.21.0; with them they do not load with 3.4.1 and 3.6.0. Keras 3.3.3 reads neither.
NEWER_KEYS = {
    "antialias": False,
    "input_axes": None,
    "output_axes": None,
    "quantization_config": None,
    "renorm": False,
    "renorm_clipping": None,
    "renorm_momentum": 0.99,
}


def package(run, inputs, out):
    """Write the package of a run. The same models always give the same bytes.

    Args:
        run: Name of the run.
        inputs: Paths `models` of files saved by Keras, in the folders of their runs. An
            ensemble and a run with views also have `cost`, whose `members` are packaged.
        out: Path `submission` of the zip.

    Raises:
        InputError: A model is damaged, Keras did not save it, or it holds layers that Keras
            does not have.
    """
    models = {Path(path).parent.name: path for path in inputs["models"]}
    code = MODEL.read_text(encoding="utf-8")
    if "cost" in inputs:
        made_of = io.read_json(inputs["cost"])
        models = {member: models[member] for member in made_of["members"]}
        code = code.replace("VIEWS = False", f"VIEWS = {made_of['views'] > 1}")
    with io.replacing(out["submission"]) as temporary:
        with zipfile.ZipFile(temporary, "w") as archive:
            archive.writestr(_entry("model.py"), code)
            for number, path in enumerate(models.values(), 1):
                name = "model.keras" if len(models) == 1 else f"model_{number}.keras"
                entry = _entry(name, Path(path).stat().st_size)
                with archive.open(entry, "w") as network:
                    _copy_network(path, network)
    logger.info(f"{run}: packaged, {size(Path(out['submission']).stat().st_size)}")


def for_older_keras(config):
    """Rewrite a model's config so that Keras 3.4 can read it.

    Args:
        config: Content of `config.json`, or a part of it.

    Returns:
        The config without what changes nothing: a key of `NEWER_KEYS` with another value
        stays.
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
    # Keras 3.4 accepts no name for operations. Layers refer to the name beside the config.
    if str(config.get("module")).startswith("keras.src.ops."):
        config["config"].pop("name", None)
    return config


def _foreign(config):
    """Yield the classes of a model's config that Keras does not have, with their packages."""
    parts = config.values() if isinstance(config, dict) else config
    for part in parts if isinstance(config, dict | list) else ():
        yield from _foreign(part)
    if isinstance(config, dict) and config.get("module"):
        package = config["module"].partition(".")[0]
        if package not in ("keras", "builtins"):
            yield f"{package}'s {config.get('class_name')}"


def _copy_network(path, target):
    """Copy a `.keras` file, which is a zip, to the stream `target`, its config rewritten."""
    try:
        with zipfile.ZipFile(path) as saved, zipfile.ZipFile(target, "w") as copy:
            config = for_older_keras(json.loads(saved.read("config.json")))
            if foreign := sorted(set(_foreign(config))):
                raise InputError(
                    f"{path}: found {', '.join(foreign)}, expected layers of Keras alone: the "
                    "leaderboard's server has no other package, so this run cannot be packaged"
                )
            copy.writestr(_entry("config.json"), json.dumps(config))
            for name in ("metadata.json", "model.weights.h5"):
                entry = _entry(name, saved.getinfo(name).file_size)
                with saved.open(name) as content, copy.open(entry, "w") as written:
                    shutil.copyfileobj(content, written, 2**20)
    except (zipfile.BadZipFile, EOFError, KeyError, ValueError) as error:
        raise InputError(
            f"{path}: damaged, or not saved by Keras ({error}), expected the network of a "
            "finished run; remove it and run again"
        ) from error


def _entry(name, length=0):
    """Describe a member of a zip without its time of change and the user's umask."""
    entry = zipfile.ZipInfo(name)
    entry.external_attr = 0o644 << 16
    entry.file_size = length  # above 2 GiB the zip needs another format
    return entry
