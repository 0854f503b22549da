"""A job gets its threads, its GPU and its signals."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

import hemagrid
from hemagrid.errors import InputError
from hemagrid.training import jobs

LIBRARY = Path(hemagrid.__file__).parent


def test_threads_are_bounded_and_keras_stays_in_the_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    # Set first, so that they are put back.
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    for name in names:
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("KERAS_HOME", "unset below")
    monkeypatch.delenv("KERAS_HOME")
    jobs.prepare(3)
    assert {os.environ[name] for name in names} == {"3"}
    assert os.environ["KERAS_HOME"] == str(tmp_path / "resources" / "keras")


def test_what_the_user_set_is_left(monkeypatch):
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("KERAS_HOME", "/scratch/keras")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    jobs.prepare(1)
    assert os.environ["KERAS_HOME"] == "/scratch/keras"
    assert os.environ["KERAS_BACKEND"] == "jax"


# A GPU that was asked for


@pytest.mark.parametrize("asked", [{"gpu": 1}, {"gres": "gpu:1"}, {"gres": "gpu:a100:1"}])
def test_a_job_that_asked_for_a_gpu_stops_without_one(asked, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "17")  # where SLURM has given it one
    with pytest.raises(InputError, match=r"asked for a GPU.*CUDA_VISIBLE_DEVICES is 3"):
        jobs.prepare(1, asked, require_gpu=True)
    jobs.prepare(1, asked, require_gpu=False)
    monkeypatch.setattr(jobs, "device", lambda: "gpu")
    jobs.prepare(1, asked, require_gpu=True)


@pytest.mark.parametrize("asked", [None, {}, {"gpu": 0, "mem_mb": 100}, {"gres": "disk:1"}])
def test_a_job_that_asked_for_none_runs_on_the_cpu(asked):
    jobs.prepare(1, asked, require_gpu=True)


CLAIM = "import os, sys; from pathlib import Path; from hemagrid.training import jobs; "
CLAIM += "jobs.POLL = 0.2; jobs.LOCKS = Path(sys.argv[1]); jobs.claim_gpu(); "
CLAIM += "print(os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); input()"


@pytest.fixture
def claim(tmp_path):
    """A function that starts a process which takes a GPU of a machine with two."""
    listing = "GPU 0: One (UUID: a)\nGPU 1: Two (UUID: b)\n"
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{listing}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    started = []

    def start(**variables):
        environment = {key: os.environ[key] for key in os.environ if "CUDA" not in key}
        for variable in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "SGE_TASK_ID", "JOB_ID"):
            environment.pop(variable, None)
        environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        environment |= {"PYTHONPATH": str(LIBRARY.parent)} | variables
        process = subprocess.Popen(
            [sys.executable, "-c", CLAIM, tmp_path],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_jobs_side_by_side_get_a_gpu_each_and_a_third_waits(claim):
    first, second = claim(), claim()
    taken = {process.stdout.readline().strip(): process for process in (first, second)}
    assert taken.keys() == {"0", "1"}
    third = claim()
    with pytest.raises(subprocess.TimeoutExpired):
        third.wait(timeout=2)
    taken["1"].kill()
    assert third.stdout.readline().strip() == "1"


def test_only_gpus_that_the_user_left_visible_are_taken(claim):
    assert claim(CUDA_VISIBLE_DEVICES="1").stdout.readline().strip() == "1"
    assert claim(CUDA_VISIBLE_DEVICES="").stdout.readline().strip() == ""


def test_jobs_in_one_allocation_share_its_gpus_out(claim):
    job = {"SLURM_JOB_ID": "17", "CUDA_VISIBLE_DEVICES": "2,3"}
    taken = {claim(**job).stdout.readline().strip() for _ in range(2)}
    assert taken == {"2", "3"}
    # Those of another job are numbered alike where SLURM hides all others.
    another = job | {"SLURM_JOB_ID": "18"}
    assert claim(**another).stdout.readline().strip() == "2"


JOBS = {
    "slurm": {"SLURM_JOB_ID": "17"},
    "pbs": {"PBS_JOBID": "17.server"},
    "lsf": {"LSB_JOBID": "17"},
    "sge": {"JOB_ID": "17", "SGE_TASK_ID": "undefined"},
}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_gpu_that_a_scheduler_has_given_is_not_claimed(claim, tmp_path, job):
    # Numbered from 0 in each job, these are two GPUs.
    for _ in range(2):
        process = claim(**job, CUDA_VISIBLE_DEVICES="0")
        assert process.stdout.readline().strip() == "0"
    assert not list(tmp_path.rglob("*.lock"))


def test_gpus_that_torque_and_grid_engine_name_otherwise_are_understood(claim, tmp_path):
    (tmp_path / "gpus").write_text("node17-gpu3\n")
    torque = claim(**JOBS["pbs"], PBS_GPUFILE=str(tmp_path / "gpus"))
    assert torque.stdout.readline().strip() == "3"
    for value, expected in (("2", "2"), ("gpu5", "5"), ("GPU1 ", "1")):
        assert claim(**JOBS["sge"], SGE_HGR_gpu=value).stdout.readline().strip() == expected
    several = {claim(**JOBS["sge"], SGE_HGR_ngpus="gpu2 gpu3") for _ in range(2)}
    assert {process.stdout.readline().strip() for process in several} == {"2", "3"}


def test_jobs_of_a_scheduler_that_assigns_no_gpus_take_one_each(claim, tmp_path):
    taken = set()
    for job in ("17", "18"):
        own = tmp_path / f"{job}.1.gpu.q"  # as Grid Engine gives each job one
        own.mkdir()
        taken.add(claim(**JOBS["sge"] | {"JOB_ID": job, "TMPDIR": str(own)}))
    assert {process.stdout.readline().strip() for process in taken} == {"0", "1"}


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_where_no_file_can_be_locked_a_gpu_is_taken_with_a_warning(
    number, monkeypatch, tmp_path, logged
):
    def refuse(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.setattr(jobs, "LOCKS", tmp_path)
    monkeypatch.setattr(jobs, "_claimed", [])
    monkeypatch.setattr("fcntl.flock", refuse)
    jobs.claim_gpu()
    assert os.environ["CUDA_VISIBLE_DEVICES"] in ("4", "5")
    assert os.strerror(number) in logged() and "set CUDA_VISIBLE_DEVICES" in logged()


@pytest.mark.parametrize("trap", ["link", "foreign", "open"])
def test_a_folder_for_locks_that_others_control_is_not_used(
    trap, monkeypatch, tmp_path, logged
):
    folder = tmp_path / f"hemagrid-{os.getuid()}"
    if trap == "link":
        (tmp_path / "elsewhere").mkdir()
        folder.symlink_to(tmp_path / "elsewhere")
    else:
        folder.mkdir(mode=0o700)
    if trap == "open":
        folder.chmod(0o777)
    if trap == "foreign":
        owner = os.getuid()
        monkeypatch.setattr(jobs.os, "getuid", lambda: owner + 1)
        folder.rename(tmp_path / f"hemagrid-{owner + 1}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    monkeypatch.setattr(jobs, "LOCKS", tmp_path)
    monkeypatch.setattr(jobs, "_claimed", [])
    jobs.claim_gpu()
    assert "others can change" in logged()
    assert not list(tmp_path.rglob("*.lock"))


def test_files_of_hdf5_need_no_locks(tmp_path):
    # Holding flock here makes HDF5 fail there, as a file system without locks does.
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w"):
        pass
    program = "import hemagrid, h5py, sys; h5py.File(sys.argv[1])"
    environment = os.environ | {"PYTHONPATH": str(LIBRARY.parent)}
    with open(path) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for locking, status in ((None, 0), ("TRUE", 1)):
            environment.pop("HDF5_USE_FILE_LOCKING", None)
            if locking:
                environment["HDF5_USE_FILE_LOCKING"] = locking
            ran = subprocess.run(
                [sys.executable, "-c", program, path], env=environment, capture_output=True
            )
            assert ran.returncode == status, ran.stderr


def test_of_two_that_listen_for_a_signal_both_are_told():
    with jobs.stop_signals() as outer:
        with jobs.stop_signals() as inner:
            assert outer() is inner() is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert outer() == inner() == "SIGTERM"
        with jobs.stop_signals() as later:
            assert later() is None
            assert outer() == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
