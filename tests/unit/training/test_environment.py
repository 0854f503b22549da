"""What a result was computed with is on record."""

import os
import platform
import socket
import subprocess
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest
import tensorflow

import hemagrid
from hemagrid.revisions import REVISIONS
from hemagrid.training import backend, environment


def test_every_fact_is_recorded(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    backend.begin(1)
    found = environment.environment("search", keras_tuner)
    commit, changed = environment.commit_of(Path(environment.__file__))
    assert found == {
        "commit": commit,
        "changed": changed,
        "release": hemagrid.__version__,
        "revision": REVISIONS["search"],
        "python": platform.python_version(),
        "packages": {
            "keras": keras.__version__,
            "tensorflow": tensorflow.__version__,
            "numpy": np.__version__,
            "keras_tuner": keras_tuner.__version__,
        },
        "backend": "tensorflow",
        "device": "cpu",
        "gpu": None,
        "cpu": environment.cpu_model(),
        "host": socket.gethostname(),
        "threads": 3,
        "precision": "float32",
    }


@pytest.fixture
def repository(tmp_path, require_program):
    """A git repository with one commit of one file; a function that runs git in it."""
    require_program("git", "git")
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "tracked.py").write_text("1")

    def git(*arguments):
        name = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=0"]
        command = ["git", *name, *arguments]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return run.stdout.strip()

    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    git("tag", "-m", "a name", "v1")
    git.folder = folder
    return git


def test_the_commit_of_the_workflow(repository):
    commit = repository("rev-parse", "HEAD")
    tracked = repository.folder / "tracked.py"
    assert environment.commit_of(tracked) == (commit, False)
    (repository.folder / "new.py").write_text("of no commit")
    assert environment.commit_of(tracked) == (commit, False)
    tracked.write_text("2")
    assert environment.commit_of(tracked) == (commit, True)
    repository("add", ".")
    assert environment.commit_of(tracked) == (commit, True)


def test_the_commit_of_a_clone_that_another_user_owns(repository, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    (repository.folder / "tracked.py").write_text("2")
    assert environment.commit_of(repository.folder / "tracked.py")[1] is True


def test_where_nothing_is_tracked_there_is_no_commit(repository, tmp_path, monkeypatch):
    (repository.folder / "new.py").write_text("of no commit")
    assert environment.commit_of(repository.folder / "new.py") == (None, None)
    (tmp_path / "elsewhere.py").write_text("")
    assert environment.commit_of(tmp_path / "elsewhere.py") == (None, None)
    monkeypatch.setenv("PATH", str(tmp_path))  # no git
    assert environment.commit_of(repository.folder / "tracked.py") == (None, None)


def test_the_machine(tmp_path, monkeypatch):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho NVIDIA H200\necho NVIDIA H200\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    machine = environment.host()
    assert machine["gpus"] == ["NVIDIA H200", "NVIDIA H200"]
    assert machine["cpu"].strip() and machine["cores"] == os.cpu_count()
    assert 100 < machine["memory_mib"] < 10**8
    # As it does without a driver.
    program.write_text("#!/bin/sh\necho NVIDIA-SMI has failed\nexit 9\n")
    assert environment.host()["gpus"] == []
    program.unlink()
    assert environment.host()["gpus"] == []
