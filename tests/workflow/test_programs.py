"""`make plan` and `make status` as an operator calls them, on a study and before one."""

import os
import re
import shutil
import subprocess
import sys

import pytest

from ..conftest import ROOT, TINY


@pytest.fixture
def program(tmp_path):
    """A function that runs a program of scripts/ and returns what it printed, or its error."""

    def run(name, *arguments, expected=0):
        done = subprocess.run(
            [sys.executable, ROOT / "scripts" / f"{name}.py", *map(str, arguments)],
            cwd=tmp_path,
            env={key: os.environ[key] for key in os.environ if key != "SNAKEMAKE_PROFILE"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == expected, done.stderr
        return done.stderr if expected else done.stdout

    return run


def jobs_in(plan):
    rows = re.findall(r"^(\w+) +(\d+) +(local|CPU|GPU) ", plan, flags=re.MULTILINE)
    return {rule: (int(count), place) for rule, count, place in rows}


def test_the_plan_of_the_whole_study_on_a_cluster(program, tmp_path):
    plan = program("plan", "--profile", ROOT / "profiles" / "slurm", "--directory", tmp_path)
    jobs = jobs_in(plan)
    assert plan.startswith("14 runs in the grid, 76 jobs to do.")
    assert sum(count for count, _ in jobs.values()) == 76
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


def test_a_finished_study_does_without_its_caches(program, study, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(study.folder, folder)
    settings = ("--directory", folder, "--configfile", TINY)
    page = folder / "results" / "report.html"
    page.rename(tmp_path / "aside")
    refused = program("remove_caches", *settings, expected=1)
    assert "not finished: 1 jobs to do, of which report is the first" in refused
    assert (folder / "results" / "trunks" / "mobilenetv3" / "train.npy").exists()

    (tmp_path / "aside").rename(page)
    said = program("remove_caches", *settings)
    assert re.match(r"Removed results/trunks and results/embeddings: \d+ kB\. Another", said)
    assert not {"trunks", "embeddings"} & {path.name for path in (folder / "results").iterdir()}
    assert "0 jobs to do" in program("plan", *settings)
    # One that is asked for again gets them again, and the other head looks out of date.
    (folder / "results" / "mobilenetv3_cfg2" / "model.keras").unlink()
    again = jobs_in(program("plan", *settings))
    assert (again["embed"], again["train"]) == ((1, "CPU"), (2, "CPU"))


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--configfile", "none.yaml"], "Error: none.yaml: not found"),
        (["--directory", "elsewhere"], "Error: elsewhere: not found"),
        (["--profile", "nowhere"], "nowhere"),
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["results/nope/metrics.json"], "No rule to produce results/nope/metrics.json"),
        (["--configfile", "missing.yaml"], "nowhere.npz"),
    ],
)
@pytest.mark.parametrize("name", ["plan", "remove_caches"])
def test_what_cannot_be_planned_is_told_in_short(tmp_path, name, arguments, expected):
    (tmp_path / "missing.yaml").write_text("dataset: {source: npz, path: nowhere.npz}")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / f"{name}.py", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode != 0
    assert expected in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "elsewhere").exists()
