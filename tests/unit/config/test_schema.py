import copy
import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from hemagrid.config.checks import RESERVED_NAMES, check_hidden_set
from hemagrid.config.grid import (
    Run,
    evaluated_subsets,
    grid,
    known_runs,
    run_settings,
    search_settings,
    tuned_runs,
    tunes,
)
from hemagrid.config.schema import defaults, validated
from hemagrid.errors import InputError

ROOT = Path(__file__).parents[3]
SCHEMA = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
CONFIG = yaml.safe_load((ROOT / "config/config.yaml").read_text())
DEFAULTS = defaults(SCHEMA)
README = (ROOT / "config/README.md").read_text()


def keys(schema, path=""):
    """Yield (path, schema) of every key, with NAME in the place of a free name."""
    for key, subschema in schema.get("properties", {}).items():
        yield f"{path}{key}", subschema
        yield from keys(subschema, f"{path}{key}.")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from keys(schema["additionalProperties"], f"{path}NAME.")


def changed(path, value, config=CONFIG):
    """Return a copy of `config` with `value` at a dotted path."""
    config = copy.deepcopy(config)
    *parents, last = path.split(".")
    place = config
    for key in parents:
        place = place.setdefault(key, {})
    place[last] = value
    return config


def problems(config):
    """Return the lines with which `config` is refused, without the headline."""
    with pytest.raises(InputError) as refused:
        validated(config, SCHEMA)
    headline, *lines = str(refused.value).splitlines()
    assert f" {len(lines)} problem" in headline
    return [line.strip() for line in lines]


def documented():
    """Return {key path: default} as the tables of config/README.md give them."""
    rows = re.findall(r"^\| `([a-zA-Z_.{},0-9]+)` \| ([^|]+) \|", README, re.M)
    found = {}
    for name, cell in rows:
        alternatives = re.search(r"\{(.*)\}", name)
        names = (
            [
                name.replace(alternatives[0], alternative)
                for alternative in alternatives[1].split(",")
            ]
            if alternatives
            else [name]
        )
        values = [yaml.safe_load(value) for value in re.findall("`([^`]+)`", cell)]
        assert len(values) == len(names), name
        for key, value in zip(names, values, strict=True):
            assert key not in found, f"{key} is documented twice"
            found[key] = value
    return found


# The schema, the default file and the documentation say the same.


def test_schema_is_valid():
    Draft202012Validator.check_schema(SCHEMA)


def test_every_key_has_description_and_a_default_it_accepts():
    for path, schema in keys(SCHEMA):
        assert schema.get("description"), path
        assert "default" in schema, path
        Draft202012Validator(schema).validate(schema["default"])


def test_no_level_takes_unknown_keys():
    for path, schema in [("", SCHEMA), *keys(SCHEMA)]:
        if schema.get("type") == "object":
            rest = schema["additionalProperties"]
            # Free names hold numbers, or mappings of known keys.
            strict = (
                rest is False or rest["type"] == "number" or not rest["additionalProperties"]
            )
            assert strict, path


def test_default_file_is_the_defaults():
    assert validated(CONFIG, SCHEMA) == DEFAULTS


def test_default_file_shows_every_default_but_the_demonstrations():
    def leaves(config, path=""):
        for key, value in config.items():
            if isinstance(value, dict):
                yield from leaves(value, f"{path}{key}.")
            else:
                yield f"{path}{key}"

    missing = set(leaves(DEFAULTS)) - set(leaves(CONFIG))
    assert {path for path in missing if not path.startswith("dataset.smears.")} == set()


def test_every_key_is_documented_with_its_default():
    leaves = {
        path: schema["default"]
        for path, schema in keys(SCHEMA)
        if "properties" not in schema and path not in ("cnns", "backbones", "heads")
    }
    assert documented() == leaves


def test_examples_of_the_documentation_are_accepted():
    blocks = re.findall(r"(?:^    .*\n)+", README, re.M)
    overlays = [yaml.safe_load(block) for block in blocks if "snakemake" not in block]
    assert len(overlays) == 3
    for overlay in overlays:
        config = copy.deepcopy(CONFIG)
        for section, content in overlay.items():
            if isinstance(content, dict):
                config[section] |= content
            else:
                config[section] = content
        assert validated(config, SCHEMA)


# Filling in.


def test_defaults_fill_every_level_and_leave_the_input_alone():
    config = {
        "training": {"finetune_all": {"epochs": 0}},
        "heads": {"cfg1": {}, "cfg2": {}, "cfg3": {}},
    }
    before = copy.deepcopy(config)
    filled = validated(config, SCHEMA)
    assert config == before
    assert filled["training"]["finetune_all"] == {
        "epochs": 0,
        "patience": 3,
        "learning_rate": 1e-5,
    }
    assert filled["heads"]["cfg3"] == CONFIG["heads"]["cfg1"]
    assert filled["augmentation"] == CONFIG["augmentation"]


def test_defaults_are_not_shared():
    first = defaults(SCHEMA)
    first["heads"]["cfg2"]["dense"].append(7)
    first["dataset"]["classes"].clear()
    assert defaults(SCHEMA) == DEFAULTS


def test_validated_is_stable():
    assert validated(DEFAULTS, SCHEMA) == DEFAULTS


# Refusals.

BAD_VALUES = [
    # wrong types
    ("dataset", None),
    ("dataset.strict", "yes"),
    ("dataset.image_size", True),
    ("dataset.path", 7),
    ("splits.train", "0.6"),
    ("augmentation.train.randaugment.n", 3.5),
    ("cnns.baseline_cnn.epochs", 30.0),
    ("cnns.baseline_cnn", None),
    ("heads.cfg1.dense", 512),
    ("training.class_weights", 1),
    ("training", []),
    ("grid.heads", "cfg1"),
    ("seed", None),
    ("published", "true"),
    # out of range
    ("dataset.image_size", 31),
    ("dataset.source", "bloodmnits"),
    ("dataset.resolution", 96),
    ("dataset.near_duplicate_distance", -1),
    ("dataset.label_conflicts", "drp"),
    ("dataset.smears.per_class", 0),
    ("splits.val", 0),
    ("augmentation.assignment", "both"),
    ("augmentation.val.augmix.k", 11),
    ("augmentation.test_augmented.augmix.m", 1.01),
    ("augmentation.train.copies", 0),
    ("cnns.baseline_cnn.filters", []),
    ("cnns.baseline_cnn.dropout", 1.0),
    ("backbones.vgg16.weights", "vgg16.h5"),
    ("backbones.vgg16.weights", 5),
    ("backbones.vgg16.application", "vgg16"),
    ("backbones.vgg16.top", ""),
    ("heads.cfg1.learning_rate", 0),
    ("training.optimizer", "Adam"),
    ("training.backbone_mode", "training"),
    ("training.precision", "float16"),
    ("training.feature_extraction.epochs", 0),
    ("tuning.select_by", "test"),
    ("evaluation.bootstrap", 99),
    ("seed", -1),
    # what JSON does not have
    ("splits.test", math.nan),
    ("training.finetune_top.learning_rate", math.inf),
    ("training.finetune_all.learning_rate", 10**400),
]


@pytest.mark.parametrize(("path", "value"), BAD_VALUES)
def test_bad_value_is_refused_with_its_path(path, value):
    assert any(
        line.startswith(f"{path}: found ") and ", expected " in line
        for line in problems(changed(path, value))
    )


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("sede", "seed"),
        ("dataset.sorce", "source"),
        ("dataset.smears.perclass", "per_class"),
        ("splits.validation", "val"),
        ("augmentation.test_augmentd", "test_augmented"),
        ("augmentation.train.randaugment.N", "n"),
        ("cnns.baseline_cnn.filter", "filters"),
        ("backbones.convnext.aplication", "application"),
        ("heads.cfg2.drop_out", "dropout"),
        ("grid.backbone", "backbones"),
        ("training.finetune_all.epcohs", "epochs"),
        ("training.feature_extraction.patients", "patience"),
        ("tuning.selectby", "select_by"),
        ("evaluation.bootstraps", "bootstrap"),
    ],
)
def test_misspelt_key_is_refused_with_a_suggestion(path, meant):
    (line,) = problems(changed(path, 1))
    assert line.startswith(f"{path}: found an unknown key, expected one of ")
    assert meant in line
    if meant not in ("n", "val"):
        assert line.endswith(f"; did you mean {meant}?")


MISTAKES = {
    "exponent": (
        {"heads": {"cfg1": {"learning_rate": yaml.safe_load("1e-3")}}},
        "heads.cfg1.learning_rate: found the text '1e-3', expected a finite number "
        "above 0 and at most 1; YAML reads 1e-3 as text, write 1.0e-3",
    ),
    "exponent of two digits": (
        {"training": {"finetune_all": {"learning_rate": "2.5E05"}}},
        "write 2.5e+5",
    ),
    "number in quotes": ({"seed": "42"}, "seed: found the text '42'"),
    "class without quotes": (
        {"dataset": {"source": "folder", "path": "a", "classes": ["a", False]}},
        "dataset.classes[1]: found false, expected text, not empty; write it in quotes",
    ),
    "class twice": (
        {"dataset": {"source": "npz", "path": "a", "classes": ["a", "b", "a"]}},
        "dataset.classes: found the text 'a' again",
    ),
    "weights": (
        {
            "backbones": {
                **CONFIG["backbones"],
                "vgg16": {"application": "VGG16", "top": "a", "weights": "imagnet"},
            }
        },
        "backbones.vgg16.weights: found the text 'imagnet', expected one of imagenet, "
        "random or a path that ends in .weights.h5",
    ),
    "backbone without its layers": (
        {"backbones": {**CONFIG["backbones"], "vgg19": {"application": "VGG19"}}},
        "backbones.vgg19.top: found nothing, expected text, not empty",
    ),
    "name of a backbone": (
        {
            "backbones": {
                **CONFIG["backbones"],
                "vgg_16": CONFIG["backbones"]["vgg16"],
            }
        },
        "backbones.vgg_16: found the name 'vgg_16'",
    ),
    "name of a head": (
        {"heads": {**CONFIG["heads"], "Wide-1": {}}},
        "heads.Wide-1: found the name",
    ),
    "number for a name": ({"heads": {**CONFIG["heads"], 1: {}}}, "heads[1]: found the"),
    "splits": (
        {"splits": {"train": 0.7}},
        "splits: found shares that sum to 1.1, expected 1",
    ),
    "null path": ({"dataset": {"path": None}}, "dataset.path: found null"),
    "npz without path": ({"dataset": {"source": "npz"}}, "dataset.path: found res"),
    "folder without path": (
        {"dataset": {"source": "folder", "classes": None}},
        "dataset.path: found resources/bloodmnist",
    ),
    "npz without classes": (
        {"dataset": {"source": "npz", "path": "a.npz", "classes": None}},
        "dataset.classes: found null",
    ),
    "bloodmnist without classes": (
        {"dataset": {"classes": None}},
        "dataset.classes: found null",
    ),
    "bloodmnist with other classes": (
        {"dataset": {"classes": ["a", "b"]}},
        "dataset.classes: found 2 names, expected 8",
    ),
    "too many blocks": (
        {"cnns": {**CONFIG["cnns"], "deep": {"filters": [8] * 7}}},
        "cnns.deep.filters: found 7 blocks",
    ),
    "rates for no layer": (
        {"heads": {**CONFIG["heads"], "cfg1": {"dropout": []}}},
        "heads.cfg1.dropout: found 0 rates, expected 1, on the embedding",
    ),
    "rates for two layers": (
        {"heads": {**CONFIG["heads"], "cfg1": {"dense": [8, 4]}}},
        "heads.cfg1.dropout: found 1 rates, expected 2, one per Dense layer",
    ),
    "unknown head in the grid": (
        {"grid": {"heads": ["cfg1", "cgf2"]}},
        "grid.heads[1]: found the text 'cgf2', expected an entry of heads: "
        "cfg1, cfg2, cfg3; did you mean cfg2?",
    ),
    "unknown backbone in the grid": (
        {"grid": {"backbones": ["resnet"]}},
        "grid.backbones[0]: found the text 'resnet'",
    ),
    "unknown CNN in the grid": ({"grid": {"cnns": ["cnn"]}}, "grid.cnns[0]: found"),
    "head twice in the grid": (
        {"grid": {"heads": ["cfg1", "cfg1"]}},
        "grid.heads: found the text 'cfg1' again",
    ),
    "empty grid": ({"grid": {"cnns": [], "heads": []}}, "grid: found no run"),
    "two runs of one name": (
        {
            "cnns": {"vgg16_cfg1": {}},
            "grid": {"cnns": ["vgg16_cfg1"]},
        },
        "grid: found two runs of the name vgg16_cfg1",
    ),
    "a control's name": (
        {
            "backbones": {"majority": {"application": "VGG16", "top": "block4_pool"}},
            "heads": {"class": {}},
            "grid": {"backbones": ["majority"], "heads": ["class"]},
        },
        "grid: found a run of the name majority_class, which is a folder",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistake_is_the_one_problem_named(mistake):
    config, expected = MISTAKES[mistake]
    (line,) = problems(config)
    assert expected in line


@pytest.mark.parametrize("name", RESERVED_NAMES)
def test_reserved_name_is_refused(name):
    (line,) = problems({"cnns": {name: {}}, "grid": {"cnns": [name]}})
    assert f"a run of the name {name}" in line


def test_every_problem_is_named_at_once():
    lines = problems(
        {
            "sede": 1,
            "splits": {"train": 0.7, "tset": 0.1},
            "training": {"finetune_all": {"epcohs": 3, "patience": "3"}},
            "grid": {"heads": ["cfg4"]},
            "evaluation": 3,
        }
    )
    assert sorted(line.split(":")[0] for line in lines) == [
        "evaluation",
        "grid.heads[0]",
        "sede",
        "splits",
        "splits.tset",
        "training.finetune_all.epcohs",
        "training.finetune_all.patience",
    ]


@pytest.mark.parametrize("config", [None, [], "seed: 1"])
def test_configuration_that_is_no_mapping(config):
    (line,) = problems(config)
    assert line.startswith("the configuration: found ")


def test_smears_need_no_path():
    config = {"dataset": {"source": "smears", "path": None, "classes": None}}
    assert validated(config, SCHEMA)["dataset"]["smears"]["junk"] == 8


def objects(config, path=()):
    """Yield the path of every object of fixed keys."""
    if path not in [("cnns",), ("backbones",), ("heads",), ("codabench", "scores")]:
        yield path
    for key, value in config.items():
        if isinstance(value, dict):
            yield from objects(value, (*path, key))


@given(
    place=st.sampled_from(list(objects(DEFAULTS))),
    key=st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True),
    value=st.none() | st.booleans() | st.integers() | st.text() | st.just({}),
)
def test_any_unknown_key_is_refused_with_its_path(place, key, value):
    config = copy.deepcopy(DEFAULTS)
    target = config
    for name in place:
        target = target[name]
    if key in target:
        key += "_x"
    target[key] = value
    (line,) = problems(config)
    assert line.startswith(f"{'.'.join((*place, key))}: found an unknown key, ")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.none() | st.integers() | st.text(), inner, max_size=3)
        ),
    ),
    st.sampled_from([path for path, _ in keys(SCHEMA) if "NAME" not in path]),
)
def test_any_value_is_accepted_or_refused_in_lines(value, path):
    try:
        validated(changed(path, value), SCHEMA)
    except InputError as error:
        headline, *lines = str(error).splitlines()
        assert lines and all(line.startswith("  ") for line in lines)


# The grid.


def test_grid_has_the_published_runs_in_order():
    runs = grid(DEFAULTS)
    assert list(runs) == [
        "baseline_cnn",
        "regularized_cnn",
        *(
            f"{backbone}_{head}"
            for backbone in ("mobilenetv3", "efficientnetv2m", "convnext", "vgg16")
            for head in ("cfg1", "cfg2", "cfg3")
        ),
    ]
    assert runs["baseline_cnn"] == Run("baseline_cnn", "cnn", None, None)
    assert runs["vgg16_cfg3"] == Run("vgg16_cfg3", "transfer", "vgg16", "cfg3")


def test_only_bloodmnist_is_evaluated_on_external_images():
    inside = ["val", "test", "test_augmented"]
    assert evaluated_subsets(DEFAULTS) == [*inside, "external"]
    assert evaluated_subsets(changed("dataset.source", "npz")) == inside


def test_settings_of_a_cnn():
    assert run_settings(DEFAULTS, "regularized_cnn") == {
        "kind": "cnn",
        "name": "regularized_cnn",
        "model": {
            "filters": [32, 64],
            "dense": 128,
            "batch_norm": True,
            "dropout": 0.3,
            "dense_dropout": 0.4,
            "learning_rate": 3e-4,
            "epochs": 10,
            "patience": 4,
            "batch_size": 64,
        },
        "training": {
            "optimizer": "adam",
            "monitor": "val_loss",
            "class_weights": True,
            "precision": "float32",
        },
        "seed": 42,
        "subsets": ["val", "test", "test_augmented", "external"],
    }


def test_settings_of_a_transfer_run():
    settings = run_settings(DEFAULTS, "vgg16_cfg2")
    assert list(settings) == [
        "kind",
        "backbone",
        "head",
        "training",
        "seed",
        "subsets",
    ]
    assert settings["kind"] == "transfer"
    assert settings["backbone"] == {
        "application": "VGG16",
        "top": "block4_pool",
        "batch_size": 32,
    }
    assert settings["head"] == CONFIG["heads"]["cfg2"]
    assert settings["training"] == {
        key: value for key, value in CONFIG["training"].items() if key != "backbone_mode"
    }


@pytest.mark.parametrize(
    ("path", "value", "touched"),
    [
        ("heads.cfg2.batch_norm", False, r".*_cfg2"),
        ("heads.wide", {"dense": [64]}, "nothing"),
        ("grid.heads", ["cfg1"], "nothing"),
        ("backbones.vgg16.top", "block3_pool", "vgg16_.*"),
        ("backbones.vgg16.mem_mb", 9000, "nothing"),
        ("backbones.vgg16.runtime", 900, "nothing"),
        ("cnns.baseline_cnn.epochs", 3, "baseline_cnn"),
        ("cnns.baseline_cnn.runtime", 3, "nothing"),
        ("training.finetune_top.epochs", 0, ".*_cfg."),
        ("training.optimizer", "sgd", ".*"),
        ("evaluation.bootstrap", 500, "nothing"),
        ("tuning.select_by", "val", "nothing"),
        ("seed", 1, ".*"),
    ],
)
def test_a_change_touches_only_the_settings_of_its_runs(path, value, touched):
    config = validated(changed(path, value), SCHEMA)
    different = {
        run for run in grid(config) if run_settings(config, run) != run_settings(DEFAULTS, run)
    }
    assert different == {run for run in grid(config) if re.fullmatch(touched, run)}


def test_settings_are_a_copy():
    run_settings(DEFAULTS, "vgg16_cfg2")["head"]["dense"].append(1)
    assert CONFIG["heads"]["cfg2"] == DEFAULTS["heads"]["cfg2"]


# Tuning.


def test_tuned_runs_are_those_of_the_finalists_and_of_those_named_for_adamw():
    runs = tuned_runs(DEFAULTS, ["efficientnetv2m", "vgg16"])
    assert list(runs) == ["efficientnetv2m_tuned", "vgg16_tuned", "convnext_tuned_adamw"]
    assert runs["convnext_tuned_adamw"] == Run(
        "convnext_tuned_adamw", "transfer", "convnext", "tuned_adamw"
    )
    small = validated(changed("grid.backbones", ["vgg16"]), SCHEMA)
    assert list(tuned_runs(small, ["vgg16"])) == ["vgg16_tuned"]


@pytest.mark.parametrize(
    ("tuning", "backbones", "expected"),
    [
        ({}, ["vgg16"], True),
        ({"finalists": 0}, ["vgg16"], False),
        ({"finalists": 0, "backbones": ["vgg16"]}, [], True),
        ({}, [], False),
    ],
)
def test_whether_a_study_tunes(tuning, backbones, expected):
    config = validated({"tuning": tuning, "grid": {"backbones": backbones}}, SCHEMA)
    assert tunes(config) is expected


def test_a_backbone_named_for_tuning_need_not_be_in_the_grid():
    config = {"tuning": {"backbones": ["vgg16"]}, "grid": {"backbones": ["convnext"]}}
    known = known_runs(validated(config, SCHEMA))
    assert {"convnext_cfg1", "convnext_tuned", "vgg16_tuned", "vgg16_tuned_adamw"} < set(known)
    assert "vgg16_cfg1" not in known and "mobilenetv3_tuned" not in known


def test_the_head_of_a_tuned_run_is_no_setting():
    tuned, fixed = (run_settings(DEFAULTS, f"vgg16_{head}") for head in ("tuned", "cfg1"))
    assert tuned == {key: value for key, value in fixed.items() if key != "head"}


@pytest.mark.parametrize(
    ("path", "value", "touched"),
    [
        ("heads.cfg1.dense", [], "nothing"),
        ("tuning.select_by", "val", "nothing"),
        ("tuning.space.layers.max", 2, ".*"),
        ("tuning.space.weight_decay", [0.1], ".*_adamw"),
        ("tuning.hyperband.max_epochs", 27, ".*"),
        ("backbones.vgg16.batch_size", 64, "vgg16_.*"),
        ("training.finetune_all.epochs", 0, "nothing"),
        ("seed", 1, ".*"),
    ],
)
def test_a_change_touches_only_its_searches(path, value, touched):
    config = validated(changed(path, value), SCHEMA)
    tuned = [run for run in known_runs(config) if run not in grid(config)]
    different = {
        run for run in tuned if search_settings(config, run) != search_settings(DEFAULTS, run)
    }
    assert different == {run for run in tuned if re.fullmatch(touched, run)}


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (
            "heads.tuned",
            {},
            "heads.tuned: found the name of a head that a search finds, expected another",
        ),
        (
            "tuning.backbones",
            ["vgg61"],
            "tuning.backbones[0]: found the text 'vgg61', expected an entry of backbones: "
            "mobilenetv3, efficientnetv2m, convnext, vgg16; did you mean vgg16?",
        ),
        (
            "tuning.backbones",
            ["vgg16", "vgg16"],
            "tuning.backbones: found the text 'vgg16' again, expected every entry once",
        ),
        (
            "tuning.space.neurons",
            {"min": 600},
            "tuning.space.neurons: found min 600 above max 512, expected a range",
        ),
        (
            "tuning.space.layers.max",
            0,
            "tuning.space: found 15 different heads, expected 17 or more, as many as a search "
            "by tuning.hyperband draws; widen it, or lower tuning.hyperband.max_epochs",
        ),
        (
            "codabench.runs",
            ["convnext_cfg7"],
            "codabench.runs: found the text 'convnext_cfg7', expected a run of this study; "
            "did you mean convnext_cfg3?",
        ),
        (
            "codabench.scores",
            {"convnext": 92},
            "codabench.scores: found the text 'convnext', expected a run of this study; "
            "did you mean convnext_cfg3?",
        ),
        (
            "codabench.hidden_set",
            "hidden.zip",
            "codabench.hidden_set: found the text 'hidden.zip', expected a path that ends in "
            ".npz, or null",
        ),
    ],
)
def test_bad_tuning_and_codabench(path, value, problem):
    assert problems(changed(path, value)) == [problem]


def test_a_hidden_set_that_is_not_there_is_refused(tmp_path):
    path = tmp_path / "hidden.npz"
    config = validated(changed("codabench.hidden_set", str(path)), SCHEMA)
    with pytest.raises(InputError, match=rf"codabench\.hidden_set: found no file {path}"):
        check_hidden_set(config)
    path.touch()
    check_hidden_set(config)
    check_hidden_set(DEFAULTS)


def test_a_hidden_set_needs_names_for_its_labels():
    config = changed("codabench.hidden_set", "hidden.npz")
    config["dataset"] |= {"source": "folder", "path": "cells", "classes": None}
    (line,) = problems(config)
    assert line.startswith("dataset.classes: found null, expected the names")


def test_import_is_light():
    code = (
        "import sys, hemagrid.config;"
        "print([m for m in ('numpy', 'pandas', 'keras', 'tensorflow')"
        " if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT / "scripts",
    )
    assert result.stdout.strip() == "[]"
