"""A job's words: all of them in its log, the few for a person also on the terminal."""

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import hemagrid
from hemagrid import logs

HEAD = """
import logging, os, subprocess, sys, time, warnings
from hemagrid import logs
from hemagrid.errors import InputError, Stopped
logger = logging.getLogger("hemagrid.training.trainer")
with logs.job("job.log"):
    logger.info("epoch 1 of 3")
    logger.debug("detail")
"""
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "


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


def test_info_reaches_the_terminal_and_everything_reaches_the_log(run):
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
    assert re.match(f"{STAMP}epoch 1 of 3\n{STAMP}detail\n", log)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("InputError('cells.npz: not found')", "Error: cells.npz: not found"),
        ("Stopped('by SIGTERM')", "Stopped: by SIGTERM"),
        ("KeyboardInterrupt", "Stopped: by Ctrl-C"),
        (
            "OSError(28, 'No space left on device', 'images.npy')",
            "Error: [Errno 28] No space left on device: 'images.npy'; free some space or raise "
            "the quota, and run again",
        ),
    ],
)
def test_what_a_person_can_mend_is_told_in_a_line(run, error, told):
    status, screen, log = run(f"raise {error}")
    assert (status, screen) == (1, f"epoch 1 of 3\n{told}\n")
    assert re.search(f"^{STAMP}{re.escape(told)}$", log, re.M) and "Traceback" not in log


def test_a_bug_leaves_its_traceback_in_the_log(run):
    status, screen, log = run("[][3]")
    assert status == 1
    assert screen.splitlines()[1:] == [
        "Error: IndexError: list index out of range",
        "The traceback is in job.log",
    ]
    assert "Traceback" in log and "[][3]" in log
    assert re.search(f"^{STAMP}Error: IndexError: list index out of range$", log, re.M)


def test_lines_that_a_full_disk_does_not_take_end_no_job(run, tmp_path):
    (tmp_path / "job.log").symlink_to("/dev/full")
    program = [sys.executable, "-c", HEAD + "    print('x' * 10**5); print('y')\n"]
    environment = os.environ | {"PYTHONPATH": str(Path(hemagrid.__file__).parents[1])}
    done = subprocess.run(
        program, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "epoch 1 of 3\n")
    with open("/dev/full", "w") as full:
        assert (
            subprocess.run(program, cwd=tmp_path, env=environment, stderr=full).returncode == 0
        )


def test_a_group_may_write_the_log_where_the_umask_lets_it(run, tmp_path):
    run("os.umask(0o002)", "with logs.job('second.log'): pass")
    assert (tmp_path / "second.log").stat().st_mode & 0o777 == 0o664


def test_the_log_of_an_earlier_job_is_replaced(run):
    run("print('first')")
    _, _, log = run("print('second')")
    assert "first" not in log


def test_a_long_loop_says_how_far_it_is_in_lines(run):
    status, screen, log = run(
        "logs.INTERVAL = 0.1",
        "for _ in logs.track(range(8), 'Embedding val', total=60, step=8): time.sleep(0.05)",
    )
    _, *lines = screen.splitlines()
    assert status == 0 and 2 <= len(lines) <= 5
    for line in lines:
        assert re.fullmatch(
            r"Embedding val: \d+ of 60 images, 00:0\d so far, (00:0\d|\?) left", line
        )
    assert "\r" not in screen + log and log.count("Embedding val") == len(lines)


def test_a_short_loop_says_nothing_and_loses_nothing(monkeypatch):
    said = []
    monkeypatch.setattr(logs.logger, "info", said.append)
    assert list(logs.track(range(5), "Drawing cells", unit="cells")) == [0, 1, 2, 3, 4]
    assert not said


def test_a_job_removes_what_a_killed_one_left_beside_its_outputs(run, tmp_path):
    left = [tmp_path / ".0a1b2c3d.train.npy", tmp_path / ".ffffffff.train.csv"]
    others = [tmp_path / ".0a1b2c3d.val.npy", tmp_path / "train.npy"]
    for path in [*left, *others]:
        path.touch()
    run("with logs.job('second.log', ['train.npy', 'train.csv']): pass")
    assert not any(path.exists() for path in left) and all(path.exists() for path in others)


def test_a_log_ends_with_what_the_process_used(tmp_path):
    lines = ["    held = bytearray(300 * 2**20)", "    held[::4096] = b'a' * len(held[::4096])"]
    lines += ["    end = time.process_time() + 1", "    while time.process_time() < end: pass"]
    (tmp_path / "script.py").write_text(HEAD + "\n".join(lines))
    process = subprocess.Popen([sys.executable, "script.py"], cwd=tmp_path)
    _, status, system = os.wait4(process.pid, 0)  # what time(1) prints
    process.returncode = status
    used = logs.used(tmp_path / "job.log")
    assert status == 0
    spent = system.ru_utime + system.ru_stime  # with the end of the process
    assert spent - 0.5 < used["cpu_seconds"] < spent + 0.1
    assert 300 < used["peak_memory_mib"] < 600
    assert (
        logs.used(tmp_path / "none.log") is None and logs.used(tmp_path / "script.py") is None
    )


def test_peak_memory_is_that_of_the_system_where_there_is_no_proc(monkeypatch, tmp_path):
    monkeypatch.setattr(logs, "_STATUS", tmp_path / "status")
    for platform, unit in (("linux", 2**10), ("darwin", 1)):
        monkeypatch.setattr(logs.sys, "platform", platform)
        used = SimpleNamespace(ru_maxrss=1536 * 2**20 // unit, ru_utime=2.0, ru_stime=1.0)
        monkeypatch.setattr(logs.resource, "getrusage", lambda who, used=used: used)
        assert logs.usage()["peak_memory_mib"] == 1536


@pytest.mark.parametrize("stage", ["dataset", "augmentation"])
def test_jobs_that_write_images_clean_up_after_killed_ones(stage):
    root = Path(__file__).parents[2]
    rules = (root / "workflow" / "rules" / f"{stage}.smk").read_text()
    scripts = re.findall(r"scripts/(\w+\.py)", rules)
    assert scripts
    for script in scripts:
        if script != "fetch_bloodmnist.py":  # which downloads into a folder of its own
            text = (root / "scripts" / script).read_text()
            assert "job(snakemake.log[0], snakemake.output" in text, script
