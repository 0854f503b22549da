"""Train a run in a child process, kill the child at random instants, start it again.

Takes a JSON file with what `train_run` takes, or `search_head` where `kind` is search, and:
`kills`, how many, spread over the run; `terms`, the share of them that are SIGTERM; `delay`,
the seconds at most between a stage that was waited for and the signal; `pause`, seconds after
each epoch, so that no short one goes by unseen; `epochs`, the number per phase, or of trials;
`seed`. Writes beside it what the children said. TensorFlow is imported once, here, and each
child is a fork of this process, which never uses it: a start costs a second instead of ten.
"""

import json
import logging
import os
import random
import signal
import sys
import time
from pathlib import Path

from hemagrid import io, logs
from hemagrid.errors import Stopped
from hemagrid.training import checkpoints, run, trainer
from hemagrid.tuning.search import search_head

PATIENCE = 300  # seconds for anything


class Child:
    """One process that trains, or goes on training, the run."""

    def __init__(self, job, log):
        self.log = log
        log.write_text("")
        self.pid = os.fork()
        if self.pid == 0:
            self._train(job)

    def _train(self, job):
        output = os.open(self.log, os.O_WRONLY | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        logging.basicConfig(level=logging.INFO, format="%(message)s")
        logs.STARTED = time.perf_counter()
        report = checkpoints.Checkpoint.report

        def pause(checkpoint, facts):
            report(checkpoint, facts)
            time.sleep(job["pause"])

        checkpoints.Checkpoint.report = pause
        status = 1
        try:
            work = search_head if job["kind"] == "search" else run.train_run
            work(job["run"], job["settings"], job["inputs"], job["out"], job["folder"])
            status = 0
        except Stopped as reason:
            print("Stopped:", reason, flush=True)
            status = 3
        finally:
            os._exit(status)

    def wait(self, until):
        """Wait; return the exit status if the child ends before `until()` holds."""
        deadline = time.monotonic() + PATIENCE
        while not until():
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                raise TimeoutError(f"nothing in {PATIENCE} s:\n{self.log.read_text()}")
            time.sleep(0.002)
        return None


def epochs_done(job):
    """Count the epochs that the run has behind it, or the trials, as its progress tells."""
    name = f"search_{job['run']}" if job["kind"] == "search" else job["run"]
    try:
        progress = json.loads((Path(job["folder"]) / name / "progress.json").read_text())
    except FileNotFoundError:
        return 0
    if job["kind"] == "search":
        return progress["trial"]
    phases = list(job["epochs"])
    earlier = phases[: phases.index(progress["phase"])]
    return sum(job["epochs"][phase] for phase in earlier) + progress["epoch"]


def disturb(child, job, number, chance):
    """Kill the child at its share of the run; return its status and the signal, if any."""
    total = sum(job["epochs"].values())
    # An epoch of its own at least, but for those that are killed while they start.
    goal = max(total * number // job["kills"], epochs_done(job) + 1)
    goal = 0 if chance.random() < 0.2 else min(goal, total - 1)
    status = child.wait(lambda: epochs_done(job) >= goal)
    end = time.monotonic() + chance.uniform(0, job["delay"])
    status = child.wait(lambda: time.monotonic() > end) if status is None else status
    if status is not None:
        return status, None
    kind = signal.SIGTERM if chance.random() < job["terms"] else signal.SIGKILL
    os.kill(child.pid, kind)
    return os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]), kind.name


def main(path):
    # A checkpoint after every epoch, so that each kill meets a state of its own.
    trainer.SAVE_SHARE = float("inf")
    job = io.read_json(path)
    chance = random.Random(job["seed"])
    children, kills = [], 0
    while not children or children[-1]["status"] != 0:
        child = Child(job, path.with_suffix(".log"))
        if kills < job["kills"]:
            status, name = disturb(child, job, kills, chance)
        else:
            status, name = child.wait(lambda: False), None
        kills += name is not None
        children.append({"status": status, "signal": name, "log": child.log.read_text()})
        if name is None and status != 0:
            raise SystemExit(f"a child failed:\n{child.log.read_text()}")
    io.write_json(path.with_suffix(".children"), children)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
