"""What a result was made with is on record."""

import json
import platform

import keras
import numpy as np
import yaml

from hemagrid import provenance


def test_config_reads_back_as_it_was_used(tmp_path):
    config = {
        "seed": 42,
        "heads": {"cfg1": {"dense": [], "learning_rate": 1e-3, "batch_norm": False}},
        "dataset": {"classes": ["lymphocyte", "Größe", "no", "007"], "path": None},
    }
    provenance.write_config(config, tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == config
    assert list(yaml.safe_load(text)) == list(config)
    assert "Größe" in text


def test_versions(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    provenance.write_versions(tmp_path / "versions.json")
    versions = json.loads((tmp_path / "versions.json").read_text())
    assert list(versions)[:3] == ["Python", "system", "Keras backend"]
    assert versions["Python"] == platform.python_version()
    assert versions["Keras backend"] == "jax"
    assert versions["numpy"] == np.__version__
    assert versions["keras"] == keras.__version__


def test_what_is_left_of_a_removed_package_does_no_harm(tmp_path, monkeypatch):
    (tmp_path / "broken-1.0.dist-info").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    provenance.write_versions(tmp_path / "versions.json")
    assert "numpy" in json.loads((tmp_path / "versions.json").read_text())
