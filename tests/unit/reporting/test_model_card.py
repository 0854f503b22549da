import pytest
import yaml

from hemagrid.io import write_json
from hemagrid.reporting.model_card import write_card

SCORE = {"value": 0.9, "low": 0.85, "high": 0.94}
METRICS = {
    "run": "vgg16_cfg1",
    "kind": "transfer",
    "backbone": "vgg16",
    "class_names": ["ig", "<b>: cell"],
    "cost": {"parameters": 1234567},
    "subsets": {
        name: {"n": 1200, "accuracy": SCORE, "balanced_accuracy": SCORE}
        for name in ("val", "test")
    },
    "latency": {
        "median_ms": 12.34,
        "environment": {"gpu": None, "cpu": "AMD EPYC", "threads": 1},
    },
}
CONFIG = {
    "dataset": {"source": "bloodmnist", "image_size": 96},
    "backbones": {"vgg16": {"application": "VGG16", "weights": "imagenet"}},
    "card": {"data_licence": None, "weights_licence": None},
}


@pytest.fixture
def card(tmp_path):
    def card(metrics=METRICS, **settings):
        write_json(tmp_path / "metrics.json", metrics)
        config = CONFIG | {"card": CONFIG["card"] | settings}
        write_card(tmp_path / "metrics.json", config, tmp_path / "README.md")
        head, text = (tmp_path / "README.md").read_text().removeprefix("---\n").split("\n---\n")
        return yaml.safe_load(head), text

    return card


def test_a_card_says_how_to_use_a_run_and_how_well_it_does(card):
    head, text = card()
    assert head["library_name"] == "keras" and head["pipeline_tag"] == "image-classification"
    (result,) = head["model-index"][0]["results"]
    assert result["metrics"][0] == {"type": "accuracy", "value": 0.9}
    assert "    hemagrid predict vgg16_cfg1 PICTURES\n" in text
    assert "\n0. ig\n1. <b>: cell\n" in text
    assert "| test | 1,200 | 90.0 (85.0–94.0) | 90.0 (85.0–94.0) |" in text
    assert "12.3 ms in the median on AMD EPYC with\n1 thread," in text
    assert "Data: CC BY 4.0 (BloodMNIST" in text and "fine-tuned from VGG16" in text


def test_what_the_config_states_replaces_what_is_known(card):
    text = card(data_licence="CC0", weights_licence="MIT", citation="Doe 2026")[1]
    assert "- Data: CC0\n" in text and "started from: MIT\n" in text and "Doe 2026" in text


def test_what_is_made_of_runs_has_no_model_to_load(card):
    cost = {"parameters": 9, "members": ["vgg16_cfg1", "baseline_cnn"]}
    made = METRICS | {"run": "both", "kind": "ensemble", "backbone": None, "cost": cost}
    text = card(made | {"latency": None})[1]
    assert "the mean of vgg16_cfg1, baseline_cnn" in text
    assert "load_model" not in text and "ms in the median" not in text
