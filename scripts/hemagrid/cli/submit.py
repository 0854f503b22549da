"""Package a run for Codabench and score the package here."""

import errno
import os

from hemagrid import names
from hemagrid.cli import dag, options
from hemagrid.config.grid import combinations, known_runs
from hemagrid.config.messages import did_you_mean
from hemagrid.errors import InputError

TEXT = """
Package a run for Codabench, results/RUN/submission.zip, and score the package as the
leaderboard would, results/RUN/codabench.json. A run that is not trained yet is trained first.
"""


def main(words):
    """Package and score one run; return the exit status of snakemake."""
    parser = options.parser("submit", TEXT, ("RUN", "name of the run, such as convnext_cfg1"))
    arguments = options.read(words, parser)
    folder, config, config_name = options.study(arguments)
    runs = known_runs(config) | combinations(config)
    named = arguments.targets
    if len(named) != 1 or named[0] not in runs:
        meant = did_you_mean(named[0], runs) if named else ""
        raise InputError(
            f"RUN: found {', '.join(named) or 'nothing'}, expected a run of {config_name}: "
            f"{', '.join(runs)}{meant}"
        )
    if not os.access(folder, os.W_OK):
        raise PermissionError(errno.EACCES, "", str(folder))
    rest = list(words)
    rest.remove(named[0])
    target = names.SCORE.format(run=named[0])
    status = dag.run([target, "--quiet", "reason", "host", *rest, *dag.recorded(arguments)])
    if status == 0:
        print(f"Package: {folder / names.SUBMISSION.format(run=named[0])}")
    return status
