"""What a job asks for when it is started again: more of what it ran short of, nothing else.

The log of the former attempt tells: its first line says what it had, its last one how it ended.
"""

import re
from datetime import datetime, timedelta
from pathlib import Path

from hemagrid.config import slurm

GRACE = (
    5  # minutes before a time limit from which on a job that is stopped counts as out of time
)
OTHERS = 400  # MB: what Snakemake takes of a job's memory beside its program
_STAMP = r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) "
# As logs.job writes them.
_HAD = re.compile(_STAMP + r"This attempt has (.*)$", re.M)
_PEAK = re.compile(_STAMP + r"Its memory was (\d+) MB at most$", re.M)
_END = re.compile(_STAMP + r"((?:Error|Stopped): .*)", re.M)
# "failed to map": a library, below a limit of addresses such as Grid Engine's h_vmem.
_MEMORY = re.compile(
    "MemoryError|Cannot allocate memory|Unable to allocate|bad_alloc|failed to map segment"
)


def amount(key, first, attempt, log, queue=(), longest=None):
    """Return what an attempt asks for: `first`, or more as far as the scheduler allows it.

    Args:
        key: "mem_mb", or "runtime" in minutes.
        first: What the first attempt asks for, and by how much a later one exceeds the former.
        attempt: Its number, from 1. It counts submissions that were refused, too.
        log: Path of the job's log, which the former attempt wrote.
        queue: Its partition, account and QOS in SLURM, as `slurm.limits` takes them.
        longest: Minutes that the profile allows, for schedulers that are not asked, or None.
    """
    if attempt == 1:
        return first
    try:
        text = Path(log).read_text(errors="replace")
        written = datetime.fromtimestamp(Path(log).stat().st_mtime)
    except OSError:
        return first  # it never began
    begun = _HAD.search(text)
    had = {
        name: int(value)
        for name, value in re.findall(r"(\w+)=(\d+)", begun[2] if begun else "")
    }
    if key not in had:
        return first
    asked = max(first, had[key] + first * (key in _short(text, begun, written, had)))
    limit, _ = slurm.limits(*queue).get(key, (asked, None))
    if key == "runtime" and longest:
        limit = longest
    return max(first, min(asked, limit))


def _short(text, begun, written, had):
    """Return what an attempt ran short of: keys of its resources."""
    end = next(reversed(list(_END.finditer(text))), None)
    if end and end[2].startswith("Error"):
        return {"mem_mb"} if _MEMORY.search(end[2]) else set()
    last = datetime.fromisoformat(end[1]) if end else written
    left = timedelta(minutes=had.get("runtime", 0)) - (last - datetime.fromisoformat(begun[1]))
    late = {"runtime"} if left < timedelta(minutes=GRACE) else set()
    if end:  # by a signal, which some schedulers send for memory, too
        peak = next(reversed(list(_PEAK.finditer(text))), None)
        return late | (
            {"mem_mb"} if peak and int(peak[2]) + OTHERS >= had.get("mem_mb", 0) else set()
        )
    # Without a word: by the kernel or the scheduler, most often for its memory.
    return late | {"mem_mb"}
