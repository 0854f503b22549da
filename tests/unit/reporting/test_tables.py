import numpy as np
import pandas as pd
import pytest
from answers import write_answers
from made_study import some_trials

from hemagrid.evaluation.metrics import best_run, evaluate
from hemagrid.io import read_sparse, write_json
from hemagrid.reporting import reference
from hemagrid.reporting.tables import (
    abstention_table,
    aggregate,
    best_heads_table,
    codabench_scores,
    compare_tuned,
    compare_with_winner,
    grid_table,
    headline,
    heads_table,
    read_comparison,
    read_tuned,
    recall_table,
    replicates_table,
    trials_table,
    write,
)
from hemagrid.reporting.text import DASH, covered, shown

APPLICATIONS = {"vgg16": "VGG16", "convnext": "ConvNeXtBase"}
PUBLISHED = reference.published(
    {"shown": True, "source": "npz", "applications": APPLICATIONS}, audit=None
)
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


RECALL = {"recall": 0.9, "recall_low": 0.68, "recall_high": 0.99}


def metrics(kind, test, augmented, backbone=None, head=None, cost=True):
    def scores(value):
        interval = {"value": value, "low": value - 0.01, "high": value + 0.01}
        names = ("accuracy", "balanced_accuracy", "macro_f1")
        return dict.fromkeys(names, interval) | {
            "auc": 0.98765,
            "per_class": {"ig": RECALL | {"support": 20}, "platelet": RECALL | {"support": 0}},
            "calibration_error": 0.05,
            "scaled_calibration_error": 0.02 if cost else None,
            "abstention": {
                "aurc": 0.01,
                "coverage": 0.8 if cost else 0.0,
                "accuracy": interval if cost else None,
                "oracle_coverage": 0.85,
            },
        }

    measured = {"parameters": 1234567, "images_per_second": 321.4, "peak_memory_mib": 900.0}
    return {
        "kind": kind,
        "backbone": backbone,
        "head": head,
        "temperature": 1.5 if cost else None,
        "threshold": 0.75 if cost else None,
        "subsets": {"test": scores(test), "test_augmented": scores(augmented)},
        "cost": measured | {"seconds": 90.5} if cost else None,
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
    assert row["test_auc"] == 0.98765
    assert row["gap_points"] == pytest.approx(25)
    assert row["training_seconds"] == 90.5
    assert row["parameters"] == 1234567
    assert table.loc["convnext_cfg1", "kind"] == "missing"
    assert table.loc["convnext_cfg1"].drop("kind").isna().all()
    assert pd.isna(table.loc["majority_class", "parameters"])
    assert not any("val_" in column for column in table)


def test_recalls_are_those_of_classes_with_test_images(study):
    table = recall_table(study | {"vgg16_cfg1": None})
    assert set(table["class"]) == {"ig"} and "vgg16_cfg1" not in set(table["run"])
    assert list(table.columns[-3:]) == ["recall_pct", "recall_pct_low", "recall_pct_high"]
    assert table.iloc[0, -3:].tolist() == pytest.approx([90, 68, 99])


def test_a_study_without_results_is_all_missing():
    table = grid_table({"a": None, "b": None})
    assert list(table["kind"]) == ["missing"] * 2
    assert len(shown(table)) == 2 and len(headline(table).splitlines()) == 3
    assert best_heads_table({"a": None}, "test", PUBLISHED).empty


def test_best_heads_stand_beside_the_published_ones(study):
    table = best_heads_table(study, "test_augmented", PUBLISHED)
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


def test_heads_stand_beside_the_published_ones_of_their_name():
    table = shown(heads_table(HEADS, PUBLISHED)).set_index("head")
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
    assert heads_table({}, PUBLISHED).empty


def test_tuned_heads_do_not_compete_with_the_grid(study):
    plain = best_heads_table(study, "test")
    study["vgg16_tuned"] = metrics("transfer", 0.99, 0.9, "vgg16", "tuned")
    study["mobilenetv3_tuned_adamw"] = metrics(
        "transfer", 0.9, 0.9, "mobilenetv3", "tuned_adamw"
    )
    pd.testing.assert_frame_equal(best_heads_table(study, "test"), plain)
    assert best_run(study, "test") == "vgg16_tuned"


def test_reported_and_local_scores_have_columns_of_their_own(tmp_path, study):
    paths = [tmp_path / run / "codabench.json" for run in ("vgg16_cfg1", "vgg16_cfg2", "gone")]
    for path, of in zip(paths[:2], ("holdout", "data/hidden.npz"), strict=True):
        write_json(path, {"accuracy": {"value": 0.913}, "set": of})
    scores = codabench_scores({"vgg16_cfg1": 80, "baseline_cnn": 19}, paths)
    table = shown(grid_table(study, scores)).set_index("run")
    scores_of = table[["Codabench, %", "local score (images), %"]].T.to_dict("list")
    assert scores_of["baseline_cnn"] == ["19.0", DASH]
    assert scores_of["vgg16_cfg1"] == ["80.0", "91.3 (holdout)"]
    assert scores_of["vgg16_cfg2"] == [DASH, "91.3 (hidden.npz)"]
    assert scores_of["majority_class"] == [DASH, DASH]
    best = best_heads_table(study, "test", PUBLISHED, scores).set_index("model")
    assert best.loc["vgg16", "published_codabench"] == 80
    assert best.loc["vgg16", "local_score_set"] == "data/hidden.npz"
    for none in (None, {}, {"another_run": {"codabench_pct": 90}}):
        assert not any(("codabench" in c or "local" in c) for c in grid_table(study, none))


def test_abstention_and_calibration(study):
    # A network without a temperature: all of its probabilities are 0 or 1.
    study["vgg16_cfg1"] = metrics("transfer", 0.9, 0.7, "vgg16", "cfg1", cost=False)
    table = abstention_table(study)
    assert list(table["run"].unique()) == [
        "baseline_cnn",
        "vgg16_cfg1",
        "vgg16_cfg2",
        "convnext_cfg3",
    ]
    row = table[(table["run"] == "vgg16_cfg2") & (table["subset"] == "test_augmented")]
    assert shown(row).loc[0].to_dict() == {
        "run": "vgg16_cfg2",
        "images": "augmented test",
        "temperature": "1.50",
        "calibration error, %": "5.0",
        "after scaling, %": "2.0",
        "least confidence of an answer, %": "75.0",
        "images answered, %": "80.0",
        "accuracy of the answers, %": "70.0 (69.0–71.0)",
        "area under the curve, %": "1.0",
        "answered with hindsight, %": "85.0",
    }
    silent = table[table["run"] == "vgg16_cfg1"].iloc[0]
    unknown = ["temperature", "threshold_pct", "answered_accuracy_pct"]
    assert silent[unknown].isna().all() and silent["coverage_pct"] == 0


def test_all_tables_are_written(tmp_path, study):
    for run, content in study.items():
        if content:
            write_json(tmp_path / run / "metrics.json", content)
    names = ("grid", "best_heads", "heads", "abstention", "policies", "recall", "speed")
    out = {name: tmp_path / f"{name}.csv" for name in names}
    aggregate(
        [tmp_path / run / "metrics.json" for run in study],
        out
        | {"headline": tmp_path / "headline.txt", "grid_short": tmp_path / "grid_short.tex"},
        "test_augmented",
        PUBLISHED,
        heads=HEADS,
        reported={"convnext_cfg3": 92},
    )
    heads = read_sparse(out["heads"], "dense", "published_dense").set_index("head")
    assert list(heads["dense"]) == ["none", "512, 256", "2048"]
    assert list(heads["published_dense"][:2]) == ["none", "512, 256"]
    for name in ("grid", "best_heads"):
        table = pd.read_csv(out[name]).set_index("run")
        assert table.loc["convnext_cfg3", "codabench_pct"] == 92
    assert len(pd.read_csv(out.pop("recall"))) == 10  # of four networks and a control
    for path in out.values():
        assert path.with_suffix(".md").read_text() and path.with_suffix(".tex").read_text()
    said = (tmp_path / "headline.txt").read_text()
    assert "convnext_cfg3" in said and "They leave out the seed" in said


def test_files_hold_numbers_for_programs_and_text_for_people(tmp_path, study):
    study = {"a|b_<i>&": study["baseline_cnn"], **study}
    table = grid_table(study)
    write(table, tmp_path / "grid.csv")
    again = pd.read_csv(tmp_path / "grid.csv")
    assert list(again.columns) == list(table.columns)
    assert again["test_accuracy_pct_high"][0] == pytest.approx(61)
    markdown = (tmp_path / "grid.md").read_text()
    assert "90.0 (89.0–91.0)" in markdown and "a\\|b_&lt;i>&amp;" in markdown
    lines = markdown.splitlines()
    assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
    latex = (tmp_path / "grid.tex").read_text()
    assert "\\toprule" in latex and "vgg16\\_cfg1" in latex
    assert "90.0 (89.0--91.0)" in latex and "a|b\\_<i>\\&" in latex
    assert "test accuracy, \\%" in latex


def test_the_headline_is_aligned_and_fits_a_terminal(study):
    study["a_backbone_with_quite_a_long_name_cfg3"] = metrics("cnn", 0.99, 0.99)
    text = headline(grid_table(study))
    lines = text.splitlines()
    assert len(lines) == 1 + len(study)
    assert max(map(len, lines)) <= 100
    assert len(set(map(len, lines))) == 1
    assert "95.0 (94.0–96.0)" in text and "1,234,567" in text and "1 min 30 s" in text


def repeated(content, names, least, most):
    """Turn metrics into those of the summary of replicates."""
    for scores in content["subsets"].values():
        scores["accuracy"] = scores["accuracy"] | {
            "least": least,
            "most": most,
            "seed_share": 0.25,
        }
    return content | {"replicates": names}


def test_a_run_with_replicates_is_one_row_with_mean_range_and_number(study):
    names = ["vgg16_cfg1", "vgg16_cfg1_s2", "vgg16_cfg1_s3"]
    study["vgg16_cfg1"] = repeated(study["vgg16_cfg1"], names, 0.88, 0.93)
    table = grid_table(study).set_index("run")
    assert list(table.index) == list(study)
    row = table.loc["vgg16_cfg1"]
    columns = ("replicates", "test_accuracy_pct", "test_accuracy_pct_least")
    assert list(row[[*columns, "test_seed_share_pct"]]) == pytest.approx([3, 90, 88, 25])
    assert table.loc["baseline_cnn", ["replicates", "test_accuracy_pct_most"]].isna().all()
    spelled = shown(grid_table(study)).set_index("run").loc["vgg16_cfg1"]
    assert spelled["test accuracy, %"] == "90.0 (89.0–91.0)"
    assert spelled["test accuracy, range, %"] == "88.0–93.0"
    assert spelled["test accuracy, seed's share of the variance, %"] == "25.0"
    lines = headline(grid_table(study)).splitlines()
    assert max(map(len, lines)) <= 100 and lines[2].endswith("3")
    del study["vgg16_cfg2"]
    best = best_heads_table(study, "test", PUBLISHED).set_index("run")
    assert best.loc["vgg16_cfg1", "replicates"] == 3


def test_replicates_are_listed_with_their_seeds(study):
    runs = {"vgg16_cfg1": study["vgg16_cfg1"], "vgg16_cfg1_s2": study["vgg16_cfg2"]}
    seeds = {"vgg16_cfg1": ("vgg16_cfg1", 1, 42), "vgg16_cfg1_s2": ("vgg16_cfg1", 2, 43)}
    table = replicates_table(runs, seeds)
    assert list(table["train_seed"]) == [42, 43] and list(table["replicate"]) == [1, 2]
    assert set(table["replicate_of"]) == {"vgg16_cfg1"}
    assert list(table["test_accuracy_pct"]) == pytest.approx([90, 95])


def test_what_intervals_cover_is_said(study):
    once = covered(study)
    assert "leave out the seed: each run was trained once (replicates: 1)" in once
    for run in ("vgg16_cfg1", "vgg16_cfg2"):
        study[run] = repeated(study[run], [run, f"{run}_s2"], 0.8, 0.9)
    wide = " Two replicates hardly tell how much the seed matters,"
    some = (
        "trained 2 times, of the seed. They leave out the seed of baseline_cnn, convnext_cfg3."
    )
    assert some + wide in covered(study)
    repeats = {run: study[run] for run in ("vgg16_cfg1", "convnext_cfg1", "majority_class")}
    assert "of the seed: each run was trained 2 times." + wide in covered(repeats)
    for run in ("vgg16_cfg1", "vgg16_cfg2"):
        study[run] = repeated(study[run], [run, f"{run}_s2", f"{run}_s3"], 0.8, 0.9)
    assert "trained 3 times" in covered(study) and wide not in covered(study)


def test_test_sets_of_other_images_have_their_scores_and_the_drop(study):
    for name in ("raabin", "anothersetwithalongname", "third"):
        of = study["vgg16_cfg1"]["subsets"]["test"]
        drop = {"value": 0.12, "low": 0.1, "high": 0.15}
        study["vgg16_cfg1"]["subsets"][name] = of | {"drop": drop}
    table = grid_table(study)
    row = table.set_index("run").loc["vgg16_cfg1"]
    bounds = row[["raabin_drop_points", "raabin_drop_points_low", "raabin_drop_points_high"]]
    assert bounds.tolist() == pytest.approx([12, 10, 15])
    assert "test_drop_points" not in table
    text = headline(table)
    assert "raabin %  third %" in text and "anothersetwithalongname" not in text
    assert max(map(len, text.splitlines())) <= 100


# Runs against each other

N = 200
# Share of right answers on the test and on the augmented test images.
SKILL = {
    "convnext_cfg1": (0.85, 0.60),
    "convnext_cfg3": (0.80, 0.70),
    "convnext_tuned": (0.95, 0.40),
    "convnext_tuned_adamw": (0.95, 0.42),
    "vgg16_tuned": (0.90, 0.60),
}


def answers(labels, skill, shift=0):
    """Answers that are right on a share of the rows, the first ones after `shift`."""
    place = (np.arange(len(labels)) - shift) % len(labels)
    return np.eye(3)[np.where(place < round(skill * len(labels)), labels, (labels + 1) % 3)]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A folder of results, and the inputs of comparisons for some of its runs."""
    root = tmp_path_factory.mktemp("results")
    labels = np.arange(N) % 3
    repeated, groups = np.repeat(labels, 2), np.arange(2 * N) // 2
    for place, (run, (test, augmented)) in enumerate(SKILL.items()):
        paths = write_answers(
            root / run / "predictions",
            ["a", "b", "c"],
            {
                "val": (labels, answers(labels, test), np.arange(N)),
                "test": (labels, answers(labels, test, place), np.arange(N)),
                "test_augmented": (repeated, answers(repeated, augmented, place), groups),
            },
        )
        backbone, head = run.split("_", 1)
        content, _ = evaluate(
            paths,
            run=run,
            kind="transfer",
            backbone=backbone,
            head=head,
            cost=None,
            bootstrap=20,
            calibration_bins=5,
            seed=1,
        )
        write_json(root / run / "metrics.json", content)
        if "tuned" in head:
            found = {
                "dense": [384, 128] if run == "convnext_tuned" else [],
                "batch_norm": True,
                "dropout": [0.1, 0.3] if run == "convnext_tuned" else [0.2],
                "learning_rate": 1e-4,
                "weight_decay": 1e-5 if head == "tuned_adamw" else None,
            }
            summary = {"run": run, "head": found, "trial": 4, "val_accuracy": 0.625}
            summary |= {"trials": 23, "epochs": 90, "seconds": 75.2}
            write_json(root / "tuning" / f"{run}.json", summary)
    return root, lambda runs: {
        "metrics": [root / run / "metrics.json" for run in runs],
        "predictions": [
            root / run / "predictions" / f"{subset}.npz"
            for run in runs
            for subset in ("val", "test", "test_augmented")
        ],
        "heads": [root / "tuning" / f"{run}.json" for run in runs if "tuned" in run],
    }


def write_tuned(out, inputs, published=PUBLISHED, reported=()):
    paths = {name: out / f"{name}.csv" for name in ("heads", "runs", "gain")}
    settings = {"select_by": "test_augmented", "bootstrap": 100, "seed": 3}
    compare_tuned(inputs, paths, settings | {"codabench": dict(reported)}, published)
    assert all(path.with_suffix(".tex").exists() for path in paths.values())
    return [read_tuned(path) for path in paths.values()]


def test_found_heads_stand_beside_the_published_ones(compared, tmp_path):
    _, inputs = compared
    heads = write_tuned(tmp_path, inputs(SKILL))[0].set_index("run")
    assert list(heads.index) == ["convnext_tuned", "convnext_tuned_adamw", "vgg16_tuned"]
    row = heads.loc["convnext_tuned"]
    assert (row["dense"], row["dropout"]) == ("384, 128", "0.1, 0.3")
    assert (row["published_dense"], row["published_dropout"]) == ("128", "0.3")
    assert row["published_learning_rate"] == 0.001 and np.isnan(row["weight_decay"])
    assert (row["trials"], row["search_seconds"]) == (23, 75.2)
    adamw = shown(heads.reset_index()).iloc[1]
    assert adamw["Dense"] == "none" and adamw["published Dense"] == DASH
    assert (adamw["learning rate"], adamw["weight decay"]) == ("0.0001", "1e-05")
    assert adamw["validation accuracy of the best trial, %"] == "62.5"
    assert adamw["search time"] == "1 min 15 s"


def test_tuned_runs_stand_beside_the_published_ones(compared, tmp_path):
    _, inputs = compared
    _, runs, _ = write_tuned(tmp_path, inputs(SKILL), reported={"convnext_tuned": 90})
    row = runs.set_index("run").loc["convnext_tuned"]
    assert row["test_accuracy_pct"] == pytest.approx(95)
    assert row["test_accuracy_pct_low"] < 95 < row["test_accuracy_pct_high"]
    assert (row["published_val_pct"], row["published_test_augmented_pct"]) == (89.6, 76.8)
    assert (row["codabench_pct"], row["published_codabench"]) == (90, 90)
    for table in write_tuned(tmp_path, inputs(SKILL), published=None):
        assert len(table) and not any("published" in column for column in table)


def test_the_gain_over_the_best_untuned_run_is_written(compared, tmp_path):
    _, inputs = compared
    gain = write_tuned(tmp_path, inputs(SKILL))[2]
    assert list(gain["compared_with"]) == ["convnext_cfg3"] * 4 + ["convnext_tuned"] * 2
    assert list(gain["gain_points"]) == pytest.approx([15, -30, 15, -28, 0, 2])
    nothing = {"metrics": [], "predictions": [], "heads": []}
    assert all(table.empty for table in write_tuned(tmp_path, nothing))


def test_the_comparison_with_the_winner_is_written_and_spelled(compared, tmp_path):
    root, inputs = compared
    # A run that was never trained has no row.
    runs = ["convnext_cfg3", "convnext_cfg1", "convnext_cfg9"]
    settings = {"select_by": "test_augmented", "bootstrap": 100, "seed": 3}
    out = {name: tmp_path / f"{name}.csv" for name in ("winner", "controls")}
    compare_with_winner(inputs(runs) | {"control_predictions": []}, out, settings)
    assert read_comparison(out["controls"]).empty
    table = read_comparison(tmp_path / "winner.csv")
    assert list(table["run"]) == ["convnext_cfg1"] * 2
    assert list(table["difference_points"]) == pytest.approx([-5, 10])
    text = shown(table)
    assert list(text) == [
        "run",
        "compared with",
        "images",
        "its accuracy, %",
        "winner minus run, points",
        "p",
        "p, corrected",
        "corrected for",
        "verdict",
    ]
    assert text["winner minus run, points"][0].startswith("−5.0 (−")
    assert list(text["images"]) == ["test", "augmented test"]
    assert r"convnext\_cfg1" in (tmp_path / "winner.tex").read_text()


def test_trials_are_spelled_for_people():
    text = shown(trials_table(some_trials()))
    assert list(text["Dense"]) == ["384, 128", "none", "none"]
    assert list(text["parent"]) == [DASH, DASH, "2"]
    assert list(text["validation accuracy, %"]) == ["25.0", "50.0", "62.5"]
    assert list(text["time"]) == ["2 s", "3 s", "1 min 00 s"]
