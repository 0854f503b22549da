"""The pinned environments agree, and the set-up says in one line why it cannot work."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from ..conftest import CLONED

ENVS = Path(__file__).parents[2] / "envs"


def pins(lock):
    return dict(re.findall(r"^([a-z0-9._-]+)==([^\s\\]+)", lock, flags=re.MULTILINE))


def lock_of(name):
    return (ENVS / f"{name}.lock").read_text()


@pytest.mark.parametrize("name", ["cpu", "gpu", "light"])
def test_the_conda_file_equals_the_lock(name):
    conda = yaml.safe_load((ENVS / f"{name}.yaml").read_text())["dependencies"]
    packages = next(entry["pip"] for entry in conda if isinstance(entry, dict))
    assert dict(pin.split("==") for pin in packages) == pins(lock_of(name))


@pytest.mark.parametrize("name", ["cpu", "gpu", "light"])
def test_the_conda_file_is_made_from_the_lock(name):
    spec = importlib.util.spec_from_file_location("made", ENVS / "conda_from_lock.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.conda_file(name) == (ENVS / f"{name}.yaml").read_text()


def test_cpu_and_gpu_differ_in_tensorflow_alone():
    cpu, gpu = pins(lock_of("cpu")), pins(lock_of("gpu"))
    assert cpu.pop("tensorflow-cpu") == gpu.pop("tensorflow")
    cuda = {name for name in gpu if name.startswith("nvidia-")}
    assert "nvidia-cudnn-cu12" in cuda
    assert {name: pin for name, pin in gpu.items() if name not in cuda} == cpu


def wanted(name):
    """Return what `{name}.in`, with the files that it names, asks for."""
    text = (ENVS / f"{name}.in").read_text()
    below = [wanted(other) for other in re.findall(r"^-r (\w+)\.in", text, re.M)]
    return set(re.findall(r"^([a-z][a-z0-9._-]+)", text, re.M)).union(*below)


@pytest.mark.parametrize("name", ["cpu", "gpu", "light", "parsing", "dev"])
def test_the_lock_pins_every_requirement_with_a_hash(name):
    lock = lock_of(name)
    assert wanted(name) <= set(pins(lock))
    assert lock.count("==") <= lock.count("--hash=sha256:")
    assert "://" not in re.sub(r"#.*", "", lock)


def test_locks_agree_and_hold_what_their_users_need_alone():
    cpu, light, parsing = (pins(lock_of(name)) for name in ("cpu", "light", "parsing"))
    assert parsing.items() < light.items() < cpu.items()
    assert not [name for name in light if name.startswith(("keras", "tensorflow"))]
    dev = pins(lock_of("dev"))
    assert "pytest" in dev and not {"pytest", "ruff", "snakefmt"} & cpu.keys()
    assert {name: dev[name] for name in dev.keys() & cpu.keys()}.items() <= cpu.items()


def test_images_hold_what_the_workflow_needs():
    for name in ("Dockerfile", "apptainer.def"):
        copied = re.findall(
            r"^ *(?:COPY )?(\w+) /opt/hemagrid/\1$", (ENVS / name).read_text(), re.M
        )
        assert sorted(copied) == sorted(CLONED)


@pytest.fixture
def machine(tmp_path):
    """Run the check with a stand-in for python that answers as `script` says."""

    def check(script, **environment):
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(0o755)
        return subprocess.run(
            ["sh", ENVS / "check-machine.sh", python],
            env=os.environ | environment,
            capture_output=True,
            text=True,
        )

    return check


@pytest.mark.parametrize(
    ("script", "needs", "told"),
    [
        ('[ "$1" = --version ] && echo Python 3.9.2; exit 1', "1", "Python 3.9.2 is too old"),
        (
            '[ "$1" = --version ] && echo Python 3.14.0; case "$2" in *">="*) exit 1;; esac',
            "1",
            "Python 3.14.0 is too new, TensorFlow has no wheel for it",
        ),
        ('case "$2" in *venv*) exit 1;; esac', "1", "apt install python3-venv"),
        ("exit 0", "999999999", "999999999 MiB are needed"),
    ],
)
def test_one_line_says_why_the_set_up_cannot_work(machine, script, needs, told):
    result = machine(script, HEMAGRID_NEEDS_MIB=needs)
    assert result.returncode == 1
    assert told in result.stderr and result.stderr.count("\n") == 1


def test_no_python_is_said_in_one_line():
    result = subprocess.run(
        ["sh", ENVS / "check-machine.sh", "no-such-python"], capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "install Python 3.11" in result.stderr and result.stderr.count("\n") == 1


def test_a_fit_machine_passes(machine):
    assert machine("exit 0", HEMAGRID_NEEDS_MIB="1").returncode == 0


@pytest.fixture
def make(tmp_path, require_program):
    """A function that runs make beside two locks, with stand-ins for pip and python."""
    require_program("make", "make")
    (tmp_path / "envs").mkdir()
    for name in ("cpu", "gpu"):
        (tmp_path / "envs" / f"{name}.lock").write_text(f"{name}\n")
    shutil.copy(ENVS / "check-machine.sh", tmp_path / "envs")
    shutil.copy(ENVS.parent / "Makefile", tmp_path)
    python = tmp_path / "python"
    made = "mkdir -p .venv/bin; cp stub .venv/bin/pip; cp stub .venv/bin/python"
    python.write_text(f"#!/bin/sh\nif [ $1 = -m ]; then {made}; fi\n")
    (tmp_path / "stub").write_text("#!/bin/sh\n")
    for program in (python, tmp_path / "stub"):
        program.chmod(0o755)

    def run(*arguments):
        command = ["make", "PYTHON=./python", *arguments]
        environment = {"PATH": os.environ["PATH"], "HEMAGRID_NEEDS_MIB": "1"}
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        return done.returncode, done.stdout + done.stderr

    return run


def test_only_make_venv_takes_an_environment_away(make, tmp_path):
    assert "from envs/cpu.lock" in make("bench")[1]
    assert "Setting up" not in make("venv")[1]
    assert "from envs/gpu.lock" in make("venv", "LOCK=envs/gpu.lock")[1]
    # Which one it is stays so without being named again.
    assert "Setting up" not in make("venv")[1]
    (tmp_path / "envs" / "gpu.lock").write_text("newer\n")
    assert "Setting up" not in make("bench")[1]
    assert "from envs/gpu.lock" in make("venv")[1]


def test_an_environment_behind_a_link_is_left_alone(make, tmp_path):
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "precious").touch()
    (tmp_path / ".venv").symlink_to("shared")
    code, said = make("venv")
    assert code != 0 and ".venv is a link" in said
    assert (tmp_path / "shared" / "precious").exists()
