"""What jobs asked for and what they used, from the benchmark files that Snakemake wrote.

With `benchmark-extended: true` in a profile those hold what was requested as well, by this
very attempt. A benchmark file is written when a job succeeds; its memory is sampled, every
half a second at first and every half a minute later, so a short peak may be missed.
"""

import ast
import csv
from pathlib import Path

import pandas as pd

from hemagrid.io import read_sparse, write_table
from hemagrid.reporting.text import duration

# In each, requested stands beside used: megabytes (of 10^6 bytes) and minutes.
COLUMNS = ["rule", "job", "threads", "gpus", "requested_mem_mb", "used_mem_mb"]
COLUMNS += ["requested_minutes", "used_minutes", "cpu_minutes"]


_MB_PER_MIB = 1.048576


def usage_table(folder):
    """Return one row per benchmark file below `folder`, sorted by rule and job.

    `benchmarks/{rule}.tsv` and `benchmarks/{rule}/{job}.tsv` name the job. What a file does
    not tell is missing; a file that is no benchmark is left out.
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
    """Return one row per rule of a `usage_table`, as text for people.

    Memory and time are those of the job that came nearest to what it asked for, or of the
    largest one where no job says what it asked for; "time in all" adds the jobs up.
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
                "GPU time": _minutes(gpu_minutes) if gpu_minutes else _DASH,
            }
        )
    return pd.DataFrame(rows)


def totals(table):
    """Add a `usage_table` up: {"jobs", "wall_hours", "cpu_hours", "gpu_hours"}.

    Jobs ran side by side, so the study took less time than all their wall time. A job whose
    GPUs are unknown counts as one without.
    """
    return {
        "jobs": len(table),
        "wall_hours": float(table["used_minutes"].sum() / 60),
        "cpu_hours": float(table["cpu_minutes"].sum() / 60),
        "gpu_hours": float(_gpu_minutes(table) / 60),
    }


def shown(table):
    """Return one row per job of a `usage_table`, as text for people."""
    units = {"mem_mb": ("memory", _megabytes), "minutes": ("time", _minutes)}
    columns = {"job": (table["rule"] + " " + table["job"]).str.strip()}
    for amount, (name, text) in units.items():
        columns[f"{name} used"] = table[f"used_{amount}"].map(text, na_action="ignore")
        columns[f"{name} asked for"] = table[f"requested_{amount}"].map(
            text, na_action="ignore"
        )
    columns["CPU time"] = table["cpu_minutes"].map(_minutes, na_action="ignore")
    return pd.DataFrame(columns, dtype=object).fillna(_DASH)


_DASH = "\N{EN DASH}"


def _gpu_minutes(jobs):
    return (jobs["gpus"] * jobs["used_minutes"]).sum()


def _megabytes(amount):
    return f"{amount:,.0f} MB"


def _minutes(amount):
    return duration(60 * amount)


def _tightest(jobs, amount, text):
    """Say "used of requested (share)" for the job with the largest share."""
    used, requested = jobs[f"used_{amount}"], jobs[f"requested_{amount}"]
    share = (used / requested).dropna()
    if share.empty:
        return text(used.max()) if used.notna().any() else _DASH
    job = share.idxmax()
    return f"{text(used[job])} of {text(requested[job])} ({100 * share[job]:.0f} %)"


def _read(path):
    """Return what the last record of a benchmark file tells, or nothing."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            *_, record = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        resources = ast.literal_eval(record.get("resources") or "{}")
        memory = _number(record["max_rss"])
        return {
            "threads": _number(record.get("threads")),
            "gpus": _gpus(resources) if resources else None,
            "requested_mem_mb": _number(resources.get("mem_mb")),
            "used_mem_mb": memory and memory * _MB_PER_MIB,
            "requested_minutes": _number(resources.get("runtime")),
            "used_minutes": float(record["s"]) / 60,
            "cpu_minutes": (_number(record["cpu_time"]) or 0) / 60,
        }
    except (AttributeError, KeyError, OSError, SyntaxError, TypeError, ValueError):
        return None


def _gpus(resources):
    return resources.get("gpu", 0) or int("gpu" in str(resources.get("gres", "")))


def _number(text):
    """Return a number, or None for what is no number: `NA` of a job too short to sample."""
    try:
        return float(text)
    except (TypeError, ValueError):
        return None
