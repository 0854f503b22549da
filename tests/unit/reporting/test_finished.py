"""A report of what is finished reads files and writes one."""

import shutil
from pathlib import Path

import pytest
import yaml
from made_study import make_study

from hemagrid import io, names
from hemagrid.config import schema
from hemagrid.errors import InputError
from hemagrid.reporting.finished import report_finished

SCHEMA = Path(__file__).parents[3] / "workflow" / "schemas" / "config.schema.yaml"
CLASSES = ["basophil", "ig"]


@pytest.fixture
def config():
    defaults = schema.validated({}, yaml.safe_load(SCHEMA.read_text()))
    grid = {"cnns": ["baseline_cnn"], "backbones": ["vgg16"], "heads": ["cfg1", "cfg2"]}
    return defaults | {"grid": grid, "dataset": defaults["dataset"] | {"source": "npz"}}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder of a study in which two runs of three and a tuned one have finished."""
    done = {"baseline_cnn": 0.4, "vgg16_cfg1": 0.8, "vgg16_cfg2": None, "vgg16_tuned": 0.9}
    make_study(tmp_path, done | {"majority_class": 0}, CLASSES)
    monkeypatch.chdir(tmp_path)
    for path in Path("results", "tables").iterdir():
        if path != Path(names.CELL_MAP.format(backbone="vgg16")):
            path.unlink()
    return tmp_path


def files(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_it_names_what_is_missing_and_touches_nothing_else(folder, config):
    before = files(folder)
    lacking = report_finished(config, folder / "my report.html")
    assert lacking == {"again": [], "older": [], "missing": ["vgg16_cfg2"], "others": []}
    after = files(folder)
    page = after.pop(folder / "my report.html") and (folder / "my report.html").read_text()
    assert after == before
    assert "1 of 5 runs are missing: vgg16_cfg2." in page
    for part in (
        "run-vgg16_cfg1",
        "run-vgg16_tuned",
        "run-majority_class",
        'id="tuning"',
        'id="cell-map"',
    ):
        assert part in page


def test_a_file_of_a_run_that_is_not_there_yet_does_no_harm(folder, config):
    for path in (names.CONFUSION, names.HISTORY, names.PREDICTIONS):
        Path(path.format(run="vgg16_cfg1", test_set=names.TEST)).unlink()
    for path in (names.FINALISTS, names.STUDY, names.CHECKSUMS, names.EXPLAINED_TABLE):
        Path(path).unlink()
    Path(names.SUBSET_IMAGES.format(subset=names.TEST)).unlink()
    assert report_finished(config, "report.html")["missing"] == ["vgg16_cfg2"]


def made_by_an_earlier_release(run):
    """Take from the metrics of a run what an earlier release did not write."""
    path = names.METRICS.format(run=run)
    content = io.read_json(path)
    del content["subsets"]["test"]["abstention"], content["latency"]
    content["cost"]["embedding_seconds"] = 77 * 60
    io.write_json(path, content)


def test_runs_of_an_earlier_release_are_evaluated_again(folder, config):
    report_finished(config, "before.html")
    for run in ("vgg16_cfg1", "vgg16_tuned"):
        made_by_an_earlier_release(run)
    Path(names.EMBEDDING_COST.format(backbone="vgg16")).unlink(missing_ok=True)
    for path in Path("results", "vgg16_cfg1", "predictions").iterdir():
        path.unlink()
    before = files(folder)
    found = report_finished(config, folder / "my report.html")
    assert (found["again"], found["older"]) == (["vgg16_tuned"], ["vgg16_cfg1"])
    after = files(folder)
    page = after.pop(folder / "my report.html") and (folder / "my report.html").read_text()
    assert after == before
    assert "run-vgg16_tuned" in page and "run-vgg16_cfg1" not in page
    assert "1 h 17 min" in page


def test_runs_of_another_config_are_named(folder, config):
    config["grid"]["cnns"] = []
    found = report_finished(config, "report.html")
    assert found["others"] == ["baseline_cnn"]
    assert "run-baseline_cnn" not in Path("report.html").read_text()


def test_damaged_metrics_are_named(folder, config):
    Path(names.METRICS.format(run="vgg16_cfg1")).write_text("{")
    with pytest.raises(InputError, match="vgg16_cfg1/metrics.json: found a damaged file"):
        report_finished(config, "report.html")


def test_the_page_shows_the_config_that_the_results_are_of(folder, config):
    report_finished(config, "report.html", config | {"seed": 123456})
    assert "seed: 123456" in Path("report.html").read_text()


def test_a_run_whose_replicates_are_finished_shows_their_mean(folder, config):
    for run in ("baseline_cnn", "vgg16_cfg1"):
        content = io.read_json(names.METRICS.format(run=run))
        for scores in content["subsets"].values():
            scores["accuracy"] |= {"least": 0.1, "most": 0.99, "seed_share": 0.5}
        summary = content | {"replicates": [run, f"{run}_s2"]}
        io.write_json(names.SUMMARY.format(run=run), summary)
    said = "Scores are means over 2 replicates"
    shutil.copytree("results/baseline_cnn", "results/baseline_cnn_s2")
    found = report_finished(config | {"replicates": {"cnns": 2}}, "report.html")
    assert Path("report.html").read_text().count(said) == 1
    assert found["others"] == []
    report_finished(config, "report.html")
    assert said not in Path("report.html").read_text()


def test_before_the_first_run_there_is_a_report_too(folder, config):
    for path in folder.glob("results/*/metrics.json"):
        path.unlink()
    report_finished(config, "report.html")
    assert "No run has been evaluated" in Path("report.html").read_text()


def test_without_a_data_set_there_is_none(tmp_path, config, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError, match="results/dataset/images.npy and .*audit.json: not found"
    ):
        report_finished(config, "report.html")
    assert not list(tmp_path.iterdir())


def test_the_contact_sheet_is_drawn_from_the_images(folder, config):
    copies = io.read_table(write_copies())
    report_finished(config, "report.html")
    assert (
        len(copies) == 4
        and "Contact sheet of training images" in Path("report.html").read_text()
    )


def write_copies():
    """Write two augmented copies of two images."""
    import numpy as np
    import pandas as pd

    np.save(names.SUBSET_IMAGES.format(subset=names.TRAIN), np.load(names.IMAGES)[:4])
    table = pd.DataFrame({"id": range(4), "parent_id": [0, 0, 1, 1], "label": [0, 0, 1, 1]})
    path = names.SUBSET_TABLE.format(subset=names.TRAIN)
    io.write_table(path, table.assign(class_name="ig"))
    return path
