"""A study made up for tests of the report: every file that it reads, in seconds."""

from pathlib import Path

import numpy as np
import pandas as pd
from answers import write_answers
from PIL import Image

from hemagrid import io
from hemagrid.data.synthetic import draw_cell
from hemagrid.evaluation.agreement import compare_answers
from hemagrid.evaluation.cell_map import write_map
from hemagrid.evaluation.metrics import evaluate_run
from hemagrid.evaluation.predictions import read_predictions, write_corrupted
from hemagrid.names import (
    CONTROLS,
    ENSEMBLE,
    PHASES,
    TRAINED,
    TUNED_HEADS,
    VIEWS,
    WITH_VIEWS,
)
from hemagrid.reporting import reference, tables
from hemagrid.reporting.provenance import write_checksums, write_config, write_study
from hemagrid.reporting.resources import write_usage
from hemagrid.reporting.tables import compare_tuned, compare_with_winner

HEAD = {"dense": [128], "batch_norm": True, "dropout": [0.3], "learning_rate": 1e-3}
HEAD |= {"weight_decay": None}
TUNING = ("tuned_heads", "tuned_runs", "tuning_gain")
ENVIRONMENT = {
    "commit": "0123abc",
    "changed": False,
    "release": "<b>0.1</b>",
    "revision": 1,
    "python": "3.11.9",
    "packages": {"keras": "3.15.1", "tensorflow": "2.21.0"},
    "backend": "tensorflow",
    "device": "gpu",
    "gpu": "NVIDIA A100",
    "cpu": "AMD EPYC",
    "host": "node1",
    "threads": 4,
    "precision": "tensorfloat32",
}


WORSE = ("corruptions", "corruption_summary")
ANSWERS = ("agreement", "hard_images", "label_noise")


def make_study(
    folder,
    runs,
    classes,
    *,
    per_class=12,
    copies=2,
    size=32,
    bootstrap=50,
    absent=(),
    select_by="test_augmented",
    seed=42,
    policies=("randaugment", "augmix"),
    blank=(),
    **settings,
):
    """Write a study below `folder`.

    Args:
        folder: Where `results/` goes.
        runs: {run: skill}, the share of answers that are right beyond guessing, or None for a
            run that is missing. `majority_class` and `random_labels` are controls,
            `ensemble` and `{run}+views` are made of runs, `{backbone}_{head}` are transfer
            runs, others are CNNs.
        classes: Names of the classes.
        per_class: Number of test images per class, each with `copies` in the augmented test
            set. Classes that are `absent` have none.
        policies: The copies of an augmented subset get them in turns.
        blank: Rows of the augmented test set that hold no picture.
        settings: Keys of the config that replace those here.

    Returns:
        The inputs of `page.write_report`.
    """
    folder = Path(folder)
    rng = np.random.default_rng(seed)
    config = _config(runs, classes, bootstrap, seed) | settings
    present = [k for k, name in enumerate(classes) if name not in absent]
    labels = np.repeat(present, per_class)
    parents = {"val": 1, "test": 1, "test_augmented": copies}
    subsets = {name: np.repeat(labels, times) for name, times in parents.items()}
    groups = {name: np.repeat(np.arange(len(labels)), n) for name, n in parents.items()}
    inputs = _images(folder / "results", subsets, classes, size, rng)
    inputs["copies"] = folder / "results" / "dataset" / "augmented_copies.csv"
    io.write_table(inputs["copies"], _copies(subsets, policies, blank))
    made = {run: skill for run, skill in runs.items() if skill is not None}
    for run, skill in made.items():
        answers = {
            subset: (of, _answers(of, len(classes), skill, rng), groups[subset])
            for subset, of in subsets.items()
        }
        paths = {"copies": inputs["copies"]}
        _write_run(folder / "results", run, config, classes, answers, paths, bootstrap, seed)

    def of_runs(name, which):
        return [folder / "results" / run / name for run in which]

    answering = [run for run in made if run not in CONTROLS]
    trained = [run for run in answering if _kind(run, config)[0] in TRAINED]
    inputs |= {
        "metrics": of_runs("metrics.json", runs),
        "predictions": [
            path for s in subsets for path in of_runs(f"predictions/{s}.npz", answering)
        ],
        "confusion": of_runs("confusion_matrix.csv", answering),
        "history": of_runs("history.csv", trained),
    }
    comparison = {"select_by": select_by, "bootstrap": bootstrap, "seed": seed}
    out = {
        name: folder / "results" / "tables" / f"{name}.csv"
        for name in (
            "grid",
            "best_heads",
            "heads",
            "abstention",
            "policies",
            "recall",
            "speed",
            "winner",
            "controls",
        )
    } | {"headline": folder / "results" / "tables" / "headline.txt"}
    out["grid_short"] = folder / "results" / "tables" / "grid_short.tex"
    tables.aggregate(
        inputs["metrics"],
        out,
        select_by,
        _published(config),
        heads={"cfg1": HEAD},
        reported={},
    )
    guessing = {
        "control_predictions": [
            path
            for s in subsets
            for path in of_runs(f"predictions/{s}.npz", CONTROLS)
            if path.exists()
        ]
    }
    compare_with_winner(inputs | guessing, out, comparison)
    inputs |= {name: out[name] for name in ("heads", "winner", "controls")}
    if tuned := [run for run in made if _kind(run, config)[2] in TUNED_HEADS]:
        inputs |= _write_tuning(folder / "results", tuned, inputs, comparison, config)
    table = {"parent_id": range(len(labels)), "label": labels}
    table |= {"source": [f"{classes[k]}/{row}.png" for row, k in enumerate(labels)]}
    io.write_table(folder / "results" / "dataset" / "test.csv", pd.DataFrame(table))
    inputs |= _write_corrupted(folder / "results", trained, inputs, classes, bootstrap, seed)
    inputs |= _compare_answers(folder / "results", trained)
    inputs |= _write_maps(folder / "results", config["grid"]["backbones"], subsets["val"], rng)
    inputs |= _write_explanation(folder / "results", made, classes, select_by, size, rng)
    return inputs | _write_provenance(folder, config)


def _config(runs, classes, bootstrap, seed):
    applications = {"convnext": "ConvNeXtBase", "efficientnetv2m": "EfficientNetV2M"}
    applications |= {"mobilenetv3": "MobileNetV3Large", "vgg16": "VGG16"}
    used = [name for name in applications if any(run.startswith(name) for run in runs)]
    return {
        "dataset": {"classes": list(classes), "source": "npz"},
        "backbones": {
            name: {"application": application, "weights": "imagenet"}
            for name, application in applications.items()
        },
        "grid": {"backbones": used},
        "tuning": {"backbones": None},
        "codabench": {"scores": {}},
        "cost": {"watts": None},
        "evaluation": {"bootstrap": bootstrap},
        "published": True,
        "seed": seed,
        "split_seed": None,
        "train_seed": None,
    }


def _published(config):
    return reference.published(reference.settings(config), audit=None)


def _kind(run, config):
    """Return kind, backbone and head of a run by its name."""
    if run in CONTROLS:
        return "control", None, None
    if run == ENSEMBLE or run.endswith(WITH_VIEWS):
        return ENSEMBLE if run == ENSEMBLE else VIEWS, None, None
    for backbone in config["backbones"]:
        if run.startswith(f"{backbone}_"):
            return "transfer", backbone, run.removeprefix(f"{backbone}_")
    return "cnn", None, None


def _images(results, subsets, classes, size, rng):
    """Write the image arrays, the audit and the contact sheet."""
    kinds = ("basophil", "eosinophil", "erythroblast", "ig", "lymphocyte", "platelet")
    pool = np.stack([draw_cell(kind, size, rng) for kind in kinds for _ in range(2)])
    inputs = {}
    for subset in ("images", "test", "test_augmented"):
        count = len(subsets["test" if subset == "images" else subset])
        name = subset if subset == "images" else f"images_{subset}"
        inputs[name] = results / "dataset" / f"{subset}.npy"
        with io.new_array(inputs[name], (count, size, size, 3), np.uint8) as array:
            for row in range(count):
                # Moved round its edges, so that hardly two pictures of a study are the same.
                moved = rng.integers(size, size=2)
                array[row] = np.roll(pool[rng.integers(len(pool))], moved, axis=(0, 1))
    inputs["audit"] = results / "dataset" / "audit.json"
    counts = {name: int((subsets["test"] == k).sum()) for k, name in enumerate(classes)}
    io.write_json(inputs["audit"], _audit(classes, counts, len(subsets["test"])))
    inputs["contact_sheet"] = results / "figures" / "contact_sheet_train.png"
    inputs["contact_sheet"].parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.hstack(pool[:8])).save(inputs["contact_sheet"])
    return inputs


def _audit(classes, counts, images):
    first, last = classes[0], classes[-1]
    group = {"group": 0, "size": 14, "ids": [0, 1], "sources": ["a.png", "b.png"]}
    group |= {"classes": [first, last], "labels": {first: 7, last: 7}}
    group |= {"difference": 0.031, "differences": [0.0, 0.031]}
    listing = {"count": 1, "examples": [group]}
    conflict = {"count": 1, "examples": [group | {"outcome": f"kept image 0 as {first}"}]}
    return {
        "settings": {
            "duplicates": "pixels",
            "duplicate_difference": 0.06,
            "near_duplicate_distance": 4,
            "near_duplicate_difference": 0.15,
            "label_conflicts": "keep_first",
        },
        "counts": {
            "found": images + 35,
            "skipped": 1,
            "images": images + 34,
            "duplicates_removed": 33,
            "conflicts_removed": 1,
            "kept": images,
            "near_groups": 1,
            "near_images": 2,
            "label_conflicts": 1,
            "near_label_conflicts": 1,
        },
        "test_sets": {},
        "classes": [
            {"class": name, "found": n + 4, "kept": n, "train": 0, "val": 0, "test": n}
            for name, n in counts.items()
        ],
        "files": [
            {"class": name, "read": n + 4, "changed": {"padded": 3}, "skipped": {}}
            for name, n in counts.items()
        ]
        + [{"class": "", "read": 0, "changed": {}, "skipped": {"truncated": 1}}],
        "exact_groups": listing,
        "near_groups": listing,
        "label_conflicts": conflict,
        "groups": None,
        "group_conflicts": {"count": 0, "examples": []},
        "near_label_conflicts": listing,
        "skipped": {
            "count": 1,
            "examples": [{"source": f"{first}/cut.png", "reason": "truncated"}],
        },
    }


def _answers(labels, k, skill, rng):
    """Draw probabilities, float32 (n, k), of which a share `skill` is right for sure."""
    strength = rng.gamma(1.0, size=(len(labels), k))
    known = rng.random(len(labels)) < skill
    lead = strength[known].max(axis=1) + rng.gamma(2, size=known.sum())
    strength[known, labels[known]] += lead
    return (strength / strength.sum(axis=1, keepdims=True)).astype("float32")


def _copies(subsets, policies, blank):
    tables = []
    for subset in ("val", "test_augmented"):
        n = len(subsets[subset])
        table = pd.DataFrame({"subset": subset, "policy": np.resize(policies, n)})
        rows = list(blank) if subset == "test_augmented" else []
        spread = np.where(np.isin(np.arange(n), rows), 0.5, 40.0)
        tables.append(table.assign(spread=spread, draws=1))
    return pd.concat(tables)


def _write_run(results, run, config, classes, answers, inputs, bootstrap, seed):
    kind, backbone, head = _kind(run, config)
    folder = results / run
    predictions = write_answers(folder / "predictions", classes, answers)
    inputs = inputs | {"predictions": predictions}
    if kind in TRAINED:
        phases = PHASES if kind == "transfer" else ("training",)
        history = _history(phases)
        io.write_table(folder / "history.csv", history)
        size = 2 + sum(map(ord, run)) % 90
        seconds = [12.0 * size * (place + 1) for place in range(len(phases))]
        cost = {
            "parameters": size * 1_000_000,
            "images_per_second": 9000 / size,
            "peak_memory_mib": 300.0 * size,
            "phases": {
                name: {"epochs": 3, "seconds": time}
                for name, time in zip(phases, seconds, strict=True)
            },
            "seconds": sum(seconds),
            "environment": ENVIRONMENT,
        }
        latency = {"key": "", "images": 100, "median_ms": size / 3, "p95_ms": size / 2}
        inputs["latency"] = folder / "latency.json"
        io.write_json(inputs["latency"], latency | {"environment": ENVIRONMENT})
    elif kind != "control":
        views = 8 if kind == VIEWS else 1
        members = [run.removesuffix(WITH_VIEWS)] if kind == VIEWS else ["one", "other"]
        cost = {"members": members, "views": views, "parameters": 100, "seconds": 60.0}
        cost |= {"images_per_second": 4.0, "peak_memory_mib": 900.0}
    if kind != "control":
        io.write_json(folder / "cost.json", cost)
        inputs["cost"] = folder / "cost.json"
    evaluate_run(
        {"run": run, "kind": kind, "backbone": backbone, "head": head},
        inputs,
        {"metrics": folder / "metrics.json", "confusion": folder / "confusion_matrix.csv"},
        bootstrap=bootstrap,
        calibration_bins=15,
        seed=seed,
    )


def _history(phases):
    rows = [
        {
            "phase": phase,
            "epoch": epoch,
            "loss": 2 / (3 * place + epoch),
            "accuracy": 1 - 0.6 / (3 * place + epoch),
            "val_loss": 2.2 / (3 * place + epoch),
            "val_accuracy": 0.95 - 0.6 / (3 * place + epoch),
            "learning_rate": 10.0 ** (-3 - place),
            "seconds": 12.0,
            "best": epoch == 3,
        }
        for place, phase in enumerate(phases)
        for epoch in (1, 2, 3)
    ]
    return pd.DataFrame(rows)


def some_trials():
    """Two trials with two Dense layers and with none, the second of them continued."""
    return pd.DataFrame(
        {
            "trial": [1, 2, 3],
            "bracket": [1, 1, 1],
            "round": [0, 0, 1],
            "parent": [None, None, 2],
            "initial_epoch": [0, 0, 2],
            "epochs": [2, 2, 6],
            "layers": [2, 0, 0],
            "dense": ["384, 128", None, None],
            "dropout": ["0.1, 0.3", "0.5", "0.5"],
            "learning_rate": [0.01, 0.001, 0.001],
            "weight_decay": [None, None, None],
            "val_accuracy": [0.25, 0.5, 0.625],
            "val_loss": [1.5, 1.0, 0.9],
            "seconds": [2.0, 3.0, 60.0],
        }
    )


def _write_tuning(results, tuned, inputs, comparison, config):
    folder = results / "tuning"
    for run in tuned:
        found = {"run": run, "head": HEAD, "trial": 3, "val_accuracy": 0.625}
        found |= {"trials": 3, "epochs": 8, "seconds": 65.0}
        io.write_json(folder / f"{run}.json", found)
        io.write_table(folder / f"{run}_trials.csv", some_trials())
    backbones = list(dict.fromkeys(_kind(run, config)[1] for run in tuned))
    score = {"value": 0.9, "low": 0.85, "high": 0.95}
    ranking = [{"backbone": b, "run": f"{b}_cfg1", "accuracy": score} for b in backbones]
    finalists = {"chosen_by": comparison["select_by"], "finalists": backbones}
    io.write_json(folder / "finalists.json", finalists | {"ranking": ranking, "missing": []})
    out = {name: results / "tables" / f"tuned_{name}.csv" for name in ("heads", "runs", "gain")}
    compare_tuned(
        inputs | {"heads": [folder / f"{run}.json" for run in tuned]},
        out,
        comparison | {"codabench": {}},
        _published(config),
    )
    return {
        "finalists": folder / "finalists.json",
        "trials": [folder / f"{run}_trials.csv" for run in tuned],
        **dict(zip(TUNING, out.values(), strict=True)),
    }


def _write_corrupted(results, trained, inputs, classes, bootstrap, seed):
    """Take some of the right answers away: a tenth per severity, two by `saturate`."""
    test = [results / run / "predictions" / "test.npz" for run in trained]
    for path in test:
        _, subsets = read_predictions([path])
        labels, probabilities, groups = subsets["test"]
        answers = {}
        for kind, severity in (("bubble", 1), ("bubble", 5), ("saturate", 1), ("saturate", 5)):
            answers[kind, severity] = probabilities.copy()
            lost = severity * len(labels) // 10 * (1 + (kind == "saturate"))
            answers[kind, severity][:lost] = 1 / len(classes)
        corrupted = path.parents[1] / "corrupted" / "test.npz"
        write_corrupted(corrupted, classes, labels, answers, groups)
    table = results / "dataset" / "test.csv"
    out = {name: results / "tables" / f"{name}.csv" for name in WORSE}
    corrupted = [path.parents[1] / "corrupted" / "test.npz" for path in test]
    settings = {"bootstrap": bootstrap, "seed": seed}
    tables.compare_corruptions({"test": test, "corrupted": corrupted}, out, settings)
    return {**out, "table_test": table}


def _compare_answers(results, trained):
    out = {name: results / "tables" / f"{name}.csv" for name in ANSWERS}
    predictions = [results / run / "predictions" / "test.npz" for run in trained]
    table = results / "dataset" / "test.csv"
    compare_answers({"predictions": predictions, "table_test": table}, out)
    return out


def _write_maps(results, backbones, labels, rng):
    """Map features of which the label is one."""
    table, embeddings = results / "dataset" / "val.csv", results / "embeddings.npy"
    io.write_table(table, pd.DataFrame({"label": labels}))
    out = {f"map_{name}": results / "tables" / f"map_{name}.csv" for name in backbones}
    for path in out.values():
        features = rng.normal(size=(len(labels), 3)).astype("float32")
        features[:, 0] = 9 * labels
        np.save(embeddings, features)
        write_map(path, embeddings, table, seed=1)
    return out


def _write_explanation(results, made, classes, select_by, size, rng):
    subset = select_by if select_by != "val" else "test_augmented"
    run = next((run for run in made if run not in CONTROLS), None)
    columns = ["run", "subset", "row", "true", "predicted", "confidence", "right"]
    rows = [(run, subset, 0, classes[0], classes[0], 0.9, True)] if run else []
    rows += [(run, subset, 1, classes[0], classes[-1], 0.8, False)] if run else []
    paths = {
        "explanation": results / "explanation" / "pictures.csv",
        "explained": results / "explanation" / "pictures.npy",
    }
    io.write_table(paths["explanation"], pd.DataFrame(rows, columns=columns))
    np.save(
        paths["explained"], rng.integers(256, size=(len(rows), size, size, 3), dtype="uint8")
    )
    return paths


def _write_provenance(folder, config):
    results = folder / "results"
    paths = {
        "config": results / "provenance" / "config.yaml",
        "study": results / "provenance" / "study.json",
        "checksums": results / "provenance" / "checksums.csv",
        "resources": results / "tables" / "resources.csv",
    }
    write_config(config, paths["config"])
    write_study(paths["study"])
    write_checksums([results / "dataset" / "images.npy"], paths["checksums"])
    write_usage(folder / "benchmarks", paths["resources"])
    return paths
