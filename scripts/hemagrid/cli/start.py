"""What a run says before its first job."""

import sys

from hemagrid.cli import reruns
from hemagrid.config import slurm


def announce(dag, executor_settings, config):
    """Print to standard error why finished work is done again, and what a cluster lacks.

    Args:
        dag: Snakemake's, of this run.
        executor_settings: Those of the executor, or None.
        config: The study's config.
    """
    if problem := slurm.status_problem(executor_settings):
        print(f"Warning: {problem}", file=sys.stderr)
    print(reruns.describe(reruns.causes(dag), ".", config), end="", file=sys.stderr)
