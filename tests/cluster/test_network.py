"""Compute nodes have no internet: only rules beside snakemake ask for it, and say so at once.

That jobs need none shows in every other test here: the nodes of the cluster have none.
"""

import re
import subprocess
import sys

import pytest
import yaml

from .conftest import QUICK, ROOT

TINY = ROOT / "tests" / "workflow" / "tiny.yaml"


@pytest.fixture
def submit(cluster, tmp_path, snakemake, in_folder):
    """A function that runs a study on the cluster, on a login node without internet, too."""
    folder = (tmp_path / "study").resolve()
    folder.mkdir()

    def submit(config):
        overlay = tmp_path / "overlay.yaml"
        overlay.write_text(yaml.safe_dump(config))
        dead = "http://127.0.0.1:9"
        result = snakemake(
            folder,
            *in_folder(folder, TINY, overlay),
            "--profile",
            ROOT / "profiles" / "slurm",
            *QUICK,
            "results/mobilenetv3_cfg1/metrics.json",
            **cluster.variables,
            http_proxy=dead,
            https_proxy=dead,
        )
        return folder, result, cluster.jobs(folder)

    return submit


def test_the_nodes_reach_nothing(cluster, tmp_path):
    script = tmp_path / ".snakemake" / "scripts" / "a_rule.py"
    script.parent.mkdir(parents=True)
    script.write_text(
        "import socket\n"
        "listening = socket.create_server(('127.0.0.1', 0))\n"
        "socket.create_connection(listening.getsockname(), timeout=5)\n"
        "print('connected')\n"
    )
    here = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert here.stdout == "connected\n"
    there = subprocess.run(
        [sys.executable, script],
        env={"PYTHONPATH": str(cluster.folder / "nodes")},
        capture_output=True,
        text=True,
    )
    assert "OSError" in there.stderr and there.stdout == ""
    assert any(str(script) in command for command in cluster.without_network())


def test_weights_that_cannot_be_fetched_queue_nothing_that_needs_them(submit):
    folder, result, jobs = submit({"backbones": {"mobilenetv3": {"weights": "imagenet"}}})
    assert result.returncode != 0
    assert re.search(r"weights_mobilenet_v3_large_224_1\.0_float_no_top_v2\.h5", result.said)
    assert f"into {folder}/resources/keras/models and run again" in result.said
    rules = {re.match(r"rule_([a-z]+)", job["Comment"])[1] for job in jobs}
    assert rules <= {"augment"}


def test_weights_of_the_users_that_are_not_there_queue_nothing_at_all(submit):
    missing = "mine/mobilenet.weights.h5"
    folder, result, jobs = submit({"backbones": {"mobilenetv3": {"weights": missing}}})
    assert result.returncode != 0
    assert f"found nothing at {folder / missing}" in result.said
    assert "keras.applications.MobileNetV3Large" in result.said
    assert jobs == []
