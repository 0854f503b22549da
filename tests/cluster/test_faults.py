"""What a cluster does to a training job, and that it costs at most the epoch under way.

Each test plants one fault while a run trains on the cluster and lets snakemake go on by
itself, or, where the fault took snakemake with it, by the command that a user would type.
It ends in the weights, history and predictions of a run that nothing disturbed.

Those that wait for minutes run under HEMAGRID_SLOW_FAULTS=1: `make faults`.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from .cluster import PATIENCE
from .conftest import QUICK, ROOT, slow

RUN = "baseline_cnn"
TARGET = f"results/{RUN}/metrics.json"
EPOCHS = 60  # half a minute on one core
STUDY = {
    "dataset": {
        "source": "smears",
        "path": None,
        "image_size": 32,
        "smears": {"per_class": 12, "duplicates": 3, "near_duplicates": 2, "junk": 4},
    },
    "augmentation": {
        subset: {
            "copies": copies,
            "randaugment": {"n": 1, "m": 0.3},
            "augmix": {"k": 1, "m": 0.3},
        }
        for subset, copies in {"train": 4, "val": 2, "test_augmented": 2}.items()
    },
    "grid": {"cnns": [RUN], "backbones": [], "heads": []},
    "cnns": {
        RUN: {
            "filters": [24, 48],
            "dense": 32,
            "dropout": 0.1,
            "batch_size": 8,
            "epochs": EPOCHS,
            "patience": EPOCHS,
            "mem_mb": 2000,
        }
    },
    "evaluation": {"bootstrap": 200},
    "require_gpu": False,
}


@pytest.fixture(scope="module")
def prepared(cluster, tmp_path_factory, snakemake, in_folder):
    """A study with everything that training reads, and the run as nothing disturbed it."""
    folder = tmp_path_factory.mktemp("prepared")
    config = folder / "study.yaml"
    config.write_text(yaml.safe_dump(STUDY))
    subsets = ("train", "val", "test", "test_augmented")
    images = [f"results/dataset/{subset}.npy" for subset in subsets]
    made = snakemake(folder, *in_folder(folder, config), "--cores", 2, *images)
    assert made.returncode == 0, made.said
    calm = folder.with_name("calm")
    shutil.copytree(folder, calm)
    ran = snakemake(calm, *in_folder(calm, calm / "study.yaml"), "--cores", 1, TARGET)
    assert ran.returncode == 0, ran.said
    return SimpleNamespace(folder=folder, calm=outcome(calm))


def outcome(folder):
    """What must not depend on what happened: weights, history, predictions."""
    results = folder / "results" / RUN
    with zipfile.ZipFile(results / "model.keras") as archive:
        weights = archive.read("model.weights.h5")
    predictions = {}
    for path in sorted(results.glob("predictions/*.npz")):
        with np.load(path) as arrays:
            predictions |= {
                f"{path.stem} {k}": arrays[k].tobytes() for k in arrays.files if k != "key"
            }
    history = pd.read_csv(results / "history.csv").drop(columns="seconds")
    return weights, predictions, history.to_csv()


class Study:
    """A copy of the prepared study whose run is trained on the cluster."""

    def __init__(self, folder, cluster, start, finish, in_folder):
        self.folder, self.cluster = folder, cluster
        self._start, self._finish, self._in_folder = start, finish, in_folder

    def arguments(self, *configs):
        return self._in_folder(self.folder, self.folder / "study.yaml", *configs)

    def start(self, *arguments, configs=()):
        """Start snakemake on the login node, as a user does."""
        self.process = self._start(
            self.folder,
            *self.arguments(*configs),
            "--profile",
            ROOT / "profiles" / "slurm",
            *QUICK,
            TARGET,
            *arguments,
            **self.cluster.variables,
        )

    def finish(self):
        return self._finish(self.process)

    def progress(self):
        told = self.folder / "checkpoints" / RUN / "progress.json"
        with contextlib.suppress(FileNotFoundError):
            return json.loads(told.read_text())
        return {"epoch": 0}

    def epochs(self):
        """How many epochs the run has behind it."""
        return self.progress()["epoch"]

    def until_epoch(self, epoch):
        self.until(lambda: self.epochs() >= epoch, f"epoch {epoch}")

    def until(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None:
                pytest.fail(f"snakemake ended before {what}:\n{self.finish().said[-6000:]}")
            assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}: {self.log()}"
            time.sleep(0.1)

    def jobs(self):
        """The training jobs so far, as SLURM tells, oldest first."""
        jobs = self.cluster.jobs(self.folder)
        return [job for job in jobs if job["Comment"].startswith("rule_train")]

    def job(self):
        return self.jobs()[-1]

    def log(self):
        path = self.folder / "logs" / "train" / f"{RUN}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def goes_on_in(self):
        """The epoch in which the last start went on; None if it began anew."""
        found = re.search(r"continues in epoch +(\d+)", self.log())
        return int(found[1]) if found else None

    def trained_epochs(self):
        """The epochs that the last start finished; Snakemake keeps no log of earlier ones."""
        return [int(epoch) for epoch in re.findall(rf"epoch +(\d+)/{EPOCHS}", self.log())]


@pytest.fixture
def study(cluster, prepared, tmp_path, start, finish, in_folder):
    """The prepared study in a folder of its own; it leaves no process and no job."""
    folder = (tmp_path / "study").resolve()
    shutil.copytree(prepared.folder, folder)
    study = Study(folder, cluster, start, finish, in_folder)
    yield study
    if study.process.poll() is None:
        os.killpg(study.process.pid, signal.SIGKILL)
        study.process.communicate()
    for job in study.jobs():
        cluster.run("scancel", job["JobId"], check=False)


def assert_nothing_lost(study, prepared, struck=None):
    """The same outcome, and a last start that went on after the epoch that the fault met."""
    result = study.finish()
    assert result.returncode == 0, result.said[-8000:]
    assert (study.folder / TARGET).exists()
    assert outcome(study.folder) == prepared.calm
    if struck is None:
        assert study.goes_on_in() is None
    else:
        assert study.goes_on_in() > struck
    first = study.goes_on_in() or 1
    assert study.trained_epochs() == list(range(first, EPOCHS + 1)), study.log()
    assert not any((study.folder / "checkpoints").iterdir())
    return result


# What ends a job


def test_a_cancelled_job_is_submitted_again_and_goes_on(study, prepared):
    study.start()
    study.until_epoch(5)
    study.cluster.run("scancel", study.job()["JobId"])
    assert_nothing_lost(study, prepared, struck=5)
    states = [job["JobState"] for job in study.jobs()]
    assert states == ["CANCELLED", "COMPLETED"]


@slow
def test_a_job_at_its_time_limit_saves_its_state_and_goes_on(study, prepared):
    limit = ("train:runtime=1", "train:slurm_partition=gpu", "train:gpu=1")
    study.start("--set-resources", *limit)
    study.until_epoch(5)
    # Held, so that it is still training when its minute is over: SLURM wakes it, too.
    trainer = study.progress()["pid"]
    os.kill(trainer, signal.SIGSTOP)
    study.until(lambda: not Path(f"/proc/{trainer}").exists(), "the end of the first attempt")
    result = assert_nothing_lost(study, prepared, struck=5)
    assert f"Stopped: {RUN}: by SIGTERM in epoch" in result.said
    states = [job["JobState"] for job in study.jobs()]
    assert states[0] in ("TIMEOUT", "FAILED") and states[-1] == "COMPLETED"


def test_a_job_out_of_memory_gets_more_and_goes_on(study, prepared, tmp_path):
    config = tmp_path / "memory.yaml"
    config.write_text(yaml.safe_dump({"cnns": {RUN: {"mem_mb": 700}}}))
    study.start(configs=[config])
    assert study.finish().returncode == 0
    assert outcome(study.folder) == prepared.calm
    jobs = study.jobs()
    assert jobs[0]["JobState"] in ("FAILED", "OUT_OF_MEMORY")
    assert jobs[-1]["JobState"] == "COMPLETED"
    asked = [int(re.search(r"mem=(\d+)M", job["TRES"])[1]) for job in jobs]
    assert asked == [700 * attempt for attempt in range(1, len(jobs) + 1)]


@slow
def test_a_requeued_job_goes_on_under_its_number(study, prepared):
    study.start()
    study.until_epoch(5)
    study.cluster.run("scontrol", "requeue", study.job()["JobId"])
    assert_nothing_lost(study, prepared, struck=5)
    (job,) = study.jobs()
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1")


@slow
def test_a_preempted_job_goes_on_when_the_other_is_done(study, prepared, cluster):
    study.start()
    study.until_epoch(5)
    urgent = ("--partition=urgent", "--gpus=2", "--mem=100", "--output=/dev/null")
    cluster.run("sbatch", *urgent, "--wrap", "sleep 10")
    assert_nothing_lost(study, prepared, struck=5)
    (job,) = study.jobs()
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1")


# What happens to the cluster's own daemons


def test_a_slurmd_that_is_killed_and_comes_back_is_not_noticed(study, prepared, cluster):
    study.start()
    study.until_epoch(5)
    cluster.kill_node("gpu1")
    time.sleep(3)
    cluster.start_node("gpu1")
    assert_nothing_lost(study, prepared)
    assert [job["JobState"] for job in study.jobs()] == ["COMPLETED"]


def test_a_slurmctld_that_is_restarted_is_not_noticed(study, prepared, cluster):
    study.start()
    study.until_epoch(5)
    cluster.stop_controller()
    cluster.start_controller()
    assert_nothing_lost(study, prepared)
    assert [job["JobState"] for job in study.jobs()] == ["COMPLETED"]


@slow
def test_a_job_of_a_lost_node_is_queued_again_and_goes_on(study, prepared, cluster):
    study.start()
    study.until_epoch(5)
    trained_until = study.epochs()
    # The node is gone with all that ran on it.
    cluster.kill_node("gpu1")
    for process in cluster.processes():
        command = Path(f"/proc/{process}/cmdline")
        with contextlib.suppress(OSError):
            words = command.read_bytes()
            if b"slurmstepd" in words or str(study.folder).encode() in words:
                if process != study.process.pid:
                    os.kill(process, signal.SIGKILL)
    study.until(lambda: "DOWN" in cluster.node("gpu1")["State"], "the node to count as down")
    cluster.start_node("gpu1")
    assert_nothing_lost(study, prepared, struck=trained_until)
    (job,) = study.jobs()
    assert (job["JobState"], job["Restarts"]) == ("COMPLETED", "1")


# What happens to snakemake, the disk, the GPU


def test_a_killed_snakemake_started_again_trains_nothing_twice(study, prepared):
    study.start()
    study.until_epoch(5)
    os.kill(study.process.pid, signal.SIGKILL)
    study.process.communicate()
    assert study.job()["JobState"] == "RUNNING"
    # Held, so that it is still there when the second job comes; for less than a lease.
    trainer = study.progress()["pid"]
    os.kill(trainer, signal.SIGSTOP)

    study.start()
    assert "--unlock" in study.finish().said  # Snakemake's own lock, and what to do
    study.start("--unlock")
    assert study.finish().returncode == 0
    study.start("--rerun-incomplete")
    study.until(lambda: "waiting until it has finished" in study.log(), "the second job")
    assert f"process {trainer} on" in study.log()
    os.kill(trainer, signal.SIGCONT)
    assert study.finish().returncode == 0
    assert outcome(study.folder) == prepared.calm
    assert [job["JobState"] for job in study.jobs()] == ["COMPLETED", "COMPLETED"]
    assert "another process has finished this meanwhile" in study.log()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 60 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=60m", "tmpfs", disk], check=True)
    yield disk.resolve()
    subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_full_disk_costs_lines_and_checkpoints_and_no_training(study, prepared, small_disk):
    study.folder = small_disk / "study"  # with its logs, and those of SLURM
    shutil.copytree(prepared.folder, study.folder)
    study.start()
    study.until_epoch(3)
    filler = small_disk / "filler"
    with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as file:
        while file.write(bytes(2**16)):
            pass
    reached = study.epochs()
    time.sleep(1)  # some epochs, and not all that are left
    assert study.job()["JobState"] == "RUNNING"
    filler.unlink()
    study.until_epoch(reached + 1)
    result = study.finish()
    assert result.returncode == 0, result.said[-8000:]
    assert outcome(study.folder) == prepared.calm
    assert [job["JobState"] for job in study.jobs()] == ["COMPLETED"]
    assert study.trained_epochs()[-1] == EPOCHS


def test_results_that_a_clock_behind_makes_snakemake_refuse_are_not_lost(study, prepared):
    # To a node five minutes behind, what another has just written is of the future.
    images = [study.folder / "results" / "dataset" / f"{name}.npy" for name in ("train", "val")]
    for path in images:
        os.utime(path, (time.time() + 300,) * 2)
    study.start("--retries", 0)
    refused = study.finish()
    assert refused.returncode != 0 and "clock skew" in refused.said
    assert not (study.folder / "results" / RUN / "model.keras").exists()
    for path in images:
        os.utime(path)
    study.start()
    assert study.finish().returncode == 0
    assert "put back" in study.log() and study.trained_epochs() == []
    assert outcome(study.folder) == prepared.calm
    assert not any((study.folder / "checkpoints").iterdir())


def test_a_gpu_that_does_not_work_is_said_and_no_cpu_takes_its_place(study, tmp_path):
    config = tmp_path / "gpu.yaml"
    config.write_text("require_gpu: true\n")
    study.start("--retries", 0, configs=[config])
    result = study.finish()
    assert result.returncode != 0
    assert "this job asked for a GPU, but Keras on tensorflow finds none" in result.said
    assert "require_gpu: false" in result.said
    assert study.trained_epochs() == []
    assert [job["JobState"] for job in study.jobs()] == ["FAILED"]
