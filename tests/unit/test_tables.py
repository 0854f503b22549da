import numpy as np
import pandas as pd
import pytest

from hemagrid.files import write_json
from hemagrid.published import published, published_heads
from hemagrid.tables import (
    best_heads_table,
    best_run,
    duration,
    grid_table,
    headline,
    load_metrics,
    shown,
    write,
)


def metrics(kind, test, augmented, backbone=None, head=None, cost=True):
    def scores(value):
        interval = {"value": value, "low": value - 0.01, "high": value + 0.01}
        return {
            "n": 100,
            "accuracy": interval,
            "balanced_accuracy": interval,
            "macro_f1": interval,
            "auc": None,
            "calibration_error": 0.05,
            "per_class": {},
        }

    return {
        "kind": kind,
        "backbone": backbone,
        "head": head,
        "class_names": ["a", "b"],
        "subsets": {"test": scores(test), "test_augmented": scores(augmented)},
        "cost": {
            "device": "CPU",
            "backend": "tensorflow",
            "parameters": 1234567,
            "images_per_second": 321.4,
            "peak_memory_mib": 900.0,
            "phases": {
                "feature_extraction": {"epochs": 3, "seconds": 40.0},
                "finetune_top": {"epochs": 3, "seconds": 50.5},
            },
        }
        if cost
        else None,
    }


@pytest.fixture
def study():
    return {
        "baseline_cnn": metrics("cnn", 0.6, 0.3),
        "vgg16_cfg1": metrics("transfer", 0.9, 0.7, "vgg16", "cfg1"),
        "vgg16_cfg2": metrics("transfer", 0.95, 0.7, "vgg16", "cfg2"),
        "convnext_cfg1": None,
        "convnext_cfg3": metrics("transfer", 0.94, 0.8, "convnext", "cfg3"),
        "majority_class": metrics("control", 0.99, 0.99, cost=False),
    }


def test_the_grid_holds_every_run_once(study):
    table = grid_table(study).set_index("run")
    assert list(table.index) == list(study)
    row = table.loc["vgg16_cfg2"]
    assert row["test_accuracy_pct"] == pytest.approx(95)
    assert row["test_accuracy_pct_low"] == pytest.approx(94)
    assert row["test_calibration_error_pct"] == pytest.approx(5)
    assert row["gap_points"] == pytest.approx(25)
    assert row["training_seconds"] == 90.5
    assert row["parameters"] == 1234567
    assert table.loc["convnext_cfg1", "kind"] == "missing"
    assert table.loc["convnext_cfg1"].drop("kind").isna().all()
    assert pd.isna(table.loc["majority_class", "parameters"])
    assert not any("val_" in column for column in table)


def test_a_study_without_results_is_all_missing():
    table = grid_table({"a": None, "b": None})
    assert list(table["kind"]) == ["missing"] * 2
    assert len(shown(table)) == 2 and len(headline(table).splitlines()) == 3
    assert best_run({"a": None}, "test") is None
    assert best_heads_table({"a": None}, "test", published_heads()).empty


def test_the_best_run_is_no_control_and_the_simpler_of_equals(study):
    assert best_run(study, "test") == "vgg16_cfg2"
    assert best_run(study, "test_augmented") == "convnext_cfg3"
    assert best_run(study, "val") is None
    del study["convnext_cfg3"]
    assert best_run(study, "test_augmented") == "vgg16_cfg1"


def test_best_heads_stand_beside_the_published_ones(study):
    table = best_heads_table(study, "test_augmented", published_heads())
    assert list(table["run"]) == ["baseline_cnn", "vgg16_cfg1", "convnext_cfg3"]
    row = table.set_index("model").loc["convnext"]
    assert row["test_accuracy_pct"] == pytest.approx(94)
    assert row["published_test_pct"] == 98.1
    assert row["published_test_augmented_pct"] == 80.0
    assert row["published_codabench"] == 92
    assert (row["head"], row["published_head"]) == ("cfg3", "cfg1")
    plain = best_heads_table(study, "test")
    assert not any("published" in column for column in plain)
    assert list(plain["run"])[1] == "vgg16_cfg2"


def test_the_published_numbers():
    table = published().set_index("run")
    assert len(table) == 9 and len(published_heads()) == 6
    row = table.loc["efficientnetv2m_cfg3"]
    assert list(row[["test", "test_augmented", "codabench"]]) == [98.4, 80.1, 92]
    tuned = table.loc["convnext_tuned"]
    assert list(tuned[["val", "test_augmented", "codabench"]]) == [89.6, 76.8, 90]
    assert np.isnan(table.loc["convnext_tuned_adamw", "val"])


def test_files_hold_numbers_for_programs_and_text_for_people(tmp_path, study):
    study = {"a|b_<i>&": study["baseline_cnn"], **study}
    table = grid_table(study)
    write(table, tmp_path / "grid")
    again = pd.read_csv(tmp_path / "grid.csv")
    assert list(again.columns) == list(table.columns)
    assert again["test_accuracy_pct_high"][0] == pytest.approx(61)
    markdown = (tmp_path / "grid.md").read_text()
    assert "90.0 (89.0-91.0)" in markdown and "a\\|b_&lt;i>&amp;" in markdown
    lines = markdown.splitlines()
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    latex = (tmp_path / "grid.tex").read_text()
    assert "\\toprule" in latex and "vgg16\\_cfg1" in latex
    assert "90.0 (89.0-91.0)" in latex and "a|b\\_<i>\\&" in latex
    assert "test accuracy, \\%" in latex


def test_metrics_are_named_by_their_folder(tmp_path, study):
    write_json(tmp_path / "vgg16_cfg1" / "metrics.json", study["vgg16_cfg1"])
    paths = [tmp_path / run / "metrics.json" for run in ("vgg16_cfg1", "gone")]
    loaded = load_metrics(paths)
    assert loaded == {"vgg16_cfg1": study["vgg16_cfg1"], "gone": None}


def test_the_headline_is_aligned_and_fits_a_terminal(study):
    study["a_backbone_with_quite_a_long_name_cfg3"] = metrics("cnn", 0.99, 0.99)
    text = headline(grid_table(study))
    lines = text.splitlines()
    assert len(lines) == 1 + len(study)
    assert max(map(len, lines)) <= 100
    assert len(set(map(len, lines))) == 1
    assert "95.0 (94.0-96.0)" in text and "1,234,567" in text and "1 min 30 s" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (725, "12 min 05 s"), (12_000, "3 h 20 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text
