"""What a result was computed with: code, versions, machine, device, threads, precision."""

import importlib
import os
import platform
import re
import socket
import subprocess
from pathlib import Path

import hemagrid
from hemagrid.revisions import REVISIONS


def environment(stage, *packages):
    """Describe what this process computes with. Call it after `backend.begin`.

    Args:
        stage: A stage of `revisions.REVISIONS`.
        packages: Modules whose version matters, besides Keras, its backend and NumPy.

    Returns:
        A mapping for JSON: `commit` and `changed` (as in `commit_of`), `release`, `revision`
        (of the stage), `python`, `packages` ({name: version}), `backend`, `device` ("cpu",
        "gpu" or "tpu"), `gpu` (its name, or None), `cpu`, `host`, `threads`, and `precision`
        (what is computed, as in `backend.precision`).
    """
    import keras

    from hemagrid.training import backend

    commit, changed = commit_of(Path(__file__))
    gpu = backend.gpu()
    return {
        "commit": commit,
        "changed": changed,
        "release": hemagrid.__version__,
        "revision": REVISIONS[stage],
        "python": platform.python_version(),
        "packages": versions(*packages),
        "backend": keras.backend.backend(),
        "device": backend.device(),
        "gpu": gpu and gpu[0],
        "cpu": cpu_model(),
        "host": socket.gethostname(),
        "threads": int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count()),
        "precision": backend.precision(),
    }


def versions(*packages):
    """Return {name: version} of Keras, its backend, NumPy and other modules."""
    import keras
    import numpy

    backend = importlib.import_module(keras.backend.backend())
    return {each.__name__: each.__version__ for each in (keras, backend, numpy, *packages)}


def commit_of(file):
    """Return the git commit that tracks a file, and whether tracked files differ from it.

    Both are None without git, and for a file that no repository tracks, such as a copy of
    the workflow inside somebody else's.
    """
    root = next((folder for folder in file.parents if (folder / ".git").exists()), None)
    if not root:
        return None, None
    # Where git has to look for it, it refuses a clone that another user owns.
    git = ("git", "-C", str(file.parent), f"--git-dir={root}/.git", f"--work-tree={root}")
    if not _said(*git, "ls-files", file.name):
        return None, None
    # Names no tag: the whole hash, then "-dirty" if tracked files were changed.
    described = _said(*git, "describe", "--always", "--dirty", "--abbrev=64", "--exclude=*")
    if not described:
        return None, None
    commit, _, changed = described[0].partition("-")
    return commit, bool(changed)


def host():
    """Describe this machine: {"cpu", "cores", "memory_mib", "gpus": [name, ...]}."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "gpus": _said("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
    }


def cpu_model():
    """Return the processor's name, or its architecture if the system has no name for it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return named[1] if named else platform.machine()


def _said(*command):
    """Return the lines that a program prints, none if it is missing or fails."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return ended.stdout.splitlines() if ended.returncode == 0 else []
