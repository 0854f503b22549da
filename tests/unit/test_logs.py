"""A job's words: all of them in its log, the few for a person also on the terminal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import hemagrid
from hemagrid.logs import progress

HEAD = """
import os, subprocess, sys, warnings
from hemagrid.errors import InputError
from hemagrid.logs import job, progress
with job("job.log"):
    progress("epoch 1 of 3")
    print("detail")
"""


@pytest.fixture
def run(tmp_path):
    """A function that runs the lines of a job; returns (exit status, screen, log)."""

    def script(*lines):
        (tmp_path / "script.py").write_text(HEAD + "".join(f"    {x}\n" for x in lines))
        done = subprocess.run(
            [sys.executable, "script.py"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(Path(hemagrid.__file__).parents[1])},
            capture_output=True,
            text=True,
        )
        assert done.stdout == ""
        return done.returncode, done.stderr, (tmp_path / "job.log").read_text()

    return script


def test_progress_reaches_the_terminal_and_all_reaches_the_log(run):
    status, screen, log = run(
        "warnings.warn('care' + 'ful')",
        "os.write(1, b'from C, out\\n')",
        "os.write(2, b'from C, err\\n')",
        "subprocess.run(['echo', 'from a child'])",
        "print('the end')",
    )
    assert (status, screen) == (0, "epoch 1 of 3\n")
    for words in ("epoch 1", "detail", "careful", "C, out", "C, err", "child", "the end"):
        assert log.count(words) == 1


def test_bad_input_is_told_without_a_traceback(run):
    status, screen, log = run("raise InputError('cells.npz: no such file')")
    assert status == 1
    assert screen == "epoch 1 of 3\nError: cells.npz: no such file\n"
    assert "Error: cells.npz: no such file" in log
    assert "Traceback" not in log


def test_a_full_disk_is_told_without_a_traceback(run):
    status, screen, log = run("raise OSError(28, 'No space left on device', 'images.npy')")
    assert status == 1
    assert "No space left on device: 'images.npy'; free some space" in screen
    assert "Traceback" not in log


def test_a_bug_leaves_its_traceback_in_the_log(run):
    status, screen, log = run("[][3]")
    assert status == 1
    assert screen.splitlines()[1:] == [
        "Error: IndexError: list index out of range",
        "The traceback is in job.log",
    ]
    assert "Traceback" in log
    assert "[][3]" in log


def test_the_log_of_an_earlier_job_is_replaced(run):
    run("print('first')")
    _, _, log = run("print('second')")
    assert "first" not in log


def test_outside_a_job_progress_is_printed_once(capsys):
    progress("epoch 1 of 3")
    captured = capsys.readouterr()
    assert captured.out + captured.err == "epoch 1 of 3\n"
