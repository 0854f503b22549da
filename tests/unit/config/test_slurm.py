"""What is read from SLURM's commands; fakes of them print what real ones did."""

import os
from types import SimpleNamespace

import pytest

from hemagrid.config import slurm

PARTITIONS = """\
PartitionName=cpu Default=YES MaxTime=UNLIMITED MaxMemPerNode=UNLIMITED State=UP
PartitionName=gpu Default=NO MaxTime=03:00:00 MaxMemPerNode=64000 State=UP
PartitionName=long Default=NO MaxTime=7-12:00:00 MaxMemPerNode=UNLIMITED State=UP
"""


@pytest.fixture
def said(tmp_path, monkeypatch):
    """A function that makes a program print a text."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    slurm._ask.cache_clear()

    def says(program, text, status=0):
        (tmp_path / program).write_text(
            f"#!/usr/bin/env python3\nimport sys\nprint({text!r})\nsys.exit({status})\n"
        )
        (tmp_path / program).chmod(0o755)

    for program in ("scontrol", "sinfo", "sacctmgr", "squeue"):
        says(program, "", 1)
    return says


def test_limits_of_a_partition(said):
    said("scontrol", PARTITIONS)
    said("sinfo", "32000\n128000")
    by = "partition gpu"
    assert slurm.limits("gpu") == {"runtime": (180, by), "mem_mb": (64000, by)}
    assert slurm.limits() == {"mem_mb": (128000, "partition (the default one)")}
    assert slurm.limits("gpu,long")["runtime"] == (7 * 1440 + 720, "partition gpu,long")
    assert slurm.limits("none") == {}


def test_a_cluster_that_does_not_answer_limits_nothing(said):
    assert slurm.limits("gpu") == {} and slurm.refusal("gpu", "lab", "long") is None
    assert slurm.pending("/study") == {}


# What `sacctmgr -nP show` prints, by its words and the columns that are asked for.
ACCOUNTS = """\
case "$*" in
*"show user me "*) echo lab ;;
*"show qos "*) echo '{qos}' ;;
*"account=lab user= cluster=here "*) echo 'lab|||{group}' ;;
*"user=me cluster=here "*) echo 'lab|{default}|long,short|{own}'; echo 'old||short|||||' ;;
esac
"""
ANY = "||||"
SHORT = "short||02:00:00|9||12|mem=4G||gres/gpu=2"
LONG = "long||1-00:00:00||||||"


@pytest.fixture
def accounts(said, tmp_path, monkeypatch):
    """A function that makes an account, its user's association and QOS known."""
    monkeypatch.setenv("LOGNAME", "me")

    def know(qos, default="short", own=ANY, group=ANY, partition="QoS=N/A"):
        slurm._ask.cache_clear()
        text = ACCOUNTS.format(qos=qos, default=default, own=own, group=group)
        (tmp_path / "sacctmgr").write_text(f"#!/bin/sh\n{text}")
        said("scontrol", f"ClusterName = here\nPartitionName=gpu {partition}")

    return know


def test_a_qos_and_an_account_limit_jobs(accounts):
    accounts(f"{SHORT}\n{LONG}", own="03:00:00|5|||", group="||99||gres/gpu=1")
    by, account = "QOS short", "account lab"
    of_short = {"runtime": (120, by), "mem_mb": (4096, by), "gpu": (2, by), "queued": (9, by)}
    assert slurm.limits("gpu") == of_short
    # Where the QOS says nothing, the account does.
    assert slurm.limits("gpu", "lab", "long") == {
        "runtime": (1440, "QOS long"),
        "gpu": (1, account),
        "queued": (5, account),
    }


def test_the_qos_of_a_partition_goes_before_that_of_the_job(accounts):
    accounts(f"{SHORT}\n{LONG}", partition="QoS=long")
    assert slurm.limits("gpu")["runtime"] == (1440, "QOS long")
    accounts(SHORT.replace("short|", "short|OverPartQOS") + f"\n{LONG}", partition="QoS=long")
    assert slurm.limits("gpu")["runtime"] == (120, "QOS short")


@pytest.mark.parametrize(
    ("queue", "partition", "problem"),
    [
        (("gpu", "lab", "short"), "AllowAccounts=ALL AllowQos=ALL", None),
        (("gpu",), "AllowAccounts=old,lab AllowQos=short", None),
        (("gpu", "new"), "", "account new is none of yours (lab, old)"),
        (("gpu", "old", "long"), "", "account old may use QOS short, not long"),
        (("gpu",), "AllowAccounts=old", "has AllowAccounts=old, and it asks for lab"),
        (("gpu",), "AllowQos=long", "has AllowQos=long, and it asks for short"),
        (("gpu",), "DenyAccounts=lab", "has DenyAccounts=lab, and it asks for lab"),
    ],
)
def test_an_account_or_qos_that_is_not_taken_is_named(accounts, queue, partition, problem):
    accounts(f"{SHORT}\n{LONG}", partition=partition)
    told = slurm.refusal(*queue)
    assert told is None if problem is None else problem in told


def test_an_account_that_takes_no_jobs_is_named(accounts):
    accounts(LONG, default="long", group="||0||")
    assert slurm.refusal("gpu") == "account lab takes no jobs (MaxSubmit is 0)"


def test_why_jobs_wait(said):
    lines = [
        "12|Resources|rule_train_wildcards_vgg16_cfg1|/study",
        "13|PartitionTimeLimit|rule_train_wildcards_vgg16_cfg2|/study",
        "14|Priority|rule_train_wildcards_vgg16_cfg3|/another",
        "15|QOSMaxWallDurationPerJobLimit|rule_embed_wildcards_vgg16|/study",
    ]
    said("squeue", "\n".join(lines))
    assert slurm.pending("/study") == {
        "rule_train_wildcards_vgg16_cfg1": ("12", "Resources", ""),
        "rule_train_wildcards_vgg16_cfg2": ("13", "PartitionTimeLimit", slurm.NEVER),
        "rule_embed_wildcards_vgg16": ("15", "QOSMaxWallDurationPerJobLimit", slurm.NEVER),
    }


@pytest.mark.parametrize(
    ("reason", "meaning"),
    [
        ("Priority", ""),
        ("QOSMaxGRESPerJob", slurm.NEVER),
        ("Job's account not permitted to use this partition (gpu allows a not b)", slurm.NEVER),
        ("QOSMaxCpuPerUserLimit", "other jobs of yours"),
        ("AssocGrpGRES", "other jobs of your account"),
        ("AssocGrpCPUMinutesLimit", "ask your site"),
        ("ReqNodeNotAvail, Reserved for maintenance", "less runtime may fit before"),
        ("ReqNodeNotAvail, UnavailableNodes:gpu1", "nodes are down"),
    ],
)
def test_what_a_reason_means(said, reason, meaning):
    said("squeue", f"12|{reason}|rule_report|/study")
    ((_, _, told),) = slurm.pending("/study").values()
    assert meaning in told and bool(meaning) == bool(told)


@pytest.mark.parametrize(
    ("age", "told"),
    [
        ("300 sec", None),
        ("180 sec", None),
        ("179 sec", "forgets a job 179 s after its end"),
        ("10 sec", "write slurm-status-command: sacct"),
        (None, "answers"),
    ],
)
def test_where_squeue_would_miss_jobs_or_be_replaced_by_sacct(said, age, told):
    if age:
        said("scontrol", f"MaxTasksPerNode = 512\nMinJobAge               = {age}")
    squeue = SimpleNamespace(status_command="squeue", init_seconds_before_status_checks=20)
    problem = slurm.status_problem(squeue)
    assert problem is None if told is None else told in problem
    assert slurm.status_problem(SimpleNamespace(status_command="sacct")) is None
    assert slurm.status_problem(None) is None
