"""What must be settled before Keras is imported, and the few things only one backend has."""

import contextlib
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from filelock import FileLock, Timeout

from hemagrid.errors import InputError
from hemagrid.training.backend import device

_claimed = []


_listening = []  # what each `stop_signals` under way has received


def prepare(threads, resources=None, require_gpu=False):
    """Bound the threads of the numeric libraries and keep Keras's files in the working folder.

    Call it before the first import of Keras: TensorFlow reads these variables once.
    `KERAS_BACKEND` is left as the user set it. `KERAS_HOME`, where Keras keeps weights it
    fetched, becomes `resources/keras` unless set, so that a run writes nowhere else.

    A job that asked for a GPU (`resources`: "gpu", or "gres" as in SLURM) takes one of its
    own. It raises InputError if it sees none and `require_gpu`: hours of a GPU's queue must
    not go to a CPU unseen.
    """
    for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault("KERAS_HOME", str(Path("resources/keras").absolute()))
    if not _requested_gpu(resources or {}):
        return
    claim_gpu()
    if require_gpu and device() == "cpu":
        import keras

        raise InputError(
            f"{socket.gethostname()}: this job asked for a GPU, but Keras on "
            f"{keras.backend.backend()} finds none (CUDA_VISIBLE_DEVICES is "
            f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'not set')}); try nvidia-smi on that "
            "node, install the environment of envs/gpu.lock, keep the node out of the "
            "profile's jobs, or set require_gpu: false to compute on its CPU"
        )


def _requested_gpu(resources):
    return int(resources.get("gpu", 0)) > 0 or "gpu" in str(resources.get("gres", ""))


def claim_gpu():
    """Take one of the visible GPUs until this process ends, by CUDA_VISIBLE_DEVICES.

    Jobs that run side by side, on a machine or in one allocation of SLURM, get one each. A job
    waits while all are taken. Without GPUs nothing happens, nor where SLURM has given one.
    """
    gpus, job = _visible_gpus(), os.environ.get("SLURM_JOB_ID")
    if job and len(gpus) == 1:
        return
    while gpus and not _claimed:
        for gpu in gpus:
            # SLURM may number the GPUs of each of its jobs from 0.
            path = Path(tempfile.gettempdir(), f"hemagrid-gpu-{job or 'all'}-{gpu}.lock")
            lock = FileLock(path, mode=0o666)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                continue
            _claimed.append(lock)  # the system releases it when this process ends
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
            return
        time.sleep(5)


def _visible_gpus():
    """Return the GPUs that CUDA_VISIBLE_DEVICES names, or else all that the driver lists."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [device for device in chosen.split(",") if device]
    if not shutil.which("nvidia-smi"):
        return []
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
    return re.findall(r"^GPU (\d+):", listed.stdout, flags=re.MULTILINE)


@contextlib.contextmanager
def stop_signals():
    """Yield a function that says whether SIGTERM or SIGINT has come; they do nothing else."""
    received = []
    _listening.append(received)

    def note(number, frame):
        # Of two around one another both are told: neither may miss it.
        for each in _listening:
            each.append(signal.Signals(number).name)

    former = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: next(iter(received), None)
    finally:
        # By identity: two empty lists are equal.
        _listening[:] = [each for each in _listening if each is not received]
        for number, handler in former.items():
            signal.signal(number, handler)


def peak_memory_mib():
    """Return the largest resident memory of this process so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024**2 if sys.platform == "darwin" else 1024)
