"""Estimate the seconds of a study's jobs and the bytes of its files.

Seconds come from measured speeds, bytes from the shapes of arrays and the numbers of
parameters. Both are near the truth, not exact.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hemagrid import io, names
from hemagrid.cli.speeds import AUGMENTATION, CNN, PARTS, network_of
from hemagrid.config.checks import BLOODMNIST_CLASSES
from hemagrid.config.grid import (
    corruptions,
    evaluated_subsets,
    grid,
    known_runs,
    replicates,
    tunable_backbones,
    tuned_runs,
)
from hemagrid.config.hyperband import expected_trials, trained_epochs
from hemagrid.data.counting import BLOODMNIST_TEST, count
from hemagrid.data.folders import class_folders

# The weights, the best ones so far and the optimizer's two moments, all float32; and as much
# again while a new checkpoint takes the place of the old one.
_CHECKPOINT_COPIES = 8
# The parts of a network that the validation pass of a phase goes through.
_FORWARD = {
    names.FEATURE_EXTRACTION: [],
    names.FINETUNE_TOP: ["top"],
    names.FINETUNE_ALL: [*PARTS],
}
# Stages whose speed does not depend on the size of the images.
_SIZELESS = ("start", names.FEATURE_EXTRACTION)


@dataclass(frozen=True)
class Job:
    """A planned job. `place` is "local", "cpu" or "gpu"; `minutes` is what it asks for.

    So are `memory`, in MB, and `queue`: partition, account and QOS of SLURM.
    """

    rule: str
    wildcards: dict
    place: str
    minutes: int
    memory: int = 0
    queue: tuple = ()


@dataclass(frozen=True)
class Images:
    """Numbers of images: all that were `found`, and those of `subsets` with their copies.

    `source` says how they are known.
    """

    found: int
    subsets: dict
    source: str


class Unmeasured(Exception):
    """The speed of a network was not measured. The message is its name."""


def count_images(config, folder="."):
    """Count the images of a study without decoding any. Once it is split, they are exact.

    Args:
        config: Validated config.
        folder: Folder of the study.

    Raises:
        InputError: The images are not where the config says.
    """
    splits = Path(folder, names.SPLIT_TABLE)
    if splits.exists():
        kept = io.read_table(splits)["split"].value_counts().to_dict()
        found = len(np.load(Path(folder, names.IMAGES), mmap_mode="r"))
        source = f"{sum(kept.values()):,} after duplicates were removed, from {splits}"
    else:
        found, known = _found(config["dataset"], folder)
        kept = {name: round(share * found) for name, share in config["splits"].items()}
        source = f"{found:,}, {known}; duplicates among them will be removed"
    copies = config["augmentation"]
    subsets = {
        names.TRAIN: kept[names.TRAIN] * copies[names.TRAIN]["copies"],
        names.VAL: kept[names.VAL] * copies[names.VAL]["copies"],
        names.TEST: kept[names.TEST],
        names.TEST_AUGMENTED: kept[names.TEST] * copies[names.TEST_AUGMENTED]["copies"],
    }
    if names.HOLDOUT in evaluated_subsets(config):
        subsets[names.HOLDOUT] = BLOODMNIST_TEST
    for name, test_set in config["test_sets"].items():
        subsets[name] = _found(test_set | {"classes": None}, folder)[0]
    return Images(found, subsets, source)


def _found(dataset, folder):
    """Return (number of images in the source, how it is known)."""
    path = Path(folder, dataset["path"] or "")
    if dataset["source"] == "folder":
        class_folders(path, dataset["classes"])
    known = {
        "bloodmnist": "the known size of BloodMNIST's train split",
        "smears": "the number to be drawn",
        "folder": f"the files in {path}",
        "npz": f"from the header of {path}",
    }
    return count(dataset, folder), known[dataset["source"]]


def cnn_numbers(settings, image_size, classes):
    """Count the parameters of a CNN as `cnns.build_cnn` makes it, and its multiplications.

    Args:
        settings: An entry of the config's `cnns`.
        image_size: Edge of the images in pixels.
        classes: Number of classes.

    Returns:
        (parameters, multiplications per image)
    """
    side, channels, parameters, multiplications = image_size, 3, 0, 0
    for filters in settings["filters"]:
        kernel = 9 * channels * filters
        parameters += kernel + filters + 4 * filters * settings["batch_norm"]
        multiplications += side**2 * kernel
        side, channels = side // 2, filters
    dense = side**2 * channels * settings["dense"]
    output = settings["dense"] * classes
    parameters += dense + settings["dense"] + output + classes
    return parameters, multiplications + dense + output


def head_parameters(head, features, classes):
    """Count the parameters of a head as `heads.build_head` makes it.

    Args:
        head: An entry of the config's `heads`.
        features: Number of features of the embedding.
        classes: Number of classes.
    """
    parameters, width = 0, features
    for neurons in head["dense"]:
        parameters += width * neurons + neurons + 4 * neurons * head["batch_norm"]
        width = neurons
    return parameters + width * classes + classes


class Estimate:
    """What the jobs and files of a study take.

    Its methods raise Unmeasured where the speeds lack a row.

    Args:
        config: Validated config.
        images: What `count_images` returned.
        speeds: What `speeds.read_speeds` returned.
    """

    def __init__(self, config, images, speeds):
        self.config, self.subsets, self.speeds = config, images.subsets, speeds
        self.found = images.found
        self.size = config["dataset"]["image_size"]
        self.classes = len(config["dataset"]["classes"] or []) or BLOODMNIST_CLASSES
        self.cached = self.subsets[names.TRAIN] + self.subsets[names.VAL]
        self.in_test_sets = sum(self.subsets[name] for name in evaluated_subsets(config))
        worse = len(corruptions(config)) * self.subsets[names.TEST]
        self.evaluated = self.in_test_sets + worse
        self.tuned = self._tuned()

    def _tuned(self):
        """Return the tuned runs, those of the costliest backbones while they are unknown."""
        tuning = self.config["tuning"]
        chosen = tuning["backbones"]
        if chosen is None:
            chosen = sorted(tunable_backbones(self.config), key=self._epoch, reverse=True)
            chosen = chosen[: tuning["finalists"]]
        return tuned_runs(self.config, chosen)

    def _epoch(self, backbone):
        """Return the seconds of one image in the costliest phase, 0 where unmeasured."""
        try:
            row = self._row(None, self._network(backbone), names.PHASES[-1])
        except Unmeasured:
            return 0
        return self._work(row, None) / row["images_per_second"]

    def seconds(self, job, device):
        """Return the seconds of a job with all its epochs, or None if it takes minutes at most.

        Args:
            job: A Job.
            device: "cpu" or "gpu". On a CPU the seconds are of one core.
        """
        if job.rule == "augment":
            return self._sum(
                device, AUGMENTATION, [("augment", self.subsets[job.wildcards["subset"]])]
            )
        if job.rule == "embed":
            passes = [("trunk", self.cached), ("top", self.cached)]
            return self._sum(device, self._network(job.wildcards["backbone"]), passes)
        if job.rule == "search":
            return self._search(device, known_runs(self.config)[job.wildcards["run"]])
        if job.rule == "train":
            run = known_runs(self.config)[job.wildcards["run"]]
            return self._cnn(device, run) if run.kind == "cnn" else self._transfer(device, run)
        if job.rule == "predict":
            run = known_runs(self.config)[job.wildcards["run"]]
            return self._predict(device, run, self.evaluated)
        if job.rule == "views":
            run = known_runs(self.config)[job.wildcards["run"].removesuffix(names.WITH_VIEWS)]
            return self._predict(device, run, 8 * self.in_test_sets)
        return None

    def parameters(self, run):
        """Return the number of parameters of a run's network."""
        if run.kind == "cnn":
            return cnn_numbers(self.config["cnns"][run.base], self.size, self.classes)[0]
        (features,) = self.shape(run.backbone, "top")
        head = (
            self._largest_head()
            if run.head in names.TUNED_HEADS
            else self.config["heads"][run.head]
        )
        return self.backbone_parameters(run.backbone) + head_parameters(
            head, features, self.classes
        )

    def backbone_parameters(self, backbone):
        network = self._network(backbone)
        return sum(int(self._row(None, network, part)["parameters"]) for part in PARTS)

    def shape(self, backbone, part):
        """Return the shape of what a backbone's `part`, "trunk" or "top", makes of an image."""
        row = self._row(None, self._network(backbone), part)
        *sides, features = map(int, row["output"].split("x"))
        return *(-(-side * self.size // row["image_size"]) for side in sides), features

    def _network(self, backbone):
        return network_of(self.config["backbones"][backbone])

    def _cnn(self, device, run):
        settings = self.config["cnns"][run.base]
        epochs = settings["epochs"]
        passes = [
            ("training", epochs * self.subsets[names.TRAIN]),
            ("forward", epochs * self.subsets[names.VAL]),
        ]
        return self._sum(device, CNN, passes, settings)

    def _transfer(self, device, run):
        passes = []
        for phase in names.PHASES:
            epochs = self.config["training"][phase]["epochs"]
            passes.append((phase, epochs * self.subsets[names.TRAIN]))
            passes += [(part, epochs * self.subsets[names.VAL]) for part in _FORWARD[phase]]
        return self._sum(device, self._network(run.backbone), passes)

    def _predict(self, device, run, images):
        if run.kind == "cnn":
            settings = self.config["cnns"][run.base]
            return self._sum(device, CNN, [("forward", images)], settings)
        passes = [("trunk", images), ("top", images)]
        return self._sum(device, self._network(run.backbone), passes)

    def _largest_head(self):
        space = self.config["tuning"]["space"]
        dense = [space["neurons"]["max"]] * space["layers"]["max"]
        return {"dense": dense, "batch_norm": space["batch_norm"]}

    def _search(self, device, run):
        """Return the seconds of a search: the first phase, with a new head for each trial."""
        hyperband, network = self.config["tuning"]["hyperband"], self._network(run.backbone)
        stage = names.FEATURE_EXTRACTION
        tracing = self._row(device, network, stage)["startup_seconds"]
        images = trained_epochs(**hyperband) * self.subsets[names.TRAIN]
        return self._sum(device, network, [(stage, images)]) + tracing * (
            expected_trials(**hyperband) - 1
        )

    def _sum(self, device, network, passes, cnn=None):
        """Add up the seconds to start, to trace each stage once, and to pass all images."""
        seconds, stages = self._row(device, network, "start")["startup_seconds"], set()
        for stage, images in passes:
            if images:
                row = self._row(device, network, stage)
                seconds += images / row["images_per_second"] * self._work(row, cnn)
                seconds += 0 if stage in stages else row["startup_seconds"]
                stages.add(stage)
        return seconds

    def _work(self, row, cnn):
        """Return how many times as long an image takes here as where `row` was measured."""
        cores = row["threads"] if row["device"] == "cpu" else 1
        if cnn:
            _, multiplications = cnn_numbers(cnn, self.size, self.classes)
            return cores * multiplications / row["multiplications"]
        if row["stage"] in _SIZELESS:
            return cores
        return cores * (self.size / row["image_size"]) ** 2

    def _row(self, device, network, stage):
        """Find the row of a stage at the size nearest to ours. None stands for any device."""
        rows = self.speeds
        chosen = (rows["application"] == network[0]) & (rows["top"] == network[1])
        chosen &= rows["stage"] == stage
        if device:
            chosen &= rows["device"] == device
        if not chosen.any():
            raise Unmeasured(f"{network[0]}, cut at {network[1]}" if network[1] else network[0])
        rows = rows[chosen]
        return rows.iloc[(np.log(rows["image_size"] / self.size)).abs().argmin()]


def storage(estimate):
    """List what a study writes.

    Args:
        estimate: An Estimate.

    Returns:
        [(what, where, bytes)]. Bytes are None where a network was not measured.
    """
    bases = [*grid(estimate.config).values(), *estimate.tuned.values()]
    runs = [run for base in bases for run in replicates(estimate.config, base)]
    backbones = sorted({run.backbone for run in runs if run.backbone})
    images = estimate.found + sum(estimate.subsets.values())
    # Label and parent of each image as int64, probabilities as float32.
    predictions = estimate.evaluated * (16 + 4 * estimate.classes)

    def cached(part):
        return (4 * estimate.cached * math.prod(estimate.shape(b, part)) for b in backbones)

    def folder(pattern):
        return pattern.partition("{")[0]

    weights = _total(4 * estimate.backbone_parameters(name) for name in backbones)
    models = _total(4 * estimate.parameters(run) for run in runs)
    checkpoints = models and _CHECKPOINT_COPIES * models
    return [
        (
            "images and their copies",
            f"{Path(names.IMAGES).parent}/",
            3 * estimate.size**2 * images,
        ),
        ("starting weights", folder(names.WEIGHTS), weights),
        ("trunk activations", folder(names.ACTIVATIONS), _total(cached("trunk"))),
        ("embeddings", folder(names.EMBEDDINGS), _total(cached("top"))),
        ("models", names.MODEL.format(run="*"), models),
        (
            "predictions",
            names.PREDICTIONS.format(run="*", test_set="*"),
            predictions * len(runs),
        ),
        (
            "checkpoints, at most, if all runs train at once",
            f"{Path(estimate.config['checkpoints'])}/",
            checkpoints,
        ),
    ]


def _total(amounts):
    """Add up an iterator of amounts. None stands for the sum if one is unknown."""
    try:
        return sum(amounts)
    except Unmeasured:
        return None
