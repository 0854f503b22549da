"""What snakemake is asked to make, held against what its rules make.

Snakemake itself says only that there is no rule for a file.
"""

import os
import sys
from itertools import product
from pathlib import Path

from snakemake.cli import get_argument_parser
from snakemake.io import apply_wildcards, get_wildcard_names

from hemagrid import names
from hemagrid.config.messages import did_you_mean, listed
from hemagrid.errors import InputError

_RESULTS = Path(names.REPORT).parent.name


def of_command_line():
    """Return the targets after `snakemake` on this process's command line; of others, none."""
    program, *words = sys.argv
    if "snakemake" not in Path(program).parts[-2:]:
        return []
    return get_argument_parser().parse_known_args(words)[0].targets


def check(targets, workflow, known):
    """Check that every target is a rule, or a file that a rule makes.

    Args:
        targets: Words of the command line.
        workflow: Snakemake's Workflow, with all its rules.
        known: {wildcard: list of its values}; those of `run` are the runs of the study.

    Raises:
        InputError: A target is neither. The message lists the runs, or the files of the run.
    """
    for target in targets:
        file = os.path.relpath(target)
        # As snakemake does: with a storage provider the outputs of rules have other names.
        stored = workflow.modifier.path_modifier.apply_default_storage(file)
        made = any(rule.is_producer(stored) for rule in workflow.rules)
        if not (made or workflow.is_rule(target) or os.path.isabs(target)):
            raise InputError(_explain(file, workflow, known))


def _explain(target, workflow, known):
    """Say what a target that nothing makes may have been meant to be."""
    runs = known["run"]
    if target in runs:
        return (
            f"{target}: found the name of a run, expected a rule or a file; its results are "
            f"{names.METRICS.format(run=target)}"
        )
    parts = Path(target).parts
    files = _files(workflow, known)
    if len(parts) < 3 or parts[0] != _RESULTS:
        rules = [rule.name for rule in workflow.rules if not rule.has_wildcards()]
        return (
            f"{target}: found neither a rule nor a file that one makes, expected a file, such "
            f"as {names.REPORT}, or one of the rules {listed(rules)}"
            f"{did_you_mean(target, [*rules, *files])}"
        )
    folder = str(Path(*parts[:2]))
    beside = [
        os.path.relpath(file, folder) for file in files if Path(folder) in Path(file).parents
    ]
    if not beside:
        return (
            f"{target}: found no run named {parts[1]}, expected one of {listed(runs)}"
            f"{did_you_mean(parts[1], runs)}"
        )
    asked = os.path.relpath(target, folder)
    return (
        f"{target}: found no such file among those that are made of {parts[1]}, expected one "
        f"of {listed(beside)}{did_you_mean(asked, beside)}"
    )


def _files(workflow, known):
    """List the files that the rules can make."""
    found = {}
    for rule in workflow.rules:
        for pattern in map(str, rule.output):
            wildcards = sorted(get_wildcard_names(pattern))
            for values in product(*(known.get(name, ()) for name in wildcards)):
                path = apply_wildcards(pattern, dict(zip(wildcards, values, strict=True)))
                if rule.is_producer(path):
                    found[path] = None
    return list(found)
