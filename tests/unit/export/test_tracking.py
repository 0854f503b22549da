"""What experiment trackers get of a study."""

import pandas as pd
import pytest
import yaml
from made_study import make_study

from hemagrid.config.loading import ROOT, load_config
from hemagrid.export.tracking import finished_runs, write_store, write_tables

RUNS = {"baseline_cnn": 0.6, "mobilenetv3_cfg1": 0.9, "regularized_cnn+views": 0.8}
RUNS |= {"random_labels": 0}


@pytest.fixture(scope="module")
def config():
    return load_config([ROOT / "tests" / "workflow" / "tiny.yaml"])


@pytest.fixture
def finished(config, tmp_path, monkeypatch):
    make_study(tmp_path, RUNS, ["basophil", "ig"])
    monkeypatch.chdir(tmp_path)
    records, missing = finished_runs(config)
    assert missing == ["regularized_cnn", "mobilenetv3_cfg2"]
    return {record.name: record for record in records}


def test_a_run_comes_with_settings_scores_and_epochs(finished):
    assert list(finished) == list(RUNS)
    run = finished["mobilenetv3_cfg1"]
    assert run.settings["kind"] == "transfer"
    assert run.settings["head.dropout"] == [0.3]
    assert run.settings["environment.device"] == "gpu"
    scores = run.scores
    assert (
        scores["test_accuracy_low"] <= scores["test_accuracy"] <= scores["test_accuracy_high"]
    )
    assert list(run.epochs["step"]) == list(range(1, 10))
    assert not len(finished["random_labels"].epochs)


def test_the_tables_have_every_run_and_epoch(finished, tmp_path):
    write_tables(finished.values(), tmp_path / "csv")
    runs = pd.read_csv(tmp_path / "csv" / "runs.csv")
    assert list(runs["run"]) == list(RUNS)
    epochs = pd.read_csv(tmp_path / "csv" / "epochs.csv")
    assert dict(epochs.groupby("run")["step"].max()) == {
        "baseline_cnn": 3,
        "mobilenetv3_cfg1": 9,
    }


def test_the_store_is_written_again_and_leaves_other_experiments_alone(finished, tmp_path):
    store = tmp_path / "mlruns"
    (store / "1").mkdir(parents=True)
    for _ in range(2):
        write_store(finished.values(), "cells", store)
    (experiment,) = {path.name for path in store.iterdir()} - {"1"}
    runs = {}
    for path in (store / experiment).glob("*/meta.yaml"):
        meta = yaml.safe_load(path.read_text())
        assert meta["run_id"] == path.parent.name and meta["experiment_id"] == experiment
        runs[meta["run_name"]] = path.parent
    assert runs.keys() == RUNS.keys()
    run = runs["mobilenetv3_cfg1"]
    history = finished["mobilenetv3_cfg1"].epochs
    lines = [line.split() for line in (run / "metrics/epoch_loss").read_text().splitlines()]
    assert [int(step) for _, _, step in lines] == list(history["step"])
    assert [float(loss) for _, loss, _ in lines] == list(history["loss"])
    times = [int(time) for time, _, _ in lines]
    assert times == sorted(times)
    phases = "feature_extraction 1-3, finetune_top 4-6, finetune_all 7-9"
    assert (run / "tags" / "phases").read_text() == phases
    results = tmp_path / "results" / "mobilenetv3_cfg1"
    for path in results.rglob("*.*"):
        assert (run / "artifacts" / path.relative_to(results)).samefile(path)


def test_mlflow_reads_the_store(finished, tmp_path, monkeypatch, require_package):
    require_package("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    import mlflow

    write_store(finished.values(), "cells", tmp_path / "mlruns")
    client = mlflow.MlflowClient((tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("cells")
    for run in client.search_runs([experiment.experiment_id]):
        record = finished[run.info.run_name]
        assert run.info.status == "FINISHED"
        assert run.data.params == {key: str(of) for key, of in record.settings.items()}
        assert record.scores.items() <= run.data.metrics.items()
        if len(record.epochs):
            losses = client.get_metric_history(run.info.run_id, "epoch_val_loss")
            assert [each.value for each in losses] == list(record.epochs["val_loss"])
        listed = {each.path for each in client.list_artifacts(run.info.run_id)}
        assert listed == {path.name for path in record.folder.iterdir()}
