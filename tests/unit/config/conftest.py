"""The schema, the default config, and ways to change it."""

import copy
from pathlib import Path

import pytest
import yaml

from hemagrid.config.schema import validated
from hemagrid.errors import InputError

ROOT = Path(__file__).parents[3]
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
CONFIG = yaml.safe_load((ROOT / "config/config.yaml").read_text())
DEFAULTS = validated({}, SCHEMA)


def keys(schema=SCHEMA, path=""):
    """Yield (path, schema) of every key, with NAME in the place of a free name."""
    for key, subschema in schema.get("properties", {}).items():
        yield f"{path}{key}", subschema
        yield from keys(subschema, f"{path}{key}.")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from keys(schema["additionalProperties"], f"{path}NAME.")


def changed(path, value, config=CONFIG):
    """Return a copy of `config` with `value` at a dotted path."""
    config = copy.deepcopy(config)
    *parents, last = path.split(".")
    place = config
    for key in parents:
        place[key] = place.get(key) or {}  # which may be null
        place = place[key]
    place[last] = value
    return config


def problems(config):
    """Return the lines with which `config` is refused, without the headline."""
    with pytest.raises(InputError) as refused:
        validated(config, SCHEMA)
    headline, *lines = str(refused.value).splitlines()
    assert f" {len(lines)} problem" in headline
    return [line.strip() for line in lines]
