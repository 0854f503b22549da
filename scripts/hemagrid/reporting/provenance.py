"""What a result was made with: config, versions, commit, command, machine, and its inputs."""

import hashlib
import os
import platform
import re
import shlex
import subprocess
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path

import pandas as pd
import yaml

from hemagrid import io

_HERE = Path(__file__)


def write_config(config, path):
    """Write the config, defaults included, as YAML."""
    io.write_text(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def write_versions(path):
    """Write Python, machine, Keras backend and every installed package with its version."""
    # What is left of a half-removed package has no name.
    named = [d for d in distributions() if d.metadata["Name"]]
    packages = {d.metadata["Name"].lower(): d.version for d in named}
    io.write_json(
        path,
        {
            "Python": platform.python_version(),
            "system": platform.platform(),
            "Keras backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
            **dict(sorted(packages.items())),
        },
    )


def write_study(path):
    """Write `commit`, `changed`, `command`, `host` and `written`, this time in UTC.

    `commit` and `changed` are as in `commit_of`, for the folder that holds the workflow;
    `command` is `snakemake_command`, `host` as in `host`.
    """
    commit, changed = commit_of(_HERE)
    io.write_json(
        path,
        {
            "commit": commit,
            "changed": changed,
            "command": snakemake_command(),
            "host": host(),
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def write_checksums(paths, out):
    """Write a CSV with one row per file: `file` (its path as given), `bytes`, `sha256`."""
    rows = []
    for path in paths:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        rows.append({"file": str(path), "bytes": Path(path).stat().st_size, "sha256": digest})
    io.write_table(out, pd.DataFrame(rows, columns=["file", "bytes", "sha256"]))


def commit_of(file):
    """Return the git commit that tracks `file`, and whether the tracked files differ from it.

    Both are None without git, and for a file that no repository tracks, such as a copy of
    the workflow inside somebody else's.
    """
    git = ("git", "-C", file.parent)
    if not _said(*git, "ls-files", file.name):
        return None, None
    # Names no tag: all of the hash, then "-dirty" where tracked files were changed.
    described = _said(*git, "describe", "--always", "--dirty", "--abbrev=64", "--exclude=*")
    if not described:
        return None, None
    commit, _, changed = described[0].partition("-")
    return commit, bool(changed)


def snakemake_command():
    """Return the command line of the outermost snakemake that this process runs in, or None.

    It is quoted for a shell, and starts with `snakemake` whichever way that was started.
    Found in /proc; None where there is none.
    """
    found = None
    for arguments in _ancestors():
        if (passed := _passed_to_snakemake(arguments)) is not None:
            found = shlex.join(["snakemake", *passed])
    return found


def host():
    """Describe this machine: {"cpu", "cores", "memory_mib", "gpus": [name, ...]}."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "gpus": _said("nvidia-smi", "--query-gpu=name", "--format=csv,noheader"),
    }


def _said(*command):
    """Return the lines that a program prints, none where it is missing or fails."""
    try:
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return ended.stdout.splitlines() if ended.returncode == 0 else []


def _ancestors():
    """Yield the arguments of this process's parent, its parent, and so on."""
    process = os.getppid()
    while process:
        folder = Path("/proc", str(process))
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")[:-1]
            status = (folder / "status").read_text(encoding="utf-8", errors="replace")
        except OSError:  # ended meanwhile, hidden from us, or a system without /proc
            return
        yield [os.fsdecode(argument) for argument in arguments]
        process = int(status.split("\nPPid:")[1].split()[0])


def _passed_to_snakemake(arguments):
    """Return what a process passes to snakemake; None for one that runs something else.

    It runs `snakemake`, or Python with options (`-m` is one) and then snakemake.
    """
    names = [Path(argument).name for argument in arguments]
    if "snakemake" not in names:
        return None
    at = names.index("snakemake")
    by_python = names[0].startswith("python") and all(
        argument.startswith("-") for argument in arguments[1:at]
    )
    return arguments[at + 1 :] if at == 0 or by_python else None


def _cpu_model():
    """Return the processor's name, or its architecture where the system names none."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    named = re.search(r"^model name\s*:\s*(.+)$", text, re.M)
    return named[1] if named else platform.machine()
