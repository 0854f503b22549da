"""The text of a plan."""

import io
import os
import re
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import yaml

from hemagrid.cli import plan, speeds
from hemagrid.cli.estimate import Estimate, Job, Unmeasured
from hemagrid.config import slurm
from hemagrid.io import write_table

from .conftest import IMAGES, ROOT, TINY, TRAIN, jobs_of, measured

OF_IMAGES = {"smears", "acquire_dataset", "fingerprint", "deduplicate", "groups", "split"}
OF_IMAGES |= {"acquire_test_set", "test_set", "audit", "originals", "audit_copies", "checksums"}
PARTITIONS = """\
PartitionName=cpu Default=YES MaxTime=UNLIMITED MaxMemPerNode=UNLIMITED
PartitionName=gpu Default=NO MaxTime=01:00:00 MaxMemPerNode=1800
"""


def test_what_finalists_will_cost_stands_below_the_table(config, tmp_path):
    write_table(tmp_path / speeds.OWN_SPEEDS, measured())
    config["dataset"].update(source="smears", path=None)
    choice = Job("select_finalists", {}, "local", 10)
    text = " ".join(plan.describe([choice], config, tmp_path).split())
    assert "1 search and as many more training jobs" in text
    assert "the slowest (vgg16_tuned)" in text and "CPU-core-hours" in text
    config["tuning"]["backbones"] = ["vgg16"]
    assert "Not in the table" not in plan.describe([choice], config, tmp_path)


def test_an_unmeasured_network_is_named_and_left_out(config, tmp_path):
    config["backbones"]["vgg16"]["top"] = "block3_pool"
    with pytest.raises(Unmeasured, match="VGG16, cut at block3_pool"):
        Estimate(config, IMAGES, measured()).seconds(TRAIN, "cpu")
    text = plan.describe([TRAIN], config, tmp_path, "MEASURE IT")
    assert "Not measured and so left out: VGG16, cut at block3_pool" in text
    assert "MEASURE IT" in text
    assert any(
        line.split()[-1] == "-" for line in text.splitlines() if "results/trunks" in line
    )


def test_a_network_of_the_users_own_is_measured_under_its_name(config, tmp_path):
    write_table(tmp_path / speeds.OWN_SPEEDS, measured())
    own = {"application": None, "module": "own.py", "function": "build", "top": None}
    config["backbones"]["vgg16"] |= own
    text = " ".join(plan.describe([TRAIN], config, tmp_path).split())
    assert "Not measured and so left out: own.py:build." in text
    assert "vgg16 has no `top`: finetune_top trains what follows the layer that build()" in text
    rows = measured().assign(application="own.py:build", top="")
    write_table(tmp_path / speeds.OWN_SPEEDS, rows)
    config["backbones"]["vgg16"]["top"] = "block4_pool"
    text = plan.describe([TRAIN], config, tmp_path)
    assert "own.py:build, cut at block4_pool" in text and "has no `top`" not in text


def test_without_a_gpus_speed_the_plan_says_so(config, tmp_path):
    text = plan.describe([TRAIN], config, tmp_path, "MEASURE IT")
    assert "those of ONE CPU core" in text.replace("\n", " ") and "  MEASURE IT" in text
    row = jobs_of(text)["train"]
    assert row[:2] == ["1", "GPU"] and row[-1] == "-" and float(row[-2]) > 0


def test_gpu_jobs_go_by_the_users_own_table(config, tmp_path, monkeypatch):
    write_table(
        tmp_path / speeds.OWN_SPEEDS,
        pd.concat([measured(), measured("gpu", threads=4, faster=100)]),
    )
    monkeypatch.setattr(plan, "count_images", lambda config, folder: IMAGES)
    augment = Job("augment", {"subset": "train"}, "cpu", 60)
    text = plan.describe([augment, TRAIN], config, tmp_path)
    assert "ONE CPU core" not in text
    *_, cores, gpus = jobs_of(text)["train"]
    # (3.6 + 210 + 972) / 100 + 21 seconds: threads do not count on a GPU.
    assert cores == "-" and gpus == "0.01"
    seconds = Estimate(config, IMAGES, speeds.read_speeds(tmp_path)).seconds(TRAIN, "gpu")
    assert seconds == pytest.approx((3.6 + 210 + 972) / 100 + 21)


def test_a_job_longer_than_it_asks_for_is_named(config, tmp_path):
    write_table(tmp_path / speeds.OWN_SPEEDS, measured())
    short, long = (Job("train", {"run": "vgg16_cfg1"}, "cpu", m) for m in (1, 10_000))
    assert "Longer than requested: train vgg16_cfg1." in plan.describe(
        [short], config, tmp_path
    )
    assert "Longer than" not in plan.describe([long], config, tmp_path)
    # A core's hours say nothing against what a GPU job asks for.
    gpu = Job("train", {"run": "vgg16_cfg1"}, "gpu", 1)
    assert "Longer than" not in plan.describe([gpu], config, tmp_path)


def test_what_later_replicates_cost_is_told(config, tmp_path):
    write_table(tmp_path / speeds.OWN_SPEEDS, measured())
    once = " ".join(plan.describe([TRAIN], config, tmp_path).split())
    config["replicates"] = 3
    later = [Job("train", {"run": f"vgg16_cfg1_s{n}"}, "cpu", 10_000) for n in (2, 3)]
    text = plan.describe([TRAIN, *later], config, tmp_path)
    one = float(jobs_of(plan.describe([TRAIN], config, tmp_path))["train"][-2])
    assert f"(replicates: 2) would add {one:.2f} CPU-core-hours" in once
    told = " ".join(text.split()).partition("Of the 3 jobs, 2 are of second and later")[2]
    hours = float(told.removeprefix(" replicates: ").partition(" CPU-core-hours")[0])
    assert hours == pytest.approx(2 * one, rel=0.05)
    assert float(jobs_of(text)["train"][-2]) == pytest.approx(3 * one, rel=0.05)
    choice = Job("select_finalists", {}, "local", 10)
    tuned = " ".join(plan.describe([choice], config, tmp_path).split())
    assert "1 search and 3 more training jobs" in tuned


@pytest.fixture
def many_images(tmp_path):
    """Options for a study with groups and a test set whose header promises a million images."""
    header = io.BytesIO()
    shape = {"shape": (1_000_000, 96, 96, 3), "fortran_order": False, "descr": "|u1"}
    np.lib.format.write_array_header_1_0(header, shape)
    with zipfile.ZipFile(tmp_path / "lab.npz", "w") as archive:
        archive.writestr("images.npy", header.getvalue())
    config = yaml.safe_load(TINY.read_text())
    config["dataset"]["groups"] = {"pattern": "(?P<group>.)"}
    config["test_sets"] = {"lab": {"source": "npz", "path": "lab.npz"}}
    (tmp_path / "many.yaml").write_text(yaml.safe_dump(config))
    return "--configfile", "many.yaml"


def test_the_number_of_images_decides_what_becomes_a_job(hemagrid, many_images):
    many, few = (
        hemagrid("plan", *many_images, "--config", f"local_images={most}").out
        for most in (1_000_000, 1_000_200)
    )
    many, few = jobs_of(many), jobs_of(few)
    # The same rules, as often and with the same requests; only the place differs.
    places = {rule: (many[rule].pop(1), few[rule].pop(1)) for rule in many if rule != "total"}
    assert many == few
    assert {rule for rule, (there, here) in places.items() if there != here} == OF_IMAGES
    assert {places[rule] for rule in OF_IMAGES} == {("CPU", "local")}
    assert few["acquire_test_set"][2:4] == ["560", "min"]


@pytest.fixture
def fake_slurm(tmp_path, monkeypatch):
    """A function that makes a program of SLURM's print a text, whatever it is asked."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    slurm._ask.cache_clear()

    def says(program, text):
        (folder / program).write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\n")
        (folder / program).chmod(0o755)

    for program in ("scontrol", "sinfo", "sacctmgr"):
        says(program, "")
    return says


def asked_by(jobs=50, seconds=20):
    """What a profile asks for."""
    return SimpleNamespace(
        jobs=jobs,
        slurm_status_command="squeue",
        slurm_init_seconds_before_status_checks=seconds,
    )


def test_jobs_that_can_never_start_are_named_with_what_to_lower(fake_slurm):
    fake_slurm("scontrol", PARTITIONS + "MinJobAge = 300 sec")
    fits = Job("train", {"run": "a_cfg1"}, "gpu", 60, 1800, ("gpu",))
    long = [Job("train", {"run": run}, "gpu", 61, 1800, ("gpu",)) for run in ("b", "c")]
    large = Job("embed", {"backbone": "b"}, "gpu", 60, 1801, ("gpu",))
    other = Job("augment", {"subset": "val"}, "cpu", 9000, 9000)  # no limit there
    local = Job("report", {}, "local", 9000, 9000, ("gpu",))
    assert plan.cluster([fits, other, local], asked_by()) == []
    of_time, of_memory = plan.cluster([fits, *long, large], asked_by())
    assert of_time == (
        "train b, train c can never start: it asks for runtime 61, and partition gpu allows "
        "60; lower that in the config, or name another partition, account or QOS in the "
        "profile."
    )
    assert "embed b can never start: it asks for mem_mb 1,801" in of_memory


def test_what_accounts_allow_is_compared_with_the_profile(fake_slurm, monkeypatch):
    fake_slurm("scontrol", "MinJobAge = 300 sec")
    limits = {"queued": (20, "QOS short"), "gpu": (0, "account lab")}
    monkeypatch.setattr(slurm, "limits", lambda *queue: limits if "short" in queue else {})
    monkeypatch.setattr(slurm, "refusal", lambda *queue: None)
    train = Job("train", {"run": "a"}, "gpu", 60, 1800, ("gpu", "lab", "short"))
    never, most = plan.cluster([train], asked_by(jobs=21))
    assert "train a can never start: it asks for gpu 1, and account lab allows 0" in never
    assert "more than 20 jobs of yours" in most and "allows 21" in most
    assert "write jobs: 15," in most
    assert plan.cluster([train], asked_by(jobs=20)) == [never]
    monkeypatch.setattr(slurm, "refusal", lambda *queue: f"{queue[1]} is not open")
    assert plan.cluster([train], asked_by(jobs=20))[0] == (
        "train a can never start: lab is not open; name another partition, account or QOS in "
        "the profile."
    )


def test_a_controller_that_forgets_jobs_soon_is_said_with_the_line_to_change(fake_slurm):
    fake_slurm("scontrol", "MinJobAge = 240 sec")
    (said,) = plan.cluster([], asked_by(seconds=81))
    assert "write slurm-status-command: sacct" in said
    assert plan.cluster([], asked_by(seconds=80)) == []


def test_the_cluster_is_asked_for_a_profile_of_slurm_and_for_no_other(hemagrid, fake_slurm):
    fake_slurm("scontrol", PARTITIONS + "MinJobAge = 10 sec")
    tiny = ("--configfile", TINY)
    said = " ".join(
        hemagrid("plan", *tiny, "--profile", ROOT / "profiles" / "slurm").out.split()
    )
    # Its network asks for 2000 MB, the CNNs for 1500.
    of_time, of_memory = re.findall(
        r"embed [^.]* can never start: it asks for (\w+ \S+),", said
    )
    assert (of_memory, of_time) == ("mem_mb 2,000", "runtime 120")
    assert "mem_mb 1,500" not in said and "write slurm-status-command: sacct" in said
    assert "can never" not in hemagrid("plan", *tiny).out
