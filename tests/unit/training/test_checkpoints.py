"""A checkpoint is used whole or not at all, and a run has one writer."""

import errno
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import keras_tuner
import numpy as np
import pytest
from filelock import SoftFileLease

from hemagrid import io, logs
from hemagrid.errors import InputError
from hemagrid.training import checkpoints
from hemagrid.training.checkpoints import Checkpoint, key_of, one_writer

FACTS = {"position": {"epoch": 3}, "best": 0.1 + 0.2}
ARRAYS = {
    "model_00000": np.arange(600, dtype="float32").reshape(20, 30),
    "seed": np.array([7, 2**32 - 1], "uint32"),
}


@pytest.fixture
def checkpoint(tmp_path):
    saved = Checkpoint("a_run", "0123456789abcdef", tmp_path)
    saved.save(FACTS, ARRAYS.items())
    return saved


def assert_used(loaded):
    facts, arrays = loaded
    assert facts.pop("spent").keys() == logs.usage().keys()
    assert facts == FACTS | {"run": "a_run", "key": "0123456789abcdef"}
    assert list(arrays) == list(ARRAYS)
    for name, expected in ARRAYS.items():
        assert arrays[name].dtype == expected.dtype
        np.testing.assert_array_equal(arrays[name], expected)


def assert_set_aside(checkpoint, logged):
    torn = checkpoint.path.read_bytes()
    assert checkpoint.load() is None
    said = logged()
    assert "a_run" in said and "set aside" in said
    assert not checkpoint.path.exists()
    assert checkpoint.path.with_suffix(".set-aside").read_bytes() == torn


def test_a_checkpoint_is_loaded_as_it_was_saved(checkpoint):
    assert_used(checkpoint.load())
    assert [path.name for path in checkpoint.folder.iterdir()] == ["0123456789abcdef.npz"]


def test_without_a_file_there_is_nothing_to_continue_from(tmp_path):
    assert Checkpoint("a_run", "0123456789abcdef", tmp_path).load() is None


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_set_aside(checkpoint, share, logged):
    content = checkpoint.path.read_bytes()
    checkpoint.path.write_bytes(content[: int(len(content) * share)])
    assert_set_aside(checkpoint, logged)


def test_every_flipped_byte_is_noticed(checkpoint, logged):
    content = checkpoint.path.read_bytes()
    places = np.random.default_rng(1).choice(len(content), 300, replace=False)
    refused = 0
    for place in places:
        torn = bytearray(content)
        torn[place] ^= 0xFF
        checkpoint.path.write_bytes(torn)
        loaded = checkpoint.load()
        if loaded is None:
            refused += 1
        else:  # a byte without meaning, such as a date in the archive
            assert_used(loaded)
    assert refused > 210


@pytest.mark.parametrize("content", [b"", b"weights", b"PK\x05\x06" + bytes(18)])
def test_another_kind_of_file_is_set_aside(checkpoint, content, logged):
    checkpoint.path.write_bytes(content)
    assert_set_aside(checkpoint, logged)


def test_pickled_objects_are_not_opened(checkpoint, logged):
    class Dangerous:
        def __reduce__(self):
            return os.mkdir, (str(checkpoint.folder / "executed"),)

    np.savez(checkpoint.path, facts=np.array([Dangerous()], dtype=object))
    assert_set_aside(checkpoint, logged)
    assert not (checkpoint.folder / "executed").exists()


@pytest.mark.parametrize("run, key", [("other", "0123456789abcdef"), ("a_run", "f" * 16)])
def test_a_checkpoint_of_another_run_is_set_aside(checkpoint, run, key, tmp_path, logged):
    foreign = Checkpoint(run, key, tmp_path)
    foreign.save(FACTS, ARRAYS.items())
    os.replace(foreign.path, checkpoint.path)
    assert_set_aside(checkpoint, logged)


def test_a_checkpoint_of_other_settings_is_reported_and_left(checkpoint, tmp_path, logged):
    changed = Checkpoint("a_run", "f" * 16, tmp_path)
    assert changed.load() is None
    assert "0123456789abcdef.npz was made with other settings" in logged()
    assert_used(checkpoint.load())


def test_a_full_disk_costs_one_checkpoint_and_nothing_else(checkpoint, monkeypatch, logged):
    def full(*arguments, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full)
    checkpoint.save({"position": {"epoch": 4}}, ARRAYS.items())
    monkeypatch.undo()
    assert "No space left on device" in logged()
    assert_used(checkpoint.load())
    assert len(list(checkpoint.folder.iterdir())) == 1


def test_arrays_are_taken_one_at_a_time(checkpoint):
    alive = []

    def arrays():
        for place in range(3):
            yield f"array_{place}", np.zeros(4)
            alive.append(place)
            # One is on disk before the next is made.
            assert alive == list(range(place + 1))

    checkpoint.save(FACTS, arrays())
    assert len(checkpoint.load()[1]) == 3


def test_progress_is_for_people(checkpoint, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    checkpoint.report({"phase": "finetune_top", "epoch": 2})
    told = io.read_json(checkpoint.folder / "progress.json")
    assert told.pop("updated").endswith("+00:00")
    assert told.pop("spent")["seconds"] > 0
    assert told == {
        "run": "a_run",
        "key": "0123456789abcdef",
        "phase": "finetune_top",
        "epoch": 2,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "job": "17",
        "cancel": "scancel 17",
    }


def test_the_key_follows_settings_contents_revision_and_versions(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"same")
    two.write_bytes(b"same")
    settings = {"seed": 1, "head": {"dropout": [0.3]}}
    key = key_of("train", settings, {"images": one})
    assert re.fullmatch("[0-9a-f]{16}", key)
    # Neither the path of a file nor the order of keys counts.
    assert key_of("train", dict(reversed(settings.items())), {"images": two}) == key
    others = [
        key_of("search", settings, {"images": one}),
        key_of("train", settings | {"seed": 2}, {"images": one}),
        key_of("train", settings, {"labels": one}),
        key_of("train", settings, {"images": one}, keras_tuner),
    ]
    monkeypatch.setattr(np, "__version__", "0.1")
    others.append(key_of("train", settings, {"images": one}))
    monkeypatch.undo()
    monkeypatch.setitem(checkpoints.REVISIONS, "train", 99)
    others.append(key_of("train", settings, {"images": one}))
    monkeypatch.undo()
    one.write_bytes(b"SAME")
    others.append(key_of("train", settings, {"images": one}))
    assert len({key, *others}) == 8


# What all processes of a run used


USED = {"seconds": 10.0, "cpu_seconds": 20.0, "peak_memory_mib": 500.0}


@pytest.mark.parametrize("last", ["report", "save"])
def test_what_a_run_used_is_added_up_over_its_processes(last, tmp_path, monkeypatch):
    def process(**usage):
        monkeypatch.setattr(logs, "usage", lambda: USED | usage)
        return Checkpoint("a_run", "f" * 16, tmp_path)

    process().report({})
    second = process(seconds=5.0, peak_memory_mib=300.0)
    assert second.spent() == {"seconds": 15, "cpu_seconds": 40, "peak_memory_mib": 500}
    second.waited = 4.0
    if last == "report":
        second.report({})
    else:
        second.save({}, [])
    third = process(peak_memory_mib=600.0)
    third.load()
    assert third.spent() == {"seconds": 21, "cpu_seconds": 60, "peak_memory_mib": 600}
    of_other_settings = Checkpoint("a_run", "0" * 16, tmp_path)
    assert of_other_settings.spent()["seconds"] == 10


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"key": "ffffffffffffffff"}'])
def test_a_progress_record_that_tells_nothing_does_no_harm(content, tmp_path):
    (tmp_path / "a_run").mkdir()
    (tmp_path / "a_run" / "progress.json").write_text(content)
    assert Checkpoint("a_run", "f" * 16, tmp_path).spent()["seconds"] < logs.usage()["seconds"]


def test_a_new_start_removes_what_a_killed_process_left(tmp_path):
    out = {"cost": tmp_path / "results" / "cost.json"}
    checkpoint = Checkpoint("a_run", "f" * 16, tmp_path / "checkpoints")
    left = [path.with_name(f".01234567.{path.name}") for path in (out["cost"], checkpoint.path)]
    for path in left:
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes(1000))
    seen = []

    def compute(checkpoint):
        seen.extend(path for path in tmp_path.rglob(".0*"))
        io.write_json(out["cost"], {"key": "f" * 16})

    checkpoints.compute_once("a_run", "f" * 16, out, "cost", compute, tmp_path / "checkpoints")
    assert not seen


# Results are kept until the next job reads them


@pytest.fixture
def finish(tmp_path):
    """A function that makes a run's files if it must, and says how often it has done so."""
    out = {"model": tmp_path / "results" / "model.keras", "cost": tmp_path / "results" / "cost"}
    computed = []

    def compute(checkpoint):
        computed.append(checkpoint.save(FACTS, ARRAYS.items()))
        out["model"].parent.mkdir(exist_ok=True)
        out["model"].write_bytes(bytes(5))
        io.write_json(out["cost"], {"key": checkpoint.key})

    def finish():
        checkpoints.compute_once("a_run", "f" * 16, out, "cost", compute, tmp_path / "kept")
        return len(computed)

    finish.out, finish.folder = out, tmp_path / "kept"
    return finish


def test_results_that_snakemake_refused_are_put_back(finish, logged):
    finish()
    made = {path: path.read_bytes() for path in finish.out.values()}
    for path in finish.out.values():
        os.utime(path, (0, 0))
        path.unlink()
    assert finish() == 1
    assert "put back" in logged()
    for path, content in made.items():
        assert path.read_bytes() == content and path.stat().st_mtime > 1
    checkpoints.release(["other.keras"], finish.folder)
    assert any(finish.folder.iterdir())
    checkpoints.release([finish.out["model"]], finish.folder)
    assert not any(finish.folder.iterdir())


def test_where_files_cannot_be_linked_the_state_is_kept(finish, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    finish()
    for path in finish.out.values():
        path.unlink()
    assert Checkpoint("a_run", "f" * 16, finish.folder).load()[0]["position"] == {"epoch": 3}
    assert finish() == 2
    checkpoints.release([finish.out["model"]], finish.folder)
    assert not any(finish.folder.iterdir())


def test_a_folder_that_another_job_removes_meanwhile_is_no_error(finish, monkeypatch):
    finish()
    other = finish.folder / "another_run"
    other.mkdir()
    scandir = os.scandir

    def scan(path=".", *rest):
        if isinstance(path, str | os.PathLike) and Path(path).name == other.name:
            shutil.rmtree(path)  # listed a moment ago
        return scandir(path, *rest)

    monkeypatch.setattr(os, "scandir", scan)
    checkpoints.release([finish.out["model"]], finish.folder)
    assert not any(finish.folder.iterdir())


# One writer

HOLDER = """
import sys, time
from hemagrid.training.checkpoints import one_writer
with one_writer("a_run", sys.argv[1], lease=float(sys.argv[2])):
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
"""


@pytest.fixture
def holder(tmp_path):
    """A function that starts another process which holds the run for some seconds."""
    started = []

    def start(seconds, lease=60.0):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, tmp_path, str(lease), str(seconds)],
            env=os.environ | {"PYTHONPATH": str(Path(checkpoints.__file__).parents[2])},
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_a_free_run_is_held_and_released(tmp_path):
    with one_writer("a_run", tmp_path) as still_ours:
        still_ours()
        told = io.read_json(tmp_path / "a_run" / "writer.json")
        assert (told["pid"], told["host"]) == (os.getpid(), socket.gethostname())
        assert (tmp_path / "a_run.lock").exists()
    assert not (tmp_path / "a_run.lock").exists()


def test_another_run_is_free(holder, tmp_path):
    other = holder(600)
    with one_writer("another_run", tmp_path):
        assert other.poll() is None


def test_the_second_process_waits_and_says_for_which(holder, tmp_path, logged, monkeypatch):
    first = holder(4)
    monkeypatch.setenv("SLURM_JOB_ID", "18")
    seen = []
    write_json = io.write_json
    monkeypatch.setattr(io, "write_json", lambda *args: (write_json(*args), seen.append(args)))
    with one_writer("a_run", tmp_path, lease=60.0) as still_ours:
        assert first.wait(timeout=60) == 0
        still_ours()
        assert not (tmp_path / "a_run" / checkpoints.WAITING).exists()
    said = logged()
    assert f"process {first.pid} on {socket.gethostname()}" in said
    assert "waiting" in said and "give this job's GPU back: scancel 18" in said
    assert [path.name for path, _ in seen] == [checkpoints.WAITING, "writer.json"]


def test_a_killed_process_on_this_machine_is_not_waited_for(holder, tmp_path, logged):
    first = holder(600)
    first.kill()
    first.wait()
    with one_writer("a_run", tmp_path, lease=600.0) as still_ours:
        still_ours()
    assert "waiting" not in logged()


def planted_lock(folder, host, lease):
    """Leave the lock of a process that died on another machine."""
    lock = SoftFileLease(folder / "a_run.lock", lease_duration=lease, heartbeat_interval=1.9)
    lock.acquire()
    record = (folder / "a_run.lock").read_text()
    lock.release()
    changed = record.replace(socket.gethostname(), host)
    assert changed != record
    (folder / "a_run.lock").write_text(changed)


def test_a_silent_process_on_another_machine_is_waited_out(tmp_path, logged):
    planted_lock(tmp_path, "node17.cluster", 3.0)
    (tmp_path / "a_run").mkdir()
    writer = {"host": "node17.cluster", "pid": 4, "job": "99", "since": "noon"}
    io.write_json(tmp_path / "a_run" / "writer.json", writer)
    with one_writer("a_run", tmp_path, lease=3.0) as still_ours:
        still_ours()
    assert "process 4 on node17.cluster (job 99) since noon" in logged()


def test_a_live_process_on_another_machine_is_waited_for(tmp_path):
    planted_lock(tmp_path, "node17.cluster", 2.0)
    code = (
        "import os, sys, time\n"
        "for beat in range(8):\n"
        "    os.utime(sys.argv[1])\n"
        "    print(beat, flush=True)\n"
        "    time.sleep(0.4)\n"
    )
    command = [sys.executable, "-c", code, tmp_path / "a_run.lock"]
    alive = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert alive.stdout.readline() == "0\n"
    with one_writer("a_run", tmp_path, lease=2.0):
        assert alive.poll() == 0, "taken over while its holder was alive"
    alive.stdout.close()


def test_a_process_that_was_suspended_too_long_writes_nothing_more(holder, tmp_path):
    sleeper = holder(600, lease=2.0)
    # Suspended, it shows no sign of life, like a process on another machine.
    sleeper.send_signal(signal.SIGSTOP)
    with one_writer("a_run", tmp_path, lease=2.0) as still_ours:
        checkpoint = Checkpoint("a_run", "f" * 16, tmp_path, still_ours)
        checkpoint.save(FACTS, ARRAYS.items())
        (tmp_path / "a_run.lock").write_text("taken by somebody else")
        with pytest.raises(InputError, match="has lost the run"):
            checkpoint.save({"position": {"epoch": 9}}, ARRAYS.items())
        with pytest.raises(InputError, match="has written nothing"):
            checkpoint.keep({})
        assert checkpoint.load()[0]["position"] == {"epoch": 3}
        assert (
            json.loads((tmp_path / "a_run" / "writer.json").read_text())["pid"] == os.getpid()
        )
