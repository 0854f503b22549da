"""The finished runs of a study for experiment trackers: as an MLflow file store, or as CSV.

Both are made of finished files and need no network. The layout of the store is that of
MLflow's `mlflow/store/tracking/file_store.py`, read with MLflow 3.17.
"""

import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from hemagrid import io, names
from hemagrid.config import grid

_FINISHED, _LOCAL = 3, 4  # MLflow's numbers of a run's status and of its kind of source
_SCORES = ("accuracy", "balanced_accuracy", "macro_f1")
_COSTS = ("seconds", "cpu_seconds", "peak_memory_mib", "images_per_second", "parameters")
_PER_EPOCH = (
    *("weighted_loss", "loss", "accuracy", "val_loss", "val_accuracy"),
    *("learning_rate", "seconds"),
)


@dataclass
class Record:
    """A finished run, as trackers know one."""

    name: str
    settings: dict
    """What it was made with, {dotted name: value}."""
    scores: dict
    """What came out at the end, {name: number}."""
    epochs: pd.DataFrame
    """One row per epoch, as in history.csv, and `step`, which counts through all phases."""
    folder: Path
    finished: float
    """When it ended, in seconds since 1970."""


def finished_runs(config):
    """Read the finished runs of the study in the current folder.

    Args:
        config: Its validated config.

    Returns:
        A list of Records in the order of the config, and the names of the runs of the grid
        that are not finished.
    """
    runs = grid.known_runs(config) | grid.combinations(config)
    paths = {name: Path(names.METRICS.format(run=name)) for name in [*runs, *names.CONTROLS]}
    found = [_record(config, name, path) for name, path in paths.items() if path.exists()]
    return found, [name for name in grid.grid(config) if not paths[name].exists()]


def write_tables(records, out):
    """Write `runs.csv`, a row per run, and `epochs.csv`, a row per epoch of a run.

    Args:
        records: What `finished_runs` gave.
        out: Path of their folder.
    """
    rows = [{"run": each.name} | each.scores | each.settings for each in records]
    io.write_table(Path(out, "runs.csv"), pd.DataFrame(rows))
    epochs = [each.epochs.assign(run=each.name) for each in records if len(each.epochs)]
    table = pd.concat(epochs) if epochs else pd.DataFrame({"run": [], "step": []})
    first = ["run", "step"]
    io.write_table(Path(out, "epochs.csv"), table[first + [*table.columns.drop(first)]])


def write_store(records, study, out):
    """Write the runs into an MLflow file store. Other experiments in it stay.

    Files of runs are hard links where the file system has them, so that they take no space.

    Args:
        records: What `finished_runs` gave.
        study: Name of the experiment.
        out: Path of the store, such as `mlruns`.
    """
    out = Path(out).absolute()
    out.mkdir(parents=True, exist_ok=True)
    # MLflow's own are numbers of 18 digits, too.
    experiment = str(int(hashlib.sha256(study.encode()).hexdigest(), 16))[:18]
    with tempfile.TemporaryDirectory(prefix=".export.", dir=out) as folder:
        made = Path(folder, experiment)
        for record in records:
            _write_run(record, experiment, made, out)
        times = [round(1000 * record.finished) for record in records]
        meta = {
            "artifact_location": (out / experiment).as_uri(),
            "creation_time": min(times),
            "experiment_id": experiment,
            "last_update_time": max(times),
            "lifecycle_stage": "active",
            "name": study,
        }
        io.write_text(made / "meta.yaml", yaml.safe_dump(meta))
        shutil.rmtree(out / experiment, ignore_errors=True)
        os.replace(made, out / experiment)


def _record(config, run, path):
    """Read one finished run from where it lies."""
    metrics = io.read_json(path)
    cost = metrics["cost"] or {}
    settings = {key: metrics[key] for key in ("kind", "backbone", "head")}
    history = Path(names.HISTORY.format(run=run))
    epochs = pd.DataFrame()
    if history.exists():
        known = grid.known_runs(config)[run]
        settings |= _flat(grid.run_settings(config, run))
        searched = Path(names.FOUND_HEAD.format(run=known.base))
        if known.head in names.TUNED_HEADS and searched.exists():
            settings |= _flat(io.read_json(searched)["head"], "head.")
        settings |= _flat(cost.get("environment", {}), "environment.")
        epochs = io.read_sparse(history)
        epochs.insert(0, "step", range(1, len(epochs) + 1))
    settings |= {key: cost[key] for key in ("members", "views") if key in cost}
    scores = {key: cost[key] for key in _COSTS if cost.get(key) is not None}
    for subset, of in metrics["subsets"].items():
        for score in _SCORES:
            scores[f"{subset}_{score}"] = of[score]["value"]
            scores[f"{subset}_{score}_low"] = of[score]["low"]
            scores[f"{subset}_{score}_high"] = of[score]["high"]
        for score in ("auc", "calibration_error"):
            if of[score] is not None:
                scores[f"{subset}_{score}"] = of[score]
    settings = {key: value for key, value in settings.items() if value is not None}
    return Record(run, settings, scores, epochs, path.parent, path.stat().st_mtime)


def _flat(settings, above=""):
    """Return {dotted name: value} of nested mappings."""
    flat = {}
    for key, value in settings.items():
        flat |= (
            _flat(value, f"{above}{key}.") if isinstance(value, dict) else {above + key: value}
        )
    return flat


def _write_run(record, experiment, folder, out):
    """Write one run into the folder of its experiment, which will lie in `out`."""
    identity = json.dumps([record.name, record.settings, record.scores], sort_keys=True)
    run_id = hashlib.sha256(identity.encode()).hexdigest()[:32]
    made = folder / run_id
    end = round(1000 * record.finished)
    took = record.epochs["seconds"] if len(record.epochs) else pd.Series(dtype=float)
    # An epoch's time is counted back from the end of the run.
    times = end - (1000 * (took.sum() - took.cumsum())).round().astype(int)
    meta = {
        "artifact_uri": (out / experiment / run_id / "artifacts").as_uri(),
        "end_time": end,
        "entry_point_name": "",
        "experiment_id": experiment,
        "lifecycle_stage": "active",
        "run_id": run_id,
        "run_name": record.name,
        "source_name": "hemagrid",
        "source_type": _LOCAL,
        "source_version": str(record.settings.get("environment.commit", "")),
        "start_time": end - round(1000 * record.scores.get("seconds", 0)),
        "status": _FINISHED,
        "tags": [],
        "user_id": "",
    }
    io.write_text(made / "meta.yaml", yaml.safe_dump(meta))
    _write_all(made / "params", record.settings)
    _write_all(made / "tags", {"mlflow.runName": record.name} | _phases(record.epochs))
    lines = {name: [f"{end} {value} 0"] for name, value in record.scores.items()}
    for name in [column for column in _PER_EPOCH if column in record.epochs]:
        values = zip(times, record.epochs[name], record.epochs["step"], strict=True)
        lines[f"epoch_{name}"] = [" ".join(map(str, each)) for each in values]
    _write_all(made / "metrics", {name: "\n".join(of) + "\n" for name, of in lines.items()})
    shutil.copytree(record.folder, made / "artifacts", copy_function=_link)


def _phases(epochs):
    """Say in a tag which steps belong to which phase."""
    if not len(epochs):
        return {}
    steps = epochs.groupby("phase", sort=False)["step"]
    return {"phases": ", ".join(f"{phase} {of.min()}-{of.max()}" for phase, of in steps)}


def _write_all(folder, texts):
    """Write {name of a file: text or value} into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(str(text), encoding="utf-8")


def _link(source, target):
    """Give a file a second name; where the file system has no such links, copy it."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
