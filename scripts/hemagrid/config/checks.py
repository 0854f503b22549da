"""Checks of a config that a schema cannot express: between keys, and on the file system."""

import ast
import difflib
import math
import os
import re
from pathlib import Path

from hemagrid import names
from hemagrid.config.grid import (
    STARTS,
    combinations,
    grid,
    known_runs,
    replicates,
    starting_files,
    tunable_backbones,
    tuned_runs,
    tunes,
    without,
)
from hemagrid.config.hyperband import distinct_heads, heads_in
from hemagrid.config.messages import as_written, did_you_mean, key_path, listed
from hemagrid.errors import InputError
from hemagrid.names import (
    RESERVED,
    RESERVED_SETS,
    TEST,
    TEST_AUGMENTED,
    TRAIN,
    TUNED_HEADS,
    VAL,
)

BLOODMNIST_CLASSES = 8
SECOND_LAB_CELLS = 12  # of each class, in a test set of smears
KINDS = {"npz": "an npz file", "folder": "a folder of class folders"}
WRITTEN = [
    Path(path).parts[0]
    for path in (names.IMAGES, names.CHECKPOINTS, names.LOG, names.BENCHMARKS)
]
"""The folders of a study that its jobs write into."""
BEGINNINGS = {".h5": ("HDF5", b"\x89HDF\r\n\x1a\n"), ".keras": ("a zip", b"PK\x03\x04")}
"""What files of weights are, and their first bytes, by suffix."""


def check_dataset(config, study=""):
    """Check that the images of a study, and their groups, are where `dataset` says.

    It is called on a finished study, too: Snakemake would take what is there already for the
    results of images that are not there.

    Args:
        config: Validated config.
        study: Folder of the study, with a slash at its end; empty for this one.

    Raises:
        InputError: There is no such file or folder, or it lies in the way of the study.
    """
    source, path = config["dataset"]["source"], config["dataset"]["path"]
    groups = config["dataset"]["groups"]
    if groups and groups["csv"]:
        expected = "a CSV with the columns file and group"
        _check_there("dataset.groups.csv", groups["csv"], expected)
    if source == "smears":
        return
    _check_outside("dataset.path", source, path, study)
    if source in KINDS:
        _check_there("dataset.path", path, KINDS[source], is_folder=source == "folder")
    elif os.path.isfile(path):
        raise InputError(
            f"dataset.path: found a file at {Path(path).absolute()}, expected a folder that "
            "keeps the download of BloodMNIST"
        )


def check_backbones(config, study=""):
    """Check the user's files that backbones are made from, as far as that takes no Keras.

    Snakemake would take what was made from other files for what these give.

    Args:
        config: Validated config.
        study: Folder of the study, with a slash at its end; empty for this one.

    Raises:
        InputError: A file is missing, or is not what its name says, or defines no such
            function.
    """
    for name in tunable_backbones(config):
        backbone, files = config["backbones"][name], starting_files(config, name)
        network = f"keras.applications.{backbone['application']}(include_top=False)"
        if path := files.get("module"):
            _check_module(name, path, backbone["function"])
            network = f"what {backbone['function']}() in {path} returns"
        if path := files.get("weights"):
            _check_weights(name, path, network, study)


def _check_module(name, path, function):
    """Check that a Python file is there, can be read, and defines a function."""
    key = f"backbones.{name}.module"
    _check_there(key, path, "a Python file with a function that builds the network")
    try:
        tree = ast.parse(Path(path).read_bytes(), path)
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise InputError(
            f"{key}: {path}{f', line {line}' if line else ''}: found {error}, expected Python"
        ) from None
    defined = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    if function not in defined:
        raise InputError(
            f"backbones.{name}.function: found no `def {function}` in {path}, expected a "
            f"function of the file; it defines {', '.join(defined) or 'none'}"
            f"{did_you_mean(function, defined)}"
        )


def _check_weights(name, path, network, study):
    """Check that a file of weights is there and begins as its suffix says."""
    key = f"backbones.{name}.weights"
    converted = Path(study, names.WEIGHTS.format(backbone=name))
    if Path(path).absolute() == converted.absolute():
        raise InputError(
            f"{key}: found {path}, where the workflow puts its own copy of them, expected "
            "another place"
        )
    _check_there(
        key,
        path,
        f"weights of {network}, written by model.save_weights on a machine that has them (or "
        f"set {', '.join(STARTS[:-1])} or {STARTS[-1]})",
    )
    kind, magic = BEGINNINGS[Path(path).suffix]
    with open(path, "rb") as file:
        found = file.read(len(magic))
    if found != magic:
        raise InputError(
            f"{key}: found a file that begins with {found!r} at {Path(path).absolute()}, "
            f"expected {kind}; it may be damaged, or a page saved in place of a download"
        )


def check_test_sets(config, study=""):
    """Check that the images of the test sets are where their `path` says.

    As `check_dataset`, it is called on a finished study, too.

    Args:
        config: Validated config.
        study: Folder of the study, with a slash at its end; empty for this one.

    Raises:
        InputError: There is no such file or folder, or it lies in the way of the study.
    """
    for name, test_set in config["test_sets"].items():
        key, source, path = f"test_sets.{name}.path", test_set["source"], test_set["path"]
        if source == "smears":
            continue
        _check_outside(key, source, path, study)
        _check_there(key, path, KINDS[source], is_folder=source == "folder")


def check_folder(folder="."):
    """Check that Snakemake can begin to keep its records where it runs.

    Args:
        folder: The working directory.

    Raises:
        InputError: It has none yet, and may not write there.
    """
    if not Path(folder, ".snakemake").exists() and not os.access(folder, os.W_OK):
        raise InputError(
            f"{Path(folder).resolve()}: found no permission to write, expected a folder of "
            "yours for the study; give one with --directory"
        )


def check_layout(study=""):
    """Check that the study's results are not of the layout in which training predicted.

    Snakemake would train every run again.

    Args:
        study: Folder of the study, with a slash at its end; empty for this one.

    Raises:
        InputError: There are such predictions.
    """
    found = sorted(map(str, Path(study).glob(names.FORMER_PREDICTIONS.format(run="*"))))
    if found:
        raise InputError(
            f"{found[0]}: found predictions of an earlier release, in which training made them "
            f"({len(found)} runs with controls), expected {names.PREDICTIONS}. Snakemake would "
            "train the runs again. With the config that made them, they can be kept:\n"
            f"  rm {study}{names.FORMER_PREDICTIONS.format(run='*')}\n"
            f"  snakemake --touch {study}{names.MODEL.format(run='*')} "
            "# and --configfile as before\n"
            "Then run the study as before: it predicts, and trains nothing. To train all runs "
            "again, leave the second command out."
        )


def _check_outside(key, source, path, study):
    """Raise InputError if the user's images lie where the study writes."""
    here, images = Path(study).resolve(), Path(path).resolve()
    if source == "folder" and images in (here, *here.parents):
        found = "the folder of the study" if images == here else "which the study lies in"
        raise InputError(
            f"{key}: found {images}, {found}, expected a folder that holds only "
            "class folders; put these into one of their own, or run the study in another "
            "--directory"
        )
    for folder in WRITTEN:
        if here / folder in (images, *images.parents):
            raise InputError(
                f"{key}: found {images}, a place in {folder}/, which the study writes "
                "and may empty; expected images outside of it"
            )


def _check_there(key, path, expected, is_folder=False):
    """Raise InputError with the nearest names that exist, unless `path` is a file or folder."""
    if os.path.isdir(path) if is_folder else os.path.isfile(path):
        return
    kinds = (
        (os.path.isfile, "a file"),
        (os.path.isdir, "a folder"),
        (os.path.islink, "a dead link"),
    )
    found = next((kind for test, kind in kinds if test(path)), "nothing")
    place = Path(path).absolute()
    parents = [*reversed(place.parents), place]
    missing = next((part for part in parents if not os.path.lexists(part)), None)
    hint = ""
    if os.path.expandvars(path) != path:
        hint = f"; only a shell replaces variables, write {os.path.expandvars(path)}"
    elif missing:
        beside = sorted(found.name for found in missing.parent.glob("[!.]*"))
        close = difflib.get_close_matches(missing.name, beside, n=3)
        if close:
            hint = f"; did you mean {' or '.join(close)}?"
        else:
            shown = ", ".join(beside[:8]) + f" and {len(beside) - 8} more" * (len(beside) > 8)
            hint = f"; {missing.parent} holds {shown or 'nothing'}"
        if not os.path.isabs(path):
            hint += " (a relative path starts at the study's folder)"
    raise InputError(f"{key}: found {found} at {place}, expected {expected}{hint}")


def _check_paths(config, schema):
    paths = {"dataset.path": config["dataset"]["path"], "checkpoints": config["checkpoints"]}
    for name, test_set in config["test_sets"].items():
        paths[f"test_sets.{name}.path"] = test_set["path"]
    paths["dataset.groups.csv"] = (config["dataset"]["groups"] or {}).get("csv")
    for name, backbone in config["backbones"].items():
        paths |= {f"backbones.{name}.{key}": backbone.get(key) for key in ("module", "weights")}
    for key, path in paths.items():
        if not isinstance(path, str):
            continue
        if "{" in path or "}" in path:
            yield (
                f"{key}: found {path}, expected a path without braces, which Snakemake takes "
                "for wildcards; rename it, or give the path of a link to it"
            )
        if path.startswith("~"):
            yield (
                f"{key}: found {path}, expected a path without ~, which only a shell replaces; "
                f"write {os.path.expanduser(path)}"
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


def _check_test_sets(config, schema):
    ours = config["dataset"]["classes"]
    for name, test_set in config["test_sets"].items():
        key, classes = key_path(["test_sets", name]), test_set["classes"]
        if (test_set["source"] == "smears") != (test_set["path"] is None):
            found = as_written(test_set["path"])
            yield f"{key}.path: found {found}, expected a path, or null if source is smears"
        if name in RESERVED_SETS:
            yield f"{key}: found a name that the study uses itself, expected another name"
        for their, our in classes.items():
            if ours and our is not None and our not in ours:
                yield (
                    f"{key_path(['test_sets', name, 'classes', their])}: found "
                    f"{as_written(our)}, expected one of dataset.classes "
                    f"({', '.join(ours)}) or null{did_you_mean(our, ours)}"
                )
        if test_set["source"] != "npz":
            continue
        if set(classes) != set(map(str, range(len(classes)))):
            yield (
                f"{key}.classes: found {', '.join(map(str, classes))}, expected the labels of "
                "the npz, 0, 1, 2, ... without a gap (null for one that is left out)"
            )
        if not classes and ours is None:
            yield (
                f"{key}.classes: found no entry and no dataset.classes, expected the class of "
                "each label, {0: NAME, 1: NAME, ...}, because an npz holds no names"
            )


def _check_groups(config, schema):
    source, groups = config["dataset"]["source"], config["dataset"]["groups"]
    if groups is None:
        return
    given = [key for key in ("pattern", "csv", "key") if groups[key] is not None]
    found = f"dataset.groups: found {' and '.join(given) or 'nothing'}"
    if len(given) != 1:
        yield f"{found}, expected one of pattern, csv and key, or null in place of the mapping"
    elif source == "bloodmnist":
        yield (
            f"{found}, expected null, because BloodMNIST does not tell which pictures are of "
            "one person"
        )
    elif source == "npz" and given != ["key"]:
        yield (
            f"{found}, expected key, the name of an array in the npz, because source is npz, "
            "whose pictures have no file names"
        )
    elif source != "npz" and given == ["key"]:
        yield f"{found}, expected pattern or csv, because source is {source}, not npz"
    if groups["pattern"] is not None:
        try:
            names_it = "group" in re.compile(groups["pattern"]).groupindex
        except re.error as error:
            yield (
                f"dataset.groups.pattern: found {groups['pattern']}, expected a regular "
                f"expression ({error})"
            )
        else:
            if not names_it:
                yield (
                    f"dataset.groups.pattern: found {groups['pattern']}, expected a named "
                    "group in it, as in ^(?P<group>[^_]+)_"
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


def _check_backbones(config, schema):
    for name, backbone in config["backbones"].items():
        application, module = backbone.get("application"), backbone.get("module")
        weights = backbone.get("weights")
        if application and module:
            yield (
                f"backbones.{name}: found application and module, expected one of them; a "
                "network of your own needs a name that the default config does not have"
            )
            continue
        if not application and not module:
            yield (
                f"backbones.{name}.application: found nothing, expected a name in "
                "keras.applications such as ConvNeXtBase, or `module`, a Python file"
            )
        elif application and backbone.get("top") is None:
            yield (
                f"backbones.{name}.top: found nothing, expected the last layer of "
                f"{application} that finetune_top leaves frozen"
            )
        origin, other = ("own", "imagenet") if module else ("imagenet", "own")
        if weights == other:
            yield (
                f"backbones.{name}.weights: found {weights}, expected {origin}, random or a "
                f"file, because {'module' if module else 'application'} is given"
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
                f"{', '.join(key_path([n]) for n in known) or 'none exist'}"
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
                f"grid: found two runs named {name}, the CNN and the head "
                f"{run.head} on {run.backbone}, expected names that differ"
            )
        if name in RESERVED:
            yield (
                f"grid: found a run named {name}, which is a folder of results/ "
                "already, expected another name"
            )


def _check_replicates(config, schema):
    runs = known_runs(config)
    if all(run.replicate == 1 for run in runs.values()):
        return
    for name in [run.name for run in runs.values() if run.replicate == 1]:
        if re.search(r"_s\d+$", name):
            yield (
                f"replicates: found a run named {name}, which reads as a replicate, expected "
                "names that do not end in _s and a number where replicates is above 1"
            )


def _check_tuning(config, schema):
    tuning, space = config["tuning"], config["tuning"]["space"]
    subsets = [VAL, TEST_AUGMENTED, *config["test_sets"]]
    if tuning["select_by"] not in subsets:
        yield (
            f"tuning.select_by: found {as_written(tuning['select_by'])}, expected "
            f"{VAL}, {TEST_AUGMENTED} or an entry of test_sets"
            f"{did_you_mean(tuning['select_by'], subsets)}"
        )
    for key in ("backbones", "adamw"):
        # A grid of others leaves the default's backbone where it is.
        if tuning[key] != schema["properties"]["tuning"]["properties"][key]["default"]:
            yield from _unknown(f"tuning.{key}", tuning[key] or [], "backbones", config)
    for key in ("layers", "neurons", "dropout"):
        low, high = space[key]["min"], space[key]["max"]
        if low > high:
            yield f"tuning.space.{key}: found min {low:g} above max {high:g}, expected a range"


def check_space(config):
    """Yield a problem if `tuning.space` holds fewer heads than a search draws.

    Args:
        config: Config without other problems.
    """
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


def _check_combinations(config, schema):
    known = known_runs(config)
    for name, ensemble in config["ensembles"].items():
        key = f"ensembles.{name}"
        if name in known or name in RESERVED:
            of = "a run" if name in known else "a folder of results/"
            yield f"{key}: found the name of {of}, expected another"
        members, best = ensemble["members"], ensemble["best"]
        if (members is None) == (best is None):
            found = "neither members nor best" if best is None else "members and best"
            yield (
                f"{key}: found {found}, expected one of them: members, a list of runs, or "
                "best, how many"
            )
        if best is not None and best > (count := _number_of_runs(config)):
            yield f"{key}.best: found {best}, expected at most {count}, the runs of this study"
        yield from _unknown_runs(f"{key}.members", members or (), known)
    yield from _unknown_runs("views", config["views"], known)


def _number_of_runs(config):
    """Count the runs that are trained, tuned ones and replicates included."""
    tuning = config["tuning"]
    finalists = tuning["backbones"]
    if finalists is None:
        finalists = config["grid"]["backbones"][: tuning["finalists"]]
    first = grid(config) | tuned_runs(config, finalists)
    return sum(len(replicates(config, run)) for run in first.values())


def _unknown_runs(key, runs, known):
    for name in runs:
        if name not in known:
            yield (
                f"{key}: found {as_written(name)}, expected a run of this study: "
                f"{listed(known)}{did_you_mean(name, known)}"
            )


def _check_codabench(config, schema):
    known = known_runs(config) | combinations(config)
    hidden, test_sets = config["codabench"]["hidden_set"], config["test_sets"]
    if hidden and hidden not in test_sets:
        yield (
            f"codabench.hidden_set: found {as_written(hidden)}, expected the name of an entry "
            f"of test_sets{did_you_mean(hidden, test_sets)}; images get one by "
            "test_sets: {NAME: {source: npz, path: FILE.npz}}"
        )
    for key in ("runs", "scores"):
        yield from _unknown_runs(f"codabench.{key}", config["codabench"][key], known)


def _check_corruptions(config, schema):
    kinds = config["corruptions"]["kinds"]
    for index, kind in enumerate(kinds if isinstance(kinds, list) else []):
        if kind not in names.CORRUPTIONS:
            yield (
                f"corruptions.kinds[{index}]: found {as_written(kind)}, expected one of "
                f"{', '.join(names.CORRUPTIONS)}{did_you_mean(kind, names.CORRUPTIONS)}"
            )


COMBINED = {"ensembles", "views"}
# Each check with the sections it reads: it runs unless one of them is malformed.
CROSS_CHECKS = (
    ({"dataset", "backbones", "test_sets"}, _check_paths),
    ({"splits"}, _check_splits),
    ({"dataset"}, _check_dataset),
    ({"dataset", "test_sets"}, _check_test_sets),
    ({"dataset"}, _check_groups),
    ({"cnns", "dataset"}, _check_cnns),
    ({"backbones"}, _check_backbones),
    ({"heads"}, _check_heads),
    ({"cnns", "backbones", "heads", "grid"}, _check_grid),
    ({"backbones", "grid", "tuning", "replicates"}, _check_replicates),
    ({"backbones", "test_sets", "tuning"}, _check_tuning),
    ({"corruptions"}, _check_corruptions),
    ({"backbones", "grid", "tuning", "replicates", *COMBINED}, _check_combinations),
    (
        {"test_sets", "backbones", "grid", "tuning", "replicates", "codabench", *COMBINED},
        _check_codabench,
    ),
)
