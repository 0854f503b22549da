"""Jobs: threads, the GPU of a job, signals. Nothing here imports Keras by itself."""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

from hemagrid import names
from hemagrid.errors import InputError
from hemagrid.training.backend import device

POLL = 5  # seconds between two attempts to claim a GPU

_claimed = []  # the lock of this process's GPU
_listening = []  # what each active `stop_signals` has received


def prepare(threads, resources=None, require_gpu=False):
    """Bound the threads of the numeric libraries, keep Keras's files here, and claim a GPU.

    Call it before Keras is first imported, because TensorFlow reads these variables once.
    `KERAS_BACKEND` is left as it is. `KERAS_HOME`, where Keras keeps the weights it fetched,
    becomes the study's `resources/keras` unless it is set, so that a job writes nowhere else.

    Args:
        threads: Number of threads.
        resources: The job's resources. "gpu", or "gres" as in SLURM, makes it claim a GPU;
            "study" is the folder of the study, which is otherwise the working directory.
        require_gpu: Whether a job that asked for a GPU must not run on a CPU instead.

    Raises:
        InputError: if the job asked for a GPU, requires one, and Keras finds none.
    """
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    resources = resources or {}
    home = Path(resources.get("study", ""), names.KERAS_HOME)
    os.environ.setdefault("KERAS_HOME", str(home.absolute()))
    if int(resources.get("gpu", 0)) == 0 and "gpu" not in str(resources.get("gres", "")):
        return
    claim_gpu()
    if require_gpu and device() == "cpu":
        import keras

        raise InputError(
            f"{socket.gethostname()}: this job asked for a GPU, but Keras on "
            f"{keras.backend.backend()} finds none (CUDA_VISIBLE_DEVICES is "
            f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}); try nvidia-smi on that "
            "node, install the environment of envs/gpu.lock, exclude the node in the "
            "profile, or set require_gpu: false to compute on its CPU"
        )


def claim_gpu():
    """Claim one of the visible GPUs for this process, through CUDA_VISIBLE_DEVICES.

    Jobs that run side by side, on a machine or in one SLURM allocation, get one each, and wait
    while all are taken. Nothing happens without GPUs, or if SLURM has assigned exactly one.
    """
    gpus, job = _visible_gpus(), os.environ.get("SLURM_JOB_ID")
    if job and len(gpus) == 1:
        return
    while gpus and not _claimed:
        for gpu in gpus:
            # By job, because SLURM may number the GPUs of each job from 0.
            path = Path(tempfile.gettempdir(), f"hemagrid-gpu-{job or 'all'}-{gpu}.lock")
            lock = FileLock(path, mode=0o666)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            _claimed.append(lock)  # released by the system when this process ends
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
            return
        time.sleep(POLL)


def _visible_gpus():
    """List the GPUs in CUDA_VISIBLE_DEVICES, or all that the driver knows if it is not set."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [device for device in chosen.split(",") if device]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return re.findall(r"^GPU (\d+):", listed.stdout, flags=re.MULTILINE)


@contextlib.contextmanager
def stop_signals():
    """Catch SIGTERM and SIGINT.

    Yields:
        A function that returns the name of the first signal that came, or None.
    """
    received = []
    _listening.append(received)

    def note(number, frame):
        # Where two are nested, both must hear of it.
        for each in _listening:
            each.append(signal.Signals(number).name)

    former = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: next(iter(received), None)
    finally:
        # By identity, because two empty lists are equal.
        _listening[:] = [each for each in _listening if each is not received]
        for number, handler in former.items():
            signal.signal(number, handler)
