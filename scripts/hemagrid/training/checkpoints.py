"""What lets a training job die at any instant: a checkpoint, and one writer at a time.

Both live in `checkpoints/`, outside the declared outputs, which Snakemake deletes when a
job fails. A checkpoint's name is the hash of everything that determines the result, so
that one of other settings, data or code is never taken up.
"""

import contextlib
import hashlib
import itertools
import json
import logging
import os
import shutil
import socket
from datetime import UTC, datetime
from pathlib import Path
from zipfile import ZipFile

import numpy as np
from filelock import SoftFileLease, Timeout

from hemagrid import io
from hemagrid.errors import InputError

logger = logging.getLogger(__name__)


FOLDER = Path("checkpoints")


# Seconds without a sign of life after which a writer on another node counts as dead: longer
# than network file systems keep a file's times in their caches (60 by default).
LEASE = 120.0


REMINDER = 300  # seconds between two lines about waiting


def key_of(settings, inputs, code):
    """Return 16 hex digits of the SHA-256 of everything that determines a result.

    `settings` is JSON-able, `inputs` {name: path} of files, of which the content counts,
    `code` {name: str} of source texts and versions.
    """
    digests = {}
    for name, path in sorted(inputs.items()):
        with open(path, "rb") as content:
            digests[name] = hashlib.file_digest(content, "sha256").hexdigest()
    identity = json.dumps([settings, digests, code], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def _this_process():
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "slurm_job_id": os.environ.get("SLURM_JOB_ID"),
    }


def _now():
    return datetime.now(UTC).isoformat(timespec="seconds")


class Checkpoint:
    """The state of one run on disk: `{folder}/{run}/{key}.npz`, complete or absent.

    `still_ours` is called before each write and raises when another process has taken the
    run over.
    """

    def __init__(self, run, key, folder=FOLDER, still_ours=lambda: None):
        self.run, self.key, self.still_ours = run, key, still_ours
        self.folder = Path(folder) / run
        self.path = self.folder / f"{key}.npz"

    def save(self, facts, arrays):
        """Write `facts` (JSON-able) and `arrays`, pairs (name, array) taken one at a time.

        A write that fails, as on a full disk, is reported and costs nothing else: the
        former checkpoint stays, and training goes on.
        """
        self.still_ours()
        text = json.dumps({"run": self.run, "key": self.key} | facts, allow_nan=False)
        try:
            with io.replacing(self.path) as temporary, ZipFile(temporary, "w") as archive:
                # As np.savez, which holds all arrays in memory at once.
                for name, array in itertools.chain([("facts", np.array(text))], arrays):
                    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                        np.lib.format.write_array(member, array, allow_pickle=False)
        except OSError as error:
            logger.info(
                f"{self.run}: the checkpoint could not be written: {error}. Training goes "
                "on; if it is stopped before the next one, it repeats what came after the last"
            )

    def load(self):
        """Return (facts, arrays), or None where nothing can be taken up.

        A file that is torn, or of another run or key, is set aside with the reason.
        """
        for other in sorted(self.folder.glob("*.npz")):
            if other != self.path:
                logger.info(
                    f"{self.run}: {other} is of other settings, data or code; it is not used"
                )
        if not self.path.exists():
            return None
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                facts = json.loads(str(stored["facts"]))
                arrays = {name: stored[name] for name in stored.files if name != "facts"}
            owner = (facts["run"], facts["key"])
            if owner != (self.run, self.key):
                raise ValueError(f"it is of run {owner[0]}, key {owner[1]}")
        # Torn bytes raise about anything in the layers of zip, npy and JSON.
        except Exception as error:
            aside = self.path.with_suffix(".set-aside")
            os.replace(self.path, aside)
            logger.info(
                f"{self.run}: {self.path} is no checkpoint of this run ({error}); set aside "
                f"as {aside.name}, training starts anew"
            )
            return None
        return facts, arrays

    def report(self, facts):
        """Write `facts` about the last epoch for people who look at a run under way."""
        facts = {"run": self.run} | facts | {"updated": _now()} | _this_process()
        with contextlib.suppress(OSError):
            io.write_json(self.folder / "progress.json", facts)

    def remove(self):
        """Remove everything of this run, whatever its key."""
        self.still_ours()
        shutil.rmtree(self.folder, ignore_errors=True)


def compute_once(run, key, out, record, compute, folder=FOLDER):
    """Call `compute(checkpoint)`, which writes the files `out`, in one process at a time.

    `out` is {name: path}; `out[record]` is a JSON that is written last and notes the `key`
    that all of it rests on. A second process waits, and computes nothing where the first
    has finished meanwhile. Checkpoints lie in `folder` until `compute` returns.
    """
    with one_writer(run, folder) as still_ours:
        if _complete(out, record, key):
            logger.info(f"{run}: another process has finished this meanwhile")
            return
        for path in out.values():
            io.remove_temporaries(path)
        checkpoint = Checkpoint(run, key, folder, still_ours)
        compute(checkpoint)
        checkpoint.remove()


def _complete(out, record, key):
    return (
        all(Path(path).exists() for path in out.values())
        and io.read_json(out[record]).get("key") == key
    )


@contextlib.contextmanager
def one_writer(run, folder=FOLDER, lease=LEASE):
    """Hold the lock of a run; wait while another process holds it.

    A holder that died on this machine is recognised at once, one on another node when it
    has shown no sign of life for `lease` seconds. Yields a function that raises InputError
    once the lock is lost, as by a process that was suspended for longer than that.
    """
    folder = Path(folder)
    (folder / run).mkdir(parents=True, exist_ok=True)
    lock = SoftFileLease(folder / f"{run}.lock", lease_duration=lease, poll_interval=1)
    holder = folder / run / "writer.json"
    _wait_for(lock, run, holder, lease)

    def still_ours():
        if lock.compromise or not lock.is_lock_held_by_us:
            raise InputError(
                f"{run}: this process ({_named(_this_process())}) was silent for too long and "
                f"has lost the run to {_named(_read(holder))}; nothing was written since"
            )

    try:
        with contextlib.suppress(OSError):  # a full disk; it only names the holder
            io.write_json(holder, _this_process() | {"since": _now()})
        yield still_ours
    finally:
        lock.release()


def _wait_for(lock, run, holder, lease):
    patience = 2
    while True:
        try:
            lock.acquire(timeout=patience)
            return
        except Timeout:
            logger.info(
                f"{run}: {_named(_read(holder))} is training this run; waiting until it has "
                f"finished, or has shown no sign of life for {lease:.0f} s"
            )
            patience = REMINDER


def _read(holder):
    try:
        return io.read_json(holder)
    except (OSError, ValueError):
        return {}


def _named(process):
    """Say who a process is, as well as its record tells."""
    job = process.get("slurm_job_id")
    since = process.get("since")
    return (
        f"process {process.get('pid', '?')} on {process.get('host', '?')}"
        + (f" (SLURM job {job})" if job else "")
        + (f", since {since}," if since else "")
    )
