"""The config of a study as the workflow reads it, for programs beside the workflow."""

from pathlib import Path

import yaml

from hemagrid.config.schema import validated
from hemagrid.errors import InputError
from hemagrid.names import CONFIG

ROOT = Path(__file__).parents[3]
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"


def load_config(paths=(), values=None):
    """Return the validated config: `config/config.yaml` under other files and values.

    Args:
        paths: Config files, each of which is laid over those before it.
        values: Mapping laid over all files, or None.

    Raises:
        InputError: A file cannot be read, or the config is invalid.
    """
    config = _read(ROOT / "config" / "config.yaml")
    for above in [*map(_read, paths), values or {}]:
        config = _laid_over(config, above)
    return validated(config, _read(SCHEMA))


def recorded_config(folder):
    """Return the path of the config that the study in `folder` last ran with, or None."""
    recorded = Path(folder, CONFIG)
    return recorded if recorded.is_file() else None


def study_config(folder, paths=(), values=None):
    """Return the config of the study in `folder`: the recorded one unless another is given."""
    if not (paths or values) and (recorded := recorded_config(folder)):
        paths = [recorded]
    return load_config(paths, values)


def differences(config, other):
    """List the keys, such as "training.precision", in which two configs differ."""
    found = []
    for key in dict.fromkeys([*config, *other]):
        mine, theirs = config.get(key), other.get(key)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            found += [f"{key}.{below}" for below in differences(mine, theirs)]
        elif mine != theirs:
            found.append(key)
    return found


def _laid_over(below, above):
    """Merge two mappings as Snakemake does: mappings key by key, anything else replaced."""
    if not (isinstance(below, dict) and isinstance(above, dict)):
        return above
    return below | {key: _laid_over(below.get(key), above[key]) for key in above}


def _read(path):
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({error})") from None
    return {} if content is None else content
