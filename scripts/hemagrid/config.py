"""The configuration: checked by its schema, filled with defaults, read as a grid."""

import copy
import difflib
import math
import re
import reprlib
from dataclasses import dataclass
from pathlib import Path

from jsonschema import Draft202012Validator, validators

from hemagrid.errors import InputError
from hemagrid.hyperband import distinct_heads, heads_in

RESERVED_NAMES = (
    "dataset",
    "trunks",
    "embeddings",
    "tables",
    "figures",
    "tuning",
    "explanation",
    "provenance",
    "majority_class",
    "random_labels",
    "logs",
    "benchmarks",
)
"""Folders of results/ that no run may take."""

BLOODMNIST_CLASSES = 8

TUNED_HEADS = ("tuned", "tuned_adamw")
"""Heads that a search finds; the second one's search has weight decay in its space."""

_TYPE_NAMES = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a finite number",
    "boolean": "true or false",
    "null": "null",
}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
}


@dataclass(frozen=True)
class Run:
    """One cell of the grid; `backbone` and `head` are None for a CNN."""

    name: str
    kind: str
    backbone: str | None
    head: str | None


def validated(config, schema):
    """Return a deep copy of `config` in which every default of `schema` is filled in.

    Raises InputError that lists every problem, one per line: the key's path, what was
    found, what was expected.
    """
    errors = list(_Strict(schema).iter_errors(config))
    # Two keys missing from one place are two errors that each name both.
    problems = list(dict.fromkeys(problem for error in errors for problem in _problems(error)))
    filled = copy.deepcopy(config)
    if isinstance(filled, dict):
        # Exhausted for its side effect: validation is what fills the defaults in.
        list(_DefaultsFilling(schema).iter_errors(filled))
        malformed = {error.absolute_path[0] for error in errors if error.validator == "type"}
        for sections, check in _CROSS_CHECKS:
            if not malformed.intersection(sections):
                problems.extend(check(filled, schema))
    if not problems:
        problems.extend(_check_space(filled))  # it counts, which takes sound numbers
    if problems:
        raise InputError(
            f"the configuration has {len(problems)} "
            f"{'problem' if len(problems) == 1 else 'problems'}:\n"
            + "\n".join(f"  {problem}" for problem in problems)
        )
    return filled


def defaults(schema):
    """Return the configuration that an empty one stands for."""
    return validated({}, schema)


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
    runs += [_tuned(backbone, "tuned_adamw") for backbone in adamw]
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
    external = ["external"] if config["dataset"]["source"] == "bloodmnist" else []
    return ["val", "test", "test_augmented", *external]


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
            "model": _without(config["cnns"][run.name], "mem_mb", "runtime"),
        }
    else:
        training += ["feature_extraction", "finetune_top", "finetune_all"]
        backbone = config["backbones"][run.backbone]
        model = {"backbone": _without(backbone, "weights", "mem_mb", "runtime")}
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
    fixed = [] if run.head == "tuned_adamw" else ["weight_decay"]
    training = ("optimizer", "class_weights", "precision")
    settings = {
        "space": _without(tuning["space"], *fixed),
        "hyperband": tuning["hyperband"],
        "batch_size": config["backbones"][run.backbone]["batch_size"],
        "training": {key: config["training"][key] for key in training},
        "seed": config["seed"],
    }
    return copy.deepcopy(settings)


def _without(mapping, *keys):
    return {key: value for key, value in mapping.items() if key not in keys}


# Python's own numbers are stricter here than JSON's: 30.0 epochs, NaN and infinity are
# refused, and true is no number.
_Strict = validators.extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, value: type(value) is int,
            "number": lambda _, value: (
                type(value) is int or type(value) is float and math.isfinite(value)
            ),
        }
    ),
)


def _fill_properties(validator, properties, instance, schema):
    """Set missing keys before they are validated: the recipe of jsonschema's FAQ."""
    if validator.is_type(instance, "object"):
        for key, subschema in properties.items():
            if "default" in subschema:
                instance.setdefault(key, copy.deepcopy(subschema["default"]))
    yield from _Strict.VALIDATORS["properties"](validator, properties, instance, schema)


_DefaultsFilling = validators.extend(_Strict, {"properties": _fill_properties})


def _problems(error):
    """Yield one line per problem that a jsonschema error stands for."""
    path = _path(error.absolute_path)
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        for key in error.instance:
            if key not in known:
                yield (
                    f"{_path([*error.absolute_path, key])}: found an unknown key, "
                    f"expected one of {', '.join(known)}{_did_you_mean(key, known)}"
                )
    elif error.validator == "required":
        for key in error.validator_value:
            if key not in error.instance:
                expected = _expected(error.schema["properties"][key])
                yield (
                    f"{_path([*error.absolute_path, key])}: found nothing, expected {expected}"
                )
    elif "propertyNames" in error.schema_path:
        yield (
            f"{_path([*error.absolute_path, error.instance])}: "
            f"found the name {reprlib.repr(error.instance)}, "
            f"expected {_expected(error.schema)}"
        )
    elif error.validator == "uniqueItems":
        items = error.instance
        for index, item in enumerate(items):
            if item in items[:index]:
                yield f"{path}: found {_shown(item)} again, expected every entry once"
    else:
        yield (
            f"{path or 'the configuration'}: found {_shown(error.instance)}, "
            f"expected {_expected(error.schema)}{_hint(error.instance, error.schema)}"
        )


def _path(keys):
    """Return the way to a key, such as training.finetune_all.epochs or filters[1]."""
    path = ""
    for key in keys:
        if type(key) is int:
            path += f"[{key}]"
        else:
            plain = isinstance(key, str) and re.fullmatch(r"[\w-]+", key)
            path += f"{'.' if path else ''}{key if plain else reprlib.repr(key)}"
    return path


def _shown(value):
    """Return a value as its reader wrote it, in one line."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, str):
        return f"the text {reprlib.repr(value)}"
    return reprlib.repr(value)


def _expected(schema):
    """Return in words what a schema asks of a value."""
    if "title" in schema:
        return schema["title"]
    if "anyOf" in schema:
        return " or ".join(_expected(option) for option in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(map(str, schema["enum"]))
    types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    words = " or ".join(_TYPE_NAMES[name] for name in types)
    bounds = [f"{word} {schema[key]}" for key, word in _BOUNDS.items() if key in schema]
    if bounds:
        words += " " + " and ".join(bounds)
    if "minLength" in schema:
        words += ", not empty"
    if "minItems" in schema:
        words += f", with {schema['minItems']} or more entries"
    return words


def _hint(value, schema):
    """Return the usual way out of a mistake that YAML invites, or nothing."""
    wanted = schema.get("type")
    if isinstance(value, str) and wanted in ("number", "integer"):
        exponent = re.fullmatch(r"([+-]?\d+)(\.\d*)?[eE]([+-]?\d+)", value)
        if exponent:
            whole, fraction, power = exponent.groups()
            number = f"{whole}{fraction or '.0'}e{int(power):+d}"
            return f"; YAML reads {value} as text, write {number}"
        if re.fullmatch(r"[+-]?\d+(\.\d*)?", value):
            return "; write it without quotes"
    if isinstance(value, int | float) and wanted == "string":
        return "; write it in quotes"
    if isinstance(value, str) and "enum" in schema:
        return _did_you_mean(value, map(str, schema["enum"]))
    return ""


def _did_you_mean(word, known):
    close = difflib.get_close_matches(str(word), list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


def check_weights(config, built):
    """Raise InputError if weights that the study needs are a file that is not there.

    `built` is the pattern of the files made of them, for which they are not needed again.
    """
    for name in tunable_backbones(config):
        weights = config["backbones"][name]["weights"]
        if weights in ("imagenet", "random"):
            continue
        if not Path(weights).exists() and not Path(built.format(name)).exists():
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


def check_partial(config, evaluated):
    """Raise InputError if a report of what is finished is asked for before anything is.

    `evaluated` is the pattern of the file that a run has when it is finished.
    """
    runs = known_runs(config)
    if config["partial"] and not any(Path(evaluated.format(run)).exists() for run in runs):
        raise InputError(
            f"partial: found no {evaluated.format('*')}, expected one of a run at least: none "
            "is finished yet; `make status` tells how far they are"
        )


def _check_splits(config, schema):
    total = math.fsum(config["splits"][name] for name in ("train", "val", "test"))
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
                f"{key}[{index}]: found {_shown(name)}, expected an entry of {section}: "
                f"{', '.join(_path([n]) for n in known) or 'there is none'}"
                f"{_did_you_mean(name, map(str, known))}"
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
        if name in RESERVED_NAMES:
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


def _check_space(config):
    if not tunes(config):
        return
    tuning = config["tuning"]
    # Weight decay only adds heads: the search without it has the fewest.
    heads = heads_in(_without(tuning["space"], "weight_decay"))
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
                    f"codabench.{key}: found {_shown(name)}, expected a run of this study"
                    f"{_did_you_mean(name, known)}"
                )


# Each check with the sections it reads: it runs unless one of them is malformed.
_CROSS_CHECKS = (
    ({"splits"}, _check_splits),
    ({"dataset"}, _check_dataset),
    ({"cnns", "dataset"}, _check_cnns),
    ({"heads"}, _check_heads),
    ({"cnns", "backbones", "heads", "grid"}, _check_grid),
    ({"backbones", "tuning"}, _check_tuning),
    ({"dataset", "backbones", "grid", "tuning", "codabench"}, _check_codabench),
)
