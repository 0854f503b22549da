"""The memory of a job does not grow with its data set."""

import sys

import numpy as np
import pytest

from .conftest import ROOT
from .test_cluster import submit, wait_for_state

ROWS, FEATURES = 8000, 65_536  # 2.1 GB as float32
LIMIT = 1200  # MB; TensorFlow alone takes 500
TRAIN = """
import sys
import logging
from hemagrid.training import jobs
logging.basicConfig(level=logging.INFO, format="%(message)s")
jobs.prepare(threads=1)
import keras
import numpy as np
from hemagrid.training import backend
from hemagrid.training.trainer import Examples, Phase, Trainer
backend.begin(0)
inputs = np.load(sys.argv[1], mmap_mode="r")
examples = Examples(inputs, np.arange(len(inputs)) % 3)
output = keras.layers.Dense(3, activation="softmax")
model = keras.Sequential([keras.Input(inputs.shape[1:]), output])
settings = {"optimizer": "sgd", "monitor": "val_loss", "class_weights": True}
trainer = Trainer("run", settings, classes=3, seed=0)
trainer.fit(Phase("training", model, examples, examples, 32, 2, 2, 0.01))
"""
# The same set, read through a map and no further thought, again and again: under memory
# pressure the kernel takes the pages back, and SLURM looks only every few seconds.
READ = """
import sys
import numpy as np
inputs = np.load(sys.argv[1], mmap_mode="r")
while True:
    inputs.max()
"""


@pytest.fixture
def data_set(tmp_path):
    path = tmp_path / "inputs.npy"
    shape = (ROWS, FEATURES)
    np.lib.format.open_memmap(path, mode="w+", dtype="float32", shape=shape).flush()
    assert path.stat().st_size > 1.5e6 * LIMIT
    return path


@pytest.mark.parametrize(("program", "state"), [(TRAIN, "COMPLETED"), (READ, "FAILED")])
def test_a_set_larger_than_the_limit_trains(cluster, data_set, tmp_path, program, state):
    script, said = tmp_path / "program.py", tmp_path / "said"
    script.write_text(program)
    command = f"PYTHONPATH={ROOT}/scripts {sys.executable} {script} {data_set} >{said} 2>&1"
    job = submit(cluster, command, f"--mem={LIMIT}", f"--chdir={tmp_path}")
    wait_for_state(cluster, job, state)
    if state == "COMPLETED":
        assert "epoch  2/2" in said.read_text()
