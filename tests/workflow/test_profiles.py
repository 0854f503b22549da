"""What jobs ask for under each profile, from dry runs of the published study."""

import json
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from snakemake.utils import available_cpu_count

ROOT = Path(__file__).parents[2]
PROFILES = ROOT / "profiles"
NETWORKS = yaml.safe_load((ROOT / "config" / "config.yaml").read_text())
NETWORKS = NETWORKS["cnns"] | NETWORKS["backbones"]
ON_GPU = {"embed", "train", "predict", "views"}
RESUMED = {"train", "search"}
SUBMITTED = ON_GPU | {"augment", "search", "explain"}
# What reads, compares or copies images: jobs, too, if there are many.
OF_IMAGES = {"smears", "acquire_dataset", "fingerprint", "deduplicate", "groups", "split"}
OF_IMAGES |= {"acquire_test_set", "test_set", "audit", "originals", "audit_copies", "checksums"}
# Named finalists are known before anything has run.
TUNED = ("--config", "tuning={backbones: [vgg16], adamw: [convnext]}", "views=[vgg16_cfg1]")

# Runs snakemake's command line and prints every job that it announces, as JSON.
JOBS = """
import json, sys
from snakemake import cli
from snakemake.logging import logger

def show(record):
    if getattr(record, "event", None) == "job_info":
        job = dict(record.resources.items()) | dict(record.wildcards)
        print(json.dumps(job | {"rule": record.rule_name}, default=str), file=sys.__stdout__)
    return True

logger.addFilter(show)
cli.main(sys.argv[1:])
"""

# Prints what snakemake makes of its command line and the profiles that it finds.
SETTINGS = """
import json, sys
from snakemake import cli

_, settings = cli.parse_args(sys.argv[1:])
print(json.dumps(vars(settings), default=str))
"""


@pytest.fixture(scope="module")
def python(environment):
    """A function that runs a program on arguments in the repository, to what it printed."""

    def python(program, *arguments):
        result = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert result.returncode == 0, result.stderr
        return [json.loads(line) for line in result.stdout.splitlines() if line[:1] == "{"]

    return python


@pytest.fixture(scope="module")
def jobs(python, tmp_path_factory):
    """A function from arguments to the jobs of a dry run that are no local ones anywhere."""

    def jobs(*arguments):
        folder = tmp_path_factory.mktemp("dry")
        found = python(JOBS, "--dry-run", "--directory", folder, *arguments, *TUNED)
        return [job for job in found if job["rule"] in SUBMITTED]

    return jobs


@pytest.fixture(scope="module")
def settings(python):
    return lambda *arguments: python(SETTINGS, *arguments)[0]


@pytest.fixture(scope="module")
def default_jobs(jobs):
    return jobs()


@pytest.fixture(scope="module")
def slurm_jobs(jobs):
    return jobs("--profile", "profiles/slurm")


@pytest.fixture
def edited(tmp_path):
    """A function that writes the cluster's profile with lines replaced, to its folder."""

    def edited(*replacements):
        text = (PROFILES / "slurm" / "config.yaml").read_text()
        for old, new in replacements:
            assert len(re.findall(old, text, flags=re.M)) == 1, old
            text = re.sub(old, new, text, flags=re.M)
        (tmp_path / "slurm").mkdir()
        (tmp_path / "slurm" / "config.yaml").write_text(text)
        return tmp_path / "slurm"

    return edited


def network(job):
    """The config's entry of the network that a job computes with."""
    name = job.get("backbone") or job["run"]
    return NETWORKS.get(name) or NETWORKS[name.split("_")[0]]


def asked(job, *keys):
    return {key: job[key] for key in keys if key in job}


def test_only_rules_that_outlast_the_start_of_a_job_become_jobs():
    text = "".join(file.read_text() for file in (ROOT / "workflow" / "rules").glob("*.smk"))
    _, *parts = re.split(r"^(?:rule|checkpoint) (\w+):\n", text, flags=re.M)
    rules = dict(zip(parts[::2], parts[1::2], strict=True))
    local = {name for name, body in rules.items() if "\n    localrule: True\n" in body}
    by_number = {name for name, body in rules.items() if "\n    localrule: LOCAL\n" in body}
    assert by_number == OF_IMAGES
    assert rules.keys() - local - by_number == SUBMITTED


def test_one_machine_asks_for_memory_time_and_threads_alone(default_jobs):
    assert {job["rule"] for job in default_jobs} == SUBMITTED
    for job in default_jobs:
        assert not asked(job, "gpu", "slurm_partition", "slurm_account", "slurm_extra")
        if job["rule"] in ON_GPU:
            assert job["mem_mb"] == network(job)["mem_mb"]
            assert job["runtime"] == network(job)["runtime"]


def test_on_a_cluster_networks_get_one_gpu_in_its_partition(slurm_jobs):
    assert {job["rule"] for job in slurm_jobs} == SUBMITTED
    for job in slurm_jobs:
        gpu = asked(job, "slurm_partition", "gpu", "gres")
        assert gpu == ({"slurm_partition": "gpu", "gpu": 1} if job["rule"] in ON_GPU else {})
        expected = "--signal=TERM@180" if job["rule"] in RESUMED else None
        assert job.get("slurm_extra") == expected


@pytest.mark.parametrize("profile", ["slurm", "gpus"])
def test_a_profile_changes_no_memory_time_or_threads(jobs, default_jobs, profile):
    def amounts(jobs):
        keys = ("rule", "run", "backbone", "subset", "mem_mb", "runtime", "_cores")
        return sorted(json.dumps(asked(job, *keys)) for job in jobs)

    assert amounts(jobs("--profile", f"profiles/{profile}")) == amounts(default_jobs)


def test_two_edited_lines_reach_every_job(jobs, edited):
    profile = edited(
        ("slurm_partition: gpu # EDIT", "slurm_partition: accel # EDIT"),
        ('slurm_account: ""', "slurm_account: p12345"),
    )
    for job in jobs("--profile", profile):
        assert job["slurm_account"] == "p12345"
        assert job.get("slurm_partition") == ("accel" if job["rule"] in ON_GPU else None)


def test_what_other_sites_need_is_one_line(jobs, settings, edited):
    lines = ("gres: ", "slurm_partition: cpu", "qos: ", "constraint: ", "cpus_per_task: ")
    lines += ("mem_mb_per_cpu: ",)
    profile = edited(
        (r"^      gpu: 1\n", ""),
        *((rf"# {line}", line) for line in lines),
        ("# slurm-reservation: ", "slurm-reservation: "),
    )
    for job in jobs("--profile", profile):
        on_gpu = {"gres": "gpu:1", "cpus_per_task": 4, "slurm_partition": "gpu"}
        on_cpu = {"slurm_partition": "cpu"}
        assert asked(job, "gpu", *on_gpu) == (on_gpu if job["rule"] in ON_GPU else on_cpu)
        cpus = job.get("cpus_per_task") or job["_cores"]
        assert job["mem_mb_per_cpu"] == math.ceil(job["mem_mb"] / cpus)
        assert asked(job, "qos", "constraint") == {"qos": "normal", "constraint": "avx512"}
    assert settings("--profile", profile)["slurm_reservation"] == "course"


def test_a_kind_of_gpu_goes_beside_their_number(jobs, edited):
    for job in jobs("--profile", edited(("# gpu_model: ", "gpu_model: "))):
        gpu = {"gpu": 1, "gpu_model": "a100"} if job["rule"] in ON_GPU else {}
        assert asked(job, "gpu", "gpu_model") == gpu


def test_a_machine_with_gpus_trains_one_network_on_each(jobs, settings):
    arguments = ("--profile", "profiles/gpus")
    for job in jobs(*arguments):
        assert job.get("gpu") == (1 if job["rule"] in ON_GPU else None)
        assert not asked(job, "slurm_partition", "slurm_extra")
    assert settings(*arguments)["resources"] == "{'gpu': Resource(\"gpu\", 1)}"
    assert settings(*arguments)["cores"] == available_cpu_count()


def test_this_machine_bounds_its_own_jobs_and_not_those_of_a_cluster(settings):
    here, there = settings(), settings("--profile", "profiles/slurm")
    assert here["cores"] == available_cpu_count()
    assert here["executor"] is None
    # Set, it would cap the threads of every job, and let so many local jobs run at once.
    assert there["cores"] is None
    assert (there["executor"], there["jobs"], there["retries"]) == ("slurm", 50, 3)
    assert there["slurm_status_command"] == "squeue" and there["slurm_requeue"]
    # Jobs of a main process that was killed may still run: they would be started twice.
    assert here["rerun_incomplete"] and not there["rerun_incomplete"]
