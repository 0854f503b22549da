"""A run, from files to files: complete, repeatable, and resumable wherever it was stopped."""

import os
import signal
import zipfile
from io import BytesIO

import h5py
import keras
import numpy as np
import pytest

from hemagrid import io
from hemagrid.errors import InputError, Stopped
from hemagrid.models import backbones
from hemagrid.revisions import REVISIONS
from hemagrid.training import checkpoints
from hemagrid.training.embeddings import cache_features, predict
from hemagrid.training.run import train_run
from hemagrid.training.trainer import score

from .conftest import CNN, HEAD, TRAINING

APPLICATION, BOUNDARY = "MobileNet", "conv_pw_11_relu"
CNN_RUN = {"kind": "cnn", "model": CNN, "training": TRAINING, "seed": 42}
NO_EPOCHS = {"epochs": 0, "patience": 1, "learning_rate": 1e-4}
TRANSFER_RUN = {
    "kind": "transfer",
    "backbone": {"application": APPLICATION, "top": BOUNDARY, "batch_size": 16},
    "head": HEAD,
    "training": TRAINING
    | {
        "feature_extraction": {"epochs": 2, "patience": 2},
        "finetune_top": {"epochs": 1, "patience": 1, "learning_rate": 1e-4},
        "finetune_all": {"epochs": 1, "patience": 1, "learning_rate": 1e-5},
    },
    "seed": 42,
}


@pytest.fixture(scope="module")
def caches(data_set, tmp_path_factory):
    """The data set with the weights and caches of a backbone."""
    folder = tmp_path_factory.mktemp("caches")
    images = {subset: np.load(data_set[f"images_{subset}"]) for subset in ("train", "val")}
    backbone = backbones.random_backbone(APPLICATION, images["train"], seed=1)
    backbone.save_weights(folder / "backbone.weights.h5")
    trunk, top = backbones.cut_backbone(backbone, BOUNDARY)
    inputs = data_set | {"weights": folder / "backbone.weights.h5"}
    for subset, pixels in images.items():
        inputs[f"activations_{subset}"] = folder / f"activations_{subset}.npy"
        inputs[f"embeddings_{subset}"] = folder / f"embeddings_{subset}.npy"
        activations = predict(trunk, pixels)
        np.save(inputs[f"activations_{subset}"], activations)
        np.save(inputs[f"embeddings_{subset}"], predict(top, activations))
    return inputs


def paths(folder):
    names = ("model.keras", "history.csv", "cost.json")
    return {name.split(".")[0]: folder / name for name in names}


def train_afresh(run, settings, inputs, out):
    """Train whether or not the files are there already."""
    folder = out["model"].parent
    for path in out.values():
        path.unlink(missing_ok=True)
    train_run(run, settings, inputs, out, folder.with_name("checkpoints"))
    kept = folder.with_name("checkpoints")
    assert len(list(kept.glob(f"{run}/*/*"))) == len(out) + 1
    checkpoints.release([out["model"]], kept)
    assert not any(kept.iterdir())


def contents(model):
    """List the groups and arrays of a `.keras` file, and its config."""
    with zipfile.ZipFile(model) as archive:
        weights = BytesIO(archive.read("model.weights.h5"))
        names = [archive.read("config.json").decode()]
    with h5py.File(weights) as groups:
        groups.visit(names.append)
    return names


def check_run(out, phases, data_set):
    """Check the files of a run; return its history and what it predicts of `val`."""
    assert {path.name for path in out["model"].parent.iterdir()} == {
        path.name for path in out.values()
    }
    history = io.read_table(out["history"])
    assert list(history["phase"].unique()) == list(phases)
    for phase, rows in history.groupby("phase"):
        assert list(rows["epoch"]) == list(range(1, len(rows) + 1))
        assert (rows["learning_rate"] == phases[phase]).all()
        assert rows["best"].sum() <= 1

    cost = io.read_json(out["cost"])
    assert cost["environment"]["revision"] == REVISIONS["train"]
    assert cost["images_per_second"] > 0
    assert cost["peak_memory_mib"] > 100
    assert cost["seconds"] > sum(phase["seconds"] for phase in cost["phases"].values())
    assert cost["cpu_seconds"] > 0
    epochs = {phase: entry["epochs"] for phase, entry in cost["phases"].items()}
    assert epochs == history["phase"].value_counts(sort=False).to_dict()

    loaded = keras.models.load_model(out["model"], safe_mode=True)
    assert not any("optimizer" in name for name in contents(out["model"]))
    assert cost["parameters"] == loaded.count_params()
    return history, predict(loaded, io.open_images(data_set["images_val"]))


def weights(out):
    return keras.models.load_model(out["model"]).get_weights()


def equal(one, other):
    return all(map(np.array_equal, one, other))


def test_a_cnn_from_files_to_files(data_set, tmp_path):
    out = paths(tmp_path / "run")
    train_afresh("regularized_cnn", CNN_RUN, data_set, out)
    history, _ = check_run(out, {"training": 1e-3}, data_set)
    assert len(history) == 3
    first = weights(out)
    train_afresh("regularized_cnn", CNN_RUN, data_set, out)
    assert equal(first, weights(out))
    train_afresh("regularized_cnn", CNN_RUN | {"seed": 43}, data_set, out)
    assert not equal(first, weights(out))


def test_a_transfer_run_from_files_to_files(caches, tmp_path, eager):
    rates = {"feature_extraction": 1e-3, "finetune_top": 1e-4, "finetune_all": 1e-5}
    out = paths(tmp_path / "run")
    train_afresh("mobilenetv3_cfg2", TRANSFER_RUN, caches, out)
    history, found = check_run(out, rates, caches)
    assert list(history["phase"].value_counts(sort=False)) == [2, 1, 1]
    best = history[history["best"]]
    assert best["val_loss"].is_monotonic_decreasing
    kept = score(found, io.read_table(caches["table_val"])["label"].to_numpy())
    assert kept == pytest.approx(tuple(best.iloc[-1][["val_loss", "val_accuracy"]]))


OWN = """
import keras

def build(image_size):
    pixels = keras.Input((image_size, image_size, 3))
    x = keras.layers.Resizing(24, 24)(pixels)
    x = keras.layers.Conv2D(4, 3, name="first")(x)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.Dropout(0.5)(x)
    return keras.Model(pixels, keras.layers.Conv2D(5, 3)(x))
"""


@pytest.mark.parametrize("top", [None, "first"])
def test_a_run_on_a_network_of_the_users_own(data_set, tmp_path, eager, top):
    (tmp_path / "own.py").write_text(OWN)
    own = {"application": None, "top": top}
    inputs = data_set | {"weights": tmp_path / "mine.weights.h5"}
    write = {"module": tmp_path / "own.py", "function": "build", "top": top}
    start = {"application": None, "weights": "own"}
    backbones.write_weights(inputs["weights"], start, 32, 1, **write)
    (tmp_path / "own.py").unlink()  # needed no longer
    caches = {
        f"{kind}_{name}": tmp_path / f"{kind}_{name}.npy"
        for kind in ("activations", "embeddings")
        for name in ("train", "val")
    }
    made = caches | {"cost": tmp_path / "cost.json"}
    images = {name: data_set[f"images_{name}"] for name in ("train", "val")}
    embedded = images | {"weights": inputs["weights"]}
    cache_features("mine", own, "float32", embedded, made, tmp_path / "checkpoints")
    settings = TRANSFER_RUN | {"backbone": own | {"batch_size": 16}}
    out = paths(tmp_path / "run")
    train_run("mine_cfg1", settings, inputs | caches, out, tmp_path / "checkpoints")
    rates = {"feature_extraction": 1e-3, "finetune_top": 1e-4, "finetune_all": 1e-5}
    if top is None:
        del rates["finetune_top"]
    check_run(out, rates, data_set)


def test_a_tuned_run_is_the_run_of_the_head_that_was_found(caches, tmp_path, eager):
    found = tmp_path / "found.json"
    head = HEAD | {"dense": [8, 4], "dropout": [0.1, 0.2], "weight_decay": 0.01}
    io.write_json(found, {"run": "mobilenetv3_tuned", "head": head, "trial": 3})
    training = TRANSFER_RUN["training"] | dict.fromkeys(
        ("finetune_top", "finetune_all"), NO_EPOCHS
    )
    settings = TRANSFER_RUN | {"training": training}
    del settings["head"]
    tuned, fixed = (paths(tmp_path / name) for name in ("tuned", "fixed"))
    train_afresh("mobilenetv3_tuned", settings, caches | {"head": found}, tuned)
    train_afresh("mobilenetv3_cfg2", settings | {"head": head}, caches, fixed)
    assert equal(weights(tuned), weights(fixed))
    # The head alone makes the key, whatever else its search recorded.
    keys = [io.read_json(out["cost"])["key"] for out in (tuned, fixed)]
    assert keys[0] == keys[1] == checkpoints.key_of("train", settings | {"head": head}, caches)
    # A phase of no epochs is left out.
    assert set(io.read_table(tuned["history"])["phase"]) == {"feature_extraction"}
    assert set(io.read_json(tuned["cost"])["phases"]) == {"feature_extraction"}


def test_a_cache_of_another_data_set_is_refused(caches, tmp_path, eager):
    stale = tmp_path / "stale.npy"
    np.save(stale, np.load(caches["embeddings_train"])[:-1])
    inputs, out = caches | {"embeddings_train": stale}, paths(tmp_path / "run")
    with pytest.raises(InputError, match="29 inputs but 30 labels"):
        train_run("run", TRANSFER_RUN, inputs, out, tmp_path / "checkpoints")
    assert not (tmp_path / "run").exists()


def test_a_run_that_another_process_has_finished_is_left_alone(
    data_set, tmp_path, logged, eager
):
    out = paths(tmp_path / "run")
    train_afresh("regularized_cnn", CNN_RUN, data_set, out)
    written = {path: path.stat().st_mtime_ns for path in out.values()}
    train_run("regularized_cnn", CNN_RUN, data_set, out, tmp_path / "checkpoints")
    assert "another process has finished this meanwhile" in logged()
    assert {path: path.stat().st_mtime_ns for path in out.values()} == written

    changed = CNN_RUN | {"seed": 43}
    train_run("regularized_cnn", changed, data_set, out, tmp_path / "checkpoints")
    assert all(path.stat().st_mtime_ns > written[path] for path in out.values())


@pytest.fixture
def stopped_run(data_set, tmp_path, monkeypatch, eager):
    """The paths of a CNN's run that was stopped after its second epoch."""
    out = paths(tmp_path / "run")
    report = checkpoints.Checkpoint.report

    def stop(self, facts):
        report(self, facts)
        if facts["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(checkpoints.Checkpoint, "report", stop)
    with pytest.raises(Stopped, match="by SIGTERM in epoch 3 of training after step 0"):
        train_run("regularized_cnn", CNN_RUN, data_set, out, tmp_path / "checkpoints")
    monkeypatch.undo()
    assert not out["model"].exists()
    return out


def test_a_checkpoint_of_other_settings_is_not_used(stopped_run, data_set, tmp_path, logged):
    # Left by a killed writer; this process is the only one now.
    litter = stopped_run["model"].with_name(".01234567.model.keras")
    litter.parent.mkdir(exist_ok=True)
    litter.write_bytes(b"half")
    changed = CNN_RUN | {"model": CNN | {"dropout": 0.2}}
    train_run("regularized_cnn", changed, data_set, stopped_run, tmp_path / "checkpoints")
    assert "was made with other settings, data or code; it is not used" in logged()
    assert "continues" not in logged()
    assert not litter.exists() and not list(tmp_path.glob("checkpoints/*/*.npz"))


def test_a_damaged_checkpoint_starts_the_run_again(stopped_run, data_set, tmp_path, logged):
    (saved,) = (tmp_path / "checkpoints" / "regularized_cnn").glob("*.npz")
    saved.write_bytes(saved.read_bytes()[:-100])
    train_run("regularized_cnn", CNN_RUN, data_set, stopped_run, tmp_path / "checkpoints")
    assert "set aside as" in logged()
    assert list(io.read_table(stopped_run["history"])["epoch"]) == [1, 2, 3]


@pytest.fixture
def saved(monkeypatch):
    """The (epoch, steps of it) of the checkpoints that are written, in order."""
    places = []
    save = checkpoints.Checkpoint.save

    def note(self, facts, arrays):
        places.append((facts["position"]["epoch"], len(facts["position"]["steps"])))
        save(self, facts, arrays)

    monkeypatch.setattr(checkpoints.Checkpoint, "save", note)
    return places


def test_a_long_epoch_is_saved_in_its_middle(data_set, tmp_path, monkeypatch, saved, eager):
    monkeypatch.setattr("hemagrid.training.trainer.CALL_SECONDS", 0)
    monkeypatch.setattr("hemagrid.training.trainer.SAVE_EVERY", 0)
    monkeypatch.setattr("hemagrid.training.trainer.SAVE_SHARE", float("inf"))
    train_afresh("regularized_cnn", CNN_RUN, data_set, paths(tmp_path / "run"))
    assert saved[:5] == [(1, 1), (1, 2), (1, 3), (2, 0), (2, 1)]


@pytest.mark.parametrize(
    ("disk", "expected"), [(float("inf"), [(2, 0), (3, 0), (4, 0)]), (1.0, [])]
)
def test_a_checkpoint_waits_until_it_costs_a_tenth_of_the_time(
    data_set, tmp_path, monkeypatch, saved, disk, expected, eager
):
    monkeypatch.setattr("hemagrid.training.trainer.DISK", disk)
    now = iter(range(10**6))
    # By this clock everything takes whole seconds, and a checkpoint one of them.
    monkeypatch.setattr("hemagrid.training.trainer.SAVE_SHARE", 0.2)
    monkeypatch.setattr("time.perf_counter", lambda: float(next(now)))
    train_afresh("regularized_cnn", CNN_RUN, data_set, paths(tmp_path / "run"))
    assert saved == expected
