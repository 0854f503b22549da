"""The configuration: checked by its schema, filled with defaults, read as a grid."""

import math
from pathlib import Path

from hemagrid.config.grid import (
    grid,
    known_runs,
    tunable_backbones,
    tunes,
    without,
)
from hemagrid.config.hyperband import distinct_heads, heads_in
from hemagrid.config.messages import as_written, did_you_mean, key_path
from hemagrid.errors import InputError
from hemagrid.names import RESERVED, TEST, TRAIN, TUNED_HEADS, VAL, WEIGHTS

BLOODMNIST_CLASSES = 8


def check_weights(config):
    """Raise InputError if weights that the study needs are a file that is not there.

    They are not needed where they have been converted already.
    """
    for name in tunable_backbones(config):
        weights = config["backbones"][name]["weights"]
        if weights in ("imagenet", "random"):
            continue
        if not Path(weights).exists() and not Path(WEIGHTS.format(backbone=name)).exists():
            application = config["backbones"][name]["application"]
            raise InputError(
                f"backbones.{name}.weights: found no file {Path(weights).absolute()}, expected "
                f"weights of keras.applications.{application}(include_top=False): on a machine "
                "with a network, model.save_weights writes them; put them there, or set "
                "`imagenet` (fetched by Keras) or `random`"
            )


def check_hidden_set(config):
    """Raise InputError if the images to score packages on are a file that is not there.

    Snakemake would take a score that is there already for one of them.
    """
    path = config["codabench"]["hidden_set"]
    if path and not Path(path).is_file():
        raise InputError(
            f"codabench.hidden_set: found no file {Path(path).absolute()}, expected an npz "
            "with `images` and `labels`; put it there, or set null"
        )


def _check_splits(config, schema):
    total = math.fsum(config["splits"][name] for name in (TRAIN, VAL, TEST))
    if not math.isclose(total, 1, abs_tol=1e-6):
        yield f"splits: found shares that sum to {total:g}, expected 1"


def _check_dataset(config, schema):
    dataset = config["dataset"]
    source, path, classes = dataset["source"], dataset["path"], dataset["classes"]
    if source != "smears" and path is None:
        yield f"dataset.path: found null, expected a path, because source is {source}"
    # Without a path of its own, a configuration laid over the default has this one.
    unchanged = schema["properties"]["dataset"]["properties"]["path"]["default"]
    if source in ("npz", "folder") and path == unchanged:
        yield (
            f"dataset.path: found {path}, the place of BloodMNIST's download, "
            f"expected the path of the {source}"
        )
    if source in ("bloodmnist", "npz") and classes is None:
        yield (
            "dataset.classes: found null, expected the names in the order of the "
            f"labels, because source is {source}"
        )
    if source == "bloodmnist" and classes and len(classes) != BLOODMNIST_CLASSES:
        yield (
            f"dataset.classes: found {len(classes)} names, expected "
            f"{BLOODMNIST_CLASSES}, because source is bloodmnist"
        )


def _check_cnns(config, schema):
    size = config["dataset"]["image_size"]
    for name, cnn in config["cnns"].items():
        blocks = len(cnn["filters"])
        if size >> blocks == 0:
            yield (
                f"cnns.{name}.filters: found {blocks} blocks, each of which halves the "
                f"image, expected at most {size.bit_length() - 1} at {size} pixels"
            )


def _check_heads(config, schema):
    for name, head in config["heads"].items():
        if name in TUNED_HEADS:
            yield (
                f"heads.{name}: found the name of a head that a search finds, expected another"
            )
        layers, rates = len(head["dense"]), len(head["dropout"])
        if rates != max(layers, 1):
            wanted = (
                f"{layers}, one per Dense layer"
                if layers
                else "1, on the embedding, because dense is empty"
            )
            yield f"heads.{name}.dropout: found {rates} rates, expected {wanted}"


def _unknown(key, names, section, config):
    """Yield a problem for each of `names`, the list under `key`, that `section` lacks."""
    known = config[section]
    for index, name in enumerate(names):
        if name not in known:
            yield (
                f"{key}[{index}]: found {as_written(name)}, expected an entry of {section}: "
                f"{', '.join(key_path([n]) for n in known) or 'there is none'}"
                f"{did_you_mean(name, map(str, known))}"
            )


def _check_grid(config, schema):
    chosen = config["grid"]
    for section in ("cnns", "backbones", "heads"):
        yield from _unknown(f"grid.{section}", chosen[section], section, config)
    runs = grid(config)
    if not runs:
        yield ("grid: found no run, expected a name in cnns, or one in backbones and heads")
    for name, run in runs.items():
        if run.kind == "transfer" and name in chosen["cnns"]:
            yield (
                f"grid: found two runs of the name {name}, the CNN and the head "
                f"{run.head} on {run.backbone}, expected names that differ"
            )
        if name in RESERVED:
            yield (
                f"grid: found a run of the name {name}, which is a folder of results/ "
                "already, expected another name"
            )


def _check_tuning(config, schema):
    tuning, space = config["tuning"], config["tuning"]["space"]
    for key in ("backbones", "adamw"):
        # A grid of others leaves the default's backbone where it is.
        if tuning[key] != schema["properties"]["tuning"]["properties"][key]["default"]:
            yield from _unknown(f"tuning.{key}", tuning[key] or [], "backbones", config)
    for key in ("layers", "neurons", "dropout"):
        low, high = space[key]["min"], space[key]["max"]
        if low > high:
            yield f"tuning.space.{key}: found min {low:g} above max {high:g}, expected a range"


def check_space(config):
    if not tunes(config):
        return
    tuning = config["tuning"]
    # Weight decay only adds heads: the search without it has the fewest.
    heads = heads_in(without(tuning["space"], "weight_decay"))
    wanted = distinct_heads(**tuning["hyperband"])
    if heads < wanted:
        yield (
            f"tuning.space: found {heads:,} different heads, expected {wanted:,} or more, as "
            "many as a search by tuning.hyperband draws; widen it, or lower "
            "tuning.hyperband.max_epochs"
        )


def _check_codabench(config, schema):
    known = known_runs(config)
    if config["codabench"]["hidden_set"] and config["dataset"]["classes"] is None:
        yield (
            "dataset.classes: found null, expected the names in the order of the labels, "
            "because codabench.hidden_set is an npz, which holds none"
        )
    for key in ("runs", "scores"):
        for name in config["codabench"][key]:
            if name not in known:
                yield (
                    f"codabench.{key}: found {as_written(name)}, expected a run of this study"
                    f"{did_you_mean(name, known)}"
                )


# Each check with the sections it reads: it runs unless one of them is malformed.
CROSS_CHECKS = (
    ({"splits"}, _check_splits),
    ({"dataset"}, _check_dataset),
    ({"cnns", "dataset"}, _check_cnns),
    ({"heads"}, _check_heads),
    ({"cnns", "backbones", "heads", "grid"}, _check_grid),
    ({"backbones", "tuning"}, _check_tuning),
    ({"dataset", "backbones", "grid", "tuning", "codabench"}, _check_codabench),
)
