"""What results rest on: config, commit, versions and machine of the runs, and their inputs."""

import hashlib
import os
import shlex
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import yaml

import hemagrid
from hemagrid import io
from hemagrid.training.environment import commit_of, host

NOT_RECORDED = "not recorded"

_HERE = Path(__file__)


def write_config(config, path):
    """Write the config, defaults included, as YAML."""
    io.write_text(path, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))


def write_versions(metrics, out):
    """Write what each run was made with, {run: environment} of cost.json, as JSON.

    Args:
        metrics: Paths of metrics.json files. Controls are left out.
        out: Path of the JSON.
    """
    costs = {Path(path).parent.name: io.read_json(path)["cost"] for path in metrics}
    found = {run: cost.get("environment") for run, cost in costs.items() if cost is not None}
    io.write_json(out, found)


def made_with(metrics):
    """Gather what runs were made with, for people.

    Args:
        metrics: {run: content of metrics.json or None}. Controls, rows that are made of other
            runs and missing runs have no environment and are left out.

    Returns:
        A data frame of text, one row per fact and value: `what`, `value`, `runs` (names of the
        runs that share the value), and `differs` (bool): whether runs differ in this fact, so
        that their results may differ for this reason, too.
    """
    facts_of = {}
    for run, m in metrics.items():
        if not m or not m["cost"] or "members" in m["cost"]:
            continue
        facts_of[run] = facts = {}
        if environment := m["cost"].get("environment"):
            commit = environment["commit"] or "not known"
            facts["commit"] = commit + (" with changes" if environment["changed"] else "")
            for what in ("release", "revision", "python"):
                facts[what] = environment[what]
            facts |= environment["packages"]
            for what in ("backend", "device", "gpu", "threads", "precision"):
                facts[what] = environment[what]
            facts["processor"] = environment["cpu"]
    rows = []
    for what in dict.fromkeys(what for facts in facts_of.values() for what in facts):
        groups = {}
        for run, facts in facts_of.items():
            value = facts.get(what) if facts else NOT_RECORDED
            groups.setdefault("none" if value is None else str(value), []).append(run)
        # A cluster mixes processors: on its own, that is not worth a warning.
        differs = len(groups) > 1 and what != "processor"
        rows += [
            {"what": what, "value": value, "runs": runs, "differs": differs}
            for value, runs in groups.items()
        ]
    table = pd.DataFrame(rows, columns=["what", "value", "runs", "differs"])
    return table.astype({"differs": bool})


def write_study(path):
    """Write how the study was last run: the command, the commit and the machine then.

    Args:
        path: Path of the JSON, with `release`, `commit` and `changed` (as in `release` and
            `commit_of`, for the folder of the workflow), `command` (as in
            `snakemake_command`), `host` and `written` (now, in UTC).
    """
    commit, changed = commit_of(_HERE)
    io.write_json(
        path,
        {
            "release": release(_HERE),
            "commit": commit,
            "changed": changed,
            "command": snakemake_command(),
            "host": host(),
            "written": datetime.now(UTC).isoformat(timespec="seconds"),
        },
    )


def release(file):
    """Return the release, such as "0.2.0".

    Args:
        file: Path of a file of the library. If Snakemake has fetched it for a module, its
            repository and tag are named, too: "0.2.0 (github.com/lab/hemagrid v0.2.0)".
    """
    _, hosted, place = str(file).partition("/hosted-git/")
    if not hosted:
        return hemagrid.__version__
    _, host, owner, repository, reference, *_ = place.split("/")
    return f"{hemagrid.__version__} ({host}/{owner}/{repository} {unquote(reference)})"


def write_checksums(paths, out, sources=()):
    """Write a CSV with a row per file: `file` (its path as given), `bytes` and `sha256`.

    The first rows are the files and folders that images were read from, of each of `sources`,
    the records of them that `data.sources.write_record` wrote.
    """
    rows = []
    for source in sources:
        record = io.read_json(source)
        rows.append({"file": record["path"]} | {k: record[k] for k in ("bytes", "sha256")})
    for path in paths:
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        rows.append({"file": str(path), "bytes": Path(path).stat().st_size, "sha256": digest})
    io.write_table(out, pd.DataFrame(rows, columns=["file", "bytes", "sha256"]))


def snakemake_command():
    """Find the outermost snakemake that this process runs in, by /proc.

    Returns:
        Its command line, quoted for a shell and starting with `snakemake`, however it was
        started; None if there is none.
    """
    found, process = None, os.getppid()
    while process:
        folder = Path("/proc", str(process))
        try:
            arguments = (folder / "cmdline").read_bytes().split(b"\0")[:-1]
            status = (folder / "status").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has ended, is hidden from us, or the system has no /proc
            break
        arguments = [os.fsdecode(argument) for argument in arguments]
        names = [Path(argument).name for argument in arguments]
        if "snakemake" in names:
            at = names.index("snakemake")
            options = all(argument.startswith("-") for argument in arguments[1:at])
            if at == 0 or names[0].startswith("python") and options:
                found = shlex.join(["snakemake", *arguments[at + 1 :]])
        process = int(status.split("\nPPid:")[1].split()[0])
    return found
