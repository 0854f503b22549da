import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from hemagrid.cli.status import describe, status
from hemagrid.config.loading import load_config
from hemagrid.config.schema import defaults
from hemagrid.errors import InputError
from hemagrid.io import write_json, write_text
from hemagrid.training.checkpoints import Checkpoint, one_writer

RUN = "vgg16_cfg1"


@pytest.fixture
def config():
    return load_config()


@pytest.fixture
def row(config, tmp_path):
    """A function that gives the row of one run, as seen some seconds from now."""

    def find(run=RUN, later=0.0):
        rows = status(config, tmp_path, time.time() + later)
        return next(row for row in rows if row["run"] == run)

    return find


def report(folder, **changes):
    """Report an epoch as a training job does."""
    facts = {
        "phase": "finetune_top",
        "epoch": 4,
        "epochs": 15,
        "val_accuracy": 0.875,
        "val_loss": 0.4,
        "seconds": 20.0,
        "images_per_second": 1076.25,
        "phases": ["feature_extraction", "finetune_top", "finetune_all"],
    }
    Checkpoint(RUN, "0" * 16, folder / "checkpoints").report(facts | changes)


def log(folder, text, run=RUN, age=0.0):
    path = folder / "logs" / "train" / f"{run}.log"
    write_text(path, text)
    os.utime(path, times=(time.time() - age,) * 2)


def test_an_untouched_study_waits(config, tmp_path):
    rows = status(config, tmp_path)
    assert [row["run"] for row in rows][:3] == [
        "baseline_cnn",
        "regularized_cnn",
        "mobilenetv3_cfg1",
    ]
    assert len(rows) == 14 and {row["state"] for row in rows} == {"waiting"}
    assert rows[0]["note"] is None
    assert rows[2]["note"] == "for the embeddings of mobilenetv3"


def test_a_finished_run_shows_its_validation_accuracy(row, tmp_path):
    score = {"value": 0.9125, "low": 0.9, "high": 0.92}
    results = tmp_path / "results" / RUN
    write_json(results / "cost.json", {})
    assert row()["state"] == "trained"
    write_json(results / "metrics.json", {"subsets": {"val": {"accuracy": score}}})
    found = row()
    assert (found["state"], found["accuracy"]) == ("finished", 0.9125)
    # Trained anew, and failed at it.
    os.utime(results / "cost.json", times=(time.time() + 60,) * 2)
    assert row()["state"] == "trained"
    (results / "cost.json").unlink()
    log(tmp_path, "Error: no space left\n")
    assert row()["state"] == "failed"


def test_a_training_run_says_how_far_it_is(row, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    log(tmp_path, "epoch 4\n")
    with one_writer(RUN, tmp_path / "checkpoints"):
        assert row()["note"] == "before its first epoch's end"
        report(tmp_path)
        found = row(later=30)
    assert found["state"] == "training" and found["note"] is None
    assert (found["phase"], found["epoch"]) == ("2/3 finetune_top", "4/15")
    assert (found["accuracy"], found["speed"]) == (0.875, 1076.25)
    assert found["left"] == 11 * 20
    assert found["updated"] == pytest.approx(30, abs=5)
    assert found["where"] == f"{os.uname().nodename}, job 4711"
    assert found["log"] == f"logs/train/{RUN}.log"


def test_a_lock_that_nobody_refreshes_is_a_stalled_run(row, tmp_path):
    with one_writer(RUN, tmp_path / "checkpoints"):
        report(tmp_path)
        assert row(later=60)["state"] == "training"
        found = row(later=3600)
    assert found["state"] == "stalled"
    assert "no sign of life for 1 h 00 min" in found["note"]


def test_an_epoch_that_never_ends_is_a_stalled_run(row, tmp_path):
    with one_writer(RUN, tmp_path / "checkpoints"):
        report(tmp_path)
        path = tmp_path / "checkpoints" / RUN / "progress.json"
        progress = json.loads(path.read_text())
        for age, state in ((800, "training"), (1000, "stalled")):
            before = datetime.now(UTC) - timedelta(seconds=age)
            write_json(path, progress | {"updated": before.isoformat()})
            assert row()["state"] == state
            # A long epoch is given its time.
            write_json(path, progress | {"updated": before.isoformat(), "seconds": 300})
            assert row()["state"] == "training"


def test_how_a_run_ended_is_told_by_its_log(row, tmp_path):
    log(tmp_path, "a line\n")
    assert (row()["state"], row()["note"]) == ("training", "starting")
    assert row(later=3600)["state"] == "failed"
    log(tmp_path, "a line\nError: lower the learning rate\n")
    assert (row()["state"], row()["note"]) == ("failed", "Error: lower the learning rate")
    log(tmp_path, "a line\nStopped: by SIGTERM in epoch 2\n")
    assert row()["state"] == "stopped"
    report(tmp_path)
    log(tmp_path, "a line\n")
    assert (row()["state"], row()["note"]) == ("training", "starting")
    found = row(later=3600)
    assert (found["state"], found["epoch"]) == ("stopped", "4/15")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        "null",
        "\x00\xff",
        '{"phase": 3, "phases": "abc"}',
        '{"host": null, "subsets": []}',
        json.dumps({"subsets": {"val": {"accuracy": {"value": "NaN"}}}}),
    ],
)
def test_foreign_files_count_as_absent(config, row, tmp_path, content):
    write_text(tmp_path / "results" / RUN / "metrics.json", content)
    for name in ("progress.json", "writer.json"):
        write_text(tmp_path / "checkpoints" / RUN / name, content)
    (tmp_path / "logs" / "train" / f"{RUN}.log").mkdir(parents=True)
    assert row()["state"] == "waiting"
    with one_writer(RUN, tmp_path / "checkpoints"):
        write_text(tmp_path / "checkpoints" / RUN / "writer.json", content)
        assert row()["state"] == "training"
        assert RUN in describe(status(config, tmp_path))


def cached(folder, backbone):
    for subset in ("train", "val"):
        write_text(folder / "results" / "embeddings" / backbone / f"{subset}.npy", "x")


def test_tuned_runs_appear_once_they_are_known(config, row, tmp_path):
    write_json(tmp_path / "results" / "tuning" / "finalists.json", {"finalists": ["vgg16"]})
    names = [row["run"] for row in status(config, tmp_path)]
    assert names[14:] == ["vgg16_tuned", "convnext_tuned_adamw"]
    assert row("vgg16_tuned")["note"] == "for the embeddings of vgg16"
    cached(tmp_path, "vgg16")
    assert row("vgg16_tuned")["note"] == "for its search"
    search = Checkpoint("search_vgg16_tuned", "0" * 16, tmp_path / "checkpoints")
    search.report({"phase": "search", "trial": 7, "trials": 23})
    write_text(tmp_path / "logs" / "search" / "vgg16_tuned.log", "trial 7")
    tuned = row("vgg16_tuned")
    assert tuned["note"] == "for its search: 7 of 23 trials done"
    assert tuned["log"] == "logs/search/vgg16_tuned.log"
    # What a former head left of the run is not looked at.
    log(tmp_path, "epoch 1", "vgg16_tuned")
    with one_writer("search_vgg16_tuned", tmp_path / "checkpoints"):
        tuned = row("vgg16_tuned")
        assert (tuned["state"], tuned["note"]) == (
            "searching",
            "its head: 7 of 23 trials done",
        )
    write_text(tmp_path / "logs" / "search" / "vgg16_tuned.log", "Error: too few heads")
    tuned = row("vgg16_tuned")
    assert (tuned["state"], tuned["note"]) == ("failed", "Error: too few heads")
    (tmp_path / "logs" / "train" / "vgg16_tuned.log").unlink()
    write_json(tmp_path / "results" / "tuning" / "vgg16_tuned.json", {"head": {}})
    assert (row("vgg16_tuned")["state"], row("vgg16_tuned")["note"]) == ("waiting", None)


@pytest.mark.parametrize("content", ["{", "[]", '{"finalists": "vgg16"}', '{"finalists": [1]}'])
def test_finalists_that_are_none_show_the_grid_alone(config, tmp_path, content):
    write_text(tmp_path / "results" / "tuning" / "finalists.json", content)
    assert len(status(config, tmp_path)) == 14


def test_the_text_names_every_run_and_the_logs_of_those_that_need_a_look(config, tmp_path):
    log(tmp_path, "Error: no space left\n")
    with one_writer("baseline_cnn", tmp_path / "checkpoints"):
        text = describe(status(config, tmp_path))
    assert text.startswith("14 runs: 1 training, 12 waiting, 1 failed")
    assert f"logs/train/{RUN}.log" in text and "no space left" in text
    assert all(len(line) <= 140 for line in text.splitlines())


def test_nothing_is_changed(config, tmp_path):
    report(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    status(config, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_no_such_folder(tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        status(load_config(), tmp_path / "nowhere")


def test_defaults_are_the_config_file(config):
    import yaml

    schema = Path(__file__).parents[3] / "workflow/schemas/config.schema.yaml"
    assert config == defaults(yaml.safe_load(schema.read_text()))
