"""Logging of jobs: everything into the job's log, the lines that a person follows on screen.

The library logs through `logging.getLogger(__name__)`. In a job, `info` and above reach the
terminal as bare lines and the log with a time stamp; `debug` reaches the log alone. What
other libraries print goes into the log. Its last line is what the process has used.
"""

import contextlib
import errno
import io
import logging
import os
import re
import resource
import signal
import sys
import time
import traceback
from pathlib import Path

from tqdm import tqdm

from hemagrid.errors import InputError, Stopped
from hemagrid.io import remove_temporaries

_USED = "used %.2f s, %.2f CPU seconds, at most %.2f MiB of memory"
_STATUS = Path("/proc/self/status")
DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
INTERVAL = 10  # seconds between two lines of progress

STARTED = time.perf_counter()  # scripts import this module first, before Keras

logger = logging.getLogger("hemagrid")


@contextlib.contextmanager
def job(log_path, outputs=(), resources=None):
    """Send a job's output to `log_path` and end the job with one line about its failure.

    `InputError`, `Stopped`, Ctrl-C and a full disk end the job with a message alone. Any other
    error leaves its traceback in the log and a line on the terminal. The exit status is 1 in
    each case, so that a scheduler may start the job again. A line that cannot be written, as on
    a full disk, is lost and does not end the job.

    Args:
        log_path: Path of the log file. It is overwritten.
        outputs: Paths that the job alone writes. What a killed job left beside them is removed.
        resources: The job's resources. The log begins with them, for `config.attempts` to read.
    """
    terminal = _stream(os.dup(2))
    log = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout, sys.stderr = _stream(1), _stream(2)
    _log_to(sys.stderr, "%(asctime)s %(message)s", logging.DEBUG)
    _log_to(terminal, "%(message)s", logging.INFO)
    had = {key: resources.get(key) for key in ("mem_mb", "runtime")} if resources else {}
    if any(had.values()):
        logger.debug("This attempt has mem_mb=%(mem_mb)s, runtime=%(runtime)s", had)
    signal.signal(signal.SIGTERM, _stop)
    try:
        for path in outputs:
            remove_temporaries(path)
        yield
        logger.debug(_USED, *usage().values())
    except InputError as error:
        logger.error("Error: %s", error)
        sys.exit(1)
    except (Stopped, KeyboardInterrupt) as reason:
        peak = round(usage()["peak_memory_mib"])
        logger.debug("Its memory was %s MB at most", peak)
        logger.error("Stopped: %s", reason if str(reason) else "by Ctrl-C")
        sys.exit(1)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in DISK_FULL:
            logger.error("Error: %s; free some space or raise the quota, and run again", error)
            sys.exit(1)
        traceback.print_exc()
        kind = type(error).__name__
        logger.error("Error: %s: %s\nThe traceback is in %s", kind, error, log_path)
        sys.exit(1)


def usage():
    """Return what this process has used: `seconds`, `cpu_seconds` and `peak_memory_mib`.

    CPU time includes that of processes that it started and waited for. Other than samples,
    these figures miss nothing. Linux keeps the peak of this very program in /proc; `getrusage`
    starts from that of the program, such as Snakemake, that started it.
    """
    own, others = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    peak = own.ru_maxrss / (1024**2 if sys.platform == "darwin" else 1024)
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
        peak = int(found[1]) / 1024 if found else peak
    return {
        "seconds": time.perf_counter() - STARTED,
        "cpu_seconds": sum(of.ru_utime + of.ru_stime for of in (own, others)),
        "peak_memory_mib": peak,
    }


def used(log_path):
    """Read what `job` noted at the end of a log, as `usage` returns it; None without it."""
    try:
        text = Path(log_path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.findall(_USED.replace("%.2f", r"([\d.]+)") + "$", text, flags=re.M)
    names = ("seconds", "cpu_seconds", "peak_memory_mib")
    return dict(zip(names, map(float, found[-1]), strict=True)) if found else None


def track(iterable, description, total=None, unit="images", step=1):
    """Iterate over `iterable` and log how far it is, one line every `INTERVAL` seconds.

    Args:
        iterable: What to iterate over.
        description: What is being done, such as "Embedding train".
        total: Number of units in all. None stands for `len(iterable) * step`.
        unit: Name of the units, in the plural.
        step: Units per item. The last item may hold fewer.

    Yields:
        The items of `iterable`.
    """
    total = len(iterable) * step if total is None else total
    with tqdm(
        total=total,
        desc=description,
        unit=f" {unit}",
        file=_Lines(),
        mininterval=INTERVAL,
        maxinterval=INTERVAL,
        bar_format="{desc}: {n_fmt} of {total_fmt}{unit}, {elapsed} so far, {remaining} left",
        delay=INTERVAL,
        leave=False,
    ) as bar:
        for item in iterable:
            yield item
            bar.update(min(step, total - bar.n))


def _stop(number, frame):
    raise Stopped("by SIGTERM")


class _Lossy(io.FileIO):
    """A file that loses what it cannot write."""

    def write(self, data):
        try:
            return super().write(data)
        except OSError:
            return len(data)


def _stream(descriptor):
    """Open a stream of text that writes line by line and never fails."""
    raw = _Lossy(descriptor, "w", closefd=False)
    return io.TextIOWrapper(raw, encoding="utf-8", errors="replace", line_buffering=True)


def _log_to(stream, layout, level):
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter(layout, datefmt="%Y-%m-%d %H:%M:%S"))
    handler.setLevel(level)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False


class _Lines:
    """A stream for tqdm that logs each state of the bar as one line."""

    def write(self, text):
        text = text.strip()
        if text:
            logger.info(text)

    def flush(self):
        pass
