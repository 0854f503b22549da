"""A study on a cluster, through profiles/slurm: where did its jobs run?

It is the smallest study that has every kind of run. If slow tests are asked for or a real
cluster is named, it is the demonstration. `HEMAGRID_CONFIG` names another config to run.
"""

import os
import re
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

from hemagrid.names import TRAINED, VIEWS

from ..conftest import TINY
from .cluster import rule
from .conftest import QUICK, ROOT, SLOW


def config(site):
    """The config file of the study."""
    if chosen := os.environ.get("HEMAGRID_CONFIG"):
        return Path(chosen).absolute()
    return ROOT / "config" / "demo.yaml" if SLOW or not site.own else TINY


PATIENCE = 3600  # seconds that the study may take once it is submitted
ON_GPU = ("embed", "train", "predict", "views")


def jobs_while(process, slurm, folder):
    """Wait for snakemake; return its output and every SLURM job that it submitted.

    They are read while it runs: a cluster forgets a job some minutes after its end.
    """
    jobs = {}
    for _ in range(0, PATIENCE, 10):
        try:
            output = process.communicate(timeout=10)
            break
        except subprocess.TimeoutExpired:
            jobs |= {job["JobId"]: job for job in slurm.jobs(folder)}
    else:
        os.killpg(process.pid, signal.SIGINT)  # it cancels its jobs
        output = process.communicate(timeout=60)
        pytest.fail(f"still running after {PATIENCE} s:\n{output[1][-4000:]}")
    jobs |= {job["JobId"]: job for job in slurm.jobs(folder)}
    return "".join(output), list(jobs.values())


def gpus(job):
    """How many GPUs SLURM gave the job: JOB_GRES is gpu:1 or gpu:MODEL:1."""
    found = re.search(r"gpu(:[^:,()]+)?:(\d+)", job.get("JOB_GRES", ""))
    return int(found[2]) if found else 0


def default_partition(slurm):
    names = slurm.run("sinfo", "--noheader", "-o", "%P").split()
    return next(name.rstrip("*") for name in names if name.endswith("*"))


def test_the_study_runs_on_the_cluster_and_every_network_on_a_gpu_of_it(site, start, clone):
    arguments = ["--profile", site.profile, "--configfile", config(site), *site.options]
    said, jobs = jobs_while(
        start(clone, *arguments, **site.slurm.variables), site.slurm, clone.resolve()
    )
    assert (clone / "results" / "report.html").exists(), said[-8000:]

    grid = pd.read_csv(clone / "results" / "tables" / "grid.csv")
    runs = sorted(path.parent.name for path in clone.glob("results/*/model.keras"))
    assert set(grid.loc[grid["kind"].isin(TRAINED), "run"]) <= set(runs)
    backbones = sorted(path.stem for path in clone.glob("resources/weights/*.weights.h5"))

    searches = sorted(clone.glob("results/tuning/*_trials.csv"))
    assert searches

    # What takes longer than a job costs went to SLURM, once each, and nothing else.
    assert Counter(map(rule, jobs)) == Counter(
        augment=3,
        embed=len(backbones),
        search=len(searches),
        train=len(runs),
        predict=len(runs),
        views=(grid["kind"] == VIEWS).sum(),
        explain=1,
    )
    assert {job["JobState"] for job in jobs} == {"COMPLETED"}

    if site.own:  # whose nodes have no internet
        alone = [command for command in site.slurm.without_network() if str(clone) in command]
        assert len(alone) == len(jobs)

    defaults, overrides = site.settings["default-resources"], site.settings["set-resources"]
    cpu_partition = defaults.get("slurm_partition") or default_partition(site.slurm)
    for job in jobs:
        if rule(job) in ON_GPU:
            assert job["Partition"] == overrides[rule(job)]["slurm_partition"] != cpu_partition
            assert gpus(job) == 1
        else:
            assert job["Partition"] == cpu_partition
            assert gpus(job) == 0


def test_many_images_are_read_and_hashed_by_jobs(cluster, snakemake, in_folder, tmp_path):
    folder = tmp_path.resolve()
    result = snakemake(
        folder,
        *in_folder(folder, TINY),
        "--profile",
        ROOT / "profiles" / "slurm",
        *QUICK,
        "results/dataset/phash.csv",
        "--config",
        "local_images=0",
        **cluster.variables,
    )
    assert result.returncode == 0, result.said[-8000:]
    jobs = cluster.jobs(folder)
    assert list(map(rule, jobs)) == ["smears", "acquire_dataset", "fingerprint"]
    assert {(job["Partition"], job["JobState"]) for job in jobs} == {("cpu", "COMPLETED")}
