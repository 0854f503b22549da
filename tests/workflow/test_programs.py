"""`make plan` and `make status` as an operator calls them, on a study and before one."""

import os
import re
import subprocess
import sys

import pytest

from ..conftest import ROOT, TINY


@pytest.fixture
def program(tmp_path):
    """A function that runs a program of scripts/ and returns what it printed."""

    def run(name, *arguments):
        done = subprocess.run(
            [sys.executable, ROOT / "scripts" / f"{name}.py", *map(str, arguments)],
            cwd=tmp_path,
            env={key: os.environ[key] for key in os.environ if key != "SNAKEMAKE_PROFILE"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def jobs_in(plan):
    rows = re.findall(r"^(\w+) +(\d+) +(local|CPU|GPU) ", plan, flags=re.MULTILINE)
    return {rule: (int(count), place) for rule, count, place in rows}


def test_the_plan_of_the_whole_study_on_a_cluster(program, tmp_path):
    plan = program("plan", "--profile", ROOT / "profiles" / "slurm", "--directory", tmp_path)
    jobs = jobs_in(plan)
    assert plan.startswith("14 runs in the grid, 80 jobs to do.")
    assert sum(count for count, _ in jobs.values()) == 80
    said = " ".join(plan.split())
    assert "Not in the table: 3 searches and as many trainings more" in said
    assert "(convnext_tuned, vgg16_tuned, convnext_tuned_adamw)" in said
    assert jobs["train"] == (14, "GPU") and jobs["embed"] == (4, "GPU")
    assert jobs["augment"] == (3, "CPU") and jobs["evaluate"] == (16, "local")
    assert "those of ONE CPU core" in plan and "measure_throughput.py" in plan
    assert not (tmp_path / "results").exists()


def test_the_plan_of_one_machine_has_no_gpu(program, tmp_path):
    plan = program("plan", "--configfile", TINY, "--directory", tmp_path)
    assert {place for _, place in jobs_in(plan).values()} == {"local", "CPU"}


def test_a_finished_study_has_nothing_to_do_and_every_run_is_finished(program, study):
    settings = ("--directory", study.folder, "--configfile", TINY)
    assert "0 jobs to do" in program("plan", *settings)
    status = program("status", *settings)
    assert status.startswith("6 runs: 6 finished")
    transfer = [f"mobilenetv3_{head}" for head in ("cfg1", "cfg2", "tuned", "tuned_adamw")]
    for run in ("baseline_cnn", "regularized_cnn", *transfer):
        assert re.search(rf"^{run} +finished ", status, flags=re.MULTILINE)
