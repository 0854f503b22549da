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
    slurm.limits.cache_clear()
    slurm._partitions.cache_clear()

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
    assert slurm.limits("gpu") == {"runtime": 180, "mem_mb": 64000}
    assert slurm.limits() == {"mem_mb": 128000}
    assert slurm.limits("gpu,long") == {"runtime": 7 * 1440 + 720, "mem_mb": 128000}
    assert slurm.limits("none") == {}


def test_a_cluster_that_does_not_answer_limits_nothing(said):
    assert slurm.limits("gpu") == {} and slurm.submit_limit() is None
    assert slurm.pending("/study") == {}


def test_how_many_jobs_may_be_in_the_queue(said):
    said("sacctmgr", "200|normal\n|normal")
    assert slurm.submit_limit() == 200
    said("sacctmgr", "|normal\nnormal|100\nlong|20")
    assert slurm.submit_limit() == 100 and slurm.submit_limit("long") == 20


def test_why_jobs_wait(said):
    lines = [
        "12|Resources|rule_train_wildcards_vgg16_cfg1|/study",
        "13|PartitionTimeLimit|rule_train_wildcards_vgg16_cfg2|/study",
        "14|Priority|rule_train_wildcards_vgg16_cfg3|/another",
        "15|QOSMaxWallDurationPerJobLimit|rule_embed_wildcards_vgg16|/study",
    ]
    said("squeue", "\n".join(lines))
    assert slurm.pending("/study") == {
        "rule_train_wildcards_vgg16_cfg1": ("12", "Resources", False),
        "rule_train_wildcards_vgg16_cfg2": ("13", "PartitionTimeLimit", True),
        "rule_embed_wildcards_vgg16": ("15", "QOSMaxWallDurationPerJobLimit", True),
    }


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
