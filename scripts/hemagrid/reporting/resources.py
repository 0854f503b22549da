"""What jobs asked for and what they used, read from Snakemake's benchmark files.

With `benchmark-extended: true` in a profile, a benchmark file also holds what that attempt
asked for. Snakemake writes it when a job succeeds. It samples memory every half second at
first and every half minute later, so a short peak may be missed.
"""

import ast
import csv
from pathlib import Path

import pandas as pd

from hemagrid.io import read_sparse, write_table
from hemagrid.reporting.text import DASH, duration

# Memory in megabytes (10^6 bytes), time in minutes.
COLUMNS = ["rule", "job", "threads", "gpus", "requested_mem_mb", "used_mem_mb"]
COLUMNS += ["requested_minutes", "used_minutes", "cpu_minutes"]

_MB_PER_MIB = 1.048576


def usage_table(folder):
    """Gather what jobs asked for and used.

    Args:
        folder: Folder of benchmark files, `{rule}.tsv` or `{rule}/{job}.tsv`.

    Returns:
        A data frame of `COLUMNS`, one row per benchmark file, sorted by rule and job. What a
        file does not say is missing; files that are not benchmarks are ignored.
    """
    rows = []
    for path in sorted(Path(folder).rglob("*.tsv")):
        rule, *job = path.relative_to(folder).with_suffix("").parts
        if record := _read(path):
            rows.append({"rule": rule, "job": "/".join(job)} | record)
    return pd.DataFrame(rows, columns=COLUMNS).astype({"threads": "Int64", "gpus": "Int64"})


def write_usage(folder, out):
    """Write `usage_table` as CSV."""
    write_table(out, usage_table(folder).round(4))


def read_usage(path):
    """Read what `write_usage` wrote."""
    return read_sparse(path, "rule", "job").fillna({"job": ""})


def summary(table):
    """Lay out a `usage_table` per rule, as text for people.

    Memory and time are those of the job that came closest to what it asked for, or of the
    largest job if none says what it asked for. "time in all" is the sum over the jobs.
    """
    rows = []
    for rule, jobs in table.groupby("rule"):
        gpu_minutes = _gpu_minutes(jobs)
        rows.append(
            {
                "rule": rule,
                "jobs": str(len(jobs)),
                "memory": _tightest(jobs, "mem_mb", _megabytes),
                "time": _tightest(jobs, "minutes", _minutes),
                "time in all": _minutes(jobs["used_minutes"].sum()),
                "CPU time": _minutes(jobs["cpu_minutes"].sum()),
                "GPU time": _minutes(gpu_minutes) if gpu_minutes else DASH,
            }
        )
    return pd.DataFrame(rows)


def totals(table):
    """Add up a `usage_table`: {"jobs", "wall_hours", "cpu_hours", "gpu_hours"}.

    Jobs run side by side, so a study takes less time than its `wall_hours`. A job whose GPUs
    are unknown counts as one without.
    """
    return {
        "jobs": len(table),
        "wall_hours": float(table["used_minutes"].sum() / 60),
        "cpu_hours": float(table["cpu_minutes"].sum() / 60),
        "gpu_hours": float(_gpu_minutes(table) / 60),
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
            columns[f"{name} {said}"] = cells
    columns["CPU time"] = table["cpu_minutes"].map(_minutes, na_action="ignore")
    return pd.DataFrame(columns, dtype=object).fillna(DASH)


def _gpu_minutes(jobs):
    return (jobs["gpus"] * jobs["used_minutes"]).sum()


def _megabytes(amount):
    return f"{amount:,.0f} MB"


def _minutes(amount):
    return duration(60 * amount)


def _tightest(jobs, amount, spelled):
    """Say "used of requested (share)" for the job with the largest share."""
    used, requested = jobs[f"used_{amount}"], jobs[f"requested_{amount}"]
    share = (used / requested).dropna()
    if share.empty:
        return spelled(used.max()) if used.notna().any() else DASH
    job = share.idxmax()
    return f"{spelled(used[job])} of {spelled(requested[job])} ({100 * share[job]:.0f} %)"


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
            "cpu_minutes": (_number(record["cpu_time"]) or 0) / 60,
        }
    except (AttributeError, KeyError, OSError, SyntaxError, TypeError, ValueError):
        return None


def _number(text):
    """Return a number, or None for anything else, such as the `NA` of a very short job."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
