"""What the schema accepts and refuses, and the one form into which it brings a config."""

import copy
import json
import math
import re
import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from snakemake.utils import update_config

from hemagrid.config.schema import validated
from hemagrid.errors import InputError

from .conftest import CONFIG, DEFAULTS, ROOT, SCHEMA, changed, keys, problems

DOCS = (ROOT / "docs/configuration.md").read_text()
FREE = ("cnns", "backbones", "heads")


def test_schema_is_valid_and_strict():
    Draft202012Validator.check_schema(SCHEMA)
    for path, schema in [("", SCHEMA), *keys()]:
        if path:
            assert schema.get("description"), path
            Draft202012Validator(schema).validate(schema["default"])
        if "object" in schema.get("type", ()):
            rest = schema["additionalProperties"]
            # Free names hold numbers, class names, or mappings of known keys.
            plain = ("number", ["string", "null"])
            assert rest is False or rest["type"] in plain or not rest["additionalProperties"]


def test_default_file_states_the_defaults():
    assert validated(CONFIG, SCHEMA) == DEFAULTS
    states = {
        path for path, schema in keys() if "properties" not in schema and "NAME" not in path
    }
    for path in states:
        place = CONFIG
        for key in path.split("."):
            if place is None:
                break  # a mapping that may be null, and is
            assert key in place, path
            place = place[key]


def test_every_key_is_documented_with_its_default():
    documented = {}
    for name, cell in re.findall(r"^\| `([a-zA-Z_.{},0-9]+)` \| ([^|]+) \|", DOCS, re.M):
        before, _, rest = name.partition("{")
        names, _, after = rest.partition("}")
        names = [f"{before}{one}{after}" for one in names.split(",")]
        values = [yaml.safe_load(value) for value in re.findall("`([^`]+)`", cell)]
        assert not documented.keys() & set(names), f"{name} is documented twice"
        documented |= zip(names, values, strict=True)
    assert documented == {
        path: schema["default"]
        for path, schema in keys()
        if "properties" not in schema and path not in FREE
    }


@pytest.mark.parametrize("page", ["docs/configuration.md", "config/README.md"])
def test_examples_of_the_documentation_are_accepted(page):
    blocks = re.findall(r"(?:^    \S.*\n(?:^    .*\n)*)", (ROOT / page).read_text(), re.M)
    overlays = [yaml.safe_load(block) for block in blocks if "snakemake" not in block]
    assert len(overlays) >= 3
    for overlay in overlays:
        config = copy.deepcopy(CONFIG)
        for section, content in overlay.items():
            config[section] |= content
        assert validated(config, SCHEMA)


def test_examples_of_backbones_are_accepted():
    page = (ROOT / "docs/backbones.md").read_text()
    blocks = re.findall(r"^    backbones:\n(?:    .+\n)*", page, re.M)
    assert len(blocks) == 2
    for block in blocks:
        overlay = yaml.safe_load(block)
        config = changed("grid.backbones", overlay["grid"]["backbones"])
        config["backbones"] |= overlay["backbones"]
        assert validated(config, SCHEMA)


# The canonical form.


def test_defaults_fill_every_level_and_leave_the_input_alone():
    config = {"training": {"finetune_all": {"epochs": 0}}, "heads": {"cfg1": {}, "cfg3": {}}}
    before = copy.deepcopy(config)
    filled = validated(config | {"grid": {"heads": ["cfg1"]}}, SCHEMA)
    assert config == before
    assert filled["training"]["finetune_all"] == DEFAULTS["training"]["finetune_all"] | {
        "epochs": 0
    }
    assert filled["heads"]["cfg3"] == CONFIG["heads"]["cfg1"]
    filled["dataset"]["classes"].clear()
    assert validated({}, SCHEMA) == DEFAULTS


def restated(value, schema, draw):
    """Write a canonical value in another way that means the same, as `draw` has it."""
    if isinstance(value, dict):
        known = schema.get("properties", {})
        free = schema.get("additionalProperties")
        pairs = [
            (key, restated(item, known.get(key, free), draw))
            for key, item in value.items()
            # What equals its default may be left out, but where it is an example alone.
            if not (
                known.get(key, {}).get("default", ...) == item
                and key not in schema.get("required", ())
                and draw(st.booleans())
            )
        ]
        return dict(draw(st.permutations(pairs)))
    if isinstance(value, list):
        items = [restated(item, schema["items"], draw) for item in value]
        return draw(st.permutations(items)) if "sort" in schema else items
    if type(value) is float and value.is_integer() and draw(st.booleans()):
        return int(value)
    if schema.get("format") == "path" and value and draw(st.booleans()):
        return f"./{value}" if "/" in value and value[0] != "/" else value
    return value


@given(st.data())
def test_configs_that_mean_the_same_become_identical(data):
    path, value = data.draw(st.sampled_from(SETTINGS))
    config = validated(changed(path, value), SCHEMA)
    other = restated(config, SCHEMA, data.draw)
    assert json.dumps(validated(other, SCHEMA)) == json.dumps(config)
    update_config(other, restated(config, SCHEMA, data.draw))  # an overlay that repeats it
    assert json.dumps(validated(other, SCHEMA)) == json.dumps(config)


SETTINGS = [
    ("seed", 42),
    ("training.finetune_top.learning_rate", 1),
    ("heads.wide", {"dense": [64, 32], "dropout": [0, 0.5]}),
    ("tuning.space.learning_rate", [1, 0.001, 0.1]),
    ("tuning.adamw", ["vgg16", "convnext"]),
    ("codabench", {"runs": ["vgg16_cfg1", "convnext_cfg1"], "scores": {"vgg16_cfg1": 92}}),
    ("dataset", CONFIG["dataset"] | {"source": "folder", "path": "a/cells/", "classes": None}),
]


@pytest.mark.parametrize(
    ("path", "value", "canonical"),
    [
        ("splits", {"test": 0.2, "val": 0.2, "train": 0.6}, DEFAULTS["splits"]),
        ("codabench.scores", {"vgg16_cfg1": 92}, {"vgg16_cfg1": 92.0}),
        ("heads.cfg1.weight_decay", 0, 0.0),
        ("heads.cfg1.dropout", [-0.0], [0.0]),
        ("heads.cfg2.weight_decay", None, None),
        ("dataset.resolution", 128.0, 128),
        ("dataset.path", "./blood//cells/", "blood/cells"),
        ("backbones.vgg16.weights", "./a.weights.h5", "a.weights.h5"),
        ("dataset.classes", [*"abcdefg", "re\u0301tic"], [*"abcdefg", "r\u00e9tic"]),
        ("tuning.space.weight_decay", [1, 0.1], [0.1, 1.0]),
        ("grid.heads", ["cfg3", "cfg1"], ["cfg3", "cfg1"]),
        ("corruptions.severities", [5, 1], [1, 5]),
        ("corruptions.kinds", ["pixelate", "bubble"], ["bubble", "pixelate"]),
    ],
)
def test_canonical_values(path, value, canonical):
    found = validated(changed(path, value), SCHEMA)
    for key in path.split("."):
        found = found[key]
    assert json.dumps(found) == json.dumps(canonical)


# Refusals.


@pytest.mark.parametrize(
    ("path", "values"),
    {
        "dataset": (None, [], "folder"),
        "dataset.strict": ("yes", 1),
        "dataset.image_size": (True, 31, 513, 96.0),
        "dataset.path": (7, ""),
        "dataset.source": ("bloodmnits",),
        "dataset.resolution": (96, "128"),
        "dataset.classes": ([], ["a"], "a"),
        "corruptions.kinds": ("bubble", None, ["bubble", "bubble"]),
        "corruptions.severities": ([], [0], [6], [1, 1], 3, [2.5]),
        "splits.train": ("0.6", 0, 1),
        "splits.test": (math.nan,),
        "augmentation.train.randaugment.n": (3.5, 0, 11),
        "augmentation.test_augmented.augmix.m": (1.01, 0),
        "cnns.baseline_cnn": (None,),
        "cnns.baseline_cnn.filters": ([], [0]),
        "cnns.baseline_cnn.dropout": (1.0,),
        "backbones.vgg16.weights": ("vgg16.onnx", ".keras", 5),
        "backbones.vgg16.module": ("own", 5),
        "backbones.vgg16.function": ("a.b", "", None),
        "backbones.vgg16.application": ("vgg16",),
        "backbones.vgg16.top": ("",),
        "heads.cfg1.dense": (512,),
        "heads.cfg1.learning_rate": (0, math.inf, 10**400),
        "grid.heads": ("cfg1", [1]),
        "training.optimizer": ("Adam",),
        "training.feature_extraction.epochs": (0,),
        "tuning.select_by": ("test",),
        "evaluation.bootstrap": (99,),
        "published": ("true",),
        "seed": (None, -1, 2**32),
    }.items(),
)
def test_a_bad_value_is_refused_with_its_path(path, values):
    for value in values:
        lines = problems(changed(path, value))
        assert any(re.match(rf"{path}(\[\d\])?: found .*, expected ", line) for line in lines)


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("sede", "seed"),
        ("dataset.smears.perclass", "per_class"),
        ("augmentation.test_augmentd", "test_augmented"),
        ("cnns.baseline_cnn.filter", "filters"),
        ("heads.cfg2.drop_out", "dropout"),
        ("training.finetune_all.epcohs", "epochs"),
        ("tuning.selectby", "select_by"),
    ],
)
def test_a_misspelt_key_is_refused_with_a_suggestion(path, meant):
    (line,) = problems(changed(path, 1))
    assert line.startswith(f"{path}: found an unknown key, expected one of ")
    assert line.endswith(f"; did you mean {meant}?")


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
def test_a_config_that_is_no_mapping_is_refused(config):
    (line,) = problems(config)
    assert line.startswith("the configuration: found ")


@given(
    path=st.sampled_from([path for path, _ in keys() if "NAME" not in path]),
    value=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.none() | st.integers() | st.text(), inner, max_size=3)
        ),
    ),
)
def test_any_value_is_accepted_or_refused_in_lines(path, value):
    try:
        validated(changed(path, value), SCHEMA)
    except InputError as error:
        headline, *lines = str(error).splitlines()
        assert lines and all(line.startswith("  ") for line in lines)


def test_the_workflow_starts_without_numpy():
    code = "import sys, hemagrid.config.loading; print({'numpy', 'pandas'} & {*sys.modules})"
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT / "scripts")
    assert result.stdout.strip() == "set()", result.stderr
