"""What a result was made with: the config as it was used, the versions of all packages."""

import os
import platform
from importlib.metadata import distributions

import yaml

from hemagrid import files


def write_config(config, path):
    """Write the config, defaults included, as YAML."""
    files.write_text(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def write_versions(path):
    """Write Python, machine, Keras backend and every installed package with its version."""
    # What is left of a half-removed package has no name.
    named = [d for d in distributions() if d.metadata["Name"]]
    packages = {d.metadata["Name"].lower(): d.version for d in named}
    files.write_json(
        path,
        {
            "Python": platform.python_version(),
            "system": platform.platform(),
            "Keras backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
            **dict(sorted(packages.items())),
        },
    )
