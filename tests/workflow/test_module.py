"""The workflow inside another one: local and from GitHub, renamed, under prefixes, twice."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from hemagrid.config.loading import _laid_over

from ..conftest import ROOT, TINY
from .test_profiles import JOBS

ONE_RUN = ROOT / "tests" / "workflow" / "one_run.yaml"
TAG = "v9"
LOCAL = "'{checkout}/workflow/Snakefile'"
GITHUB = f"github('lab/hemagrid', path='workflow/Snakefile', tag='{TAG}')"
# The same with files of the user's: images, a test set and weights.
OWN = {
    "dataset": {"source": "npz", "path": "cells.npz"},
    "test_sets": {"lab": {"source": "npz", "path": "lab.npz"}},
    "backbones": {"mobilenetv3": {"weights": "mine.weights.h5"}},
}


def module(name, source, renamed="", prefix=None):
    """Write a module `name` that takes the config of this name, as docs/module.md does."""
    under = f"\n    prefix: '{prefix}'" if prefix else ""
    return (
        f"configfile: 'study.yaml'\nmodule {name}:\n    snakefile: {source}\n"
        f"    config: config['{name}']{under}\nuse rule * from {name}{renamed}\n"
    )


BOTH = (
    module("first", GITHUB, " as a_*", "a")
    + module("second", GITHUB, " as b_*", "b")
    + "rule all:\n    default_target: True\n"
    + "    input:\n        rules.a_all.input,\n        rules.b_all.input\n"
)


@pytest.fixture(scope="module")
def github(checkout, tmp_path_factory):
    """Variables under which github.com is a folder with the repository lab/hemagrid."""
    host = tmp_path_factory.mktemp("github.com")
    repository = host / "lab" / "hemagrid"
    shutil.copytree(checkout, repository, ignore=shutil.ignore_patterns("__pycache__"))
    who = ("-c", "user.name=lab", "-c", "user.email=lab@example.org")
    for command in (("init", "-q"), ("add", "-A"), ("commit", "-qm", "9"), ("tag", TAG)):
        subprocess.run(["git", *who, *command], cwd=repository, check=True)
    return {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{host}/.insteadOf",
        "GIT_CONFIG_VALUE_0": "https://github.com/",
        "PYTHONPATH": "",
    }


def write_user(folder, snakefile, checkout, **configs):
    """Write a user's workflow and files into `folder`."""
    folder.mkdir(exist_ok=True)
    (folder / "Snakefile").write_text(snakefile.replace("{checkout}", str(checkout)))
    (folder / "study.yaml").write_text(yaml.safe_dump(configs))
    images = np.zeros((16, 32, 32, 3), "uint8")
    for name in ("cells.npz", "lab.npz"):
        np.savez(folder / name, images=images, labels=np.arange(16) % 8)
    (folder / "mine.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    return folder


@pytest.fixture(scope="module")
def tiny():
    return yaml.safe_load(TINY.read_text())


@pytest.fixture(scope="module")
def expected(tiny, plan, in_folder, checkout, tmp_path_factory):
    """A function from a config to the clone's plan: {file: rule}."""

    def expected(config):
        folder = write_user(tmp_path_factory.mktemp("clone"), "", checkout)
        (folder / "all.yaml").write_text(yaml.safe_dump(config))
        return plan(folder, *in_folder(folder, folder / "all.yaml"))

    return expected


@pytest.fixture(scope="module")
def both(github, tiny, checkout, tmp_path_factory):
    """A folder with a workflow of two modules from GitHub, each with its config and prefix."""
    folder = tmp_path_factory.mktemp("both")
    own = _laid_over(tiny, OWN)
    return write_user(folder, BOTH, checkout, first=tiny, second=own)


def test_a_module_plans_what_the_clone_does(tiny, github, plan, expected, checkout, tmp_path):
    of_clone = expected(tiny)
    for source, renamed, names, prefix in (
        (LOCAL, "", "", None),
        (LOCAL, "", "", "a"),
        (LOCAL, " as hg_*", "hg_", "a"),
        (GITHUB, "", "", None),
    ):
        snakefile = module("hemagrid", source, renamed, prefix)
        folder = write_user(tmp_path, snakefile, checkout, hemagrid=tiny)
        under = f"{prefix}/" if prefix else ""
        assert plan(folder, **github) == {
            under + file: names + rule for file, rule in of_clone.items()
        }, (source, renamed, prefix)


def test_two_modules_plan_what_two_clones_do(both, github, tiny, plan, expected):
    planned = plan(both, **github)
    for prefix, config in (("a", tiny), ("b", _laid_over(tiny, OWN))):
        of_it = {
            file.removeprefix(f"{prefix}/"): rule.removeprefix(f"{prefix}_")
            for file, rule in planned.items()
            if rule.startswith(f"{prefix}_")
        }
        # The user's own files stay where they are.
        assert of_it == expected(config)


def test_a_module_from_github_runs_to_its_report_under_its_prefix_alone(
    github, snakemake, checkout, tmp_path
):
    snakefile = module("hemagrid", GITHUB, " as hg_*", "cells")
    config = yaml.safe_load(ONE_RUN.read_text())
    folder = write_user(tmp_path, snakefile, checkout, hemagrid=config)
    before = {path.name for path in folder.iterdir()}
    done = snakemake(folder, "--cores", 2, **github)
    assert done.returncode == 0, done.said[-4000:]
    assert {path.name for path in folder.iterdir()} - before == {"cells", ".snakemake"}
    report = (folder / "cells" / "results" / "report.html").read_text()
    assert f"(github.com/lab/hemagrid {TAG})" in report
    again = snakemake(folder, "--dry-run", **github)
    assert "Nothing to be done" in again.said, again.said[-4000:]


def test_a_finished_study_is_reported_by_a_module_and_names_its_release(
    github, tiny, study, checkout, snakemake, tmp_path
):
    folder = write_user(tmp_path, BOTH, checkout, first=tiny, second=tiny)
    shutil.copytree(study.folder, folder / "a", ignore=shutil.ignore_patterns(".snakemake"))
    results = folder / "a" / "results"
    for gone in ("report.html", "provenance/study.json"):
        (results / gone).unlink()
    targets = ("a/results/report.html", "--cores", 2, "--rerun-triggers", "mtime")
    done = snakemake(folder, *targets, **github)
    assert done.returncode == 0, done.said[-4000:]
    assert f"(github.com/lab/hemagrid {TAG})" in (results / "report.html").read_text()
    # The captions are found.
    shown = snakemake(folder, *targets, "--report", "shown.html", **github)
    assert shown.returncode == 0, shown.said[-4000:]


def test_a_profile_gives_gpus_to_renamed_rules_or_is_refused(
    tiny, checkout, tmp_path, snakemake, environment
):
    snakefile = module("hemagrid", LOCAL, " as hg_*", "a")
    folder = write_user(tmp_path, snakefile, checkout, hemagrid=tiny)
    shutil.copytree(ROOT / "profiles" / "gpus", folder / "gpus")
    refused = snakemake(folder, "--profile", "gpus", "--dry-run").said
    assert "found embed, train, predict, views, which this workflow calls hg_embed" in refused

    profile = folder / "gpus" / "config.yaml"
    profile.write_text(profile.read_text().replace('rules: ["*"]', 'rules: ["hg_*"]'))
    command = [sys.executable, "-c", JOBS, "--profile", "gpus", "--dry-run"]
    said = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    jobs = [json.loads(line) for line in said.stdout.splitlines() if line[:1] == "{"]
    on_gpu = {job["rule"] for job in jobs if job.get("gpu") == 1}
    assert on_gpu == {"hg_embed", "hg_train", "hg_predict", "hg_views"}


def test_two_studies_with_one_folder_of_checkpoints_share_none(
    tiny, checkout, tmp_path, environment
):
    snakefile = module("first", LOCAL, " as a_*", "a") + module("second", LOCAL, " as b_*", "b")
    kept = tmp_path / "kept"
    tiny = tiny | {"checkpoints": str(kept)}
    folder = write_user(tmp_path / "user", snakefile, checkout, first=tiny, second=tiny)
    targets = [f"{prefix}/results/baseline_cnn/model.keras" for prefix in "ab"]
    command = [sys.executable, "-c", JOBS, *targets, "--dry-run"]
    said = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    jobs = [json.loads(line) for line in said.stdout.splitlines() if line[:1] == "{"]
    trained = {job["rule"]: Path(job["checkpoints"]) for job in jobs if "checkpoints" in job}
    assert trained.keys() == {"a_train", "b_train"}
    assert {place.parent for place in trained.values()} == {kept}
    assert trained["a_train"] != trained["b_train"]


def test_a_module_from_github_finds_the_programs_of_profiles(
    github, tiny, checkout, tmp_path, snakemake
):
    programs = (
        "rule:\n    output: '{file}'\n    shell: 'command -v sbatch sacct cluster-submit'"
    )
    snakefile = module("first", GITHUB) + "".join(
        programs.replace("{file}", file) + f" ' > {file}'\n" for file in ("one", "two")
    )
    folder = write_user(tmp_path, snakefile, checkout, first=tiny)
    done = snakemake(folder, "one", "--cores", 1, **github)
    assert done.returncode == 0, done.said[-4000:]
    fetched = [Path(line) for line in (folder / "one").read_text().split()]
    expected = ["slurm/bin/sbatch", "slurm/bin/sacct", "generic/bin/cluster-submit"]
    assert ["/".join(path.parts[-3:]) for path in fetched] == expected
    assert all(TAG in path.parts for path in fetched)
    # Copies of snakedeploy's are there to be edited.
    shutil.copytree(ROOT / "profiles", folder / "profiles")
    done = snakemake(folder, "two", "--cores", 1, **github)
    assert done.returncode == 0, done.said[-4000:]
    found = (folder / "two").read_text().split()
    assert found == [str(folder / "profiles" / program) for program in expected]


def test_two_releases_in_one_workflow_are_refused(github, tiny, checkout, tmp_path, snakemake):
    snakefile = module("first", GITHUB, " as a_*", "a") + module(
        "second", LOCAL, " as b_*", "b"
    )
    folder = write_user(tmp_path, snakefile, checkout, first=tiny, second=tiny)
    assert "found two libraries of hemagrid" in snakemake(folder, "-n", **github).said
