"""Jobs: threads, the GPU of a job, signals. Nothing here imports Keras by itself."""

import contextlib
import logging
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

from filelock import FileLock, Timeout

from hemagrid import names
from hemagrid.errors import InputError
from hemagrid.training.backend import device

logger = logging.getLogger(__name__)

POLL = 5  # seconds between two attempts to claim a GPU
LOCKS = Path("/tmp")  # of all jobs of a machine; TMPDIR may be a job's own, as in Grid Engine

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


def batch_job():
    """Return the job of SLURM, PBS, LSF or Grid Engine that this process belongs to.

    Returns:
        (its number, the command that cancels it), or (None, None).
    """
    cancels = {"SLURM_JOB_ID": "scancel", "PBS_JOBID": "qdel", "LSB_JOBID": "bkill"}
    if "SGE_TASK_ID" in os.environ:  # JOB_ID alone is a name that others use, too
        cancels["JOB_ID"] = "qdel"
    for variable, cancel in cancels.items():
        if number := os.environ.get(variable):
            return number, f"{cancel} {number}"
    return None, None


def claim_gpu():
    """Claim one GPU for this process, through CUDA_VISIBLE_DEVICES.

    Where a scheduler has assigned exactly one, this is it. Jobs of one user that run side by
    side, on a machine or in one allocation, get one each, and wait while all are taken.
    Nothing happens without GPUs. Where files cannot be locked, jobs may come to share a GPU,
    with a warning.
    """
    assigned, (job, _) = _assigned_gpus(), batch_job()
    gpus = _gpus_of_this_machine() if assigned is None else assigned
    if job and assigned and len(assigned) == 1:
        os.environ["CUDA_VISIBLE_DEVICES"] = assigned[0]
        return
    # By job, because schedulers may number the GPUs of each job from 0.
    scope = f"job-{job}" if job and assigned else "all"
    while gpus and not _claimed:
        for gpu in gpus:
            try:
                lock = FileLock(_own_folder() / f"gpu-{scope}-{gpu.replace('/', '-')}.lock")
                lock.acquire(blocking=False)
            except Timeout:
                continue
            except OSError as error:
                gpu = gpus[os.getpid() % len(gpus)]
                logger.warning(
                    f"{socket.gethostname()}: no GPU can be claimed, because no file can be "
                    f"locked: {error}. This job takes GPU {gpu}, which others may use as well; "
                    "set CUDA_VISIBLE_DEVICES to choose one"
                )
                lock = None
            _claimed.append(lock)  # released by the system when this process ends
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
            return
        time.sleep(POLL)


def _own_folder():
    """Return a folder for locks that nobody else can write to or has put there."""
    folder = LOCKS / f"hemagrid-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(
            f"{folder}: found what others can change, expected a folder of ours"
        )
    return folder


def _assigned_gpus():
    """List the GPUs that the user or a scheduler chose for this job; None if nobody did."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:  # SLURM, LSF, PBS Pro, or the user
        return [device for device in chosen.split(",") if device]
    for name, value in os.environ.items():
        if name.startswith("SGE_HGR_") and "gpu" in name.lower():  # Grid Engine: "gpu0 gpu2"
            return re.findall(r"\d+(?=\s|$)", value)
    if "PBS_GPUFILE" in os.environ:  # Torque: a line such as "node17-gpu0" for each
        with contextlib.suppress(OSError):
            return re.findall(
                r"-gpu(\d+)\s*$", Path(os.environ["PBS_GPUFILE"]).read_text(), re.M
            )
    return None


def _gpus_of_this_machine():
    """List the GPUs that the driver knows."""
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
