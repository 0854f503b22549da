"""Say how far every job of a study is, from the files that jobs leave; change none of them.

Files may be absent, half-written or foreign: what cannot be read counts as absent.
"""

import math
import re
import textwrap
from datetime import UTC, datetime
from pathlib import Path

from hemagrid import names
from hemagrid.cli import options
from hemagrid.config import slurm
from hemagrid.config.grid import (
    combinations,
    grid,
    replicates,
    tunable_backbones,
    tuned_runs,
)
from hemagrid.config.loading import nearby
from hemagrid.io import read_json
from hemagrid.reporting.text import aligned, counted, duration
from hemagrid.training import checkpoints

TEXT = """
Print how far every job of a study is, while it runs or after: augmentation, embedding, searches
and training. Files are read and none is changed.
"""
# A writer refreshes its lock three times per lease; file systems may show that late.
SILENCE = 1.5 * checkpoints.LEASE
# An epoch is overdue after this many times the last one, and not before some minutes.
OVERDUE, PATIENCE = 5, 900.0
TAIL = 4000  # bytes of a log that are searched for its last words

_STAMP = r"^(?:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d )?"
_END = re.compile(_STAMP + r"((?:Error|Stopped): .*)")
# As logs.track writes it.
_PROGRESS = re.compile(_STAMP + r"(.*: \d+ of \d+ \w+), [\d:]+ so far, ([\d:]+|\?) left$")
_COLUMNS = {
    "run": str,
    "state": str,
    "phase": str,
    "on": str,
    "epoch": str,
    "val acc": lambda share: f"{100 * share:.1f} %",
    "per epoch": lambda seconds: duration(seconds) if seconds >= 10 else f"{seconds:.1f} s",
    "images/s": "{:,.0f}".format,
    "left": duration,
    "updated": lambda seconds: f"{duration(seconds)} ago",
}


def main(words):
    """Print the state of a study."""
    arguments = options.read(words, options.parser("status", TEXT))
    folder, config, config_name = options.study(arguments)
    print(describe(stages(config, folder), runs(config, folder)))
    if waiting := queue(slurm.pending(folder.absolute())):
        print(f"\n{waiting}")
    print(f"\nThe study in {folder.absolute()}, by {config_name}.")
    if not (folder / names.IMAGES).exists():
        print(
            "It has no images yet: nothing has been run, or --directory is another folder"
            f"{nearby(folder)}."
        )


def stages(config, folder, now=None):
    """Say how far the augmentation of each subset and the embedding of each backbone are.

    Args:
        config: Validated config.
        folder: Folder of the study.
        now: Seconds since 1970; None stands for the present.

    Returns:
        One dict per job: `job`; `state` (finished, running, failed, stopped, silent, waiting);
        `done` ("Embedding train: 640 of 7175 images"); `left` and `updated` (seconds, until the
        end and since its last word); `note`; `log`. What is unknown is None.
    """
    folder, now = Path(folder), _seconds(now)
    jobs = {
        ("augment", subset): [names.SUBSET_IMAGES.format(subset=subset)]
        for subset in names.AUGMENTED
    }
    for backbone in tunable_backbones(config):
        made = [names.EMBEDDINGS.format(backbone=backbone, subset=s) for s in names.LEARNED]
        of_it = [run for run in _planned(config, folder) if run.backbone == backbone]
        models = [names.MODEL.format(run=run.name) for run in of_it]
        # `hemagrid clean` removes embeddings, and nobody misses them.
        trained = models and all((folder / path).exists() for path in models)
        jobs["embed", backbone] = models if trained else made
    return [_stage(*job, made, folder, now) for job, made in jobs.items()]


def runs(config, folder, now=None):
    """Say how far the runs of the grid, those tuned so far, and what is made of them are.

    Args:
        config: Validated config.
        folder: Folder of the study.
        now: Seconds since 1970; None stands for the present.

    Returns:
        One dict per run, ensemble and run with views: `run`; `state` (finished, trained,
        predicted, training, searching, stalled, stopped, failed, waiting); `phase` ("2/3
        finetune_top"); `on` (host and job); `epoch` ("4/15"); `val acc` (0 to 1); `per epoch`
        (seconds); `images/s`; `left` (seconds, of the phase or search, at most); `updated`
        (seconds ago); `note`; `log`. What is unknown is None.
    """
    folder, now = Path(folder), _seconds(now)
    made_of_runs = combinations(config).values()
    kept = names.checkpoints_of(config["checkpoints"], folder)
    rows = [_run(run, folder, kept, now) for run in _planned(config, folder)]
    return rows + [_combined(run, folder, now) for run in made_of_runs]


def describe(stage_rows, run_rows):
    """Lay out what `stages` and `runs` returned for a terminal."""
    counts = {}
    for row in run_rows:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    parts = [
        f"{counted(len(run_rows), 'run')}: "
        + ", ".join(f"{n} {state}" for state, n in counts.items())
    ]
    if unfinished := [row for row in stage_rows if row["state"] != "finished"]:
        cells = [
            [row["job"], row["state"], row["done"] or "-", _spell(duration, row["left"])]
            for row in unfinished
        ]
        parts.append(aligned(["before training", "state", "done", "left"], cells, left=3))
    cells = [[_spell(how, row[name]) for name, how in _COLUMNS.items()] for row in run_rows]
    parts.append(aligned(list(_COLUMNS), cells, left=4))
    parts.append(
        "val acc: validation accuracy of the last epoch, or of a finished run.\n"
        "left: of this phase or search, at most."
    )
    notes = [
        [
            row.get("job") or row["run"],
            textwrap.shorten(row["note"] or "", 72, placeholder=" ..."),
            row["log"],
        ]
        for row in [*unfinished, *run_rows]
        if row["state"] != "finished" and row["log"]
    ]
    if notes:
        parts.append(aligned(["job", "note", "log"], notes, left=3))
    return "\n\n".join(parts)


def queue(jobs):
    """Say why jobs wait in SLURM's queue; nothing if none does.

    Args:
        jobs: What `slurm.pending` returned.
    """
    never, reasons = [], {}
    for comment, (number, reason, meaning) in jobs.items():
        told = f" ({meaning})" if meaning not in ("", slurm.NEVER) else ""
        reasons[reason + told] = reasons.get(reason + told, 0) + 1
        if meaning == slurm.NEVER:
            name = comment.removeprefix("rule_").replace("_wildcards_", " ")
            never.append(
                f"{name} can never start ({reason}): cancel it (scancel {number}), lower its "
                "runtime or mem_mb in the config or name another partition, account or QOS in "
                "the profile"
            )
    counts = ", ".join(f"{count} for {reason}" for reason, count in reasons.items())
    return "\n".join([f"In SLURM's queue: {counts}", *never]) if jobs else ""


def _spell(how, value):
    return "-" if value is None else how(value)


def _seconds(now):
    return datetime.now(UTC).timestamp() if now is None else now


def _planned(config, folder):
    """List the Runs of the grid, and the tuned ones that are known so far, with replicates."""
    chosen = config["tuning"]["backbones"]
    if chosen is None:
        chosen = _read(folder / names.FINALISTS).get("finalists")
    known = isinstance(chosen, list) and all(isinstance(name, str) for name in chosen)
    bases = grid(config) | (tuned_runs(config, chosen) if known else {})
    return [run for base in bases.values() for run in replicates(config, base)]


def _stage(rule, name, made, folder, now):
    """Say how far a job is that makes the files `made`."""
    log = Path(names.LOG.format(rule=rule, name=name))
    row = dict.fromkeys(("done", "left", "updated", "note"))
    row = {"job": f"{rule} {name}", "state": "waiting"} | row
    row["log"] = str(log) if (folder / log).is_file() else None
    if all((folder / path).exists() for path in made):
        return row | {"state": "finished"}
    if not row["log"]:
        return row
    row["updated"] = _age(folder / log, now)
    lines = _last_lines(folder / log)
    if found := next(filter(None, map(_PROGRESS.match, reversed(lines))), None):
        row["done"], left = found.groups()
        row["left"] = None if left == "?" else _clock(left)
    if end := _end(lines):
        return row | {"state": "failed" if end.startswith("Error") else "stopped", "note": end}
    if row["updated"] > SILENCE:
        silent = f"no word for {duration(row['updated'])}: killed, or hung?"
        return row | {"state": "silent", "note": silent, "left": None}
    return row | {"state": "running"}


def _clock(text):
    """Return the seconds in "12:05" or "1:12:05"."""
    seconds = 0
    for part in text.split(":"):
        seconds = 60 * seconds + int(part)
    return seconds


def _run(run, folder, kept, now):
    log = Path(names.LOG.format(rule="train", name=run.name))
    row = {"run": run.name, "state": "waiting"} | dict.fromkeys([*_COLUMNS, "note"][2:])
    row["log"] = str(log) if (folder / log).is_file() else None
    head = folder / names.FOUND_HEAD.format(run=run.base)
    if run.head in names.TUNED_HEADS and not head.exists():
        # What lies there of the run itself is of a former head.
        if run.repeats:
            return row | {"note": f"for the search of {run.repeats}"}
        return row | _search(run, folder, kept, now)
    trained = _age(folder / names.COST.format(run=run.name), now)
    metrics = folder / names.METRICS.format(run=run.name)
    evaluated = _age(metrics, now)
    silence = _age(kept / f"{run.name}.lock", now)
    if silence is None and trained is not None:
        # Metrics that are older than the training are those of a former one.
        accuracy = _accuracy(_read(metrics))
        if accuracy is not None and evaluated <= trained:
            return row | {"state": "finished", "val acc": accuracy}
        return row | {"state": "trained", "note": "to be evaluated"}
    row |= _epoch(_read(kept / run.name / "progress.json"), now)
    end = _end(_last_lines(folder / log))
    if silence is not None:
        row |= _place(_read(kept / run.name / "writer.json"))
        row |= _alive(row, silence) | _second(kept / run.name, now)
    elif end and end.startswith("Error:"):
        row |= {"state": "failed", "note": end}
    elif row["log"] and not end and _age(folder / log, now) < SILENCE:
        row |= {"state": "training", "note": "starting"}
    elif row["epoch"] or end:
        row |= {"state": "stopped", "note": "continues from there when it is started again"}
    elif row["log"]:
        row |= {"state": "failed", "note": "ended without a message: see its log"}
    return row


def _combined(run, folder, now):
    """Say how far an ensemble or a run with views is: it predicts, and trains nothing."""
    log = Path(names.LOG.format(rule=run.kind, name=run.name))
    row = {"run": run.name, "state": "waiting"} | dict.fromkeys([*_COLUMNS, "note"][2:])
    row["log"] = str(log) if (folder / log).is_file() else None
    made = _age(folder / names.COST.format(run=run.name), now)
    metrics = folder / names.METRICS.format(run=run.name)
    evaluated, accuracy = _age(metrics, now), _accuracy(_read(metrics))
    if made is not None and accuracy is not None and evaluated <= made:
        return row | {"state": "finished", "val acc": accuracy}
    if made is not None:
        return row | {"state": "predicted", "note": "to be evaluated"}
    end = _end(_last_lines(folder / log))
    if end and end.startswith("Error:"):
        return row | {"state": "failed", "note": end}
    return row


def _search(run, folder, kept, now):
    """Say how far the search for the head of a tuned run is."""
    log = Path(names.LOG.format(rule="search", name=run.name))
    name = f"search_{run.name}"
    progress = _read(kept / name / "progress.json")
    row = {"log": str(log) if (folder / log).is_file() else None}
    done = ""
    if {"trial", "trials"} <= progress.keys():
        done = f": {progress['trial']} of {progress['trials']} trials done"
    end = _end(_last_lines(folder / log))
    silence = _age(kept / f"{name}.lock", now)
    if silence is not None and silence <= SILENCE:
        left = progress.get("left")
        known = isinstance(left, int | float) and math.isfinite(left)
        row |= _place(progress)
        return row | {
            "state": "searching",
            "note": f"its head{done}",
            "left": left if known else None,
        }
    if silence is not None:
        return row | {
            "state": "stalled",
            "note": f"no sign of life for {duration(silence)}; start it again to continue",
        }
    if end and end.startswith("Error:"):
        return row | {"state": "failed", "note": end}
    return row | {"note": f"for its search{done}"}


def _alive(row, silence):
    """Judge a run whose lock somebody holds, refreshed `silence` seconds ago."""
    if silence > SILENCE:
        return {
            "state": "stalled",
            "note": f"no sign of life for {duration(silence)}; start it again to continue",
        }
    if row["updated"] is None:
        return {"state": "training", "note": "in its first epoch"}
    if row["updated"] > max(OVERDUE * row["per epoch"], PATIENCE):
        return {
            "state": "stalled",
            "note": "alive, but this epoch takes long: a new phase, or hung?",
        }
    return {"state": "training"}


def _second(folder, now):
    """Name the process that waits for the one that works on a run, if there is one."""
    age = _age(folder / checkpoints.WAITING, now)
    if age is None or age > 1.5 * checkpoints.REMINDER:
        return {}
    waiting = _read(folder / checkpoints.WAITING)
    cancel = waiting.get("cancel") or f"kill {waiting.get('pid')}, on {waiting.get('host')}"
    return {"note": f"a second job waits and holds a GPU idle: {cancel}"}


def _epoch(progress, now):
    """Return the columns that a progress.json of training fills; none if it is no such file."""
    try:
        phases = progress["phases"]
        epoch, epochs = int(progress["epoch"]), int(progress["epochs"])
        seconds = _number(progress["seconds"])
        updated = datetime.fromisoformat(progress["updated"]).timestamp()
        return {
            "phase": f"{phases.index(progress['phase']) + 1}/{len(phases)} {progress['phase']}",
            "epoch": f"{epoch}/{epochs}",
            "val acc": _number(progress["val_accuracy"]),
            "per epoch": seconds,
            "images/s": _number(progress["trained_images_per_second"]),
            "left": (epochs - epoch) * seconds,
            "updated": max(now - updated, 0),
        } | _place(progress)
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def _place(record):
    """Return where a process runs, as it recorded it."""
    if not record.get("host"):
        return {}
    job = record.get("job")
    return {"on": f"{record['host']}" + (f", job {job}" if job else "")}


def _age(path, now):
    """Return the seconds since a file was written, or None if there is none."""
    try:
        return now - path.stat().st_mtime
    except OSError:
        return None


def _accuracy(metrics):
    try:
        return _number(metrics["subsets"][names.VAL]["accuracy"]["value"])
    except (KeyError, TypeError, ValueError):
        return None


def _number(value):
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _read(path):
    """Return the mapping in a JSON file, an empty one if there is none."""
    try:
        content = read_json(path)
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _last_lines(log):
    try:
        with open(log, "rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - TAIL, 0))
            return file.read().decode(errors="replace").splitlines()
    except OSError:
        return []


def _end(lines):
    """Return the line with which a job says why it ended, or None."""
    ends = filter(None, map(_END.match, reversed(lines)))
    return next((end[1] for end in ends), None)
