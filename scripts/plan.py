"""Print what a study will cost before anything is submitted: jobs, hours, storage.

    python scripts/plan.py [--configfile my.yaml ...] [--directory DIR] [--profile PROFILE]

A program for people, no rule's script. It takes the arguments of snakemake, and plans what
snakemake would run with them.
"""

import contextlib
import shlex
import sys
from io import StringIO
from pathlib import Path

from snakemake.api import SnakemakeApi
from snakemake.cli import parse_args, parse_config
from snakemake.exceptions import RuleException, WorkflowError, print_exception
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
)

from hemagrid.cli.estimate import Job
from hemagrid.cli.plan import describe
from hemagrid.cli.speeds import MEASURE, OWN_SPEEDS
from hemagrid.config.loading import ROOT
from hemagrid.errors import InputError

SNAKEFILE = ROOT / "workflow" / "Snakefile"


def read_arguments():
    """Return what snakemake makes of the command line; end with a line if that is nothing."""
    said = StringIO()  # which profile was read, or what is wrong
    try:
        with contextlib.redirect_stderr(said):
            _, arguments = parse_args(sys.argv[1:])
    except SystemExit:
        print(said.getvalue(), end="", file=sys.stderr)
        raise
    for path in [*(arguments.configfile or []), arguments.directory]:
        if path and not Path(path).exists():
            sys.exit(f"Error: {path}: not found")
    return arguments


def planned(arguments):
    """Return (jobs that would run, in the order of the rules; validated config).

    What snakemake would refuse ends the program, with what snakemake says.
    """
    try:
        with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
            return _planned(api, arguments)
    except (WorkflowError, RuleException) as error:
        print_exception(error)
        sys.exit(1)


def _planned(api, arguments):
    workflow = api.workflow(
        ResourceSettings(
            cores=1,
            default_resources=arguments.default_resources,
            overwrite_resources=arguments.set_resources,
        ),
        config_settings=ConfigSettings(
            config=parse_config(arguments.config), configfiles=arguments.configfile
        ),
        snakefile=SNAKEFILE,
        workdir=arguments.directory,
    )
    with contextlib.redirect_stdout(StringIO()):
        # Settles which jobs are to run, locks nothing and runs nothing.
        workflow.dag(DAGSettings(targets=set(arguments.targets))).summary()
    inside = workflow._workflow
    order = [rule.name for rule in inside.rules]
    jobs = [
        Job(job.rule.name, dict(job.wildcards), place(job), job.resources.get("runtime", 0))
        for job in inside.dag.needrun_jobs()
        if job.rule.name != "all"
    ]
    return sorted(jobs, key=lambda job: order.index(job.rule)), inside.globals["config"]


def place(job):
    """Say where a job runs: "local", "gpu" or "cpu"."""
    if job.rule.name in job.rule.workflow._localrules:
        return "local"
    asks = job.resources.get("gpu", 0) or "gpu" in str(job.resources.get("gres", ""))
    return "gpu" if asks else "cpu"


def main():
    arguments = read_arguments()
    folder = Path(arguments.directory or ".")
    measure = MEASURE
    if arguments.configfile:
        measure += f" --configfile {shlex.join(map(str, arguments.configfile))}"
    if arguments.directory:
        measure += f" --out {shlex.quote(str(folder / OWN_SPEEDS))}"
    jobs, config = planned(arguments)
    try:
        print(describe(jobs, config, folder, measure))
    except InputError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
