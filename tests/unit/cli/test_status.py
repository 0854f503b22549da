"""What `hemagrid status` reads from the files that jobs leave."""

import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from hemagrid.cli.status import describe, queue, runs, stages
from hemagrid.config import slurm
from hemagrid.config.loading import load_config
from hemagrid.io import write_json, write_text
from hemagrid.training.checkpoints import REMINDER, WAITING, Checkpoint, one_writer

RUN = "vgg16_cfg1"


@pytest.fixture
def config():
    return load_config()


@pytest.fixture
def row(config, tmp_path):
    """A function that gives the row of one run, as seen some seconds from now."""

    def find(run=RUN, later=0.0):
        rows = runs(config, tmp_path, time.time() + later)
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
        "trained_images_per_second": 1076.25,
        "phases": ["feature_extraction", "finetune_top", "finetune_all"],
    }
    Checkpoint(RUN, "0" * 16, folder / "checkpoints").report(facts | changes)


def log(folder, text, run=RUN, rule="train"):
    write_text(folder / "logs" / rule / f"{run}.log", text)


def test_an_untouched_study_waits(config, tmp_path):
    rows = runs(config, tmp_path)
    assert [row["run"] for row in rows][:3] == [
        "baseline_cnn",
        "regularized_cnn",
        "mobilenetv3_cfg1",
    ]
    assert len(rows) == 14 and {row["state"] for row in rows} == {"waiting"}
    assert [row["job"] for row in stages(config, tmp_path)] == [
        *("augment train", "augment val", "augment test_augmented"),
        *("embed mobilenetv3", "embed efficientnetv2m", "embed convnext", "embed vgg16"),
    ]
    assert {row["state"] for row in stages(config, tmp_path)} == {"waiting"}


def test_replicates_have_rows_of_their_own(config, row, tmp_path):
    config["replicates"] = 2
    config["tuning"]["backbones"] = ["vgg16"]
    assert row("vgg16_cfg1_s2")["state"] == "waiting"
    assert row("vgg16_tuned_s2")["note"] == "for the search of vgg16_tuned"
    assert len(runs(config, tmp_path)) == 2 * (14 + 2)


def test_what_is_made_of_runs_has_rows_too(config, row, tmp_path):
    config["ensembles"] = {"best3": {"members": None, "best": 3}}
    config["views"] = [RUN]
    assert row("best3")["state"] == row(f"{RUN}+views")["state"] == "waiting"
    log(tmp_path, "Error: too few runs", run="best3", rule="ensemble")
    assert (row("best3")["state"], row("best3")["note"]) == ("failed", "Error: too few runs")
    folder = tmp_path / "results" / f"{RUN}+views"
    write_json(folder / "cost.json", {"members": [RUN]})
    assert row(f"{RUN}+views")["note"] == "to be evaluated"
    write_json(folder / "metrics.json", {"subsets": {"val": {"accuracy": {"value": 0.9}}}})
    assert (row(f"{RUN}+views")["state"], row(f"{RUN}+views")["val acc"]) == ("finished", 0.9)


@pytest.fixture
def embed(config, tmp_path):
    """A function that gives the row of an embedding, as seen some seconds from now."""

    def find(later=0.0):
        rows = stages(config, tmp_path, time.time() + later)
        return next(row for row in rows if row["job"] == "embed vgg16")

    return find


def test_an_embedding_says_how_far_it_is(embed, tmp_path):
    lines = [
        "2026-11-25 21:00:00 Embedding train: 320 of 7175 images, 00:10 so far, ? left",
        "2026-11-25 21:00:10 Embedding train: 640 of 7175 images, 00:20 so far, 1:03:24 left",
        "something else",
    ]
    log(tmp_path, lines[0], "vgg16", "embed")
    assert (embed()["state"], embed()["left"]) == ("running", None)
    log(tmp_path, "\n".join(lines), "vgg16", "embed")
    found = embed(later=30)
    assert (found["state"], found["note"]) == ("running", None)
    assert found["done"] == "Embedding train: 640 of 7175 images"
    assert found["left"] == 3600 + 3 * 60 + 24
    assert found["updated"] == pytest.approx(30, abs=5)
    assert embed(later=3600)["state"] == "silent"
    assert "no word for 1 h 00 min" in embed(later=3600)["note"]


@pytest.mark.parametrize(
    ("line", "state"), [("Error: no space left", "failed"), ("Stopped: by SIGTERM", "stopped")]
)
def test_how_an_embedding_ended_is_told_by_its_log(embed, tmp_path, line, state):
    log(tmp_path, f"2026-11-25 21:00:00 {line}\n", "vgg16", "embed")
    assert (embed()["state"], embed()["note"]) == (state, line)
    for subset in ("train", "val"):
        write_text(tmp_path / "results" / "embeddings" / "vgg16" / f"{subset}.npy", "x")
    assert embed()["state"] == "finished"


def test_an_embedding_that_was_cleaned_away_is_not_missed(embed, tmp_path):
    log(
        tmp_path, "Embedding val: 640 of 640 images, 00:20 so far, 00:00 left", "vgg16", "embed"
    )
    for head in ("cfg1", "cfg2", "cfg3"):
        assert embed()["state"] == "running"
        write_text(tmp_path / "results" / f"vgg16_{head}" / "model.keras", "x")
    assert embed()["state"] == "finished"


def test_a_finished_run_shows_its_validation_accuracy(row, tmp_path):
    score = {"value": 0.9125, "low": 0.9, "high": 0.92}
    results = tmp_path / "results" / RUN
    write_json(results / "cost.json", {})
    assert row()["state"] == "trained"
    write_json(results / "metrics.json", {"subsets": {"val": {"accuracy": score}}})
    found = row()
    assert (found["state"], found["val acc"]) == ("finished", 0.9125)
    # Trained anew, and failed at it.
    os.utime(results / "cost.json", times=(time.time() + 60,) * 2)
    assert row()["state"] == "trained"
    (results / "cost.json").unlink()
    log(tmp_path, "2026-11-25 21:00:00 Error: no space left\n")
    assert row()["state"] == "failed"


def test_a_training_run_says_how_far_it_is(row, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    log(tmp_path, "epoch 4\n")
    with one_writer(RUN, tmp_path / "checkpoints"):
        assert row()["note"] == "in its first epoch"
        report(tmp_path)
        found = row(later=30)
    assert found["state"] == "training" and found["note"] is None
    assert (found["phase"], found["epoch"]) == ("2/3 finetune_top", "4/15")
    assert (found["val acc"], found["images/s"]) == (0.875, 1076.25)
    assert found["left"] == 11 * 20
    assert found["updated"] == pytest.approx(30, abs=5)
    assert found["on"] == f"{os.uname().nodename}, job 4711"
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
    log(tmp_path, "a line\n2026-11-25 21:00:00 Stopped: by SIGTERM in epoch 2\n")
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
        assert RUN in describe(stages(config, tmp_path), runs(config, tmp_path))


def test_tuned_runs_appear_once_they_are_known(config, row, tmp_path):
    write_json(tmp_path / "results" / "tuning" / "finalists.json", {"finalists": ["vgg16"]})
    names = [row["run"] for row in runs(config, tmp_path)]
    assert names[14:] == ["vgg16_tuned", "convnext_tuned_adamw"]
    assert (row("vgg16_tuned")["state"], row("vgg16_tuned")["note"]) == (
        "waiting",
        "for its search",
    )
    search = Checkpoint("search_vgg16_tuned", "0" * 16, tmp_path / "checkpoints")
    search.report({"phase": "search", "trial": 7, "trials": 23, "left": 340.5})
    log(tmp_path, "trial 7", "vgg16_tuned", "search")
    tuned = row("vgg16_tuned")
    assert tuned["note"] == "for its search: 7 of 23 trials done"
    assert tuned["log"] == "logs/search/vgg16_tuned.log"
    # What a former head left of the run is not looked at.
    log(tmp_path, "epoch 1", "vgg16_tuned")
    with one_writer("search_vgg16_tuned", tmp_path / "checkpoints"):
        tuned = row("vgg16_tuned")
        assert (tuned["state"], tuned["left"]) == ("searching", 340.5)
        assert tuned["note"] == "its head: 7 of 23 trials done"
        assert row("vgg16_tuned", later=3600)["state"] == "stalled"
    log(tmp_path, "Error: too few heads", "vgg16_tuned", "search")
    tuned = row("vgg16_tuned")
    assert (tuned["state"], tuned["note"]) == ("failed", "Error: too few heads")
    (tmp_path / "logs" / "train" / "vgg16_tuned.log").unlink()
    write_json(tmp_path / "results" / "tuning" / "vgg16_tuned.json", {"head": {}})
    assert (row("vgg16_tuned")["state"], row("vgg16_tuned")["note"]) == ("waiting", None)


@pytest.mark.parametrize("content", ["{", "[]", '{"finalists": "vgg16"}', '{"finalists": [1]}'])
def test_finalists_that_are_none_show_the_grid_alone(config, tmp_path, content):
    write_text(tmp_path / "results" / "tuning" / "finalists.json", content)
    assert len(runs(config, tmp_path)) == 14


def test_the_text_names_every_run_and_the_logs_of_those_that_need_a_look(config, tmp_path):
    log(tmp_path, "2026-11-25 21:00:00 Error: no space left\n")
    with one_writer("baseline_cnn", tmp_path / "checkpoints"):
        text = describe(stages(config, tmp_path), runs(config, tmp_path))
    assert text.startswith("14 runs: 1 training, 12 waiting, 1 failed")
    assert f"logs/train/{RUN}.log" in text and "no space left" in text
    assert all(len(line) <= 140 for line in text.splitlines())


def test_nothing_is_changed(config, tmp_path):
    report(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    describe(stages(config, tmp_path), runs(config, tmp_path))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_why_jobs_wait_and_which_never_start_is_said():
    jobs = {
        "rule_train_wildcards_a_cfg1": ("12", "Resources", ""),
        "rule_train_wildcards_b_cfg1": ("13", "Resources", ""),
        "rule_train_wildcards_c_cfg1": ("15", "AssocGrpGRES", "until others end"),
        "rule_embed_wildcards_b": ("14", "PartitionTimeLimit", slurm.NEVER),
    }
    assert queue(jobs).splitlines() == [
        "In SLURM's queue: 2 for Resources, 1 for AssocGrpGRES (until others end), "
        "1 for PartitionTimeLimit",
        "embed b can never start (PartitionTimeLimit): cancel it (scancel 14), lower its "
        "runtime or mem_mb in the config or name another partition, account or QOS in the "
        "profile",
    ]
    assert queue({}) == ""


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"cancel": "scancel 17", "pid": 5, "host": "gpu2"}, "scancel 17"),
        ({"cancel": None, "pid": 5, "host": "gpu2"}, "kill 5, on gpu2"),
    ],
)
def test_a_second_job_for_a_run_is_named_with_what_cancels_it(tmp_path, row, record, told):
    with one_writer(RUN, tmp_path / "checkpoints"):
        report(tmp_path)
        write_json(tmp_path / "checkpoints" / RUN / WAITING, record)
        assert row()["state"] == "training"
        assert row()["note"] == f"a second job waits and holds a GPU idle: {told}"
        # It says so again and again while it waits.
        assert "second job" not in (row(later=2 * REMINDER)["note"] or "")


def test_the_command_asks_the_queue_for_jobs_of_this_folder(hemagrid, tmp_path, monkeypatch):
    programs = tmp_path / "slurm"
    programs.mkdir()
    line = "7|PartitionTimeLimit|rule_train_wildcards_a_cfg1|"
    (programs / "squeue").write_text(
        f"#!/bin/sh\necho '{line}{tmp_path}'\necho '{line}/other'\n"
    )
    (programs / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    said = hemagrid("status").out
    assert "In SLURM's queue: 1 for PartitionTimeLimit\ntrain a_cfg1 can never start" in said
