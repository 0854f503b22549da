"""The config of a study, as programs beside the workflow read it."""

import json

import pytest
import yaml
from snakemake.utils import update_config

from hemagrid.config.loading import (
    canonical,
    differences,
    load_config,
    recorded_config,
    study_config,
)
from hemagrid.errors import InputError
from hemagrid.io import write_text
from hemagrid.names import CONFIG


def test_configs_are_laid_over_each_other_as_snakemake_does(tmp_path):
    config = load_config()
    above = {"grid": {"heads": ["cfg1"]}, "heads": {"cfg1": {"dropout": [0.1]}}, "seed": 7}
    write_text(tmp_path / "my.yaml", yaml.safe_dump(above))
    expected = json.loads(json.dumps(config))
    update_config(expected, above)
    assert load_config([tmp_path / "my.yaml"]) == expected
    update_config(expected, {"seed": 8})
    assert load_config([tmp_path / "my.yaml"], {"seed": 8}) == expected
    (tmp_path / "bad.yaml").write_text("[")
    for name in ("bad.yaml", "nowhere.yaml"):
        with pytest.raises(InputError, match=name):
            load_config([tmp_path / name])


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("seed: 1\ntraining: {optimizer: sgd}\nseed: 2", "seed again in line 3"),
        ("heads: {wide: {dense: [8], dense: [16]}}", "dense again in line 1"),
    ],
)
def test_a_key_that_is_given_twice_is_refused(tmp_path, text, key):
    (tmp_path / "my.yaml").write_text(text)
    with pytest.raises(InputError, match=f"my.yaml: found {key}, expected every key once"):
        load_config([tmp_path / "my.yaml"])
    with pytest.raises(InputError, match=key):
        canonical({}, [tmp_path / "my.yaml"])


def test_problems_of_a_config_name_its_file(tmp_path):
    (tmp_path / "my.yaml").write_text("sede: 1")
    with pytest.raises(InputError, match="my.yaml: the configuration has 1 problem:\n  sede"):
        load_config([tmp_path / "my.yaml"])


def test_a_study_knows_its_config(tmp_path):
    assert recorded_config(tmp_path) is None and study_config(tmp_path) == load_config()
    write_text(tmp_path / CONFIG, "seed: 7")
    recorded = study_config(tmp_path)
    assert recorded["seed"] == 7
    given = study_config(tmp_path, values={"published": True})
    assert differences(recorded, given) == ["published"]
    assert differences(recorded, load_config(values={"splits": {"val": 0.1, "test": 0.3}})) == [
        "splits.val",
        "splits.test",
        "seed",
    ]
