"""The config of a study as the workflow reads it, for programs outside the workflow."""

from pathlib import Path

import yaml

from hemagrid.config.messages import listed
from hemagrid.config.schema import validated
from hemagrid.errors import InputError
from hemagrid.names import CONFIG, IMAGES

ROOT = Path(__file__).parents[3]
DEFAULTS = ROOT / "config" / "config.yaml"
SCHEMA = ROOT / "workflow" / "schemas" / "config.schema.yaml"


def canonical(config, paths):
    """Return the config of the workflow, validated and in canonical form.

    Args:
        config: Mapping that Snakemake has made of files and values of the command line, or
            that a module is given. It is laid over `config/config.yaml`, which Snakemake
            leaves out for a module.
        paths: The config files. They are read again, for keys that are given twice.

    Raises:
        InputError: The config, or a file, has problems.
    """
    for path in paths:
        read_yaml(path)
    return validated(_laid_over(read_yaml(DEFAULTS), config), read_yaml(SCHEMA))


def load_config(paths=(), values=None):
    """Return the validated config: `config/config.yaml` under other files and values.

    Args:
        paths: Config files, each of which is laid over those before it.
        values: Mapping laid over all files, or None.

    Raises:
        InputError: A file cannot be read, or the config is invalid.
    """
    config = read_yaml(DEFAULTS)
    for above in [*map(read_yaml, paths), values or {}]:
        config = _laid_over(config, above)
    try:
        return validated(config, read_yaml(SCHEMA))
    except InputError as error:
        raise InputError(f"{', '.join(map(str, paths)) or 'config'}: {error}") from None


def recorded_config(folder):
    """Return the path of the config that the study in `folder` last ran with, or None."""
    recorded = Path(folder, CONFIG)
    return recorded if recorded.is_file() else None


def nearby(folder):
    """Say which folders in, beside and above `folder` hold studies; nothing if none do."""
    here = Path(folder).absolute()
    places = [*here.parents, *sorted(here.glob("*/")), *sorted(here.parent.glob("*/"))]
    found = [str(place) for place in places if Path(place, IMAGES).is_file() and place != here]
    return f"; a study lies in {listed(found, 3)}" if found else ""


def study_config(folder, paths=(), values=None):
    """Return the config of the study in `folder`: the recorded one unless files are given."""
    if not paths and (recorded := recorded_config(folder)):
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


def read_yaml(path):
    """Read a YAML file.

    Args:
        path: Path of the file.

    Raises:
        InputError: It cannot be read, or holds a key twice, of which YAML drops the first
            without a word.
    """
    try:
        content = yaml.load(Path(path).read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: cannot be read as YAML ({error})") from None
    except _Twice as key:
        raise InputError(f"{path}: found {key}, expected every key once in its place") from None
    return {} if content is None else content


class _Twice(Exception):
    """A mapping holds a key twice."""


class _Loader(yaml.SafeLoader):
    """PyYAML's loader, which also looks for keys that are given twice."""

    def construct_mapping(self, node, deep=False):
        keys = [key for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for place, key in enumerate(keys):
            if any(key.value == other.value for other in keys[:place]):
                raise _Twice(f"{key.value} again in line {key.start_mark.line + 1}")
        return super().construct_mapping(node, deep)
