"""A study where slurmdbd keeps accounts and SLURM enforces their limits."""

import subprocess
import sys

import pytest

from .accounting import PROGRAMS, AccountedCluster
from .conftest import AUGMENTED, ONE_RUN, PROFILE, RUN, TRAINED, slow, wait
from .test_cluster import submit

DAEMON = 1  # a user that every Debian has


@pytest.fixture(scope="module")
def cluster(own_cluster):
    """A cluster with the account `lab`, of root and of another user."""
    with own_cluster(AccountedCluster, PROGRAMS) as cluster:
        cluster.manage("add", "account", "lab")
        for user in ("root", "daemon"):
            cluster.manage("add", "user", user, "account=lab", "defaultaccount=lab")
        yield cluster


@pytest.fixture
def partition(cluster):
    """A function that changes the partition of the GPUs."""

    def change(**values):
        cluster.run("scontrol", "update", "PartitionName=gpu", *map("=".join, values.items()))

    yield change
    change(AllowAccounts="ALL", Hidden="NO", PreemptMode="REQUEUE")


def test_plan_names_what_accounts_and_qos_do_not_allow(cluster, partition, hemagrid, tmp_path):
    limits = {"MaxWall": "60", "MaxSubmitJobsPerUser": "20"}
    with (
        cluster.limited("qos", "normal", **limits),
        cluster.limited("account", "lab", GrpTRES="gres/gpu=0"),
    ):
        partition(AllowAccounts="root")
        where = ("--directory", tmp_path, "--configfile", ONE_RUN, "--profile", PROFILE)
        said = " ".join(hemagrid("plan", *where).stdout.split())
    never = f"train {RUN}, predict {RUN} can never start: "
    assert f"{never}it asks for runtime 120, and QOS normal allows 60;" in said
    assert f"{never}it asks for gpu 1, and account lab allows 0;" in said
    assert f"{never}partition gpu has AllowAccounts=root, and it asks for lab;" in said
    assert "more than 20 jobs of yours in the queue (MaxSubmit of QOS normal)" in said
    assert "augment" not in said[said.index(never) :]


def test_status_names_why_jobs_of_a_user_wait(cluster, partition, environment, tmp_path):
    # Who may read all, as the tests' own folders are closed to others.
    caps = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    user = ("setpriv", f"--reuid={DAEMON}", f"--regid={DAEMON}", "--clear-groups", *caps)
    place = tmp_path.resolve()

    def send(name, *options):
        words = (f"--comment=rule_{name}", f"--chdir={place}", "--partition=gpu", *options)
        return cluster.run(*user, "sbatch", "--parsable", "--mem=100", *words, "--wrap=true")

    with (
        cluster.limited("qos", "normal", MaxWall="60"),
        cluster.limited("account", "lab", GrpTRES="gres/gpu=1"),
    ):
        partition(Hidden="YES")
        other = submit(cluster, "sleep 999", "--partition=gpu", "--gpus=1", "--time=60")
        wait(lambda: cluster.job(other)["JobState"] == "RUNNING", "a job of the account")
        jobs = [send("train", "--time=60", "--gpus=1"), send("embed_wildcards_b", "--time=61")]
        jobs = [other, *(job.strip() for job in jobs)]
        wait(lambda: cluster.job(jobs[1])["Reason"] == "AssocGrpGRES", "the reason")
        status = [sys.executable, "-m", "hemagrid.cli.main", "status"]
        status += ["--directory", place, "--configfile", ONE_RUN]
        done = subprocess.run(
            [*user, *map(str, status)],
            env=environment | cluster.variables,
            capture_output=True,
            text=True,
        )
        cluster.run("scancel", *jobs)
    assert "1 for AssocGrpGRES (until other jobs of your account or QOS end" in done.stdout, (
        done
    )
    assert "embed b can never start (QOSMaxWallDurationPerJobLimit)" in done.stdout


@slow
def test_a_study_keeps_within_what_accounts_and_qos_allow(study, cluster):
    # Three minutes before its limit it gets SIGTERM; five before, a job counts as out of time.
    study.config(runtime=5, epochs=150)
    with (
        cluster.limited("qos", "normal", MaxWall="7"),
        cluster.limited("account", "lab", GrpSubmitJobs="1"),
    ):
        other = submit(cluster, "sleep 999")
        study.start(TRAINED)
        wait(lambda: study.file("logs/slurm/waiting.log"), "a refusal")
        cluster.run("scancel", other)
        progress = study.folder / "checkpoints" / RUN / "progress.json"
        wait(progress.exists, "an epoch")
        cluster.run("scancel", study.jobs()[0]["JobId"])
        result = study.finish()
    assert result.returncode == 0, result.said[-8000:]
    assert "AssocGrpSubmitJobsLimit" in study.file("logs/slurm/waiting.log")
    limits = [job["TimeLimit"] for job in study.jobs()]
    assert limits == ["00:05:00", "00:07:00"]  # twice the time would be ten


@slow
def test_a_job_that_is_preempted_and_not_queued_again_is_submitted_again(
    study, cluster, partition
):
    study.config(epochs=400, patience=400)
    partition(PreemptMode="CANCEL")
    study.start(TRAINED)
    progress = study.folder / "checkpoints" / RUN / "progress.json"
    wait(progress.exists, "an epoch")
    other = submit(cluster, "sleep 10", "--partition=urgent", "--gpus=2", "--exclusive")
    wait(lambda: study.jobs()[0]["JobState"] == "PREEMPTED", "the preemption")
    wait(lambda: cluster.job(other)["JobState"] == "COMPLETED", "the end of the other job")
    result = study.finish()
    assert result.returncode == 0, result.said[-8000:]
    assert [job["JobState"] for job in study.jobs()] == ["PREEMPTED", "COMPLETED"]
    assert "continues in epoch" in study.file(f"logs/train/{RUN}.log")


@slow
def test_a_run_ends_with_sacct_alone_and_while_slurmdbd_is_away(study, cluster):
    with cluster.configured(MinJobAge=2):  # so that squeue is not asked
        cluster.run("scontrol", "update", "PartitionName=cpu", "State=DOWN")
        try:
            study.start(AUGMENTED)
            (first,) = wait(study.jobs, "a job")
            cluster.run("scancel", first["JobId"])
        finally:
            cluster.run("scontrol", "update", "PartitionName=cpu", "State=UP")
        wait(lambda: [job for job in study.jobs() if job["JobState"] == "RUNNING"], "another")
        cluster.stop_slurmdbd()
        try:
            wait(lambda: study.jobs() == [], "its end")
        finally:
            cluster.start_slurmdbd()
        result = study.finish()
    assert result.returncode == 0, result.said[-8000:]
    assert "Falling back to 'sacct'" in result.said
    assert f"SLURM-job '{first['JobId']}' failed, SLURM status is: 'CANCELLED'" in result.said
    assert (study.folder / AUGMENTED).exists()
