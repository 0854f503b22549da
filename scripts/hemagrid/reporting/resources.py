"""What jobs asked for and what they used.

With `benchmark-extended: true` in a profile, Snakemake's benchmark file of a job holds what
that attempt asked for. What was used comes from the job itself: from the cost that training,
embedding and search put on record, over all processes that worked on it, or from the last line
of its log. Snakemake's own figures are samples, every half second for a quarter of a minute
and then every half minute: they miss a peak between two samples, and all CPU time after the
last one. So they count only where nothing else is known, as the least memory, and never as CPU
time.
"""

import ast
import csv
from pathlib import Path

import pandas as pd

from hemagrid import logs, names
from hemagrid.io import read_json, read_sparse, write_table
from hemagrid.reporting.text import DASH, duration

# Memory in megabytes (10^6 bytes), time in minutes.
COLUMNS = ["rule", "job", "threads", "gpus", "requested_mem_mb", "used_mem_mb"]
COLUMNS += ["requested_minutes", "used_minutes", "cpu_minutes", "measured"]

SAMPLES = "samples"
"""How a job was measured that says nothing itself: memory is the least, CPU time unknown."""
_RECORDS = {"train": names.COST, "embed": names.EMBEDDING_COST, "search": names.FOUND_HEAD}

_MB_PER_MIB = 1.048576


def usage_table(folder):
    """Gather what jobs asked for and used.

    Args:
        folder: Folder of benchmark files, `{rule}.tsv` or `{rule}/{job}.tsv`. The study's logs
            and results lie beside it.

    Returns:
        A data frame of `COLUMNS`, one row per benchmark file, sorted by rule and job. What no
        file says is missing; files that are not benchmarks are ignored. `measured` is "all
        processes", "last process" or `SAMPLES`.
    """
    rows = []
    for path in sorted(Path(folder).rglob("*.tsv")):
        rule, *job = path.relative_to(folder).with_suffix("").parts
        if record := _read(path):
            record |= _measured(Path(folder).parent, rule, "/".join(job))
            rows.append({"rule": rule, "job": "/".join(job)} | record)
    return pd.DataFrame(rows, columns=COLUMNS).astype({"threads": "Int64", "gpus": "Int64"})


def write_usage(folder, out):
    """Write `usage_table` as CSV."""
    write_table(out, usage_table(folder).round(4))


def read_usage(path):
    """Read what `write_usage` wrote."""
    return read_sparse(path, "rule", "job", "measured").fillna({"job": ""})


def summary(table):
    """Lay out a `usage_table` per rule, as text for people.

    Memory and time are the largest of any job, and what that job asked for. "time in all" is
    the sum over the jobs. A dash for CPU time says that no job measured it.
    """
    rows = []
    for rule, jobs in table.groupby("rule"):
        gpu_minutes = _gpu_minutes(jobs)
        rows.append(
            {
                "rule": rule,
                "jobs": str(len(jobs)),
                "memory": _largest(jobs, "mem_mb", _megabytes),
                "time": _largest(jobs, "minutes", _minutes),
                "time in all": _minutes(jobs["used_minutes"].sum()),
                "CPU time": _minutes(jobs["cpu_minutes"].sum(min_count=1)),
                "GPU time": _minutes(gpu_minutes) if gpu_minutes else DASH,
            }
        )
    return pd.DataFrame(rows)


def totals(table):
    """Add up a `usage_table`: {"jobs", "wall_hours", "cpu_hours", "gpu_hours", "sampled"}.

    Jobs run side by side, so a study takes less time than its `wall_hours`. A job whose GPUs
    are unknown counts as one without, as do the `sampled` jobs, whose CPU time is unknown.
    """
    return {
        "jobs": len(table),
        "wall_hours": float(table["used_minutes"].sum() / 60),
        "cpu_hours": float(table["cpu_minutes"].sum() / 60),
        "gpu_hours": float(_gpu_minutes(table) / 60),
        "sampled": int((table["measured"] == SAMPLES).sum()),
    }


def shown(table):
    """Lay out a `usage_table` per job, as text for people."""
    columns = {"job": (table["rule"] + " " + table["job"]).str.strip()}
    for amount, name, spelled in (
        ("mem_mb", "memory", _megabytes),
        ("minutes", "time", _minutes),
    ):
        for kind, said in (("used", "used"), ("requested", "asked for")):
            cells = table[f"{kind}_{amount}"].map(spelled, na_action="ignore")
            if (kind, amount) == ("used", "mem_mb"):
                cells = ("at least " + cells).where(table["measured"] == SAMPLES, cells)
            columns[f"{name} {said}"] = cells
    columns["CPU time"] = table["cpu_minutes"].map(_minutes, na_action="ignore")
    return pd.DataFrame(columns, dtype=object).fillna(DASH)


def _gpu_minutes(jobs):
    return (jobs["gpus"] * jobs["used_minutes"]).sum()


def _megabytes(amount):
    return f"{amount:,.0f} MB"


def _minutes(amount):
    return DASH if pd.isna(amount) else duration(60 * amount)


def _largest(jobs, amount, spelled):
    """Say "used of requested (share)" for the job that used most."""
    if jobs[f"used_{amount}"].isna().all():
        return DASH
    job = jobs.loc[jobs[f"used_{amount}"].idxmax()]
    used, requested = job[f"used_{amount}"], job[f"requested_{amount}"]
    least = "at least " * (amount == "mem_mb" and job["measured"] == SAMPLES)
    if pd.isna(requested):
        return least + spelled(used)
    return f"{least}{spelled(used)} of {spelled(requested)} ({100 * used / requested:.0f} %)"


def _measured(study, rule, job):
    """Return what a job has measured itself, if it has."""
    record, measured = {}, "all processes"
    if rule in _RECORDS:
        path = study / _RECORDS[rule].format(run=job, backbone=job)
        record = read_json(path) if path.exists() else {}
    if "cpu_seconds" not in record:  # the searches of former releases
        log = study / names.LOG.format(rule=rule, name=job)
        record, measured = (
            logs.used(log if job else log.parent.with_suffix(".log")),
            "last process",
        )
    if not record:
        return {"measured": SAMPLES}
    return {
        "used_mem_mb": record["peak_memory_mib"] * _MB_PER_MIB,
        "used_minutes": record["seconds"] / 60,
        "cpu_minutes": record["cpu_seconds"] / 60,
        "measured": measured,
    }


def _read(path):
    """Return what the last record of a benchmark file says, or None."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            *_, record = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        resources = ast.literal_eval(record.get("resources") or "{}")
        memory = _number(record["max_rss"])
        gpus = resources.get("gpu", 0) or int("gpu" in str(resources.get("gres", "")))
        return {
            "threads": _number(record.get("threads")),
            "gpus": gpus if resources else None,
            "requested_mem_mb": _number(resources.get("mem_mb")),
            "used_mem_mb": memory and memory * _MB_PER_MIB,
            "requested_minutes": _number(resources.get("runtime")),
            "used_minutes": float(record["s"]) / 60,
            "cpu_minutes": None,
        }
    except (AttributeError, KeyError, OSError, SyntaxError, TypeError, ValueError):
        return None


def _number(text):
    """Return a number, or None for anything else, such as the `NA` of a very short job."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
