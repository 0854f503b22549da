"""The programs that stand before SLURM's own while a study is submitted."""

import os
import subprocess
from pathlib import Path

import pytest

BIN = Path(__file__).parents[2] / "profiles" / "slurm" / "bin"


@pytest.fixture
def run(tmp_path):
    """A function that runs one of them before a program of that name with these lines, and
    others that it may call.
    """

    def run(program, *lines, arguments=("--parsable", "a b"), **others):
        real = tmp_path / "real"
        real.mkdir()
        programs = {program: lines, "sleep": ["echo $1 >>slept"]} | others
        for name, text in programs.items():
            (real / name).write_text("\n".join(["#!/bin/sh", *text]) + "\n")
            (real / name).chmod(0o755)
        path = f"{BIN}:{BIN}:{real}:{os.environ['PATH']}"
        return subprocess.run(
            [program, *arguments],
            cwd=tmp_path,
            env=os.environ | {"PATH": path},
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.parametrize(
    "refusal",
    [
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
        "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy",
        "sbatch: error: AssocGrpSubmitJobsLimit",
        "sbatch: error: Batch job submission failed: Unable to contact slurm controller "
        "(connect failure)",
        "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation",
    ],
)
def test_a_submission_that_slurm_cannot_take_yet_is_tried_again(run, tmp_path, refusal):
    done = run(
        "sbatch",
        "echo x >>tried",
        f"[ $(wc -l <tried) = 3 ] && echo 17 && echo $2 >said && exit 0; echo '{refusal}' >&2",
        "exit 1",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "17\n", "")
    assert (tmp_path / "said").read_text() == "a b\n"
    assert (tmp_path / "slept").read_text() == "10\n60\n"
    waited = (tmp_path / "logs" / "slurm" / "waiting.log").read_text().splitlines()
    assert len(waited) == 2 and waited[0].endswith(refusal.replace("\n", " "))


def test_a_submission_that_is_wrong_fails_at_once(run, tmp_path):
    done = run("sbatch", "echo 'invalid partition specified: gpux' >&2; exit 1")
    assert done.returncode == 1 and "gpux" in done.stderr
    assert not (tmp_path / "slept").exists()


def test_a_cancelled_job_is_cancelled_to_sacct_too(run):
    done = run("sacct", "echo '17|CANCELLED by 1000'; echo '18|COMPLETED'")
    assert done.stdout == "17|CANCELLED\n18|COMPLETED\n"


def test_a_job_that_was_preempted_for_good_is_cancelled(run):
    done = run("squeue", "echo '17|PREEMPTED'; echo '18|PENDING'; echo \"$1 $3\"")
    assert done.stdout == "17|CANCELLED\n18|PENDING\n--all a b\n"


def test_a_job_that_was_preempted_is_cancelled_to_sacct_unless_it_is_queued_again(run):
    said = "printf '17|PREEMPTED\\n18|PREEMPTED\\n7|PREEMPTED\\n'"
    done = run("sacct", said, squeue=["printf '16\\n17\\n'"])
    assert done.stdout == "17|PREEMPTED\n18|CANCELLED\n7|CANCELLED\n"


def test_where_sacct_does_not_answer_squeue_does(run):
    queue = ['[ "$1 $5 $6" = "--all --name a b" ] && echo "17|RUNNING"']
    done = run("sacct", "exit 3", arguments=["-X", "--name", "a b"], squeue=queue)
    assert (done.returncode, done.stdout) == (0, "17|RUNNING\n")


@pytest.mark.parametrize("program", ["sacct", "squeue"])
def test_a_program_that_fails_fails(run, program):
    assert run(program, "exit 3").returncode == 3
