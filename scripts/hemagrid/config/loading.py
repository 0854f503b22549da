"""The config of a study as the workflow reads it, for programs beside the workflow."""

from pathlib import Path

import yaml

from hemagrid.config.schema import validated
from hemagrid.errors import InputError

ROOT = Path(__file__).parents[3]


# Where the workflow records the config it ran with.
RECORDED = Path("results", "provenance", "config.yaml")


def load_config(paths=()):
    """Return the validated config: `config/config.yaml` under each of `paths` in turn.

    Raises InputError for a file that cannot be read and for an invalid config.
    """
    schema = _read(ROOT / "workflow" / "schemas" / "config.schema.yaml")
    config = _read(ROOT / "config" / "config.yaml")
    for path in paths:
        config = _laid_over(config, _read(path))
    return validated(config, schema)


def study_config(folder, paths=()):
    """Return the config of the study in `folder`: that of `paths`, or the recorded one."""
    recorded = Path(folder) / RECORDED
    return load_config(paths or [recorded] * recorded.exists())


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
