"""What a site does to a study: limits, maintenance, file systems, colleagues.

Each test plants one of these and runs what a user would type.
"""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
import yaml

from .cluster import rule
from .conftest import AUGMENTED, ONE_RUN, PROFILE, ROOT, RUN, TRAINED, slow, wait
from .test_cluster import submit

# As a QOS does that lets a user have one job in the queue.
ONE_JOB = """
    for number, other in pairs(slurm.jobs) do
        if other.user_id == user and other.job_state < 2 then
            slurm.log_user("QOSMaxSubmitJobPerUserLimit")
            return slurm.ESLURM_ACCOUNTING_POLICY
        end
    end
"""
NO_MEM = """
    if job.min_mem_per_node then
        slurm.log_user("--mem is not allowed here, use --mem-per-cpu")
        return slurm.ERROR
    end
"""


def programs_first(folder, cluster, **programs):
    """Put programs before SLURM's own and return the PATH that has them."""
    folder.mkdir()
    for name, text in programs.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}")
        (folder / name).chmod(0o755)
    return f"{folder}:{cluster.variables['PATH']}"


# At the first attempt.
ASKED = {"augment": ("01:00:00", "4000M"), "train": ("02:00:00", "1500M")}


def assert_one_attempt_each(study, said, *rules):
    """No attempt was wasted, after which the next one may ask for more."""
    assert "Error in rule" not in said
    jobs = study.jobs()
    asked = {rule(job): (job["TimeLimit"], job["MinMemoryNode"]) for job in jobs}
    assert asked == {name: ASKED[name] for name in rules} and len(jobs) == len(rules)


def test_a_submission_over_the_limit_of_a_user_waits_for_room(study, cluster):
    with cluster.refusing(ONE_JOB):
        other = submit(cluster, "sleep 99")
        study.start(AUGMENTED)
        wait(lambda: study.file("logs/slurm/waiting.log"), "a refusal")
        cluster.run("scancel", other)
        assert_one_attempt_each(study, study.stop("augment"), "augment")
    told = study.file("logs/slurm/waiting.log")
    assert "Batch job submission failed: Job violates accounting/QOS policy" in told


@slow
def test_a_controller_that_is_away_is_waited_for(study, cluster, tmp_path):
    away, second = tmp_path / "away", tmp_path / "second"
    path = programs_first(
        tmp_path / "programs",
        cluster,
        sbatch=f"""
if mkdir {tmp_path}/first 2>/dev/null; then exec {shutil.which("sbatch")} "$@"; fi
touch {second}
until [ -e {away} ]; do sleep 0.1; done
exec {shutil.which("sbatch")} "$@"
""",
    )
    # Between two jobs: one is there already, of the other SLURM has not heard.
    study.start(AUGMENTED, TRAINED, PATH=path)
    wait(second.exists, "the second submission")
    cluster.stop_controller()
    away.touch()
    try:
        # Long enough for the executor to ask for the first job in vain.
        waiting = "logs/slurm/waiting.log"
        wait(lambda: study.file(waiting).count("\n") == 2, "two submissions without an answer")
    finally:
        cluster.start_controller()
    result = study.finish()
    assert result.returncode == 0, result.said[-8000:]
    assert_one_attempt_each(study, result.said, "augment", "train")
    assert "Unable to contact slurm controller" in study.file(waiting)


def test_a_controller_that_forgets_jobs_is_said_with_the_line_to_change(study, cluster):
    with cluster.configured(MinJobAge=179):
        study.start(AUGMENTED)
        wait(study.jobs, "a job")
        said = study.kill()
    assert "Warning: the controller forgets a job 179 s after its end (MinJobAge)" in said
    assert "write slurm-status-command: sacct" in said


@pytest.fixture
def allow(cluster):
    """A function that sets how many minutes a job of the GPUs may take."""

    def allow(minutes):
        cluster.run("scontrol", "update", "PartitionName=gpu", f"MaxTime={minutes}")

    yield allow
    allow("UNLIMITED")


def test_a_job_that_can_never_start_is_named_by_plan_and_status(
    study, cluster, allow, hemagrid
):
    allow(119)
    study.start(TRAINED)
    (job,) = wait(
        lambda: [job for job in study.jobs() if job["Reason"] == "PartitionTimeLimit"],
        "a job that waits for ever",
    )
    where = ("--directory", study.folder, "--configfile", study.folder / "study.yaml")
    told = " ".join(hemagrid("plan", *where, "--profile", PROFILE, TRAINED).stdout.split())
    assert f"train {RUN} can never start: it asks for runtime 120, and partition gpu" in told
    told = hemagrid("status", *where).stdout
    assert "In SLURM's queue: 1 for PartitionTimeLimit" in told
    assert f"train {RUN} can never start (PartitionTimeLimit)" in told
    assert f"scancel {job['JobId']}" in told


@slow
def test_an_attempt_asks_for_no_more_time_than_its_partition_has(study, cluster, allow):
    # Three minutes before its limit it gets SIGTERM; five before, a job counts as out of time.
    study.config(runtime=5, epochs=150)
    allow(7)
    study.start(TRAINED)
    progress = study.folder / "checkpoints" / RUN / "progress.json"
    wait(progress.exists, "an epoch")
    cluster.run("scancel", study.jobs()[0]["JobId"])
    result = study.finish()
    assert result.returncode == 0, result.said[-8000:]
    limits = [job["TimeLimit"] for job in study.jobs()]
    assert limits == ["00:05:00", "00:07:00"]  # twice the time would be ten


NO_LOCKS = """
#include <errno.h>
int flock(int file, int operation) { errno = ENOLCK; return -1; }
"""


def test_where_files_cannot_be_locked_weights_load_and_a_gpu_is_taken(
    study, cluster, tmp_path, require_program, in_folder
):
    (tmp_path / "no_locks.c").write_text(NO_LOCKS)
    shim = tmp_path / "no_locks.so"
    compiler = require_program("cc", "gcc")
    subprocess.run(
        [compiler, "-shared", "-fPIC", "-o", shim, tmp_path / "no_locks.c"], check=True
    )
    plain = subprocess.run(
        [sys.executable, "-c", "import h5py; h5py.File('weights.h5', 'w')"],
        cwd=tmp_path,
        env={"LD_PRELOAD": str(shim)},
        capture_output=True,
        text=True,
    )
    assert "No locks available" in plain.stderr

    settings = yaml.safe_load(ONE_RUN.read_text())
    settings["backbones"] = {"mobilenetv3": {"weights": "random"}}
    settings["grid"] = {"cnns": [], "backbones": ["mobilenetv3"], "heads": ["cfg1"]}
    settings["training"] = {
        phase: {"epochs": 1} for phase in ("feature_extraction", "finetune_top", "finetune_all")
    }
    (study.folder / "study.yaml").write_text(yaml.safe_dump(settings))
    words = [sys.executable, "-m", "snakemake"]
    words += in_folder(study.folder, study.folder / "study.yaml")
    words += ["--profile", ROOT / "profiles" / "gpus", "results/mobilenetv3_cfg1/model.keras"]
    # In one allocation with two GPUs, which are shared out by locks.
    said = tmp_path / "said"
    options = ("--partition=gpu", "--gpus=2", "--mem=8000", f"--output={said}")
    options += (f"--chdir={study.folder}", f"--export=ALL,LD_PRELOAD={shim}")
    job = submit(cluster, " ".join(map(str, words)), *options)
    going = ("PENDING", "RUNNING", "COMPLETING")
    wait(lambda: cluster.job(job)["JobState"] not in going, "the end")
    assert cluster.job(job)["JobState"] == "COMPLETED", said.read_text()[-8000:]
    for log in ("embed/mobilenetv3", "train/mobilenetv3_cfg1"):
        told = study.file(f"logs/{log}.log")
        assert (
            "no file can be locked: [Errno 37]" in told and "set CUDA_VISIBLE_DEVICES" in told
        )


def test_a_site_that_refuses_mem_takes_memory_by_cpu(study, cluster, tmp_path):
    profile = tmp_path / "slurm"
    shutil.copytree(PROFILE, profile)
    text = (profile / "config.yaml").read_text()
    assert text.count("\n  # mem_mb_per_cpu: ") == 1
    (profile / "config.yaml").write_text(
        text.replace("  # mem_mb_per_cpu:", "  mem_mb_per_cpu:")
    )
    study.config(mem_mb=1501)
    with cluster.refusing(NO_MEM):
        study.start(AUGMENTED, "--retries", 0)
        assert "--mem is not allowed here" in study.finish().said
        assert study.jobs() == []
        more = ("--set-resources", "train:cpus_per_task=4", "train:slurm_partition=gpu")
        study.start(AUGMENTED, TRAINED, *more, "train:gpu=1", profile=profile)
        study.stop("augment", "train")
    asked = {rule(job): job for job in study.jobs()}
    assert asked["augment"]["MinMemoryCPU"] == "4000M"
    assert asked["train"]["MinMemoryCPU"] == "376M" and asked["train"]["NumCPUs"] == "4"


# Colleagues

NOBODY = 65534


def test_a_clone_that_another_user_owns_is_recorded_with_its_commit(
    study, clone, require_program
):
    require_program("git", "git")

    def git(*words):
        by = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=0"]
        return subprocess.run(["git", *by, *words], cwd=clone, capture_output=True, text=True)

    for words in (["init"], ["add", "."], ["commit", "-m", "first"]):
        assert git(*words).returncode == 0
    commit = git("rev-parse", "HEAD").stdout.strip()
    for path in [clone, *clone.rglob("*")]:
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    assert "dubious ownership" in git("rev-parse", "HEAD").stderr

    study.start(TRAINED, root=clone)
    study.stop("train")
    cost = json.loads(study.file(f"results/{RUN}/cost.json"))
    assert cost["environment"]["commit"] == commit and not cost["environment"]["changed"]


@pytest.fixture
def no_home(tmp_path):
    """A home that nobody can write to."""
    home = tmp_path / "home"
    home.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", home], check=True)
    yield home.resolve()
    subprocess.run(["umount", "--lazy", home], check=True)


def test_a_home_that_cannot_be_written_needs_another_cache(study, hemagrid, no_home):
    nowhere = {"HOME": str(no_home), "XDG_CACHE_HOME": ""}
    told = hemagrid("plan", "--directory", study.folder, **nowhere)
    assert told.returncode == 1
    assert told.stderr.startswith(f"Error: {no_home}/.cache") and told.stderr.count("\n") == 1
    assert "set XDG_CACHE_HOME" in told.stderr
    study.start(AUGMENTED, HOME=str(no_home))
    study.stop("augment")
    assert (study.folder / AUGMENTED).exists()


@pytest.mark.parametrize("reader", ["head -1", "true"])
def test_a_reader_of_status_that_stops_reads_no_traceback(study, environment, reader):
    command = f"{sys.executable} -m hemagrid.cli.main status --directory {study.folder}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", f"{command} | {reader}"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stderr == ""
    assert done.stdout.count("\n") == (reader == "head -1")


USERS = 100  # a group that every Debian has
COLLEAGUE = 1  # `daemon`


def test_a_colleague_continues_a_study_in_a_folder_of_the_group(
    study, cluster, in_folder, environment, tmp_path
):
    study.config(epochs=400)
    for path in [study.folder, *study.folder.rglob("*")]:
        os.chown(path, -1, USERS)
        path.chmod(0o2775 if path.is_dir() else 0o664)
    former = os.umask(0o002)
    try:
        study.start(TRAINED)
    finally:
        os.umask(former)
    progress = study.folder / "checkpoints" / RUN / "progress.json"
    wait(progress.exists, "an epoch")
    study.kill()
    os.kill(json.loads(progress.read_text())["pid"], signal.SIGKILL)
    wait(lambda: study.jobs()[0]["JobState"] == "FAILED", "the end of the job")

    cache = tmp_path / "cache"
    cache.mkdir()
    os.chown(cache, COLLEAGUE, USERS)
    # Who may read all, as the test's own folders are closed, and write what the group may.
    colleague = ["setpriv", f"--reuid={COLLEAGUE}", f"--regid={USERS}", "--clear-groups"]
    colleague += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    words = [sys.executable, "-m", "snakemake"]
    words += in_folder(study.folder, study.folder / "study.yaml")
    for more in (["--unlock"], ["--cores", 1, "--rerun-incomplete", TRAINED]):
        done = subprocess.run(
            [*colleague, *map(str, words + more)],
            cwd=study.folder,
            env=environment | {"XDG_CACHE_HOME": str(cache)},
            umask=0o002,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "continues in epoch" in study.file(f"logs/train/{RUN}.log")
    assert (study.folder / TRAINED).stat().st_uid == COLLEAGUE
    closed = [
        path
        for path in study.folder.rglob("*")
        if not path.is_symlink()
        and path.stat().st_mode & 0o060 != 0o060
        # What a killed snakemake leaves there is its own.
        and path.parent.name != ".snakemake"
    ]
    assert closed == []
