"""profiles/generic on a real Grid Engine (grid_engine.sh)."""

import os
import shutil
import subprocess
import sys

import pytest

from ..conftest import PATIENCE
from .conftest import ROOT

PROFILE = ROOT / "profiles" / "generic"
PROGRAMS = {
    "sge_qmaster": "gridengine-master",
    "sge_execd": "gridengine-exec",
    "qsub": "gridengine-client",
    "ip": "iproute2",
}
# What may become of jobs, in the words of the profile's programs.
JOBS = """\
alias submit='cluster-submit sge long'
state() {
    qstat | awk -v job="$1" '$1 == job { print $5 }'
}
await() { # a state
    until [ "$(state $1)" = "$2" ]; do sleep 0.2; done
}
echo 'sleep 1000' >long.sh

job=$(submit 2 200 5 '' 0 $PWD/long.sh)
await $job r
echo "runs: $(cluster-status sge $job)"
qdel $job >&2
while [ "$(cluster-status sge $job)" = running ]; do sleep 0.2; done
echo "killed: $(cluster-status sge $job)"

qmod -d all.q >&2
job=$(submit 1 200 5 all.q 0 $PWD/long.sh)
mv logs no-place-for-its-output
qmod -e all.q >&2
await $job Eqw
echo "cannot start: $(cluster-status sge $job)$(state $job)"

submit 1 200 5 gpu.q 3 $PWD/long.sh || echo "three of two GPUs: refused"

qconf -km >&2
while qstat >&2; do sleep 0.2; done
submit 1 200 5 '' 0 $PWD/long.sh >number &
until [ -s logs/cluster/waiting.log ] || ! kill -0 $!; do sleep 0.2; done
echo "nobody answers: $(cluster-status sge 1)"
sge_qmaster
wait
echo "somebody answers: $(cluster-status sge $(cat number))"
"""


@pytest.fixture
def in_grid_engine(require_program, require_package, environment, tmp_path):
    """A function that runs a command in a Grid Engine of its own."""
    require_package("snakemake_executor_plugin_cluster_generic")
    for program, package in PROGRAMS.items():
        require_program(program, package)
    if os.geteuid() != 0:
        pytest.skip("a cluster of one's own needs root")

    def run(*command):
        own = ROOT / "tests" / "cluster" / "grid_engine.sh"
        words = ["setpriv", "--pdeathsig", "KILL", "sh", own, *command]
        return subprocess.run(
            list(map(str, words)),
            cwd=tmp_path,
            env=environment | {"PATH": f"{PROFILE / 'bin'}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )

    return run


def test_a_run_is_trained_on_a_real_grid_engine(in_grid_engine, in_folder, tmp_path):
    profile = tmp_path / "profile" / "generic"
    shutil.copytree(PROFILE, profile)
    text = (profile / "config.yaml").read_text()
    for pbs, sge in (("submit pbs", "submit sge"), ("status pbs", "status sge")):
        assert text.count(pbs) == 1
        text = text.replace(pbs, sge)
    (profile / "config.yaml").write_text(text.replace("queue: gpu ", "queue: gpu.q "))
    study = tmp_path / "study"
    study.mkdir()
    made = in_grid_engine(
        *(sys.executable, "-m", "snakemake", "results/regularized_cnn/model.keras"),
        *in_folder(study, ROOT / "tests" / "workflow" / "one_run.yaml"),
        *("--profile", profile, "--latency-wait", 5, "--seconds-between-status-checks", 1),
    )
    assert made.returncode == 0, made.stderr[-8000:]
    cluster = study / "logs" / "cluster"
    jobs = sorted(path.name.split(".o")[0] for path in cluster.glob("*.o*"))
    assert jobs == ["augment", "augment", "train"]
    assert {path.read_text() for path in cluster.glob("*.exit")} == {"0\n"}


def test_what_becomes_of_jobs_on_a_real_grid_engine(in_grid_engine):
    told = in_grid_engine("sh", "-ec", JOBS)
    assert told.stdout.splitlines() == [
        "runs: running",
        "killed: failed",
        "cannot start: failed",
        "three of two GPUs: refused",
        "nobody answers: running",
        "somebody answers: running",
    ], told.stderr
    assert "no suitable queues" in told.stderr and "can't open output file" in told.stderr
