"""What all stages share: the validated config and the study's runs."""

import json
import re
from pathlib import Path

from snakemake.exceptions import WorkflowError

from hemagrid import names
from hemagrid.config import checks, grid, loading
from hemagrid.data import groups, sources
from hemagrid.errors import InputError
from hemagrid.reporting import reference
from hemagrid.revisions import code, digest, revision

# The prefix that a module is given, before every path of this study but the user's own files;
# nothing elsewhere. Jobs are told of it as a resource: no result depends on it.
STUDY = workflow.modifier.path_modifier.replace_prefix("")

try:
    canonical = loading.canonical(config, workflow.configfiles)
    config.clear()  # or its keys would keep the order of the files
    config.update(canonical)
    checks.check_folder()
    checks.check_layout(STUDY)
    checks.check_dataset(config, STUDY)
    checks.check_backbones(config, STUDY)
    groups.check(config)
    checks.check_test_sets(config, STUDY)
except InputError as error:
    raise WorkflowError(str(error)) from None

# With a storage, jobs of all studies may run in folders of the same name: its prefix tells them
# apart.
CHECKPOINTS = str(
    names.checkpoints_of(
        config["checkpoints"], STUDY, workflow.storage_settings.default_storage_prefix
    )
)
RUNS = grid.grid(config)
KNOWN = grid.known_runs(config)
COMBINED = grid.combinations(config)
EVALUATED = grid.evaluated_subsets(config)
# Rules after training run again when this changes; those before it have a `revision`.
CODE = code()
PAIRING = {
    "select_by": config["tuning"]["select_by"],
    "bootstrap": config["evaluation"]["bootstrap"],
    "seed": grid.split_seed(config),
}
PUBLISHED = reference.settings(config)


def either(names):
    """Return the pattern of any of these names, which may hold a plus sign; of none, nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


wildcard_constraints:
    run=either([*KNOWN, *COMBINED, *names.CONTROLS]),
    backbone="|".join(config["backbones"]),
    subset="|".join(names.AUGMENTED),


def content(path, record=None):
    """Return a params function: text that changes with the content of the user's files.

    `path` is one, or an input function that names one, or several by their keys.
    """

    def read(wildcards):
        file = path(wildcards) if callable(path) else path
        if isinstance(file, dict):
            # No files are an empty list, as in the records of finished studies.
            return " ".join(map(sources.sha256, file.values())) or []
        if record is None:
            return sources.sha256(file)
        return sources.fingerprint(
            file, STUDY + record.format(**dict(wildcards.items()))
        )

    return read


def fill(pattern, **wildcards):
    """Return a path with these wildcards filled in; others stay."""
    return expand(pattern, **wildcards, allow_missing=True)[0]


def per_subset(pattern, subsets, key="{subset}", **wildcards):
    """Name one file per subset: {key of the subset: path}."""
    return {
        key.format(subset=subset): fill(pattern, subset=subset, **wildcards)
        for subset in subsets
    }


def in_text(**tables):
    """Name the Markdown and LaTeX files of tables: {name_format: path}."""
    return {
        f"{name}_{format}": fill(names.TABLE, table=table, format=format)
        for name, table in tables.items()
        for format in ("md", "tex")
    }


def part(section, *keys):
    """Return the keys of a section of the config that a rule depends on."""
    return {key: config[section][key] for key in keys}
