"""The cluster that the other tests stand on."""

import os
import subprocess
import time

import pytest

from .cluster import PATIENCE, Cluster


def submit(cluster, command, *options):
    settled = ("--parsable", "--output=/dev/null", "--mem=100")
    return cluster.run("sbatch", *settled, *options, "--wrap", command).strip()


def wait_for_state(cluster, number, state):
    deadline = time.monotonic() + PATIENCE
    while (found := cluster.job(number)["JobState"]) != state:
        assert time.monotonic() < deadline, f"job {number} is {found}, expected {state}"
        time.sleep(0.2)


def test_two_jobs_get_a_gpu_each_and_a_cpu_job_none(cluster, tmp_path):
    show = "srun sh -c 'echo GPU $CUDA_VISIBLE_DEVICES >{}; sleep 5'"
    gpu = ("--partition=gpu", "--gpus=1")
    numbers = [
        submit(cluster, show.format(tmp_path / "a"), *gpu),
        submit(cluster, show.format(tmp_path / "b"), *gpu),
        submit(cluster, show.format(tmp_path / "c")),
    ]
    for number in numbers:
        wait_for_state(cluster, number, "COMPLETED")
    seen = [(tmp_path / name).read_text().strip() for name in "abc"]
    assert sorted(seen[:2]) == ["GPU 0", "GPU 1"] and seen[2] == "GPU"
    jobs = [cluster.job(number) for number in numbers]
    assert [job["JOB_GRES"] for job in jobs] == ["gpu:1", "gpu:1", "(null)"]
    assert [job["Partition"] for job in jobs] == ["gpu", "gpu", "cpu"]


def test_there_is_no_accounting(cluster):
    asked = subprocess.run(["sacct"], env=os.environ | cluster.variables, capture_output=True)
    assert asked.returncode != 0 and b"accounting storage is disabled" in asked.stderr


def test_a_job_that_takes_more_memory_than_it_asked_for_is_killed(cluster):
    greedy = "python3 -c 'import time; x = b\"x\" * 400_000_000; time.sleep(60)'"
    wait_for_state(cluster, submit(cluster, greedy), "FAILED")


def test_jobs_outlive_the_daemons(cluster):
    number = submit(cluster, "sleep 15", "--partition=gpu")
    wait_for_state(cluster, number, "RUNNING")
    cluster.kill_node("gpu1")
    cluster.stop_controller()
    cluster.start_controller()
    cluster.start_node("gpu1")
    assert cluster.job(number)["JobState"] == "RUNNING"
    wait_for_state(cluster, number, "COMPLETED")


def test_stopping_ends_every_process_of_this_cluster_and_no_other(cluster, tmp_path):
    other = Cluster(tmp_path / "other")
    with pytest.raises(KeyError), other:
        submit(other, "sleep 1000", "--partition=gpu")
        client = subprocess.Popen(["sleep", "1000"], env=other.variables)
        number = submit(other, "sleep 1000")
        wait_for_state(other, number, "RUNNING")
        assert client.pid in other.processes()
        raise KeyError("a test that fails")
    assert other.processes() == []
    assert client.wait(1) < 0
    assert cluster.node("gpu1")["State"] in ("IDLE", "MIXED")
