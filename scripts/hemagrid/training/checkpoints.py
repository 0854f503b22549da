"""Checkpoints, and one writer at a time: a job can die at any instant and be started again.

Both live in `checkpoints/`, outside the declared outputs, which Snakemake deletes when a job
fails. A checkpoint is named by the hash of everything that determines the result, so one made
with other settings, data or code is never used.
"""

import contextlib
import glob
import hashlib
import json
import logging
import os
import shutil
import socket
import time
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from filelock import SoftFileLease, Timeout

from hemagrid import io, logs
from hemagrid.errors import InputError
from hemagrid.names import CHECKPOINTS
from hemagrid.revisions import REVISIONS
from hemagrid.training import environment, jobs

logger = logging.getLogger(__name__)

FOLDER = Path(CHECKPOINTS)

# Seconds without a sign of life after which a writer on another node counts as dead: longer
# than network file systems cache a file's times (60 by default).
LEASE = 120.0

KEPT = ".finished"  # ending of the folder that keeps results until they are accepted
RESULTS = "results.json"  # there: {name: path} of the results

WAITING = "waiting.json"  # beside them: who waits for the run, written at every reminder
REMINDER = 300  # seconds between two lines about waiting


def key_of(stage, settings, inputs, *packages):
    """Hash everything that determines a result, and what a checkpoint of it looks like.

    Code counts by the stage's revision, not by its text: raise the revision when results or
    the layout of checkpoints change.

    Args:
        stage: A stage of `revisions.REVISIONS`.
        settings: Anything that JSON can hold.
        inputs: {name: path} of files, whose content counts.
        packages: Modules whose version matters, besides Keras, its backend and NumPy.

    Returns:
        16 hex digits of a SHA-256.
    """
    digests = {}
    for name, path in sorted(inputs.items()):
        with open(path, "rb") as content:
            digests[name] = hashlib.file_digest(content, "sha256").hexdigest()
    identity = [stage, REVISIONS[stage], settings, digests, environment.versions(*packages)]
    text = json.dumps(identity, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class Checkpoint:
    """The state of one run on disk: `{folder}/{run}/{key}.npz`, complete or absent.

    Args:
        run: Name of the run, or of another job.
        key: What `key_of` gave.
        folder: Where the checkpoints of all runs lie.
        still_ours: Called before each write; raises if another process has taken the run over.
    """

    def __init__(self, run, key, folder=FOLDER, still_ours=lambda: None):
        self.run, self.key, self.still_ours = run, key, still_ours
        self.folder = Path(folder) / run
        self.path = self.folder / f"{key}.npz"
        self.waited = 0.0  # seconds for another process, which are not this one's work
        self.former = {"seconds": 0.0, "cpu_seconds": 0.0, "peak_memory_mib": 0.0}
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            progress = io.read_json(self.folder / "progress.json")
            if progress["key"] == key:
                self.former = progress["spent"]

    def spent(self):
        """Return what all processes of this run have used so far.

        A process that was killed counts up to its last progress record or checkpoint.

        Returns:
            `seconds` (without waiting for another process), `cpu_seconds`, `peak_memory_mib`
            (the largest of them).
        """
        used = logs.usage()
        used["seconds"] -= self.waited
        used["seconds"] += self.former["seconds"]
        used["cpu_seconds"] += self.former["cpu_seconds"]
        used["peak_memory_mib"] = max(used["peak_memory_mib"], self.former["peak_memory_mib"])
        return used

    def save(self, facts, arrays):
        """Write the state.

        If that fails, as on a full disk, it is reported, the former checkpoint stays, and
        training goes on.

        Args:
            facts: What JSON can hold, without NaN.
            arrays: Pairs (name, array). Each is written before the next is asked for.
        """
        self.still_ours()
        facts = {"run": self.run, "key": self.key, "spent": self.spent()} | facts
        text = json.dumps(facts, allow_nan=False)
        try:
            with io.replacing(self.path) as temporary, ZipFile(temporary, "w") as archive:

                def write(name, array):
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)

                # Like np.savez, which would hold all arrays in memory at once.
                write("facts", np.array(text))
                names = []
                for name, array in arrays:
                    write(name, array)
                    names.append(name)
                # A damaged archive may lack members without a word.
                write("names", np.array(names, dtype=str))
        except OSError as error:
            logger.info(
                f"{self.run}: the checkpoint could not be written: {error}. Training "
                "continues; if it stops before the next one, it repeats what followed the last"
            )

    def load(self):
        """Return (facts, {name: array}), or None if there is nothing to continue from.

        A file that is damaged, or of another run or key, is set aside with the reason.
        """
        for other in sorted(self.folder.glob("*.npz")):
            if other != self.path:
                logger.info(
                    f"{self.run}: {other} was made with other settings, data or code; "
                    "it is not used"
                )
        if not self.path.exists():
            return None
        try:
            # Opened here: NumPy leaves a damaged archive open.
            with open(self.path, "rb") as file, np.load(file, allow_pickle=False) as stored:
                facts = json.loads(str(stored["facts"]))
                arrays = {name: stored[name] for name in stored["names"].tolist()}
            self.former = max(self.former, facts["spent"], key=lambda each: each["seconds"])
            owner = (facts["run"], facts["key"])
            if owner != (self.run, self.key):
                raise ValueError(f"it belongs to run {owner[0]}, key {owner[1]}")
        # Damaged bytes can raise anything in the layers of zip, npy and JSON.
        except Exception as error:
            aside = self.path.with_suffix(".set-aside")
            os.replace(self.path, aside)
            logger.info(
                f"{self.run}: {self.path} is not a checkpoint of this run ({error}); set aside "
                f"as {aside.name}, training starts from the beginning"
            )
            return None
        return facts, arrays

    def report(self, facts):
        """Write `progress.json` for people who watch a job: `facts` and which process it is."""
        facts = {"run": self.run, "key": self.key, "spent": self.spent()} | facts
        facts |= {"updated": _now()} | _this_process()
        with contextlib.suppress(OSError):
            io.write_json(self.folder / "progress.json", facts)

    def keep(self, out):
        """Keep the results in place of the state: Snakemake may yet refuse and delete them.

        They are linked, which takes no space. Where files cannot be linked, the state stays.

        Args:
            out: {name: path} of the results.
        """
        self.still_ours()
        kept = self.folder / f"{self.key}{KEPT}"
        with contextlib.suppress(OSError):
            shutil.rmtree(kept, ignore_errors=True)
            kept.mkdir()
            io.write_json(kept / RESULTS, {name: str(path) for name, path in out.items()})
            for name, path in out.items():
                os.link(path, kept / name)
            for other in self.folder.iterdir():
                if other.is_file():
                    other.unlink()

    def restore(self, out):
        """Put results that were kept back into their place; return whether there were any."""
        kept = self.folder / f"{self.key}{KEPT}"
        if not all((kept / name).exists() for name in out):
            return False
        for name, path in out.items():
            with io.replacing(path) as temporary:
                os.link(kept / name, temporary)
                os.utime(temporary)
        return True


def release(inputs, folder=FOLDER):
    """Remove what was kept of results that Snakemake has accepted: the next job reads them.

    Args:
        inputs: Paths of the files that a job reads.
        folder: Where the checkpoints of all runs lie.
    """
    read = set(map(str, inputs))
    # Path.glob raises an error if another job removes a folder meanwhile; glob does not.
    for found in glob.iglob(f"*/*{KEPT}/{RESULTS}", root_dir=folder):
        results = Path(folder, found)
        run = results.parents[1]
        if (
            read & set(_read(results).values())
            and not run.with_name(f"{run.name}.lock").exists()
        ):
            shutil.rmtree(run, ignore_errors=True)


def compute_once(run, key, out, record, compute, folder=FOLDER):
    """Compute a run's files in one process at a time, unless they are there already.

    A second process waits, and does nothing if the first has finished by then. The results are
    kept until the next job calls `release`.

    Args:
        run: Name of the run, or of another job.
        key: What `key_of` gave.
        out: {name: path} of the files to make.
        record: The name in `out` of a JSON file that holds "key" and is written last.
        compute: Called with a `Checkpoint`; makes the files.
        folder: Where checkpoints lie until `compute` returns.
    """
    asked = time.perf_counter()
    with one_writer(run, folder) as still_ours:
        waited = time.perf_counter() - asked
        complete = all(Path(path).exists() for path in out.values())
        if complete and io.read_json(out[record]).get("key") == key:
            logger.info(f"{run}: another process has finished this meanwhile")
            return
        for path in out.values():
            io.remove_temporaries(path)
        checkpoint = Checkpoint(run, key, folder, still_ours)
        checkpoint.waited = waited
        io.remove_temporaries(checkpoint.path)
        if checkpoint.restore(out):
            logger.info(f"{run}: finished before; its results were deleted and are put back")
            return
        compute(checkpoint)
        checkpoint.keep(out)


@contextlib.contextmanager
def one_writer(run, folder=FOLDER, lease=LEASE):
    """Hold the lock of a run; wait while another process holds it.

    A holder that died on this machine is noticed at once; one on another node, when it has
    shown no sign of life for `lease` seconds.

    Yields:
        A function that raises InputError if the lock was lost, for example because this
        process was suspended for too long.
    """
    folder = Path(folder)
    (folder / run).mkdir(parents=True, exist_ok=True)
    lock = SoftFileLease(folder / f"{run}.lock", lease_duration=lease, poll_interval=1)
    holder, waiting = folder / run / "writer.json", folder / run / WAITING
    patience = 2
    cancel = _this_process()["cancel"]
    try:
        while not lock.is_lock_held_by_us:
            try:
                lock.acquire(timeout=patience)
            except Timeout:
                logger.info(
                    f"{run}: {_described(holder)} is working on it; waiting until it has "
                    f"finished, or has shown no sign of life for {lease:.0f} s"
                    + (f". To give this job's GPU back: {cancel}" if cancel else "")
                )
                with contextlib.suppress(OSError):
                    io.write_json(waiting, _this_process() | {"since": _now()})
                patience = REMINDER
    finally:
        if patience == REMINDER:
            waiting.unlink(missing_ok=True)

    def still_ours():
        if lock.compromise or not lock.is_lock_held_by_us:
            raise InputError(
                f"{run}: this process ({_described(_this_process())}) was silent for too long "
                f"and has lost the run to {_described(holder)}; it has written nothing since"
            )

    try:
        with contextlib.suppress(OSError):  # on a full disk; it only names the holder
            io.write_json(holder, _this_process() | {"since": _now()})
        yield still_ours
    finally:
        lock.release()


def _this_process():
    job, cancel = jobs.batch_job()
    return {"host": socket.gethostname(), "pid": os.getpid(), "job": job, "cancel": cancel}


def _now():
    return datetime.now(UTC).isoformat(timespec="seconds")


def _read(path):
    try:
        return io.read_json(path)
    except (OSError, ValueError):
        return {}


def _described(process):
    """Name a process by its record, or by the file that holds it, if that can be read."""
    if isinstance(process, Path):
        process = _read(process)
    job, since = process.get("job"), process.get("since")
    return (
        f"process {process.get('pid', '?')} on {process.get('host', '?')}"
        + (f" (job {job})" if job else "")
        + (f" since {since}" if since else "")
    )
