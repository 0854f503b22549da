"""Where the cluster's tests run: on a cluster of their own, or on the one of a profile.

`HEMAGRID_PROFILE` names the profile of a real cluster. Then the study runs there, and what
only a cluster of one's own allows is skipped. Its nodes must see pytest's folders, so choose
a shared one: `--basetemp`.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from yte import process_yaml

from .cluster import PATIENCE, PROGRAMS, Cluster, Slurm, rule

ROOT = Path(__file__).parents[2]
# Whether to run what waits for minutes: make faults.
SLOW = os.environ.get("HEMAGRID_SLOW_FAULTS") == "1"
slow = pytest.mark.skipif(not SLOW, reason="takes minutes of waiting for SLURM: make faults")
ONE_RUN = ROOT / "tests" / "workflow" / "one_run.yaml"
RUN = "regularized_cnn"
TRAINED = f"results/{RUN}/model.keras"
AUGMENTED = "results/dataset/test_augmented.npy"
PROFILE = ROOT / "profiles" / "slurm"
# A cluster of one's own can be asked often, and its nodes are this machine's few cores.
QUICK = ("--jobs", 3, "--slurm-init-seconds-before-status-checks", 5)


@pytest.fixture(scope="session")
def own_cluster(require_program, tmp_path_factory):
    """A function that starts a cluster of one's own, to be used by `with`."""

    def own(kind, programs):
        if os.environ.get("HEMAGRID_PROFILE"):
            pytest.skip("only on a cluster of one's own: unset HEMAGRID_PROFILE")
        for program, package in programs.items():
            require_program(program, package)
        if os.geteuid() != 0:
            pytest.skip("a cluster of one's own needs root")
        return kind(tmp_path_factory.mktemp("cluster"))

    return own


@pytest.fixture(scope="session")
def cluster(own_cluster):
    """A cluster with a CPU node and a GPU node, for all tests of the session."""
    with own_cluster(Cluster, PROGRAMS) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def site(request):
    """The cluster to submit to, as `slurm`, and whether it is our `own`; its `profile` (a
    folder), `settings`, `options`.
    """
    chosen = os.environ.get("HEMAGRID_PROFILE")
    own = not chosen
    profile = Path(chosen or ROOT / "profiles" / "slurm").absolute()
    return SimpleNamespace(
        own=own,
        slurm=request.getfixturevalue("cluster") if own else Slurm(),
        profile=profile,
        settings=process_yaml((profile / "config.yaml").read_text()),
        options=QUICK if own else (),
    )


def wait(condition, what):
    deadline = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {PATIENCE} s for {what}"
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, snakemake, in_folder):
    """A study with images to learn from. What else it trains or augments are jobs."""
    folder = tmp_path_factory.mktemp("prepared")
    shutil.copy(ONE_RUN, folder / "study.yaml")
    images = [f"results/dataset/{subset}.npy" for subset in ("train", "val")]
    made = snakemake(folder, *in_folder(folder, folder / "study.yaml"), "-c2", *images)
    assert made.returncode == 0, made.said
    return folder


@pytest.fixture
def study(cluster, prepared, tmp_path, start, finish, in_folder):
    """A copy of it, with functions; it leaves no process and no job.

    `finish` waits for snakemake. `stop` waits for its jobs alone and returns what it has said:
    the executor looks for their end in ever longer pauses.
    """
    folder = (tmp_path / "study").resolve()
    shutil.copytree(prepared, folder)
    started = []

    def begin(*arguments, profile=PROFILE, root=None, **variables):
        where = in_folder(folder, folder / "study.yaml", **({"root": root} if root else {}))
        run = (*where, "--profile", profile, *QUICK, *arguments)
        started.append(start(folder, *run, **cluster.variables | variables))

    def config(**changes):
        settings = yaml.safe_load(ONE_RUN.read_text())
        settings["cnns"][RUN] |= changes
        (folder / "study.yaml").write_text(yaml.safe_dump(settings))

    def kill():
        os.killpg(started[-1].pid, signal.SIGKILL)
        return "".join(started[-1].communicate())

    def stop(*rules):
        complete = dict.fromkeys(rules, "COMPLETED")
        wait(
            lambda: {rule(job): job["JobState"] for job in cluster.jobs(folder)} == complete,
            f"the end of {rules}",
        )
        return kill()

    yield SimpleNamespace(
        folder=folder,
        start=begin,
        config=config,
        finish=lambda: finish(started[-1]),
        kill=kill,
        stop=stop,
        jobs=lambda: cluster.jobs(folder),
        file=lambda path: (folder / path).read_text() if (folder / path).exists() else "",
    )
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    for job in cluster.jobs(folder):
        cluster.run("scancel", job["JobId"], check=False)


@pytest.fixture
def hemagrid(environment, cluster):
    """A function that runs the command on the login node."""

    def run(*words, **variables):
        return subprocess.run(
            [sys.executable, "-m", "hemagrid.cli.main", *map(str, words)],
            env=environment | cluster.variables | variables,
            capture_output=True,
            text=True,
        )

    return run
