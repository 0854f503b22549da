"""What snakemake would run, and running it."""

import contextlib
import io
import subprocess
import sys

from snakemake.api import SnakemakeApi
from snakemake.exceptions import RuleException, WorkflowError
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    OutputSettings,
    Quietness,
    RerunTrigger,
    ResourceSettings,
)

from hemagrid.cli import reruns, targets
from hemagrid.cli.estimate import Job
from hemagrid.config import slurm
from hemagrid.config.loading import ROOT, recorded_config
from hemagrid.errors import InputError

SNAKEFILE = ROOT / "workflow" / "Snakefile"
PROFILE = ROOT / "profiles" / "default"
TRIGGERS = {RerunTrigger.MTIME, RerunTrigger.PARAMS, RerunTrigger.INPUT}
"""What makes a job run again, as in the profile, which says why."""


def planned(arguments):
    """Settle which jobs are to run, without locking or running anything.

    Args:
        arguments: What `options.read` returned.

    Returns:
        (list of Jobs in the order of the rules, validated config, what `reruns.causes` says)

    Raises:
        InputError: A target is not known, or snakemake refuses; the message is what it says.
    """
    try:
        with SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
            workflow = api.workflow(
                ResourceSettings(
                    cores=1,
                    default_resources=arguments.default_resources,
                    overwrite_resources=arguments.set_resources,
                ),
                config_settings=ConfigSettings(
                    config=arguments.config, configfiles=arguments.configfile
                ),
                snakefile=SNAKEFILE,
                workdir=arguments.directory,
            )
            inside = workflow._workflow
            targets.check(arguments.targets, inside, inside.globals["NAMED"])
            with contextlib.redirect_stdout(io.StringIO()):
                # The summary is not wanted, but it settles what is to run.
                settings = DAGSettings(targets=set(arguments.targets), rerun_triggers=TRIGGERS)
                workflow.dag(settings).summary()
            again = reruns.causes(inside.dag)
            order = [rule.name for rule in inside.rules]
            jobs = [
                Job(
                    job.rule.name,
                    dict(job.wildcards),
                    _place(job),
                    job.resources.get("runtime", 0),
                    job.resources.get("mem_mb", 0),
                    tuple(str(job.resources.get(key) or "") for key in slurm.QUEUE),
                )
                for job in inside.dag.needrun_jobs()
                if job.rule.name != "all"
            ]
            jobs.sort(key=lambda job: order.index(job.rule))
            return jobs, inside.globals["config"], again
    except (WorkflowError, RuleException) as error:
        raise InputError(str(error).strip()) from None


def _place(job):
    """Say where a job runs: "local", "gpu" or "cpu"."""
    if job.rule.name in job.rule.workflow._localrules:
        return "local"
    asks = job.resources.get("gpu", 0) or "gpu" in str(job.resources.get("gres", ""))
    return "gpu" if asks else "cpu"


def run(words):
    """Run snakemake on this workflow, wherever it is called from; return its exit status.

    After Ctrl-C it waits until snakemake has stopped its jobs, then raises KeyboardInterrupt.

    Args:
        words: The words after `snakemake`.
    """
    ours = ["--snakefile", SNAKEFILE, "--workflow-profile", PROFILE]
    process = subprocess.Popen([sys.executable, "-m", "snakemake", *map(str, [*ours, *words])])
    try:
        return process.wait()
    except KeyboardInterrupt:
        with contextlib.suppress(KeyboardInterrupt):
            process.wait()
        raise


def recorded(arguments):
    """Return the words that make snakemake use the config the study ran with.

    There are none if the command line gives config files, or none is recorded.

    Args:
        arguments: What `options.read` returned.
    """
    if arguments.configfile:
        return []
    path = recorded_config(arguments.directory or ".")
    return ["--configfile", path.absolute()] if path else []
