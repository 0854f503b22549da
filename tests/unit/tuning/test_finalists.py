import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hemagrid.errors import InputError
from hemagrid.tuning.finalists import ranking, read, select_finalists


def metrics(backbone, accuracy, subset="test_augmented"):
    scores = {"accuracy": {"value": accuracy, "low": accuracy, "high": accuracy}}
    kind = "transfer" if backbone else "cnn"
    return {"kind": kind, "backbone": backbone, "subsets": {subset: scores}}


def written(folder, runs):
    """Write {run: metrics or None} as a study's files; return their paths."""
    paths = []
    for run, content in runs.items():
        path = folder / run / "metrics.json"
        if content:
            path.parent.mkdir()
            path.write_text(json.dumps(content))
        paths.append(path)
    return paths


def test_a_backbone_ranks_once_by_its_best_head():
    ranked = ranking(
        {
            "convnext_cfg1": metrics("convnext", 0.80),
            "convnext_cfg2": metrics("convnext", 0.79),
            "vgg16_cfg1": metrics("vgg16", 0.71),
            "vgg16_cfg3": metrics("vgg16", 0.78),
        },
        "test_augmented",
    )
    assert [(row["backbone"], row["run"]) for row in ranked] == [
        ("convnext", "convnext_cfg1"),
        ("vgg16", "vgg16_cfg3"),
    ]
    assert ranked[1]["accuracy"]["value"] == 0.78


def test_ties_go_to_the_first_in_grid_order():
    ranked = ranking(
        {
            "vgg16_cfg1": metrics("vgg16", 0.5),
            "vgg16_cfg2": metrics("vgg16", 0.5),
            "convnext_cfg1": metrics("convnext", 0.5),
        },
        "test_augmented",
    )
    assert [row["run"] for row in ranked] == ["vgg16_cfg1", "convnext_cfg1"]


def test_cnns_missing_runs_and_other_subsets_are_left_out(tmp_path):
    runs = {
        "baseline_cnn": metrics(None, 0.99),
        "convnext_cfg1": None,
        "vgg16_cfg1": metrics("vgg16", 0.4),
        "mobilenetv3_cfg1": metrics("mobilenetv3", 0.9, subset="val"),
    }
    select_finalists(written(tmp_path, runs), tmp_path / "out.json", 2, "test_augmented", None)
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["finalists"] == ["vgg16"]
    assert content["missing"] == ["convnext_cfg1"]
    assert content["chosen_by"] == "test_augmented"


@pytest.mark.parametrize("count", [1, 2, 5])
def test_no_more_are_chosen_than_there_are(tmp_path, count):
    runs = {f"b{i}_cfg1": metrics(f"b{i}", i / 10) for i in range(3)}
    select_finalists(
        written(tmp_path, runs), tmp_path / "out.json", count, "test_augmented", None
    )
    assert read(tmp_path / "out.json") == ["b2", "b1", "b0"][:count]


def test_names_in_the_config_replace_the_choice(tmp_path):
    select_finalists([], tmp_path / "out.json", 2, "val", ["vgg16"])
    content = json.loads((tmp_path / "out.json").read_text())
    assert content["finalists"] == ["vgg16"]
    assert content["chosen_by"] == "config"


def test_without_a_run_nothing_is_written(tmp_path):
    with pytest.raises(InputError, match=r"found no transfer run .*tuning\.backbones"):
        select_finalists([], tmp_path / "out.json", 2, "val", None)
    assert not (tmp_path / "out.json").exists()


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([0.1, 0.2, 0.3])), min_size=1)
)
def test_every_backbone_ranks_by_its_best_run(runs):
    loaded = {f"{b}_{i}": metrics(b, accuracy) for i, (b, accuracy) in enumerate(runs)}
    ranked = ranking(loaded, "test_augmented")
    values = [row["accuracy"]["value"] for row in ranked]
    assert values == sorted(values, reverse=True)
    assert {row["backbone"]: row["accuracy"]["value"] for row in ranked} == {
        backbone: max(a for b, a in runs if b == backbone) for backbone, _ in runs
    }
