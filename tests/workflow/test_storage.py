"""Studies whose files lie in a storage of Snakemake's plugins."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from hemagrid import names

from ..conftest import ROOT

CONFIG = ROOT / "tests" / "workflow" / "one_run.yaml"
RUN = "regularized_cnn"
SLOW = os.environ.get("HEMAGRID_SLOW_FAULTS") == "1"


@pytest.fixture
def s3(require_package):
    """The address of an S3 server on this machine that forgets everything at its end."""
    require_package("moto", "snakemake_storage_plugin_s3")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(address)
            break
        except OSError:
            time.sleep(0.1)
    yield address
    server.terminate()
    server.wait()


def stored_in(provider, prefix, *options):
    words = ["--default-storage-provider", provider, "--default-storage-prefix", prefix]
    return ["--configfile", CONFIG, "--cores", 2, *words, *options]


def test_a_run_with_files_in_a_storage(
    snakemake, checkout, tmp_path, require_program, require_package
):
    require_program("rsync", "rsync")
    require_package("snakemake_storage_plugin_fs")
    study, store, kept = (tmp_path / name for name in ("study", "store", "kept"))
    options = ["--config", f"checkpoints={kept}", "--directory", study]
    metrics = names.METRICS.format(run=RUN)
    done = snakemake(checkout, metrics, *stored_in("fs", store, *options))
    assert done.returncode == 0, done.said
    for path in (names.SPLIT_TABLE, names.MODEL.format(run=RUN), metrics):
        assert (store / path).stat().st_size
    assert not (study / "results").exists()
    # The lock of the run lay there, and its checkpoints while it was trained.
    (place,) = kept.iterdir()
    assert place.name.startswith("study-")
    assert not (study / names.CHECKPOINTS).exists()


def run_in_s3(target, snakemake, checkout, folder, address):
    """Make a target with all files in S3; return a function that reads one from there."""
    import boto3

    access = {"SNAKEMAKE_STORAGE_S3_ACCESS_KEY": "a", "SNAKEMAKE_STORAGE_S3_SECRET_KEY": "b"}
    options = ["--storage-s3-endpoint-url", address, "--directory", folder]
    words = stored_in("s3", "s3://cells/study", *options)
    done = snakemake(checkout, target, *words, AWS_DEFAULT_REGION="us-east-1", **access)
    assert done.returncode == 0, done.said
    assert not (folder / "results").exists()
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b"}
    client = boto3.client("s3", region_name="us-east-1", endpoint_url=address, **keys)
    return lambda path: client.get_object(Bucket="cells", Key=f"study/{path}")["Body"].read()


def test_the_data_set_in_s3(snakemake, checkout, tmp_path, s3):
    read = run_in_s3(names.AUDIT, snakemake, checkout, tmp_path, s3)
    assert json.loads(read(names.AUDIT))["counts"]["kept"]


@pytest.mark.skipif(not SLOW, reason="takes minutes: set HEMAGRID_SLOW_FAULTS=1")
def test_a_study_in_s3_up_to_its_report(snakemake, checkout, tmp_path, s3):
    read = run_in_s3("all", snakemake, checkout, tmp_path, s3)
    assert RUN in read(names.REPORT).decode()
    assert read(names.MODEL.format(run=RUN))
