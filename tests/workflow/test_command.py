"""`hemagrid` on a study and before one."""

import json
import os
import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest
import yaml

from ..conftest import ROOT, TINY


@pytest.fixture
def hemagrid(tmp_path):
    """A function that runs `hemagrid` and returns what it printed, or its error."""

    def run(*words, expected=0):
        unset = ("SNAKEMAKE_PROFILE",)
        environment = {key: value for key, value in os.environ.items() if key not in unset}
        done = subprocess.run(
            [sys.executable, "-m", "hemagrid.cli.main", *map(str, words)],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": str(ROOT / "scripts")},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == expected, done.stderr
        return done.stderr if expected else done.stdout

    return run


def jobs_in(plan):
    rows = re.findall(r"^(\w+) +(\d+) +(local|CPU|GPU) ", plan, flags=re.MULTILINE)
    return {rule: (int(count), place) for rule, count, place in rows}


def test_the_plan_of_the_whole_study_on_a_cluster(hemagrid, tmp_path):
    plan = hemagrid("plan", "--profile", ROOT / "profiles" / "slurm", "--directory", tmp_path)
    jobs = jobs_in(plan)
    assert plan.startswith(
        f"14 runs in the grid, {sum(count for count, _ in jobs.values())} jobs to do."
    )
    said = " ".join(plan.split())
    assert "Not in the table: 3 searches and as many more training jobs" in said
    assert "(convnext_tuned, vgg16_tuned, convnext_tuned_adamw)" in said
    assert jobs["train"] == jobs["predict"] == (14, "GPU") and jobs["embed"] == (4, "GPU")
    assert jobs["augment"] == (3, "CPU") and jobs["evaluate"] == (16, "local")
    assert "those of ONE CPU core" in plan and "measure_throughput.py" in plan
    assert not (tmp_path / "results").exists()


def test_a_finished_study_has_nothing_to_do_and_every_run_is_finished(hemagrid, study):
    settings = ("--directory", study.folder, "--configfile", TINY)
    assert "0 jobs to do" in hemagrid("plan", *settings)
    # The config need not be named again: it is recorded.
    status = hemagrid("status", "--directory", study.folder)
    assert status.startswith("8 runs: 8 finished") and "before training" not in status
    transfer = [f"mobilenetv3_{head}" for head in ("cfg1", "cfg2", "tuned", "tuned_adamw")]
    combined = ("top", "regularized_cnn+views")
    for run in ("baseline_cnn", "regularized_cnn", *transfer, *combined):
        assert re.search(rf"^{re.escape(run)} +finished ", status, flags=re.MULTILINE)


@pytest.fixture
def copied(study, tmp_path):
    """A copy of the study that a test may change."""
    shutil.copytree(study.folder, tmp_path / "copy")
    return tmp_path / "copy"


def test_a_restated_or_reordered_config_changes_nothing(hemagrid, study, tmp_path):
    config = yaml.safe_load(TINY.read_text())
    config["seed"] = 42  # as it is by default
    config["splits"] = {"test": 0.2, "train": 0.6}
    config["codabench"]["scores"] = {"mobilenetv3_cfg1": 12.50}

    def backwards(value):
        if isinstance(value, dict):
            return {key: backwards(value[key]) for key in reversed(value)}
        return value

    (tmp_path / "my.yaml").write_text(yaml.safe_dump(backwards(config), sort_keys=False))
    settings = ("--directory", study.folder, "--configfile", "my.yaml")
    assert "0 jobs to do" in hemagrid("plan", *settings)


def test_a_finished_study_does_without_its_caches(hemagrid, copied, tmp_path):
    page = copied / "results" / "report.html"
    page.rename(tmp_path / "aside")
    refused = hemagrid("clean", "--directory", copied, expected=1)
    assert "not finished: 1 job to do, report first" in refused
    assert (copied / "results" / "trunks" / "mobilenetv3" / "train.npy").exists()

    (tmp_path / "aside").rename(page)
    said = hemagrid("clean", "--directory", copied)
    assert re.match(r"Removed results/trunks and results/embeddings: \d+ kB$", said)
    assert not [*copied.rglob("trunks/**/*.npy"), *copied.rglob("embeddings/**/*.npy")]
    settings = ("--directory", copied, "--configfile", TINY)
    assert "0 jobs to do" in hemagrid("plan", *settings)
    assert hemagrid("status", "--directory", copied).startswith("8 runs: 8 finished\n\nrun ")
    # A model that is asked for again gets them again, and the other head looks out of date.
    model = "results/mobilenetv3_cfg2/model.keras"
    (copied / model).unlink()
    again = jobs_in(hemagrid("plan", "all", model, *settings))
    assert (again["embed"], again["train"]) == ((1, "CPU"), (2, "CPU"))


def test_a_replicate_is_added_to_a_finished_study(copied, snakemake, in_folder, tmp_path):
    (tmp_path / "more.yaml").write_text(
        "{replicates: {cnns: 2}, grid: {cnns: [baseline_cnn]}, "
        "views: [], codabench: {runs: []}}"
    )
    results = copied / "results"
    model = (results / "baseline_cnn" / "model.keras").read_bytes()
    made = ["results/baseline_cnn/replicates.json", "results/tables/replicates.csv"]
    result = snakemake(
        copied, *made, *in_folder(copied, TINY, tmp_path / "more.yaml"), "--cores", 2
    )
    assert result.returncode == 0, result.said
    assert (results / "baseline_cnn" / "model.keras").read_bytes() == model
    assert (results / "baseline_cnn_s2" / "model.keras").read_bytes() != model
    assert not (results / "regularized_cnn_s2").exists()
    table = pd.read_csv(results / "tables" / "replicates.csv").set_index("run")
    assert list(table.index)[:2] == ["baseline_cnn", "baseline_cnn_s2"] and len(table) == 6
    assert list(table["train_seed"])[:3] == [42, 43, 42]
    summary = json.loads((results / "baseline_cnn" / "replicates.json").read_text())
    for subset in ("val", "test", "test_augmented"):
        of_both = table[f"{subset}_accuracy_pct"][:2]
        accuracy = summary["subsets"][subset]["accuracy"]
        assert 100 * accuracy["value"] == pytest.approx(of_both.mean())


def test_a_report_of_what_is_finished(hemagrid, copied):
    page = copied / "results" / "report.html"
    page.unlink()
    shutil.rmtree(copied / "results" / "baseline_cnn")
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.is_file()}
    said = hemagrid("report", "--directory", copied)
    assert f"Wrote {page}" in said and "provenance/config.yaml" in said
    assert "Not finished and so not in it: baseline_cnn\n" in said
    assert "baseline_cnn" in page.read_text()
    after = {path: path.stat().st_mtime_ns for path in copied.rglob("*") if path.is_file()}
    assert after.pop(page) and after == before
    # Another config than the recorded one is named.
    said = hemagrid("report", "--directory", copied, "--config", "seed=7")
    assert "The results are of another config" in said
    assert "They differ in: seed\n" in said


def test_a_run_is_packaged_and_scored(hemagrid, copied):
    run = copied / "results" / "baseline_cnn"
    trained = (run / "model.keras").stat().st_mtime_ns
    said = hemagrid("submit", "baseline_cnn", "--directory", copied)
    assert said.endswith(f"Package: {run / 'submission.zip'}\n")
    assert (run / "submission.zip").exists() and (run / "codabench.json").exists()
    assert (run / "model.keras").stat().st_mtime_ns == trained


def test_jobs_use_the_library_of_their_checkout(clone, snakemake, tmp_path):
    other = tmp_path / "other" / "hemagrid" / "__init__.py"
    other.parent.mkdir(parents=True)
    other.write_text("raise ImportError('another library')")
    settings = ("--configfile", TINY, "--cores", 1)
    result = snakemake(
        clone, "results/dataset/samples.csv", *settings, PYTHONPATH=str(other.parents[1])
    )
    assert result.returncode == 0, result.said
