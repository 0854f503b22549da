"""The runs of a study, and the settings that each of them depends on."""

import copy
from dataclasses import dataclass

from hemagrid.names import (
    FEATURE_EXTRACTION,
    FINETUNE_ALL,
    FINETUNE_TOP,
    HOLDOUT,
    TEST,
    TEST_AUGMENTED,
    TUNED_ADAMW,
    TUNED_HEADS,
    VAL,
)


@dataclass(frozen=True)
class Run:
    """One cell of the grid; `backbone` and `head` are None for a CNN."""

    name: str
    kind: str
    backbone: str | None
    head: str | None


def grid(config):
    """Return the runs by name, CNNs first, then the heads of each backbone in turn.

    `config` is validated.
    """
    chosen = config["grid"]
    runs = [Run(name, "cnn", None, None) for name in chosen["cnns"]]
    runs += [
        Run(f"{backbone}_{head}", "transfer", backbone, head)
        for backbone in chosen["backbones"]
        for head in chosen["heads"]
    ]
    return {run.name: run for run in runs}


def tunes(config):
    """Say whether the study has finalists, whose heads are searched."""
    tuning = config["tuning"]
    return bool(tuning["backbones"] or tuning["finalists"] and config["grid"]["backbones"])


def tunable_backbones(config):
    """Return the backbones of the study: those of the grid, then others named for tuning."""
    named = config["tuning"]["backbones"] or []
    return list(dict.fromkeys([*config["grid"]["backbones"], *named]))


def tuned_runs(config, finalists):
    """Return the tuned runs by name, of each of the `finalists` and those named for AdamW.

    A backbone named in `tuning.adamw` gets that search whether it is a finalist or not.
    There is none where the study does not tune.
    """
    if not tunes(config):
        return {}
    adamw = [b for b in config["tuning"]["adamw"] if b in tunable_backbones(config)]
    runs = [_tuned(backbone, "tuned") for backbone in finalists]
    runs += [_tuned(backbone, TUNED_ADAMW) for backbone in adamw]
    return {run.name: run for run in runs}


def known_runs(config):
    """Return every run that may be asked for by name: the grid's, and all tuned ones."""
    tuned = [_tuned(b, head) for b in tunable_backbones(config) for head in TUNED_HEADS]
    return grid(config) | {run.name: run for run in tuned}


def _tuned(backbone, head):
    return Run(f"{backbone}_{head}", "transfer", backbone, head)


def evaluated_subsets(config):
    """Return the subsets on which every run predicts.

    Only BloodMNIST brings images from outside the study: those of its other splits.
    """
    holdout = [HOLDOUT] if config["dataset"]["source"] == "bloodmnist" else []
    return [VAL, TEST, TEST_AUGMENTED, *holdout]


def run_settings(config, run_name):
    """Return what determines the training of one run, and nothing of other runs.

    A job whose parameters these are is made again exactly when one of them changes.
    Resources (`mem_mb`, `runtime`) and the origin of the weights, which are an input
    file by then, are left out; so is the head of a tuned run, which its search writes.
    Raises KeyError when `run_name` is none of `known_runs`.
    """
    run = known_runs(config)[run_name]
    training = ["optimizer", "monitor", "class_weights", "precision"]
    if run.kind == "cnn":
        model = {
            "name": run.name,
            "model": without(config["cnns"][run.name], "mem_mb", "runtime"),
        }
    else:
        training += [FEATURE_EXTRACTION, FINETUNE_TOP, FINETUNE_ALL]
        backbone = config["backbones"][run.backbone]
        model = {"backbone": without(backbone, "weights", "mem_mb", "runtime")}
        if run.head not in TUNED_HEADS:
            model["head"] = config["heads"][run.head]
    settings = {
        "kind": run.kind,
        **model,
        "training": {key: config["training"][key] for key in training},
        "seed": config["seed"],
        "subsets": evaluated_subsets(config),
    }
    return copy.deepcopy(settings)


def search_settings(config, run_name):
    """Return what determines the search for the head of one tuned run."""
    run, tuning = known_runs(config)[run_name], config["tuning"]
    fixed = [] if run.head == TUNED_ADAMW else ["weight_decay"]
    training = ("optimizer", "class_weights", "precision")
    settings = {
        "space": without(tuning["space"], *fixed),
        "hyperband": tuning["hyperband"],
        "batch_size": config["backbones"][run.backbone]["batch_size"],
        "training": {key: config["training"][key] for key in training},
        "seed": config["seed"],
    }
    return copy.deepcopy(settings)


def without(mapping, *keys):
    return {key: value for key, value in mapping.items() if key not in keys}
