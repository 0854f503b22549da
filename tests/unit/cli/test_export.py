"""What `hemagrid export` writes and refuses."""

import keras
import numpy as np
import pytest
from made_study import make_study

from hemagrid import io, names
from hemagrid.config.loading import ROOT, load_config
from hemagrid.models import cnns
from hemagrid.reporting.provenance import write_config

RUN = "regularized_cnn"
CNN = {"filters": [4], "batch_norm": False, "dropout": 0, "dense": 8, "dense_dropout": 0}


@pytest.fixture
def study(tmp_path, draw):
    """A study that has a run, and the same with views."""
    folder = tmp_path / "study"
    make_study(folder, {RUN: 0.5, f"{RUN}+views": 0.9}, ["basophil", "ig"])
    keras.utils.set_random_seed(0)
    cnns.build_cnn(CNN, 32, 2).save(folder / names.MODEL.format(run=RUN))
    tiny = load_config([ROOT / "tests" / "workflow" / "tiny.yaml"])
    write_config(tiny, folder / names.CONFIG)
    return folder


def test_a_run_is_exported(hemagrid, study):
    done = hemagrid("export", RUN, "--format", "tflite", "--directory", study)
    test = np.load(study / names.SUBSET_IMAGES.format(subset=names.TEST))
    assert f"largest difference to Keras on {len(test)} test images" in done.out
    assert (study / names.EXPORTED.format(name=f"{RUN}.tflite")).stat().st_size


def test_a_study_is_exported(hemagrid, study, tmp_path):
    done = hemagrid("export", "--format", "csv", "--directory", study, "--out", "mine")
    assert done.out.startswith(f"Wrote 2 runs to {tmp_path / 'mine'}\nNot finished")
    assert len(io.read_table(tmp_path / "mine" / "epochs.csv")) == 3


@pytest.mark.parametrize(
    "words, found",
    [
        (["--format", "onnx"], "RUN: found nothing, expected the name of a run"),
        ([RUN, "--format", "mlflow"], "expected nothing, as mlflow has all runs"),
        ([f"{RUN}+views", "--format", "savedmodel"], f"export {RUN} instead"),
    ],
)
def test_a_wrong_run_is_refused(hemagrid, study, words, found):
    refused = hemagrid("export", *words, "--directory", study)
    assert refused.status == 1 and found in refused.error
    assert not (study / names.EXPORTED.format(name="")).exists()
