"""One small study through real jobs: its files, their contracts, and what is made again."""

import hashlib
import html
import json
import re
import subprocess
import sys
import zipfile
from io import BytesIO, StringIO
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from hemagrid.names import CONTROLS, PHASES
from hemagrid.revisions import REVISIONS

from ..conftest import ROOT

GRID = ["baseline_cnn", "regularized_cnn", "mobilenetv3_cfg1", "mobilenetv3_cfg2"]
TUNED = ["mobilenetv3_tuned", "mobilenetv3_tuned_adamw"]
TRAINED = GRID + TUNED
COMBINED = ["top", "regularized_cnn+views"]
ANSWERING = TRAINED + COMBINED
TABLES = (
    "grid heads best_heads recall abstention policies speed winner controls resources "
    "corruptions corruption_summary agreement hard_images label_noise map_mobilenetv3"
).split()
TUNING_TABLES = ["tuned_heads", "tuned_runs", "tuning_gain"]
SUBSETS = ["val", "test", "test_augmented"]
CLASSES = [
    "basophil",
    "eosinophil",
    "erythroblast",
    "ig",
    "lymphocyte",
    "monocyte",
    "neutrophil",
    "platelet",
]


def read(path):
    return json.loads(path.read_text())


def of_run(study, run, name):
    return study.results / run / name


def predicted(study, run, test_set):
    with np.load(of_run(study, run, f"predictions/{test_set}.npz")) as predictions:
        return dict(predictions)


# The study meets two accidents on its way: see the fixture.


def test_a_killed_job_leaves_no_partial_output(study):
    assert study.after_kill.returncode != 0
    names = {path.name for path in study.files_after_kill}
    assert "images.npy" in names
    assert not {"train.npy", "train.csv"} & names


def test_an_interrupted_study_goes_on_where_it_was(study):
    assert study.after_interrupt.returncode != 0
    assert "\nWhat is finished stays. To go on, run the same" in study.after_interrupt.stderr
    kept = study.files_after_interrupt
    assert study.results / "dataset" / "train.npy" in kept
    assert not [path for path in kept if path.name in ("model.keras", "report.html")]
    remade = [path for path, changed in kept.items() if study.files[path] != changed]
    assert not remade


def test_every_file_is_complete_or_absent(study):
    # What the killed process left, the next start of its job took away.
    assert study.litter and not study.temporary
    for path in study.files:
        assert path.stat().st_size > 0
        if path.suffix == ".npy":
            assert np.load(path, mmap_mode="r").shape[0] > 0
        elif path.suffix == ".npz":
            assert zipfile.ZipFile(path).testzip() is None
        elif path.suffix == ".json":
            assert read(path)


def test_nothing_is_written_elsewhere(study):
    assert {path.name for path in study.folder.iterdir()} == {
        ".snakemake",
        "benchmarks",
        "checkpoints",
        "logs",
        "resources",
        "results",
    }
    assert not any((study.folder / "checkpoints").iterdir())


def test_every_job_has_a_log_and_a_benchmark(study):
    for folder, suffix in (("logs", ".log"), ("benchmarks", ".tsv")):
        names = {
            str(path.relative_to(study.folder / folder).with_suffix(""))
            for path in (study.folder / folder).rglob(f"*{suffix}")
        }
        assert {f"train/{run}" for run in TRAINED} <= names
        assert {f"evaluate/{run}" for run in [*ANSWERING, *CONTROLS]} <= names
        assert {"aggregate", "report", "embed/mobilenetv3", "smears/smears"} <= names


# Contracts of the data.


def test_the_audit_counts_what_the_smears_planted(study):
    audit = read(study.results / "dataset" / "audit.json")
    counts = audit["counts"]
    # Per class 12; planted 3 copies, 2 near copies, 4 times one artefact, 1 text.
    assert counts["skipped"] == 1
    assert counts["images"] == 8 * 12 + 3 + 2 + 4
    assert counts["found"] == counts["images"] + counts["skipped"]
    assert counts["duplicates_removed"] == 3 + (4 - 1)
    assert counts["kept"] == counts["images"] - counts["duplicates_removed"]
    assert counts["label_conflicts"] == 1
    assert counts["near_groups"] == 2
    (conflict,) = audit["label_conflicts"]["examples"]
    assert conflict["size"] == 4
    assert set(conflict["labels"]) == set(CLASSES[:4])
    (skipped,) = audit["skipped"]["examples"]
    assert skipped["source"] == "basophil/broken.png"
    assert [row["class"] for row in audit["classes"]] == CLASSES


def test_near_duplicates_share_a_split_and_copies_their_parents(study):
    dataset = study.results / "dataset"
    splits = pd.read_csv(dataset / "splits.csv")
    assert (splits.groupby("near_group")["split"].nunique() == 1).all()
    assert (splits.groupby("class_name")["split"].nunique() == 3).all()
    split_of = splits.set_index("id")["split"]
    copies = {"train": 2, "val": 1, "test": 1, "test_augmented": 2}
    for subset, count in copies.items():
        table = pd.read_csv(dataset / f"{subset}.csv")
        images = np.load(dataset / f"{subset}.npy", mmap_mode="r")
        assert images.dtype == np.uint8 and images.shape == (len(table), 32, 32, 3)
        assert list(table["id"]) == list(range(len(table)))
        split = {"test_augmented": "test"}.get(subset, subset)
        assert set(split_of[table["parent_id"]]) == {split}
        assert (table["parent_id"].value_counts() == count).all()
        assert len(table) == count * (split_of == split).sum()


def test_the_untouched_test_images_are_the_acquired_ones(study):
    dataset = study.results / "dataset"
    table = pd.read_csv(dataset / "test.csv")
    images = np.load(dataset / "images.npy", mmap_mode="r")
    assert set(table["policy"]) == {"original"}
    np.testing.assert_array_equal(np.load(dataset / "test.npy"), images[table["parent_id"]])


# Contracts of the runs.


@pytest.mark.parametrize("run", [*ANSWERING, *CONTROLS])
def test_predictions_are_probabilities_of_every_subset(study, run):
    for subset in SUBSETS:
        table = pd.read_csv(study.results / "dataset" / f"{subset}.csv")
        predictions = predicted(study, run, subset)
        assert list(predictions["class_names"]) == CLASSES
        probabilities = predictions["probabilities"]
        assert probabilities.dtype == np.float32
        assert probabilities.shape == (len(table), 8)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-4)
        assert list(predictions["labels"]) == list(table["label"])
        assert list(predictions["groups"]) == list(table["group"])


@pytest.mark.parametrize("run", [*ANSWERING, *CONTROLS])
def test_metrics_keep_their_contract(study, run):
    metrics = read(of_run(study, run, "metrics.json"))
    backbone, _, head = run.partition("_") if "mobile" in run else (None, None, None)
    kind = "control" if run in CONTROLS else "transfer" if head else "cnn"
    kind = dict(zip(COMBINED, ("ensemble", "views"), strict=True)).get(run, kind)
    assert metrics["run"] == run
    assert (metrics["kind"], metrics["backbone"], metrics["head"]) == (
        kind,
        backbone,
        head,
    )
    assert metrics["class_names"] == CLASSES
    assert list(metrics["subsets"]) == SUBSETS
    for subset, scores in metrics["subsets"].items():
        predictions = predicted(study, run, subset)
        labels = predictions["labels"]
        chosen = predictions["probabilities"].argmax(axis=1)
        assert scores["n"] == len(labels)
        assert scores["accuracy"]["value"] == pytest.approx((chosen == labels).mean())
        for score in ("accuracy", "balanced_accuracy", "macro_f1"):
            interval = scores[score]
            assert 0 <= interval["low"] <= interval["high"] <= 1
        assert scores["auc"] is None or 0 <= scores["auc"] <= 1
        assert 0 <= scores["calibration_error"] <= 1
        assert 0 <= scores["abstention"]["coverage"] <= 1
        if subset in ("val", "test_augmented"):
            parts = {name: of["n"] for name, of in scores["policies"].items()}
            assert parts["all"] == sum(parts.values()) - parts["all"] == scores["n"]
        per_class = scores["per_class"]
        assert list(per_class) == CLASSES
        assert sum(of["support"] for of in per_class.values()) == scores["n"]


@pytest.mark.parametrize("run", TRAINED)
def test_every_trained_run_has_cost_and_history(study, run):
    metrics = read(of_run(study, run, "metrics.json"))
    cost = metrics["cost"]
    # The shared embedding and the search belong to what a run costs.
    own = read(of_run(study, run, "cost.json"))
    shared = ["embedding_seconds"] * ("cnn" not in run) + ["search_seconds"] * ("tuned" in run)
    assert sorted(cost.keys() - own.keys()) == shared
    assert all(cost[name] > 0 for name in shared)
    assert cost.items() >= own.items()
    made_with = cost["environment"]
    assert (made_with["device"], made_with["backend"]) == ("cpu", "tensorflow")
    assert made_with["revision"] == REVISIONS["train"]
    assert cost["parameters"] > 0
    assert cost["images_per_second"] > 0
    assert cost["peak_memory_mib"] > 0
    history = pd.read_csv(of_run(study, run, "history.csv"))
    epochs = {"training": 2} if "cnn" in run else dict.fromkeys(PHASES, 1)
    assert {name: of["epochs"] for name, of in cost["phases"].items()} == epochs
    assert dict(history.groupby("phase", sort=False).size()) == epochs
    for name, rows in history.groupby("phase"):
        assert list(rows["epoch"]) == list(range(1, len(rows) + 1))
        assert rows["best"].sum() <= 1
        assert cost["phases"][name]["seconds"] == pytest.approx(rows["seconds"].sum())
    assert history["best"].any()


def test_a_control_has_no_cost(study):
    for run in CONTROLS:
        assert read(of_run(study, run, "metrics.json"))["cost"] is None


def test_an_ensemble_is_the_mean_of_the_best_on_validation_images(study):
    accuracies, costs = {}, {}
    for run in TRAINED:
        metrics = read(of_run(study, run, "metrics.json"))
        accuracies[run] = metrics["subsets"]["val"]["accuracy"]["value"]
        costs[run] = metrics["cost"]
    best = sorted(accuracies, key=accuracies.get, reverse=True)[:2]
    cost = read(of_run(study, "top", "metrics.json"))["cost"]
    assert cost["members"] == best
    assert cost["parameters"] == sum(costs[run]["parameters"] for run in best)
    for subset in SUBSETS:
        mean = np.mean([predicted(study, run, subset)["probabilities"] for run in best], axis=0)
        np.testing.assert_allclose(
            predicted(study, "top", subset)["probabilities"], mean, rtol=1e-5
        )


def test_views_cost_eight_passes_and_no_training(study):
    one, eight = (
        read(of_run(study, run, "cost.json"))
        for run in ("regularized_cnn", "regularized_cnn+views")
    )
    assert eight["parameters"] == one["parameters"]
    assert eight["images_per_second"] == pytest.approx(one["images_per_second"] / 8)
    assert not (study.results / "regularized_cnn+views" / "model.keras").exists()


@pytest.mark.parametrize("run", [*ANSWERING, *CONTROLS])
def test_the_confusion_matrix_adds_up(study, run):
    table = pd.read_csv(of_run(study, run, "confusion_matrix.csv"))
    metrics = read(of_run(study, run, "metrics.json"))
    for subset, scores in metrics["subsets"].items():
        counts = table[table["subset"] == subset]
        assert len(counts) == 8 * 8
        assert counts["count"].sum() == scores["n"]
        right = counts.loc[counts["true"] == counts["predicted"], "count"].sum()
        assert right / scores["n"] == pytest.approx(scores["accuracy"]["value"])


# Tuning, and the package for the leaderboard.


def test_the_finalist_is_the_best_backbone_of_the_grid(study):
    finalists = read(study.results / "tuning" / "finalists.json")
    accuracies = {
        run: read(of_run(study, run, "metrics.json"))["subsets"]["test_augmented"]["accuracy"]
        for run in GRID[2:]
    }
    best = max(accuracies, key=lambda run: accuracies[run]["value"])
    assert finalists["finalists"] == ["mobilenetv3"]
    assert finalists["ranking"] == [
        {"backbone": "mobilenetv3", "run": best, "accuracy": accuracies[best]}
    ]


@pytest.mark.parametrize("run", TUNED)
def test_a_tuned_run_has_the_head_of_its_best_trial(study, run):
    found = read(study.results / "tuning" / f"{run}.json")
    trials = pd.read_csv(study.results / "tuning" / f"{run}_trials.csv", dtype={"dense": str})
    # max_epochs 2, factor 2: brackets of 2 and 1 trials, and of 2.
    assert len(trials) == found["trials"] == 5
    assert list(trials["trial"]) == list(range(1, 6))
    best = trials.iloc[found["trial"] - 1]
    assert best["val_accuracy"] == trials["val_accuracy"].max() == found["val_accuracy"]
    head = found["head"]
    assert ", ".join(map(str, head["dense"])) == ("" if best.isna()["dense"] else best["dense"])
    assert (head["weight_decay"] is None) == (run == "mobilenetv3_tuned")
    with zipfile.ZipFile(of_run(study, run, "model.keras")) as packed:
        config = json.loads(packed.read("config.json"))
    layers = next(
        layer["config"]["layers"]
        for layer in config["config"]["layers"]
        if layer["config"]["name"] == "head"
    )
    units = [layer["config"]["units"] for layer in layers if layer["class_name"] == "Dense"]
    assert units == [*head["dense"], len(CLASSES)]
    first = pd.read_csv(of_run(study, run, "history.csv")).iloc[0]
    assert first["learning_rate"] == head["learning_rate"]


def test_the_verdict_is_that_of_the_predictions(study):
    gain = pd.read_csv(study.results / "tables" / "tuning_gain.csv")
    assert set(gain["run"]) == set(TUNED)
    for row in gain.itertuples():
        right = []
        for run in (row.run, row.compared_with):
            predictions = predicted(study, run, row.subset)
            chosen = predictions["probabilities"].argmax(axis=1)
            right.append((chosen == predictions["labels"]).mean())
        assert row.gain_points == pytest.approx(100 * (right[0] - right[1]))
        low, high = row.gain_points_low, row.gain_points_high
        assert low <= row.gain_points <= high


def test_a_package_alone_is_as_good_as_its_run(study):
    score = read(of_run(study, "regularized_cnn", "codabench.json"))
    test = read(of_run(study, "regularized_cnn", "metrics.json"))["subsets"]["test"]
    assert score["n"] == test["n"]
    assert score["accuracy"] == test["accuracy"]
    with zipfile.ZipFile(of_run(study, "regularized_cnn", "submission.zip")) as packed:
        assert sorted(packed.namelist()) == ["model.keras", "model.py"]
    grid = pd.read_csv(study.results / "tables" / "grid.csv", index_col="run")
    local = grid.loc[grid["local_score_pct"].notna(), ["local_score_pct", "local_score_set"]]
    packaged = ("regularized_cnn", "top")
    assert local.to_dict("index") == {
        run: {
            "local_score_pct": pytest.approx(grid.loc[run, "test_accuracy_pct"]),
            "local_score_set": "test",
        }
        for run in packaged
    }
    assert grid["codabench_pct"].dropna().to_dict() == {"mobilenetv3_cfg1": 12.5}


def test_new_pictures_are_told_as_the_study_saw_them(study, tmp_path, environment):
    for number, image in enumerate(np.load(study.results / "dataset" / "test.npy")[:3]):
        Image.fromarray(image).save(tmp_path / f"{number}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    run = "regularized_cnn+views"
    command = ["-m", "hemagrid.cli.main", "predict", run, tmp_path, "--csv"]
    told = subprocess.run(
        [sys.executable, *command],
        cwd=study.folder,
        env=environment | {"PYTHONPATH": str(ROOT / "scripts")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    table = pd.read_csv(StringIO(told.stdout))
    assert [Path(name).name for name in table["file"]] == ["0.png", "1.png", "2.png"]
    expected = predicted(study, run, "test")["probabilities"][:3]
    np.testing.assert_allclose(table[CLASSES], expected, atol=1e-4)
    assert list(table["class"]) == [CLASSES[label] for label in expected.argmax(axis=1)]
    # No word of the framework's, and none of pictures that are like the study's.
    assert re.fullmatch(r".*notes\.txt: not a picture .*\n", told.stderr), told.stderr
    assert told.returncode == 1


# Tables and report.


def test_the_tables_hold_every_run(study):
    tables = study.results / "tables"
    grid = pd.read_csv(tables / "grid.csv", index_col="run")
    assert list(grid.index) == [*ANSWERING, *CONTROLS]
    for run in grid.index:
        subsets = read(of_run(study, run, "metrics.json"))["subsets"]
        for subset in SUBSETS:
            assert grid.loc[run, f"{subset}_accuracy_pct"] == pytest.approx(
                100 * subsets[subset]["accuracy"]["value"]
            )
    for run in ANSWERING:
        assert run in (tables / "grid.md").read_text()
        assert run.replace("_", r"\_") in (tables / "grid.tex").read_text()
        assert run in (tables / "headline.txt").read_text()
    best = pd.read_csv(tables / "best_heads.csv")
    assert list(best["model"]) == ["baseline_cnn", "regularized_cnn", "mobilenetv3"]
    heads = grid.loc[["mobilenetv3_cfg1", "mobilenetv3_cfg2"]]
    assert best["run"].iloc[2] == heads["test_augmented_accuracy_pct"].idxmax()
    heads = pd.read_csv(tables / "heads.csv", index_col="head", dtype=str)
    assert list(heads.index) == ["cfg1", "cfg2"]
    # The cells are drawn: no published numbers stand beside theirs.
    assert not [name for name in [*best, *heads] if name.startswith("published")]


def test_all_runs_but_the_winner_are_held_against_it(study):
    grid = pd.read_csv(study.results / "tables" / "grid.csv", index_col="run")
    winner = grid.loc[TRAINED, "test_augmented_accuracy_pct"].idxmax()
    table = pd.read_csv(study.results / "tables" / "winner.csv")
    assert set(table["compared_with"]) == {winner}
    for subset in ("test", "test_augmented"):
        rows = table[table["subset"] == subset].set_index("run")
        assert list(rows.index) == [run for run in ANSWERING if run != winner]
        accuracy = grid[f"{subset}_accuracy_pct"]
        difference = accuracy[winner] - accuracy[rows.index]
        np.testing.assert_allclose(rows["difference_points"], difference)


def test_every_run_predicted_the_corrupted_test_images(study):
    table = pd.read_csv(study.results / "tables" / "corruptions.csv")
    kinds = ["defocus_blur", "bubble"]
    rows = list(table[["run", "corruption", "severity"]].itertuples(index=False, name=None))
    assert rows == [(run, kind, 3) for run in TRAINED for kind in kinds]
    summary = pd.read_csv(study.results / "tables" / "corruption_summary.csv", index_col="run")
    assert list(summary.index) == TRAINED
    assert summary.loc["regularized_cnn", "mce_pct"] == pytest.approx(100)
    clean = pd.read_csv(study.results / "tables" / "grid.csv", index_col="run")
    accuracy = clean.loc[TRAINED, "test_accuracy_pct"]
    assert list(summary["test_accuracy_pct"]) == pytest.approx(list(accuracy))
    fall = summary["test_accuracy_pct"] - summary["mean_accuracy_pct"]
    assert list(fall) == pytest.approx(list(summary["mean_fall_points"]))


def test_the_record_names_the_command_and_what_the_results_rest_on(study):
    record = read(study.results / "provenance" / "study.json")
    assert record["command"].startswith("snakemake --snakefile ")
    assert record["command"].endswith("--cores 2")
    sums = pd.read_csv(study.results / "provenance" / "checksums.csv", index_col="file")
    assert list(sums.index) == [
        "resources/smears",
        *(f"results/dataset/{name}" for name in ("images.npy", "samples.csv", "splits.csv")),
        "resources/weights/mobilenetv3.weights.h5",
    ]
    for path, row in sums.iloc[1:].iterrows():
        content = (study.folder / path).read_bytes()
        assert row["bytes"] == len(content)
        assert row["sha256"] == hashlib.sha256(content).hexdigest()


def test_the_report_says_what_the_metrics_say(study):
    page = (study.results / "report.html").read_text()
    text = html.unescape(page)
    for run in [*TRAINED, *CONTROLS]:
        for scores in read(of_run(study, run, "metrics.json"))["subsets"].values():
            value, low, high = (
                f"{100 * scores['accuracy'][key]:.1f}" for key in ("value", "low", "high")
            )
            assert f"{value} ({low}–{high})" in text, run
    counts = read(study.results / "dataset" / "audit.json")["counts"]
    assert f"<strong>{counts['kept']} are kept</strong>" in page
    assert "<strong>Random weights.</strong> mobilenetv3 started" in page
    config = yaml.safe_load((study.results / "provenance/config.yaml").read_text())
    assert config["dataset"]["image_size"] == 32
    shown = yaml.safe_load(re.search(r'"config.yaml">(.*?)</pre>', text, re.S)[1])
    assert shown == config


def test_the_report_asks_for_nothing(study):
    page = (study.results / "report.html").read_text()
    policy = re.search(r'Security-Policy" content="([^"]*)"', page)[1]
    assert policy.startswith("default-src 'none';") and "unsafe-eval" not in policy
    # Vega's code holds addresses that it never asks for here.
    page = re.sub(r"<script.*?</script>", "", page, flags=re.S)
    loaded = re.findall(r"\b(?:src|href|action|poster|data)\s*=\s*\"([^\"]*)", page)
    assert loaded
    assert all(address.startswith(("data:image/", "#")) for address in loaded)
    styles = "".join(re.findall(r"<style>(.*?)</style>", page, re.S))
    assert "url(" not in styles and "@import" not in styles


def embedded(page, name):
    """Return the object that Snakemake's report assigns to a variable."""
    start = re.search(rf"var {name} = (?=\{{)", page).end()
    return json.JSONDecoder().raw_decode(page[start:])[0]


def test_the_report_tells_what_jobs_asked_for_and_used(study):
    table = pd.read_csv(study.results / "tables" / "resources.csv", keep_default_na=False)
    train = table[table["rule"] == "train"].set_index("job")
    assert set(train.index) == set(TRAINED)
    assert set(train["requested_mem_mb"].astype(float)) == {1500, 2000}
    assert (train["requested_minutes"].astype(float) > 0).all()
    assert (train["used_minutes"].astype(float) > 0).all()
    assert "what that job asked for" in (study.results / "report.html").read_text()


def test_snakemakes_own_report_holds_every_figure_and_table(study, snakemake):
    result = snakemake(study.folder, *study.arguments, "--report", "report.zip")
    archive = study.folder / "report.zip"
    assert result.returncode == 0, result.said
    with zipfile.ZipFile(archive) as packed:
        page = packed.read("report/report.html").decode()
        names = set(packed.namelist())
    archive.unlink()
    results = embedded(page, "results")
    assert results.keys() == {
        "results/report.html",
        *(f"results/tables/{table}.csv" for table in TABLES),
        "results/provenance/config.yaml",
        "results/provenance/versions.json",
        "results/provenance/study.json",
        "results/provenance/checksums.csv",
        "results/figures/accuracy.svg",
        "results/figures/cost.svg",
        "results/figures/corruptions.svg",
        "results/figures/abstention.svg",
        "results/figures/class_balance.svg",
        "results/figures/explanation.png",
        "results/figures/contact_sheet_train.png",
        "results/figures/contact_sheet_test_augmented.png",
        *(f"results/{run}/confusion_matrix.svg" for run in ANSWERING),
        *(f"results/{run}/learning_curves.svg" for run in TRAINED),
        *(f"results/{run}/reliability.svg" for run in ANSWERING),
        *(f"results/{run}/risk_coverage.svg" for run in ANSWERING),
        *(f"results/tuning/{run}_trials.svg" for run in TUNED),
        *(f"results/tables/{table}.csv" for table in TUNING_TABLES),
    }
    figures = {
        str(path.relative_to(study.folder))
        for path in study.files
        if path.suffix in (".svg", ".png")
    }
    assert figures <= results.keys()
    categories = embedded(page, "categories")
    categorised = [
        path
        for subcategories in categories.values()
        for paths in subcategories.values()
        for path in paths
    ]
    assert sorted(categorised) == sorted(results)
    assert "Other" not in categories
    for path, entry in results.items():
        assert len(re.sub(r"<.*?>|\s", "", entry["caption"])) > 20, path
        assert "{" not in entry["caption"], path
        assert entry["labels"], path
        assert f"report/{entry['data_uri']}" in names, path


@pytest.mark.parametrize("run", TRAINED)
def test_a_saved_model_carries_no_optimizer(study, run):
    with zipfile.ZipFile(of_run(study, run, "model.keras")) as packed:
        content = BytesIO(packed.read("model.weights.h5"))
    names = []
    with h5py.File(content) as weights:
        weights.visit(names.append)
    assert names
    assert not [name for name in names if "optimizer" in name]


# In a process of its own: TensorFlow would stay in this one.
PREDICT = """
import sys
import keras, numpy as np
run, dataset = sys.argv[1:]
model = keras.saving.load_model(run + "/model.keras")
expected = np.load(run + "/predictions/test.npz")["probabilities"]
found = model.predict_on_batch(np.load(dataset + "/test.npy"))
np.testing.assert_allclose(found, expected, atol=1e-4)
"""


def test_a_saved_model_takes_pixels_and_predicts_as_before(study, environment):
    run = study.results / "mobilenetv3_cfg2"
    result = subprocess.run(
        [sys.executable, "-c", PREDICT, run, study.results / "dataset"],
        env=environment | {"KERAS_HOME": str(study.folder / "resources" / "keras")},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
