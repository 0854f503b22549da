"""What a result was made with is on record."""

import csv
import hashlib
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from made_study import ENVIRONMENT

import hemagrid
from hemagrid import io
from hemagrid.reporting import provenance


def test_config_reads_back_as_it_was_used(tmp_path):
    config = {
        "seed": 42,
        "heads": {"cfg1": {"dense": [], "learning_rate": 1e-3, "batch_norm": False}},
        "dataset": {"classes": ["lymphocyte", "Größe", "no", "007"], "path": None},
    }
    provenance.write_config(config, tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == config
    assert list(yaml.safe_load(text)) == list(config)
    assert "Größe" in text


def test_versions_are_those_of_the_runs(tmp_path):
    made = {"vgg16_cfg1": {"commit": "abc"}, "old": None, "majority_class": None}
    for run, environment in made.items():
        cost = {"environment": environment} if environment else {}
        content = {"cost": None if run == "majority_class" else cost}
        io.write_json(tmp_path / run / "metrics.json", content)
    paths = [tmp_path / run / "metrics.json" for run in made]
    provenance.write_versions(paths, tmp_path / "versions.json")
    found = io.read_json(tmp_path / "versions.json")
    assert found == {"vgg16_cfg1": {"commit": "abc"}, "old": None}


@pytest.mark.parametrize(
    ("field", "value", "what", "shown"),
    [
        ("commit", "fff", "commit", "fff"),
        ("changed", True, "commit", "0123abc with changes"),
        ("release", "0.2", "release", "0.2"),
        ("revision", 2, "revision", "2"),
        ("python", "3.12", "python", "3.12"),
        ("packages", {"keras": "3.9", "tensorflow": "2.21.0"}, "keras", "3.9"),
        ("backend", "jax", "backend", "jax"),
        ("device", "cpu", "device", "cpu"),
        ("gpu", None, "gpu", "none"),
        ("threads", 8, "threads", "8"),
        ("precision", "float32", "precision", "float32"),
        (None, None, "commit", "not recorded"),
    ],
)
def test_what_runs_were_made_with_differs_by_each_fact(field, value, what, shown):
    other = {"environment": ENVIRONMENT | {field: value}} if field else {"seconds": 1}
    costs = {"a": {"environment": ENVIRONMENT}, "b": other, "c": {"environment": ENVIRONMENT}}
    metrics = {run: {"cost": cost} for run, cost in costs.items()}
    table = provenance.made_with(metrics | {"control": {"cost": None}, "missing": None})
    differs = table[table["differs"]].groupby("what", sort=False)
    assert what in differs.groups and (field is None or len(differs) == 1)
    rows = differs.get_group(what)
    assert list(rows["runs"]) == [["a", "c"], ["b"]] and rows["value"].iloc[1] == shown


def test_processors_and_hosts_may_differ():
    machines = [ENVIRONMENT, ENVIRONMENT | {"cpu": "another", "host": "node2"}]
    metrics = {str(n): {"cost": {"environment": found}} for n, found in enumerate(machines)}
    table = provenance.made_with(metrics)
    assert not table["differs"].any()
    assert list(table.loc[table["what"] == "processor", "value"]) == ["AMD EPYC", "another"]


def test_checksums(tmp_path):
    contents = {"a": b"abc", "empty, or not": b"", "large": bytes(3_000_001)}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "checksums.csv"
    provenance.write_checksums([tmp_path / name for name in contents], out)
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [Path(row["file"]).name for row in rows] == list(contents)
    assert [int(row["bytes"]) for row in rows] == [3, 0, 3_000_001]
    # FIPS 180-2, appendix B.1.
    assert rows[0]["sha256"] == (
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    assert rows[2]["sha256"] == hashlib.sha256(contents["large"]).hexdigest()
    provenance.write_checksums([], out)
    assert out.read_text() == "file,bytes,sha256\n"


# What a study is run by.


# Runs itself once more, as snakemake does for a job, and then a script of the job's.
SNAKEMAKE = """\
import subprocess, sys
from pathlib import Path

again = [Path(__file__).with_name("snakemake"), "--mode", "subprocess"]
say = "from hemagrid.reporting import provenance; print(provenance.snakemake_command())"
inner = ["-c", say] if "subprocess" in sys.argv else again
subprocess.run([sys.executable, *inner], check=True)
"""


@pytest.mark.parametrize(
    "started", [["snakemake"], ["-m", "snakemake"], ["-B", "-m", "snakemake"]]
)
def test_the_command_is_that_of_the_outermost_snakemake(tmp_path, started):
    for name in ("snakemake", "snakemake.py"):
        (tmp_path / name).write_text(SNAKEMAKE)
    if started == ["snakemake"]:
        started = [str(tmp_path / "snakemake")]
    given = ["--cores", "2", "--config", "path=a folder/$x.npz", "results/snakemake"]
    printed = subprocess.run(
        [sys.executable, *started, *given],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(provenance.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    quoted = "'path=a folder/$x.npz'"
    assert printed == f"snakemake --cores 2 --config {quoted} results/snakemake\n"


def test_without_snakemake_there_is_no_command():
    assert provenance.snakemake_command() is None


def test_the_record_holds_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "hunter2-hunter2")
    provenance.write_study(tmp_path / "study.json")
    text = (tmp_path / "study.json").read_text()
    study = json.loads(text)
    assert list(study) == ["release", "commit", "changed", "command", "host", "written"]
    assert study["release"] == hemagrid.__version__
    assert set(study["host"]) == {"cpu", "cores", "memory_mib", "gpus"}
    assert "hunter2" not in text
    written = datetime.fromisoformat(study["written"])
    assert written.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - written) < timedelta(minutes=1)


def test_the_release_of_a_module_names_its_repository_and_tag():
    cached = (
        "/home/ada/.cache/hosted-git/githubfile/github.com/lab/hemagrid/v0.2.0/scripts/x.py"
    )
    expected = f"{hemagrid.__version__} (github.com/lab/hemagrid v0.2.0)"
    assert provenance.release(Path(cached)) == expected
