"""Where every run of a study stands: read from the files that its jobs leave, changing none.

Files may be absent, half-present or foreign: what cannot be read counts as absent.
"""

import math
import textwrap
from datetime import UTC, datetime
from pathlib import Path

from hemagrid.cli import options
from hemagrid.config.grid import grid, tuned_runs
from hemagrid.errors import InputError
from hemagrid.io import read_json
from hemagrid.names import TRAIN, TUNED_HEADS, VAL
from hemagrid.reporting.text import aligned, duration
from hemagrid.training import checkpoints

# A writer refreshes its lock three times per lease; file systems may show that late.
SILENCE = 1.5 * checkpoints.LEASE


# An epoch is overdue after this many times the last one, and not before some minutes.
OVERDUE, PATIENCE = 5, 900.0


_TAIL = 4000  # bytes of a log that are searched for its last word

TEXT = """
Print how far every job of a study is, while it runs or after. Files are read and none is
changed.
"""


def main(words):
    """Print the state of a study."""
    arguments = options.read(words, options.parser("status", TEXT))
    folder, config, _ = options.study(arguments)
    print(describe(status(config, folder)))


def status(config, folder, now=None):
    """Return one row per run, {column: value}: the grid's, then the tuned ones known so far.

    Columns: run; state (finished, trained, training, searching, stalled, stopped, failed,
    waiting); phase ("2/3 finetune_top"), epoch ("4/15"), accuracy (of validation, 0 to 1),
    seconds (of the last epoch), speed (images/s), left (seconds of the phase, at most),
    updated (seconds ago), where, note, log. What is unknown is None. `now` is seconds since
    1970. Raises InputError where there is no such folder.
    """
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: found no such folder, expected that of a study")
    now = datetime.now(UTC).timestamp() if now is None else now
    return [_row(run, Path(folder), now) for run in _runs(config, Path(folder)).values()]


def _runs(config, folder):
    chosen = config["tuning"]["backbones"]
    if chosen is None:
        chosen = _read(_tuning(folder) / "finalists.json").get("finalists")
    known = isinstance(chosen, list) and all(isinstance(name, str) for name in chosen)
    return grid(config) | (tuned_runs(config, chosen) if known else {})


def _row(run, folder, now):
    log = Path("logs", "train", f"{run.name}.log")
    row = dict.fromkeys(
        ("phase", "epoch", "accuracy", "seconds", "speed", "left", "updated", "where", "note")
    )
    row = {"run": run.name, "state": "waiting"} | row
    row["log"] = str(log) if (folder / log).is_file() else None
    if run.head in TUNED_HEADS and not (_tuning(folder) / f"{run.name}.json").exists():
        # What lies there of the run itself is of a former head.
        return row | _search(run, folder)
    results = folder / "results" / run.name
    trained = _age(results / "cost.json", now)
    evaluated = _age(results / "metrics.json", now)
    silence = _age(folder / checkpoints.FOLDER / f"{run.name}.lock", now)
    progress = _read(folder / checkpoints.FOLDER / run.name / "progress.json")
    if silence is None and trained is not None:
        # Metrics that are older than the training are those of a former one.
        accuracy = _accuracy(_read(results / "metrics.json"))
        if accuracy is not None and evaluated <= trained:
            return row | {"state": "finished", "accuracy": accuracy}
        return row | {"state": "trained", "note": "to be evaluated"}
    row |= _epoch(progress, now)
    last_word = _last_word(folder / log)
    if silence is not None:
        row |= _writer(_read(folder / checkpoints.FOLDER / run.name / "writer.json"))
        row |= _alive(row, silence)
    elif last_word and last_word.startswith("Error:"):
        row |= {"state": "failed", "note": last_word}
    elif row["log"] and not last_word and _age(folder / log, now) < SILENCE:
        row |= {"state": "training", "note": "starting"}
    elif row["epoch"] or last_word:
        row |= {"state": "stopped", "note": "goes on from there when started again"}
    elif row["log"]:
        row |= {"state": "failed", "note": "ended without a word: see its log"}
    elif run.backbone and not _cached(folder, run.backbone):
        row["note"] = f"for the embeddings of {run.backbone}"
    return row


def _tuning(folder):
    return folder / "results" / "tuning"


def _search(run, folder):
    """Say how far the search for the head of a tuned run is."""
    log, name = Path("logs", "search", f"{run.name}.log"), f"search_{run.name}"
    progress = _read(folder / checkpoints.FOLDER / name / "progress.json")
    row = {"log": str(log) if (folder / log).is_file() else None}
    done = ""
    if {"trial", "trials"} <= progress.keys():
        done = f": {progress['trial']} of {progress['trials']} trials done"
    last_word = _last_word(folder / log)
    if (folder / checkpoints.FOLDER / f"{name}.lock").exists():
        return row | {"state": "searching", "note": f"its head{done}"}
    if last_word and last_word.startswith("Error:"):
        return row | {"state": "failed", "note": last_word}
    if not _cached(folder, run.backbone):
        return row | {"note": f"for the embeddings of {run.backbone}"}
    return row | {"note": f"for its search{done}"}


def _alive(row, silence):
    """Judge a run whose lock somebody holds, refreshed `silence` seconds ago."""
    if silence > SILENCE:
        return {
            "state": "stalled",
            "note": f"no sign of life for {duration(silence)}; start it again, it goes on",
        }
    if row["updated"] is None:
        return {"state": "training", "note": "before its first epoch's end"}
    if row["updated"] > max(OVERDUE * row["seconds"], PATIENCE):
        return {
            "state": "stalled",
            "note": "alive, but this epoch takes long: a new phase, or hung?",
        }
    return {"state": "training"}


def _epoch(progress, now):
    """Return the columns that progress.json fills; none of them where it is no such file."""
    try:
        phases = progress["phases"]
        epoch, epochs = int(progress["epoch"]), int(progress["epochs"])
        seconds = _number(progress["seconds"])
        updated = datetime.fromisoformat(progress["updated"]).timestamp()
        return {
            "phase": f"{phases.index(progress['phase']) + 1}/{len(phases)} {progress['phase']}",
            "epoch": f"{epoch}/{epochs}",
            "accuracy": _number(progress["val_accuracy"]),
            "seconds": seconds,
            "speed": _number(progress["images_per_second"]),
            "left": (epochs - epoch) * seconds,
            "updated": max(now - updated, 0),
        } | _writer(progress)
    except (AttributeError, KeyError, TypeError, ValueError):
        return {}


def _writer(record):
    """Return where a process runs, as it recorded it."""
    if not record.get("host"):
        return {}
    job = record.get("slurm_job_id")
    return {"where": f"{record['host']}" + (f", job {job}" if job else "")}


def _age(path, now):
    """Return the seconds since a file, as a lock, was refreshed, None where it is not."""
    try:
        return now - path.stat().st_mtime
    except OSError:
        return None


def _accuracy(metrics):
    try:
        return _number(metrics["subsets"][VAL]["accuracy"]["value"])
    except (KeyError, TypeError, ValueError):
        return None


def _number(value):
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(value)
    return number


def _cached(folder, backbone):
    embeddings = folder / "results" / "embeddings" / backbone
    return all((embeddings / f"{subset}.npy").exists() for subset in (TRAIN, VAL))


def _read(path):
    """Return the mapping in a JSON file, an empty one where there is none."""
    try:
        content = read_json(path)
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _last_word(log):
    """Return the last line of a log with which a job says why it ended, or None."""
    try:
        with open(log, "rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - _TAIL, 0))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return None
    ends = [line for line in lines if line.startswith(("Error:", "Stopped:"))]
    return ends[-1] if ends else None


def describe(rows):
    """Lay `status` out for a terminal."""
    counts = {}
    for row in rows:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    summary = f"{len(rows)} runs: " + ", ".join(f"{n} {state}" for state, n in counts.items())
    cells = [[show(row[name]) for name, (_, show) in _COLUMNS.items()] for row in rows]
    parts = [
        summary,
        aligned([title for title, _ in _COLUMNS.values()], cells, left=4),
        "val acc: of the last epoch, or of a finished run. left: of this phase, at most.",
    ]
    notes = [
        [
            row["run"],
            row["state"],
            textwrap.shorten(row["note"] or "", 72, placeholder=" ..."),
            row["log"] or "no log yet",
        ]
        for row in rows
        if row["state"] != "finished" and (row["note"] or row["log"])
    ]
    if notes:
        parts.append(aligned(["run", "state", "note", "log"], notes, left=4))
    return "\n\n".join(parts)


def _text(value):
    return "-" if value is None else str(value)


def _formatted(template):
    return lambda value: "-" if value is None else template(value)


_COLUMNS = {
    "run": ("run", _text),
    "state": ("state", _text),
    "phase": ("phase", _text),
    "where": ("on", _text),
    "epoch": ("epoch", _text),
    "accuracy": ("val acc", _formatted(lambda share: f"{100 * share:.1f} %")),
    "seconds": ("per epoch", _formatted(lambda s: duration(s) if s >= 10 else f"{s:.1f} s")),
    "speed": ("images/s", _formatted(lambda speed: f"{speed:,.0f}")),
    "left": ("left", _formatted(duration)),
    "updated": ("updated", _formatted(lambda seconds: f"{duration(seconds)} ago")),
}
