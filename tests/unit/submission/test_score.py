import zipfile

import keras
import numpy as np
import pandas as pd
import pytest

from hemagrid.errors import InputError
from hemagrid.io import read_json
from hemagrid.submission import package
from hemagrid.submission.score import score
from hemagrid.training import embeddings

CLASSES = ["basophil", "ig", "platelet"]
SIZE = 16
SETTINGS = {"bootstrap": 200, "seed": 1, "set": "test"}
# Answers by the hue that `draw` gives a class, whatever the size of the pictures.
BY_HUE = "return X.astype(float).mean(axis=(1, 2)).argmax(axis=1)"


@pytest.fixture
def scored(tmp_path, run):
    """A function that scores a package, by default on the study's own images."""
    images = {"images": run.folder / "test.npy", "table": run.folder / "test.csv"}
    train = run.folder / "test.csv"

    def scored(package, inputs=images, **settings):
        out = {"score": tmp_path / "codabench.json"}
        inputs = {"submission": package, "train": train, **inputs}
        score("tiny", inputs, out, SETTINGS | settings)
        return read_json(out["score"])

    return scored


def written(path, predict, before=""):
    """Write a package whose class `Model` predicts by these lines."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "model.py",
            f"import os, sys\nimport numpy as np\n{before}\n"
            f"class Model:\n    def predict(self, X):\n        {predict}\n",
        )
    return path


def test_a_package_scores_what_the_run_predicts(run, scored):
    right = embeddings.predict(run.network, run.images).argmax(axis=1) == run.labels
    assert 0.1 < right.mean() < 0.9
    found = scored(run.package)
    assert found["accuracy"]["value"] == right.mean()
    assert found["accuracy"]["low"] < right.mean() < found["accuracy"]["high"]
    assert (found["run"], found["set"], found["n"]) == ("tiny", "test", 150)
    assert found["keras"] == keras.__version__ and found["seconds"] > 0


def test_the_process_sees_the_package_alone(tmp_path, scored, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(package.MODEL.parents[3]))
    alone = (
        "import importlib.util\n"
        "assert importlib.util.find_spec('hemagrid') is None\n"
        "assert set(os.listdir()) - {'__pycache__'} == {'model.py'}, os.listdir()"
    )
    found = scored(written(tmp_path / "a.zip", BY_HUE, alone))
    assert found["accuracy"]["value"] == 1


def test_rows_of_one_group_are_resampled_together(tmp_path, scored, run):
    package = written(tmp_path / "a.zip", "return np.arange(len(X)) // 2 % 3")

    def width(groups):
        table = pd.read_csv(run.folder / "test.csv")
        table["group"] = groups
        table["label"] = np.arange(150) // 2 % 3 * (np.arange(150) < 100)
        table.to_csv(tmp_path / "test.csv", index=False)
        inputs = {"images": run.folder / "test.npy", "table": tmp_path / "test.csv"}
        accuracy = scored(package, inputs)["accuracy"]
        return accuracy["high"] - accuracy["low"]

    assert width(np.arange(150) // 10) > 1.5 * width(np.arange(150))


def test_a_set_may_lack_classes_that_the_package_predicts(tmp_path, scored, run):
    pd.read_csv(run.folder / "test.csv").assign(label=1).to_csv(tmp_path / "lab.csv")
    inputs = {"images": run.folder / "test.npy", "table": tmp_path / "lab.csv"}
    found = scored(written(tmp_path / "a.zip", "return np.arange(len(X)) % 3"), inputs)
    assert found["accuracy"]["value"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("predict", "message"),
    [
        ("return np.zeros(len(X))", r"float64 \(150,\), expected integers \(150,\)"),
        ("return np.zeros((len(X), 3), int)", r"int64 \(150, 3\), expected integers"),
        ("return np.zeros(len(X) - 1, int)", r"int64 \(149,\), expected integers \(150,\)"),
        ("return np.arange(len(X)) % 4", "labels from 0 to 3, expected 0 to 2"),
        ("return np.arange(len(X)) % 3 - 1", "labels from -1 to 1, expected 0 to 2"),
        ("return np.array([None] * len(X))", "Python objects"),
        ("raise RuntimeError('no luck')", "with status 1(.|\n)*RuntimeError: no luck"),
        ("os.kill(os.getpid(), 9)", "by SIGKILL"),
        ("import hemagrid", "No module named 'hemagrid'"),
    ],
)
def test_a_package_that_fails_is_named_with_the_reason(tmp_path, scored, predict, message):
    with pytest.raises(InputError, match=message) as refusal:
        scored(written(tmp_path / "a.zip", predict))
    assert "a.zip" in str(refusal.value)
    assert not (tmp_path / "codabench.json").exists()


@pytest.mark.parametrize("name", ["../model.py", "/tmp/model.py", "a/model.py", "..", "a\\b"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path, scored, name):
    path = written(tmp_path / "a.zip", BY_HUE)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "")
    with pytest.raises(InputError, match="expected files without folders"):
        scored(path)


def test_a_damaged_package_is_refused(run, tmp_path, scored):
    whole = run.package.read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 255]) + whole[middle + 1 :]
    for content in (b"", whole[:middle], flipped):
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(InputError, match="a.zip: damaged, or not a zip"):
            scored(tmp_path / "a.zip")
