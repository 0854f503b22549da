"""The workflow as a user runs it, and one small study that several tests look at."""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import hypothesis
import pytest

# A slow machine is no failure.
hypothesis.settings.register_profile("any_machine", deadline=None)
hypothesis.settings.load_profile("any_machine")

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "workflow" / "tiny.yaml"
CLONED = ("config", "envs", "profiles", "scripts", "workflow")
PATIENCE = 600  # seconds that any one command may take


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Give each process of `pytest -n 2` whole groups of tests: nothing is set up twice.

    The tests of the cluster share one SLURM, those of the workflow and the browser one small
    study. Each file of the unit tests is a group.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Groups(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return file if "unit/" in file else "cluster" if "cluster/" in file else "study"

    return Groups(config, log)


@pytest.fixture(scope="session")
def require_program():
    """A function from a program and its Debian package to the program's path.

    Where it is missing the test is skipped with the reason, or fails where every test
    must run.
    """

    def find(program, package):
        if path := shutil.which(program):
            return path
        reason = f"{program} is not installed: apt install {package}"
        if os.environ.get("HEMAGRID_REQUIRE_ALL_TESTS") == "1":
            pytest.fail(reason)
        pytest.skip(reason)

    return find


@pytest.fixture(scope="session")
def require_package():
    """A function of Python packages without which a test is skipped, or fails in CI."""

    def check(*packages):
        missing = [name for name in packages if importlib.util.find_spec(name) is None]
        if missing:
            command = f"{sys.executable} -m pip install -r {ROOT / 'envs' / 'tests.txt'}"
            reason = f"{', '.join(missing)}: not installed; {command}"
            if os.environ.get("HEMAGRID_REQUIRE_ALL_TESTS") == "1":
                pytest.fail(reason)
            pytest.skip(reason)

    return check


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """The environment of a user who has nothing set, caches in a temporary folder."""
    unset = ("SNAKEMAKE_PROFILE", "KERAS_HOME", "KERAS_BACKEND")
    return {name: value for name, value in os.environ.items() if name not in unset} | {
        "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache"))
    }


@pytest.fixture(scope="session")
def start(environment):
    """A function that starts snakemake in a folder, as a group of processes of its own."""

    def start(folder, *arguments, **variables):
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *map(str, arguments)],
            cwd=folder,
            env=environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.fixture(scope="session")
def finish():
    """A function that waits for a started snakemake: returncode, stdout, stderr, said."""

    def finish(process):
        try:
            stdout, stderr = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate()
            pytest.fail(f"still running after {PATIENCE} s:\n{stderr[-4000:]}")
        return SimpleNamespace(
            returncode=process.returncode,
            stdout=stdout,
            stderr=stderr,
            said=stdout + stderr,
        )

    return finish


@pytest.fixture(scope="session")
def snakemake(start, finish):
    """A function that runs snakemake in a folder to its end."""
    return lambda *arguments, **variables: finish(start(*arguments, **variables))


def copy_of_the_workflow(folder):
    """Copy what the workflow needs of the repository, and nothing else, into `folder`."""
    for name in CLONED:
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, folder / name, ignore=ignored)
    return folder


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A bare clone that stays as it is, whatever is edited while tests run."""
    return copy_of_the_workflow(tmp_path_factory.mktemp("checkout"))


@pytest.fixture
def clone(tmp_path):
    """A bare clone for one test."""
    return copy_of_the_workflow(tmp_path / "clone")


@pytest.fixture(scope="session")
def in_folder(checkout):
    """A function from a folder and config files to arguments: a workflow, run there."""

    def arguments(folder, *configs, root=checkout):
        chosen = ["--configfile", *configs] if configs else []
        workflow = root / "workflow" / "Snakefile"
        return ["--snakefile", workflow, "--directory", folder, *chosen]

    return arguments


@pytest.fixture(scope="session")
def plan(snakemake):
    """A function that gives the files which snakemake would make: {path: rule}."""

    def plan(folder, *arguments, **variables):
        result = snakemake(folder, *arguments, "--summary", **variables)
        assert result.returncode == 0, result.said
        header, *lines = (line.split("\t") for line in result.stdout.splitlines())
        rows = [dict(zip(header, line, strict=True)) for line in lines]
        return {
            row["output_file"]: row["rule"] for row in rows if row["plan"] == "update pending"
        }

    return plan


def complete_files(folder):
    """Map every file below `folder` that has its final name to its time of change."""
    return {
        path: path.stat().st_mtime_ns
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


def temporary_files(folder):
    return {path for path in folder.rglob(".*") if path.name != ".snakemake_timestamp"}


def wait_for(condition, process):
    """Poll until `condition()` gives something; fail when the process ends before."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if found := condition():
            return found
        if process.poll() is not None:
            pytest.fail(f"snakemake ended early:\n{process.communicate()[1][-4000:]}")
        time.sleep(0.02)
    pytest.fail("what was waited for did not happen")


def writer_of(path):
    """Return the id of the process that has `path` open or mapped, or None."""
    for maps in Path("/proc").glob("[0-9]*/maps"):
        try:
            if str(path) in maps.read_text():
                return int(maps.parent.name)
        except OSError:  # ended meanwhile, or another user's
            continue
    return None


@pytest.fixture(scope="session")
def study(tmp_path_factory, start, finish, in_folder):
    """The study of tiny.yaml, run to its end in spite of a killed job and a Ctrl-C.

    Has `folder`, `arguments` for snakemake, and what the two accidents left behind.
    """
    folder = tmp_path_factory.mktemp("study")
    arguments = in_folder(folder, TINY)
    results = folder / "results"

    killed = start(folder, *arguments, "--cores", 2)
    half_written = wait_for(lambda: next(results.glob("dataset/.*.train.npy"), None), killed)
    os.kill(wait_for(lambda: writer_of(half_written), killed), signal.SIGKILL)
    after_kill = finish(killed)
    files_after_kill = complete_files(results)
    litter = temporary_files(results)

    # One run alone: another job that ends in this instant would be marked as incomplete.
    one_run = "results/baseline_cnn/metrics.json"
    interrupted = start(folder, one_run, *arguments, "--cores", 2)
    wait_for(
        lambda: any("epoch" in log.read_text() for log in folder.glob("logs/train/*")),
        interrupted,
    )
    os.killpg(interrupted.pid, signal.SIGINT)
    after_interrupt = finish(interrupted)
    files_after_interrupt = complete_files(results)

    finished = finish(start(folder, *arguments, "--cores", 2))
    assert finished.returncode == 0, finished.said[-8000:]
    return SimpleNamespace(
        folder=folder,
        results=results,
        arguments=arguments,
        after_kill=after_kill,
        files_after_kill=files_after_kill,
        litter=litter,
        after_interrupt=after_interrupt,
        files_after_interrupt=files_after_interrupt,
        files=complete_files(results),
        temporary=temporary_files(results),
    )
