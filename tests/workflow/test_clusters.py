"""PBS, Grid Engine and LSF: jobs through profiles, by a qsub or bsub that runs them here."""

import os
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
BIN = ROOT / "profiles" / "generic" / "bin"
TINY = ROOT / "tests" / "workflow" / "tiny.yaml"

# Runs its script in a shell of its own, with the variables that the scheduler sets.
QSUB = """#!/usr/bin/env python3
import os, subprocess, sys
from pathlib import Path

kind, options = "{kind}", sys.argv[1:]
if "-w" in options:  # Grid Engine is asked whether such a job could start
    sys.exit()
folder = Path("{folder}")
number = str(len(list(folder.glob("job.*"))) + 1)
named = number + ".server" if kind == "pbs" else number
(folder / f"job.{{number}}").write_text(" ".join(options))
job = {{"pbs": {{"PBS_JOBID": named, "PBS_ENVIRONMENT": "PBS_BATCH"}},
        "sge": {{"JOB_ID": named, "SGE_TASK_ID": "undefined", "SGE_HGR_gpu": "gpu0"}}}}[kind]
process = subprocess.Popen(
    ["sh", "-c", sys.stdin.read()],
    env=os.environ | job,
    stdout=open(folder / f"out.{{number}}", "w"),
    stderr=subprocess.STDOUT,
    start_new_session=True,
)
(folder / f"pid.{{named}}").write_text(str(process.pid))
print(named)
"""
QSTAT = """#!/bin/sh
for number; do :; done
grep -vq '^State:.Z' /proc/$(cat {folder}/pid.$number)/status 2>/dev/null &&
    [ -n "$(cat /proc/$(cat {folder}/pid.$number)/cmdline | tr -d '\\0')" ] && exit 0
echo 'qstat: Unknown Job Id' >&2
exit 1
"""
# Runs the command in its last word as bsub does, and records how it ended for bjobs.
BSUB = """#!/usr/bin/env python3
import os, subprocess, sys
from pathlib import Path

folder, options, command = Path("{folder}"), sys.argv[1:-1], sys.argv[-1]
number = str(len(list(folder.glob("job.*"))) + 1)
(folder / f"job.{{number}}").write_text(" ".join(options))
given = dict(zip(options[::2], options[1::2]))
job = {{"LSB_JOBID": number, "LSB_JOBNAME": given["-J"], "LSB_QUEUE": given["-q"],
        "LSB_BATCH_JID": number, "LSB_JOBINDEX": "0", "LSB_DJOB_NUMPROC": given["-n"],
        "LSB_HOSTS": "node1", "LSB_MCPU_HOSTS": "node1 " + given["-n"],
        "LS_SUBCWD": given["-cwd"], "LSB_OUTPUTFILE": given["-o"]}}
ended = folder / f"ended.{{number}}"
subprocess.Popen(
    ["sh", "-c", f"( {{command}} ); echo $? > {{ended}}"],
    cwd=given["-cwd"],
    env=os.environ | job,
    stdout=open(given["-o"], "w"),
    stderr=subprocess.STDOUT,
    start_new_session=True,
)
print(f"Job <{{number}}> is submitted to queue <{{given['-q']}}>.")
"""
BJOBS = """#!/bin/sh
for job in {folder}/job.*; do
    state=RUN ended={folder}/ended.${{job##*.}}
    [ ! -s $ended ] || if [ $(cat $ended) = 0 ]; then state=DONE; else state=EXIT; fi
    echo ${{job##*.}} $state
done
"""
# Where the executor finds the cluster's configuration.
BADMIN = """#!/bin/sh
echo MBD configuration
echo LSB_SHAREDIR = {folder}
echo LSF_CONFDIR = {folder}
echo LSF_UNIT_FOR_LIMITS = MB
"""
LSCLUSTERS = """#!/bin/sh
echo CLUSTER_NAME STATUS
echo here ok
"""


@pytest.fixture(params=["pbs", "sge"])
def scheduler(request, tmp_path):
    """(its name, a folder for its jobs, variables that put its qsub and qstat on the path)."""
    folder = tmp_path / "scheduler"
    folder.mkdir()
    for name, text in (("qsub", QSUB), ("qstat", QSTAT)):
        (folder / name).write_text(text.format(kind=request.param, folder=folder))
        (folder / name).chmod(0o755)
    return request.param, folder, {"PATH": f"{folder}:{os.environ['PATH']}"}


def test_jobs_run_through_qsub(scheduler, tmp_path, snakemake, in_folder, require_package):
    require_package("snakemake_executor_plugin_cluster_generic")
    kind, folder, variables = scheduler
    study, profile = tmp_path / "study", tmp_path / "generic"
    study.mkdir()
    profile.mkdir()
    text = (ROOT / "profiles" / "generic" / "config.yaml").read_text()
    text = text.replace("cluster-submit pbs", f"cluster-submit {kind}")
    text = text.replace("cluster-status pbs", f"cluster-status {kind}")
    (profile / "config.yaml").write_text(text)
    made = snakemake(
        study,
        "results/dataset/val.npy",
        *in_folder(study, TINY),
        *("--profile", profile, "--latency-wait", 5, "--seconds-between-status-checks", 1),
        **variables,
    )
    assert made.returncode == 0, made.said
    (asked,) = (path.read_text() for path in folder.glob("job.*"))
    expected = {
        "pbs": "mem=4000mb,walltime=3600",
        "sge": "h_rt=3600 -j y -terse -l mem_free=4000M",
    }
    assert "-N augment" in asked and expected[kind] in asked


BUSY = {
    "pbs": "qsub: would exceed queue workq's per-user limit of jobs in 'Q' state",
    "sge": "Unable to run job: job rejected: only 1 jobs are allowed per user",
}
AGAIN = """#!/bin/sh
[ -e {folder}/asked ] && echo 17 && exit
touch {folder}/asked
echo "{message}" >&2
exit 25
"""


def test_a_full_queue_is_asked_again_and_what_it_refuses_is_told(scheduler, tmp_path):
    kind, folder, variables = scheduler
    script = tmp_path / "job.sh"
    script.touch()
    (folder / "sleep").write_text("#!/bin/sh\n")

    def submitted(message):
        (folder / "qsub").write_text(AGAIN.format(folder=folder, message=message))
        for program in ("sleep", "qsub"):
            (folder / program).chmod(0o755)
        (folder / "asked").unlink(missing_ok=True)
        return subprocess.run(
            [BIN / "cluster-submit", kind, "train", "1", "100", "5", "", "0", script],
            cwd=tmp_path,
            env=os.environ | variables,
            capture_output=True,
            text=True,
        )

    assert submitted(BUSY[kind]).stdout == "17\n"
    assert BUSY[kind] in (tmp_path / "logs" / "cluster" / "waiting.log").read_text()
    refused = submitted("qsub: Unknown queue")
    assert refused.returncode == 1 and refused.stderr == "qsub: Unknown queue\n"
    assert refused.stdout == ""


def test_jobs_run_through_bsub(tmp_path, snakemake, in_folder, require_package):
    require_package("snakemake_executor_plugin_lsf")
    folder, study = tmp_path / "scheduler", tmp_path / "study"
    study.mkdir()
    parameters = folder / "lsbatch" / "here" / "configdir" / "lsb.params"
    parameters.parent.mkdir(parents=True)
    parameters.write_text("Begin Parameters\nDEFAULT_QUEUE = normal\nEnd Parameters\n")
    programs = {"bsub": BSUB, "bjobs": BJOBS, "badmin": BADMIN, "lsclusters": LSCLUSTERS}
    for name, text in programs.items():
        (folder / name).write_text(text.format(folder=folder))
        (folder / name).chmod(0o755)
    made = snakemake(
        study,
        "results/dataset/val.npy",
        *in_folder(study, TINY),
        *("--profile", ROOT / "profiles" / "lsf", "--latency-wait", 5),
        *("--seconds-between-status-checks", 1),
        PATH=f"{folder}:{os.environ['PATH']}",
    )
    assert made.returncode == 0, made.said
    (asked,) = (path.read_text() for path in folder.glob("job.*"))
    assert "Snakemake_rule_augment:subset=val" in asked
    expected = "-P default -q normal -W 60 -n 1 -R rusage[mem=4000.0] -R span[hosts=1]"
    assert expected in asked


@pytest.mark.parametrize(
    ("record", "alive", "said"),
    [("0", False, "success"), ("1", False, "failed"), (None, True, "running")],
)
def test_how_a_job_stands(scheduler, tmp_path, record, alive, said):
    kind, folder, variables = scheduler
    (tmp_path / "logs" / "cluster").mkdir(parents=True)
    if record:
        (tmp_path / "logs" / "cluster" / "17.exit").write_text(record + "\n")
    if alive:
        (folder / "pid.17").write_text(str(os.getpid()))
    told = subprocess.run(
        [BIN / "cluster-status", kind, "17"],
        cwd=tmp_path,
        env=os.environ | variables,
        capture_output=True,
        text=True,
    )
    assert told.stdout == f"{said}\n", told.stderr


def test_a_job_that_was_killed_has_failed_and_a_server_that_is_away_says_nothing(
    scheduler, tmp_path
):
    kind, folder, variables = scheduler
    (folder / "sleep").write_text("#!/bin/sh\n")
    (folder / "sleep").chmod(0o755)

    def status():
        return subprocess.run(
            [BIN / "cluster-status", kind, "17"],
            cwd=tmp_path,
            env=os.environ | variables,
            capture_output=True,
            text=True,
        ).stdout

    assert status() == "failed\n"
    (folder / "qstat").write_text("#!/bin/sh\necho cannot connect to server >&2; exit 1\n")
    assert status() == "running\n"


def test_what_the_other_profiles_ask_for_names_rules_that_exist():
    text = "".join(path.read_text() for path in (ROOT / "workflow" / "rules").glob("*.smk"))
    for name in ("generic", "lsf", "kubernetes"):
        profile = yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text())
        assert profile["set-resources"].keys() == {"embed", "train", "predict", "views"}
        assert all(f"rule {rule}:" in text for rule in profile["set-resources"])
        assert all(given["gpu"] == 1 for given in profile["set-resources"].values())
        if name == "kubernetes":  # it refuses a GPU that is asked for without a limit
            assert all(given["scale"] == 0 for given in profile["set-resources"].values())
