"""What jobs ask for."""

import os
from pathlib import Path

from hemagrid.config import attempts, slurm
from hemagrid.data import counting

# What a profile says that every job needs, and the jobs of a rule.
DEFAULTS = dict(workflow.resource_settings.default_resources or {})
GIVEN = workflow.resource_settings.overwrite_resources

# The profiles' own programs: before SLURM's sbatch and sacct, and what submits elsewhere. Beside a
# module stand the copies that snakedeploy made of them, for their user to edit.
for profile in ("slurm", "generic"):
    programs = Path("profiles", profile, "bin").resolve()
    if not programs.is_dir():
        programs = Path(ROOT, "profiles", profile, "bin")
    os.environ.update(PATH=f"{programs}:{os.environ.get('PATH')}")


def asks(**amounts):
    """Return the resources of a rule: amounts, or functions of the wildcards, and more for a job
    whose last attempt ran short.
    """

    def growing(key, amount):
        def scaled(wildcards, attempt, rulename):
            first = amount(wildcards) if callable(amount) else amount
            log = workflow.get_rule(rulename).log[0].apply_wildcards(wildcards)
            queue = [str(said(rulename, resource) or "") for resource in slurm.QUEUE]
            longest = int(said(rulename, "longest") or 0)
            return attempts.amount(key, first, attempt, log, queue, longest)

        return scaled

    found = {key: growing(key, amount) for key, amount in amounts.items()}
    if "mem_mb_per_cpu" in DEFAULTS:

        def per_cpu(wildcards, attempt, rulename, threads):
            cpus = int(said(rulename, "cpus_per_task") or threads)
            return -(-found["mem_mb"](wildcards, attempt, rulename) // cpus)

        return found | {"mem_mb_per_cpu": per_cpu}
    return found


def said(rule, key):
    """Return what the profile says of a resource of a rule's jobs, or None."""
    resource = (DEFAULTS | dict(GIVEN.get(rule, {}))).get(key)
    return resource and resource.raw


def of_network(key):
    """Return a function of the wildcards: `key` of the job's network in the config."""

    def find(wildcards):
        if backbone := wildcards.get("backbone"):
            return config["backbones"][backbone][key]
        run = KNOWN[wildcards.run.removesuffix(names.WITH_VIEWS)]
        return (config["backbones"].get(run.backbone) or config["cnns"][run.base])[key]

    return find


# What reads or compares images runs beside Snakemake while there are few of them.
IMAGES = counting.of_study(config)
LOCAL = IMAGES <= config["local_images"]


def of_images(mem_mb, runtime):
    """Return the resources of such a rule: these, and more for each full thousand of images."""
    thousands = IMAGES // 1000
    return asks(mem_mb=mem_mb + 4 * thousands, runtime=runtime + thousands // 2)


LIGHT = asks(mem_mb=1000, runtime=10)
OF_NETWORK = asks(mem_mb=of_network("mem_mb"), runtime=of_network("runtime"))
