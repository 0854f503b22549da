"""Keras is settled before it is imported, and only those who need it import it."""

import ast
import functools
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import hemagrid
from hemagrid.errors import InputError
from hemagrid.training import backend, jobs, step_loop

LIBRARY = Path(hemagrid.__file__).parent
MODULES = sorted(path.stem for path in LIBRARY.glob("*.py"))
# What trains, is trained or explained. All other modules start without Keras.
NETWORKS = {"backbones", "cnns", "features", "gradcam", "heads", "optimizers"}
NETWORKS |= {"search", "training"}


def imports(module):
    """List (package, whether inside a function) of all imports of a module."""
    tree = ast.parse((LIBRARY / f"{module}.py").read_text())
    inner = {
        node
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module]
        else:
            continue
        found += [(name.split(".")[0], node in inner) for name in names]
    return found


@pytest.mark.parametrize("module", MODULES)
def test_tensorflow_is_imported_only_where_nothing_else_does(module):
    found = {inside for name, inside in imports(module) if name == "tensorflow"}
    # Inside functions: with another backend of Keras they are not reached.
    assert found <= ({True} if module in ("runtime", "augmentation") else set())


def python(code):
    """Run code in a Python of its own; return what it printed."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(LIBRARY.parent)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def test_all_other_modules_start_without_keras():
    light = [f"hemagrid.{module}" for module in MODULES if module not in NETWORKS]
    found = python(
        f"import sys, {', '.join(light)}\n"
        "print({'keras', 'tensorflow', 'keras_cv', 'snakemake'} & set(sys.modules))"
    )
    assert found == "set()\n"


def test_threads_are_bounded_and_keras_stays_in_the_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    # Set first, so that they are put back.
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    for name in names:
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("KERAS_HOME", "unset below")
    monkeypatch.delenv("KERAS_HOME")
    jobs.prepare(3)
    assert {os.environ[name] for name in names} == {"3"}
    assert os.environ["KERAS_HOME"] == str(tmp_path / "resources" / "keras")


def test_what_the_user_set_is_left(monkeypatch):
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, "7")
    monkeypatch.setenv("KERAS_HOME", "/scratch/keras")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    jobs.prepare(1)
    assert os.environ["KERAS_HOME"] == "/scratch/keras"
    assert os.environ["KERAS_BACKEND"] == "jax"


def test_begin_seeds_and_sets_the_precision():
    import keras

    draws = []
    for seed in (1, 1, 2):
        backend.begin(seed, "mixed_bfloat16")
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
        layer = keras.layers.Dense(2)
        layer.build((None, 3))
        draws.append((np.random.rand(), *layer.get_weights()[0].ravel()))
    backend.begin(1)
    assert keras.config.dtype_policy().name == "float32"
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(
    "devices, kind",
    [(["cpu:0"], "cpu"), (["CPU:0", "gpu:0", "gpu:1"], "gpu"), (["tpu:0"], "tpu")],
)
def test_device(monkeypatch, devices, kind):
    import keras

    monkeypatch.setattr(keras.distribution, "list_devices", lambda: devices)
    assert backend.device() == kind


@pytest.mark.parametrize("platform, unit", [("linux", 2**10), ("darwin", 1)])
def test_peak_memory_is_in_mib_whatever_the_system_counts_in(monkeypatch, platform, unit):
    usage = SimpleNamespace(ru_maxrss=1536 * 2**20 // unit)
    monkeypatch.setattr(runtime.resource, "getrusage", lambda who: usage)
    monkeypatch.setattr(runtime.sys, "platform", platform)
    assert jobs.peak_memory_mib() == 1536


# A GPU that was asked for


@pytest.mark.parametrize("asked", [{"gpu": 1}, {"gres": "gpu:1"}, {"gres": "gpu:a100:1"}])
def test_a_job_that_asked_for_a_gpu_stops_without_one(asked, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("SLURM_JOB_ID", "17")  # where SLURM has given it one
    with pytest.raises(InputError, match=r"asked for a GPU.*CUDA_VISIBLE_DEVICES is 3"):
        jobs.prepare(1, asked, require_gpu=True)
    jobs.prepare(1, asked, require_gpu=False)
    monkeypatch.setattr(runtime, "device", lambda: "gpu")
    jobs.prepare(1, asked, require_gpu=True)


@pytest.mark.parametrize("asked", [None, {}, {"gpu": 0, "mem_mb": 100}, {"gres": "disk:1"}])
def test_a_job_that_asked_for_none_runs_on_the_cpu(asked):
    jobs.prepare(1, asked, require_gpu=True)


CLAIM = "import os; from hemagrid import runtime; runtime.claim_gpu(); "
CLAIM += "print(os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True); input()"


@pytest.fixture
def claim(tmp_path):
    """A function that starts a process which takes a GPU of a machine with two."""
    listing = "GPU 0: One (UUID: a)\nGPU 1: Two (UUID: b)\n"
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\nprintf '{listing}'\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    started = []

    def start(**variables):
        environment = {key: os.environ[key] for key in os.environ if "CUDA" not in key}
        environment.pop("SLURM_JOB_ID", None)
        environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
        environment |= {"PYTHONPATH": str(LIBRARY.parent)} | variables
        process = subprocess.Popen(
            [sys.executable, "-c", CLAIM],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_jobs_side_by_side_get_a_gpu_each_and_a_third_waits(claim):
    first, second = claim(), claim()
    taken = {process.stdout.readline().strip(): process for process in (first, second)}
    assert taken.keys() == {"0", "1"}
    third = claim()
    with pytest.raises(subprocess.TimeoutExpired):
        third.wait(timeout=3)
    taken["1"].kill()
    assert third.stdout.readline().strip() == "1"


def test_only_gpus_that_the_user_left_visible_are_taken(claim):
    assert claim(CUDA_VISIBLE_DEVICES="1").stdout.readline().strip() == "1"
    assert claim(CUDA_VISIBLE_DEVICES="").stdout.readline().strip() == ""


def test_jobs_in_one_allocation_share_its_gpus_out(claim):
    job = {"SLURM_JOB_ID": "17", "CUDA_VISIBLE_DEVICES": "2,3"}
    taken = {claim(**job).stdout.readline().strip() for _ in range(2)}
    assert taken == {"2", "3"}
    # Those of another job are numbered alike where SLURM hides all others.
    another = job | {"SLURM_JOB_ID": "18"}
    assert claim(**another).stdout.readline().strip() == "2"


def test_a_gpu_that_slurm_has_given_is_not_claimed(claim, tmp_path):
    assert claim(SLURM_JOB_ID="17", CUDA_VISIBLE_DEVICES="1").stdout.readline().strip() == "1"
    assert not list(tmp_path.glob("*.lock"))


def test_of_two_that_listen_for_a_signal_both_are_told():
    with jobs.stop_signals() as outer:
        with jobs.stop_signals() as inner:
            assert outer() is inner() is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert outer() == inner() == "SIGTERM"
        with jobs.stop_signals() as later:
            assert later() is None
            assert outer() == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_gradient_is_that_of_the_sum_of_the_values():
    import keras

    inputs = np.array([[1.0, 2.0], [3.0, 4.0]], "float32")
    value, slopes = backend.gradient(lambda x: keras.ops.sum(x**2, axis=1), inputs)
    assert isinstance(value, np.ndarray) and isinstance(slopes, np.ndarray)
    np.testing.assert_allclose(value, [5, 25])
    np.testing.assert_allclose(slopes, 2 * inputs)


def test_a_backend_without_gradients_here_is_refused(monkeypatch):
    import keras

    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(InputError, match="found torch, expected tensorflow or jax"):
        backend.gradient(keras.ops.sum, np.ones(2))


@pytest.mark.parametrize("cause", ["backend", "size"])
def test_steps_without_a_loop_in_the_graph_are_the_same(cause, monkeypatch):
    import keras

    random = np.random.default_rng(0)
    inputs = random.normal(size=(5, 4, 3)).astype("float32")
    labels, weights = random.integers(0, 3, (5, 4)), np.ones((5, 4), "float32")
    found = []
    for looped in (True, False):
        keras.utils.set_random_seed(1)
        layers = [keras.Input((3,)), keras.layers.Dense(3, activation="softmax")]
        model = keras.Sequential(layers)
        accuracy = keras.metrics.SparseCategoricalAccuracy(name="accuracy")
        loss = keras.losses.SparseCategoricalCrossentropy()
        model.compile("adam", loss, metrics=[accuracy])
        if cause == "backend" and not looped:
            monkeypatch.setattr("keras.backend.backend", lambda: "jax")
        if cause == "size" and not looped:
            monkeypatch.setattr(runtime, "LOOPED_VARIABLES", 1)
        take_steps = step_loop.training_steps(model, 4, inputs[0])
        monkeypatch.undo()
        assert isinstance(take_steps, functools.partial) is not looped
        found.append((take_steps(inputs, labels, weights), *model.get_weights()))
    for in_the_graph, one_by_one in zip(*found, strict=True):
        np.testing.assert_allclose(in_the_graph, one_by_one, rtol=1e-6)
    assert found[0][0].shape == (5, 2)
