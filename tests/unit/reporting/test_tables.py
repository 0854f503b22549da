import numpy as np
import pandas as pd
import pytest

from hemagrid.evaluation.metrics import best_run, load_metrics
from hemagrid.io import read_sparse, write_json
from hemagrid.reporting.reference import (
    published,
    published_configurations,
    published_heads,
    published_tuned,
)
from hemagrid.reporting.tables import (
    aggregate,
    best_heads_table,
    codabench_scores,
    grid_table,
    headline,
    heads_table,
    write,
)
from hemagrid.reporting.text import duration, p_text, shown


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
    assert len(table) == 12 and len(published_heads()) == 6
    row = table.loc["efficientnetv2m_cfg3"]
    assert list(row[["test", "test_augmented", "codabench"]]) == [98.4, 80.1, 92]
    tuned = table.loc["convnext_tuned"]
    assert list(tuned[["val", "test_augmented", "codabench"]]) == [89.6, 76.8, 90]
    assert np.isnan(table.loc["convnext_tuned_adamw", "val"])
    theirs = published_tuned().set_index("run")
    assert list(theirs.index) == [run for run in table.index if "tuned" in run]
    assert theirs.loc["efficientnetv2m_tuned", "published_dense"] == "384, 128"
    assert theirs.loc["convnext_tuned", "published_val_pct"] == 89.6
    assert pd.isna(theirs.loc["convnext_tuned_adamw", "published_dense"])
    heads = published_configurations().set_index("head")
    assert list(heads.index) == ["cfg1", "cfg2", "cfg3"]
    assert list(heads["published_dense"]) == ["none", "512", "512, 256"]
    assert list(heads["published_dropout"]) == ["0.3", "0.3", "0.3, 0.3"]
    assert set(heads["published_learning_rate"]) == {1e-3}
    assert pd.isna(heads.loc["cfg1", "published_batch_norm"])


HEADS = {
    "cfg1": {"dense": [], "batch_norm": False, "dropout": [0.3], "learning_rate": 1e-3},
    "cfg3": {
        "dense": [512, 256],
        "batch_norm": True,
        "dropout": [0.3, 0.25],
        "learning_rate": 1e-4,
    },
    "wide": {"dense": [2048], "batch_norm": False, "dropout": [0], "learning_rate": 0.01},
}
HEADS = {name: head | {"weight_decay": None} for name, head in HEADS.items()}
DASH = "\N{EN DASH}"


def test_heads_stand_beside_the_published_ones_of_their_name():
    table = shown(heads_table(HEADS, published_configurations())).set_index("head")
    assert table.T.to_dict("list") == {
        "cfg1": ["none", "none", DASH, DASH, "0.3", "0.3", "0.001", "0.001"],
        "cfg3": ["512, 256", "512, 256", "yes", "yes", "0.3, 0.25", "0.3, 0.3"]
        + ["0.0001", "0.001"],
        "wide": ["2048", DASH, "no", DASH, "0", DASH, "0.01", DASH],
    }
    assert list(table)[:4] == [
        "Dense",
        "published Dense",
        "BatchNormalization",
        "published BatchNormalization",
    ]


def test_heads_alone_and_with_weight_decay():
    columns = ["head", "dense", "batch_norm", "dropout", "learning_rate"]
    assert list(heads_table(HEADS)) == columns
    decaying = {"cfg1": HEADS["cfg1"], "cfg9": HEADS["wide"] | {"weight_decay": 1e-5}}
    assert list(shown(heads_table(decaying))["weight decay"]) == [DASH, "1e-05"]
    assert heads_table({}, published_configurations()).empty


def test_tuned_heads_do_not_compete_with_the_grid(study):
    plain = best_heads_table(study, "test")
    study["vgg16_tuned"] = metrics("transfer", 0.99, 0.9, "vgg16", "tuned")
    study["mobilenetv3_tuned_adamw"] = metrics(
        "transfer", 0.9, 0.9, "mobilenetv3", "tuned_adamw"
    )
    pd.testing.assert_frame_equal(best_heads_table(study, "test"), plain)
    assert best_run(study, "test") == "vgg16_tuned"
    assert "vgg16_tuned" in headline(grid_table(study))


def test_codabench_scores_say_where_they_come_from(tmp_path, study):
    paths = [tmp_path / run / "codabench.json" for run in ("vgg16_cfg1", "vgg16_cfg2", "gone")]
    for path in paths[:2]:
        write_json(path, {"accuracy": {"value": 0.913, "low": 0.9, "high": 0.92}})
    scores = codabench_scores({"vgg16_cfg1": 80, "baseline_cnn": 19}, paths)
    assert scores == {
        "vgg16_cfg1": {"pct": 80, "source": "reported"},
        "vgg16_cfg2": {"pct": pytest.approx(91.3), "source": "scored here"},
        "baseline_cnn": {"pct": 19, "source": "reported"},
    }
    grid = grid_table(study, scores).set_index("run")
    assert grid.loc["vgg16_cfg2", "codabench_source"] == "scored here"
    assert pd.isna(grid.loc["majority_class", ["codabench_pct", "codabench_source"]]).all()
    text = shown(grid.reset_index())["Codabench, %"]
    assert list(text[:3]) == ["19.0 (reported)", "80.0 (reported)", "91.3 (scored here)"]
    assert set(text[3:]) == {"\N{EN DASH}"}
    best = best_heads_table(study, "test", published_heads(), scores).set_index("model")
    assert best.loc["vgg16", "codabench_source"] == "scored here"
    assert best.loc["vgg16", "published_codabench"] == 80
    assert pd.isna(best.loc["convnext", "codabench_pct"])


def test_without_a_score_there_is_no_column(study):
    for scores in (None, {}, {"another_run": {"pct": 90, "source": "reported"}}):
        assert not any("codabench" in name for name in grid_table(study, scores))
        best = best_heads_table(study, "test", published_heads(), scores)
        assert [name for name in best if "codabench" in name] == ["published_codabench"]


def test_all_tables_are_written(tmp_path, study):
    for run, content in study.items():
        if content:
            write_json(tmp_path / run / "metrics.json", content)
    out = {name: tmp_path / f"{name}.csv" for name in ("grid", "best_heads")}
    heads = tmp_path / "heads.csv"
    aggregate(
        [tmp_path / run / "metrics.json" for run in study],
        out | {"headline": tmp_path / "headline.txt", "heads": heads},
        "test_augmented",
        True,
        heads=HEADS,
        reported={"convnext_cfg3": 92},
    )
    table = read_sparse(heads, "dense", "published_dense").set_index("head")
    assert list(table["dense"]) == ["none", "512, 256", "2048"]
    assert list(table["published_dense"][:2]) == ["none", "512, 256"]
    assert "BatchNormalization" in heads.with_suffix(".md").read_text()
    assert "512, 256" in heads.with_suffix(".tex").read_text()
    for path in out.values():
        table = pd.read_csv(path).set_index("run")
        assert table.loc["convnext_cfg3", "codabench_pct"] == 92
        assert "92.0 (reported)" in path.with_suffix(".md").read_text()
        assert "92.0 (reported)" in path.with_suffix(".tex").read_text()
    assert "convnext_cfg3" in (tmp_path / "headline.txt").read_text()


def test_differences_keep_their_sign():
    table = pd.DataFrame(
        {
            "gain_points": [-2.31, 0.0, 1.0, None],
            "gain_points_low": [-4.0, -1.5, 0.04, None],
            "gain_points_high": [-0.6, 1.5, 2.0, None],
        }
    )
    assert list(shown(table)["difference, points"]) == [
        "-2.3 (-4.0 to -0.6)",
        "+0.0 (-1.5 to +1.5)",
        "+1.0 (+0.0 to +2.0)",
        "\N{EN DASH}",
    ]


@pytest.mark.parametrize(
    ("p", "text"), [(0.0123, "0.012"), (1, "1.000"), (0.001, "0.001"), (4e-9, "below 0.001")]
)
def test_p_values(p, text):
    assert p_text(p) == text


def test_files_hold_numbers_for_programs_and_text_for_people(tmp_path, study):
    study = {"a|b_<i>&": study["baseline_cnn"], **study}
    table = grid_table(study)
    write(table, tmp_path / "grid.csv")
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
