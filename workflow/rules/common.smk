"""The validated config, the grid of runs, and what several rules share."""

import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir).parent / "scripts"))

from hemagrid import config as study
from hemagrid.errors import InputError


def validate_config():
    """Fill in the defaults; refuse a bad config before any job is planned."""
    schema = yaml.safe_load(
        (Path(workflow.basedir) / "schemas/config.schema.yaml").read_text()
    )
    try:
        config.update(study.validated(config, schema))
        study.check_weights(config, built="resources/weights/{}.weights.h5")
    except InputError as error:
        raise WorkflowError(str(error)) from None


validate_config()

RUNS = study.grid(config)
CONTROLS = ["majority_class", "random_labels"]
EVALUATED = study.evaluated_subsets(config)
CACHED = ["train", "val"]


wildcard_constraints:
    run="|".join([*RUNS, *CONTROLS]),
    backbone="|".join(config["backbones"]),
    subset="train|val|test_augmented",
    table="grid|best_heads",


def per_attempt(amount):
    """Return a resource function: `amount` on the first attempt, twice that on the second."""

    def scaled(wildcards, attempt):
        return amount * attempt

    return scaled


def scaled_by_attempt(key):
    """Return a resource function that reads `key` of the run's network in the config."""

    def scaled(wildcards, attempt):
        return network(wildcards)[key] * attempt

    return scaled


def network(wildcards):
    """The config entry of the CNN or backbone that a job computes with."""
    if "backbone" in wildcards.keys():
        return config["backbones"][wildcards.backbone]
    run = RUNS[wildcards.run]
    if run.kind == "cnn":
        return config["cnns"][run.name]
    return config["backbones"][run.backbone]


def images_of(subset):
    return f"results/dataset/{subset}.npy"


def table_of(subset):
    return f"results/dataset/{subset}.csv"


def per_subset(pattern, subsets):
    """Named inputs, one per subset: {subset: path}."""
    return {subset: pattern(subset) for subset in subsets}


def bloodmnist_archive():
    settings = config["dataset"]
    return f"{settings['path']}/bloodmnist_{settings['resolution']}.npz"


def dataset_source():
    """What acquire_dataset reads: a file or folder, made by a rule or the user's."""
    settings = config["dataset"]
    if settings["source"] == "bloodmnist":
        return bloodmnist_archive()
    if settings["source"] == "smears":
        return "resources/smears"
    return settings["path"]


def dataset_settings():
    """The part of the config that the images and samples depend on."""
    keys = ["source", "image_size", "classes", "strict"]
    return {key: config["dataset"][key] for key in keys}


def acquired_files():
    """The outputs of acquire_dataset; BloodMNIST brings an external test set along."""
    files = {
        "images": "results/dataset/images.npy",
        "samples": "results/dataset/samples.csv",
    }
    if "external" in EVALUATED:
        files |= {
            "external_images": images_of("external"),
            "external_table": table_of("external"),
        }
    return files


def weights_inputs(wildcards):
    """Random weights need training images, weights of the user's their file, others nothing."""
    weights = config["backbones"][wildcards.backbone]["weights"]
    if weights == "random":
        return {
            "images": "results/dataset/images.npy",
            "splits": "results/dataset/splits.csv",
        }
    return {} if weights == "imagenet" else {"weights": weights}


def weights_settings(wildcards):
    settings = config["backbones"][wildcards.backbone]
    return {key: settings[key] for key in ("application", "weights")}


def boundary_settings(wildcards):
    settings = config["backbones"][wildcards.backbone]
    return {key: settings[key] for key in ("application", "top")}


def run_settings(wildcards):
    """Exactly what determines a run: another head's entry is not in it."""
    return study.run_settings(config, wildcards.run)


def training_inputs(wildcards):
    """Images and tables of every subset, and for a transfer run its weights and caches."""
    subsets = [*CACHED, *EVALUATED[1:]]
    inputs = {f"images_{subset}": images_of(subset) for subset in subsets}
    inputs |= {f"table_{subset}": table_of(subset) for subset in subsets}
    backbone = RUNS[wildcards.run].backbone
    if backbone:
        inputs["weights"] = f"resources/weights/{backbone}.weights.h5"
        for subset in CACHED:
            inputs[f"activations_{subset}"] = f"results/trunks/{backbone}/{subset}.npy"
            inputs[f"embeddings_{subset}"] = (
                f"results/embeddings/{backbone}/{subset}.npy"
            )
    return inputs


def evaluation_inputs(wildcards):
    """A control has no network and so no cost."""
    inputs = {"predictions": f"results/{wildcards.run}/predictions.npz"}
    if wildcards.run in RUNS:
        inputs["cost"] = f"results/{wildcards.run}/cost.json"
    return inputs


def run_description(wildcards):
    """Name, kind, backbone and head of a run or control, as they stand in its metrics."""
    run = RUNS.get(wildcards.run)
    return {
        "run": wildcards.run,
        "kind": run.kind if run else "control",
        "backbone": run.backbone if run else None,
        "head": run.head if run else None,
    }


def augmentation_settings(wildcards):
    return config["augmentation"][wildcards.subset]
