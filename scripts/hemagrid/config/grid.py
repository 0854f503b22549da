"""The runs of a study, and the settings that each of them depends on."""

import copy
from dataclasses import dataclass, replace

from hemagrid import names

STARTS = ("imagenet", "own", "random")
"""The `weights` of a backbone that are no file."""


@dataclass(frozen=True)
class Run:
    """One cell of the grid; `backbone` and `head` are None for a CNN.

    It is its own first replicate. `repeats` is the name of the run that a later one repeats.
    """

    name: str
    kind: str
    backbone: str | None
    head: str | None
    replicate: int = 1
    repeats: str | None = None

    @property
    def base(self):
        """The name of its first replicate."""
        return self.repeats or self.name


def grid(config):
    """Return the runs of the grid by name: CNNs first, then the heads of each backbone in turn.

    The order is that of the lists in the config's `grid`, as everywhere.

    Args:
        config: Validated config.

    Returns:
        {name: Run}
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
    """Return whether heads are searched in this study."""
    tuning = config["tuning"]
    return bool(tuning["backbones"] or tuning["finalists"] and config["grid"]["backbones"])


def tunable_backbones(config):
    """List the backbones of the study: those of the grid, then others named for tuning."""
    named = config["tuning"]["backbones"] or []
    return list(dict.fromkeys([*config["grid"]["backbones"], *named]))


def tuned_runs(config, finalists):
    """Return the tuned runs by name; there are none if the study does not tune.

    Args:
        config: Validated config.
        finalists: Names of the backbones that are tuned. Those in `tuning.adamw` get the second
            search in any case.

    Returns:
        {name: Run}
    """
    if not tunes(config):
        return {}
    adamw = [b for b in config["tuning"]["adamw"] if b in tunable_backbones(config)]
    runs = [_tuned(backbone, names.TUNED) for backbone in finalists]
    runs += [_tuned(backbone, names.TUNED_ADAMW) for backbone in adamw]
    return {run.name: run for run in runs}


def known_runs(config):
    """Return every run that can be made, {name: Run}.

    They are the grid's, all tuned ones, then the later replicates of both.
    """
    tuned = [_tuned(b, head) for b in tunable_backbones(config) for head in names.TUNED_HEADS]
    first = grid(config) | {run.name: run for run in tuned}
    return first | {
        run.name: run for base in first.values() for run in replicates(config, base)[1:]
    }


def replicates(config, run):
    """List the replicates of a run, itself first.

    Args:
        config: Validated config.
        run: A Run that repeats no other.
    """
    count = config["replicates"]
    if isinstance(count, dict):
        count = count.get("cnns" if run.kind == "cnn" else "backbones", 1)
    later = [
        replace(run, name=f"{run.name}_s{n}", replicate=n, repeats=run.name)
        for n in range(2, count + 1)
    ]
    return [run, *later]


def combinations(config):
    """Return the rows that are made of runs without training, {name: Run}.

    They are the ensembles, then the runs with views. Each has neither backbone nor head, so
    that none competes as one.
    """
    rows = [Run(name, names.ENSEMBLE, None, None) for name in config["ensembles"]]
    rows += [
        Run(f"{run}{names.WITH_VIEWS}", names.VIEWS, None, None) for run in config["views"]
    ]
    return {row.name: row for row in rows}


def split_seed(config):
    """Return the seed of what all runs share: splits, copies, random weights, resamples."""
    return config["seed"] if config["split_seed"] is None else config["split_seed"]


def train_seed(config, replicate=1):
    """Return the seed that a replicate is trained from, and, for the first one, a search."""
    seed = config["seed"] if config["train_seed"] is None else config["train_seed"]
    return (seed + replicate - 1) % 2**32


def _tuned(backbone, head):
    return Run(f"{backbone}_{head}", "transfer", backbone, head)


def test_sets(config):
    """List the test sets of other sources. Only BloodMNIST has a holdout."""
    holdout = [names.HOLDOUT] if config["dataset"]["source"] == "bloodmnist" else []
    return [*holdout, *config["test_sets"]]


def evaluated_subsets(config):
    """List the subsets on which every run predicts."""
    return [names.VAL, names.TEST, names.TEST_AUGMENTED, *test_sets(config)]


def corruptions(config):
    """List the (kind, severity) of the corrupted test images, in the order of tables."""
    kinds, severities = config["corruptions"]["kinds"], config["corruptions"]["severities"]
    return [
        (kind, severity)
        for kind in names.CORRUPTIONS
        if kinds == "all" or kind in kinds
        for severity in severities
    ]


def run_settings(config, run_name):
    """Return what the training of one run depends on; if it changes, the run is trained again.

    Left out are resources, the origin of the weights, which are a file by then, and the head of
    a tuned run, which its search writes. Replicates differ in `seed` alone.

    Args:
        config: Validated config.
        run_name: One of `known_runs`.
    """
    run = known_runs(config)[run_name]
    training = ["optimizer", "monitor", "class_weights", "precision"]
    if run.kind == "cnn":
        model = {
            "name": run.base,
            "model": without(config["cnns"][run.base], "mem_mb", "runtime"),
        }
    else:
        training += [names.FEATURE_EXTRACTION, names.FINETUNE_TOP, names.FINETUNE_ALL]
        batch_size = config["backbones"][run.backbone]["batch_size"]
        model = {"backbone": network(config, run.backbone) | {"batch_size": batch_size}}
        if run.head not in names.TUNED_HEADS:
            model["head"] = config["heads"][run.head]
    settings = {
        "kind": run.kind,
        **model,
        "training": {key: config["training"][key] for key in training},
        "seed": train_seed(config, run.replicate),
    }
    return copy.deepcopy(settings)


def network(config, backbone):
    """Return which network a backbone is: `top`, and `application`, or `module` and `function`.

    Args:
        config: Validated config.
        backbone: Its name.
    """
    settings = config["backbones"][backbone]
    keys = ["module", "function"] if settings["module"] else ["application"]
    return {key: settings[key] for key in (*keys, "top")}


def starting_files(config, backbone):
    """Return the user's files that a backbone is made from, {`module` or `weights`: path}.

    Args:
        config: Validated config.
        backbone: Its name.
    """
    settings = config["backbones"][backbone]
    files = {key: settings[key] for key in ("module", "weights")}
    return {k: path for k, path in files.items() if path not in (None, *STARTS)}


def starting_settings(config, backbone):
    """Return what a backbone's starting weights depend on beside its files and their origin.

    A network of the user's own is built here, and in the precision that it will train in.

    Args:
        config: Validated config.
        backbone: Its name.
    """
    settings = {"image_size": config["dataset"]["image_size"], "seed": split_seed(config)}
    if config["backbones"][backbone]["module"]:
        built = without(network(config, backbone), "module")
        settings |= built | {"precision": config["training"]["precision"]}
    return settings


def search_settings(config, run_name):
    """Return what the search for a tuned run's head depends on.

    Args:
        config: Validated config.
        run_name: A tuned one of `known_runs`.
    """
    run, tuning = known_runs(config)[run_name], config["tuning"]
    fixed = [] if run.head == names.TUNED_ADAMW else ["weight_decay"]
    training = ("optimizer", "class_weights", "precision")
    settings = {
        "space": without(tuning["space"], *fixed),
        "hyperband": tuning["hyperband"],
        "batch_size": config["backbones"][run.backbone]["batch_size"],
        "training": {key: config["training"][key] for key in training},
        "seed": train_seed(config),
    }
    return copy.deepcopy(settings)


def without(mapping, *keys):
    """Return a copy of a mapping without some of its keys."""
    return {key: value for key, value in mapping.items() if key not in keys}
