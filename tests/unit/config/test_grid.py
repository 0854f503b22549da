"""The runs of a study, and what each of them depends on."""

import copy
import re

import pytest

from hemagrid.config.grid import (
    Run,
    combinations,
    corruptions,
    evaluated_subsets,
    grid,
    known_runs,
    replicates,
    run_settings,
    search_settings,
    split_seed,
    starting_files,
    starting_settings,
    train_seed,
    tuned_runs,
    tunes,
)
from hemagrid.config.schema import validated
from hemagrid.names import HOLDOUT, TEST, TEST_AUGMENTED, VAL

from .conftest import CONFIG, DEFAULTS, SCHEMA, changed


def test_grid_has_the_published_runs_in_order():
    runs = grid(DEFAULTS)
    backbones, heads = ("mobilenetv3", "efficientnetv2m", "convnext", "vgg16"), "123"
    assert list(runs) == [
        *("baseline_cnn", "regularized_cnn"),
        *(f"{backbone}_cfg{head}" for backbone in backbones for head in heads),
    ]
    assert runs["baseline_cnn"] == Run("baseline_cnn", "cnn", None, None)
    assert runs["vgg16_cfg3"] == Run("vgg16_cfg3", "transfer", "vgg16", "cfg3")


def test_only_bloodmnist_has_a_holdout():
    assert evaluated_subsets(DEFAULTS) == [VAL, TEST, TEST_AUGMENTED, HOLDOUT]
    assert HOLDOUT not in evaluated_subsets(changed("dataset.source", "npz"))


def test_corruptions_come_in_the_order_of_tables():
    assert corruptions(DEFAULTS) == []
    some = changed("corruptions.kinds", ["bubble", "pixelate"])
    expected = [(kind, severity) for kind in ("pixelate", "bubble") for severity in (1, 3, 5)]
    assert corruptions(some) == expected
    assert len(corruptions(changed("corruptions.kinds", "all"))) == 36


def test_settings_of_a_run_hold_what_it_depends_on():
    training = {
        key: CONFIG["training"][key] for key in ("optimizer", "monitor", "class_weights")
    }
    cnn = run_settings(DEFAULTS, "regularized_cnn")
    assert cnn["kind"] == "cnn" and cnn["name"] == "regularized_cnn" and cnn["seed"] == 42
    resources = ("mem_mb", "runtime")
    assert cnn["model"] == {
        key: value
        for key, value in CONFIG["cnns"]["regularized_cnn"].items()
        if key not in resources
    }
    assert training.items() <= cnn["training"].items()
    transfer = run_settings(DEFAULTS, "vgg16_cfg2")
    assert transfer["backbone"] == {
        "application": "VGG16",
        "top": "block4_pool",
        "batch_size": 32,
    }
    assert transfer["head"] == CONFIG["heads"]["cfg2"]
    assert transfer["training"].keys() - cnn["training"].keys() == {
        "feature_extraction",
        "finetune_top",
        "finetune_all",
    }
    # The head of a tuned run is written by its search.
    assert run_settings(DEFAULTS, "vgg16_tuned") == {
        key: value for key, value in transfer.items() if key != "head"
    }
    transfer["head"]["dense"].append(1)
    assert CONFIG["heads"]["cfg2"] == DEFAULTS["heads"]["cfg2"]


@pytest.mark.parametrize(
    ("path", "value", "runs", "searches"),
    [
        ("heads.cfg2.batch_norm", False, ".*_cfg2", ""),
        ("heads.wide", {"dense": [64]}, "", ""),
        ("grid.heads", ["cfg1"], "", ""),
        ("backbones.vgg16.top", "block3_pool", "vgg16_.*", ""),
        ("backbones.vgg16.batch_size", 64, "vgg16_.*", "vgg16_.*"),
        ("backbones.vgg16.mem_mb", 9000, "", ""),
        ("backbones.vgg16.runtime", 900, "", ""),
        ("cnns.baseline_cnn.epochs", 3, "baseline_cnn", ""),
        ("cnns.baseline_cnn.runtime", 3, "", ""),
        ("training.finetune_top.epochs", 0, ".*_(cfg.|tuned.*)", ""),
        ("training.optimizer", "sgd", ".*", ".*"),
        ("evaluation.bootstrap", 500, "", ""),
        ("tuning.select_by", "val", "", ""),
        ("tuning.space.layers.max", 2, "", ".*"),
        ("tuning.space.weight_decay", [0.1], "", ".*_adamw"),
        ("tuning.hyperband.max_epochs", 27, "", ".*"),
        ("seed", 1, ".*", ".*"),
        ("train_seed", 1, ".*", ".*"),
        ("split_seed", 1, "", ""),
        ("replicates", 3, "", ""),
    ],
)
def test_a_change_touches_only_what_depends_on_it(path, value, runs, searches):
    config = validated(changed(path, value), SCHEMA)
    known = [run for run in known_runs(config) if run in known_runs(DEFAULTS)]
    tuned = [run for run in known if run not in grid(DEFAULTS)]
    for settings, all_of, touched in (
        (run_settings, known, runs),
        (search_settings, tuned, searches),
    ):
        different = {run for run in all_of if settings(config, run) != settings(DEFAULTS, run)}
        assert different == {run for run in all_of if re.fullmatch(touched, run)}


def test_a_network_of_the_users_own_is_built_first_and_is_a_file_from_then_on():
    mine = {"module": "own.py", "weights": "my.weights.h5", "batch_size": 8}
    config = validated(changed("backbones.mine", mine), SCHEMA)
    config["grid"]["backbones"] = ["mine"]
    assert starting_files(config, "mine") == {"module": "own.py", "weights": "my.weights.h5"}
    assert starting_files(config, "vgg16") == {}
    given = starting_settings(config, "mine")
    assert given == starting_settings(config, "vgg16") | {
        "function": "build",
        "top": None,
        "precision": "tensorfloat32",
    }
    assert run_settings(config, "mine_cfg1")["backbone"] == {
        "module": "own.py",
        "function": "build",
        "top": None,
        "batch_size": 8,
    }


def test_the_order_of_runs_is_that_of_the_lists():
    config = copy.deepcopy(DEFAULTS)
    for section in ("cnns", "backbones", "heads"):
        config[section] = dict(reversed(config[section].items()))
    assert list(grid(config)) == list(grid(DEFAULTS))
    config["grid"]["heads"].reverse()
    assert list(grid(config))[2] == "mobilenetv3_cfg3"


def test_tuned_runs_are_those_of_the_finalists_and_of_those_named_for_adamw():
    runs = tuned_runs(DEFAULTS, ["efficientnetv2m", "vgg16"])
    assert list(runs) == ["efficientnetv2m_tuned", "vgg16_tuned", "convnext_tuned_adamw"]
    adamw = Run("convnext_tuned_adamw", "transfer", "convnext", "tuned_adamw")
    assert runs["convnext_tuned_adamw"] == adamw
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
    assert bool(tuned_runs(config, backbones)) is (expected and bool(backbones))


def test_a_backbone_named_for_tuning_need_not_be_in_the_grid():
    config = {"tuning": {"backbones": ["vgg16"]}, "grid": {"backbones": ["convnext"]}}
    known = known_runs(validated(config, SCHEMA))
    assert {"convnext_cfg1", "convnext_tuned", "vgg16_tuned", "vgg16_tuned_adamw"} < set(known)
    assert "vgg16_cfg1" not in known and "mobilenetv3_tuned" not in known


def test_replicates_differ_in_the_training_seed_alone():
    config = validated(CONFIG | {"replicates": 3, "train_seed": 7}, SCHEMA)
    known = known_runs(config)
    assert list(grid(config)) == list(grid(DEFAULTS))
    assert len(known) == 3 * len(known_runs(DEFAULTS))
    for name, seed in {"": 7, "_s2": 8, "_s3": 9}.items():
        for run in ("baseline_cnn", "vgg16_cfg1", "vgg16_tuned"):
            settings = run_settings(config, f"{run}{name}")
            assert settings == run_settings(config, run) | {"seed": seed}
            assert known[f"{run}{name}"].base == run
    assert [run.name for run in replicates(config, known["vgg16_tuned"])] == [
        *("vgg16_tuned", "vgg16_tuned_s2", "vgg16_tuned_s3")
    ]
    assert split_seed(config) == 42 and train_seed(DEFAULTS) == split_seed(DEFAULTS) == 42


def test_ensembles_and_views_are_rows_without_backbone_and_head():
    ensembles = {"pair": {"members": ["vgg16_tuned", "baseline_cnn_s2"]}, "top": {"best": 3}}
    config = {"replicates": 2, "ensembles": ensembles, "views": ["vgg16_cfg1_s2"]}
    config["codabench"] = {"runs": ["top", "vgg16_cfg1_s2+views"]}
    rows = combinations(validated(CONFIG | config, SCHEMA))
    assert {name: row.kind for name, row in rows.items()} == {
        "pair": "ensemble",
        "top": "ensemble",
        "vgg16_cfg1_s2+views": "views",
    }
    assert all(row.backbone is row.head is None for row in rows.values())
    assert not rows.keys() & known_runs(validated(CONFIG | config, SCHEMA)).keys()


def test_cnns_may_have_other_replicates_than_transfer_runs():
    known = known_runs(validated(CONFIG | {"replicates": {"cnns": 2}}, SCHEMA))
    later = [run.name for run in known.values() if run.replicate > 1]
    assert later == ["baseline_cnn_s2", "regularized_cnn_s2"]
