"""Why finished jobs run again, from what Snakemake says of them."""

from types import SimpleNamespace

from hemagrid import names
from hemagrid.cli import reruns
from hemagrid.io import write_json
from hemagrid.reporting.provenance import write_config


def job(rule, before=(), now=(), missing=(), newer=(), follows=(), inputs=False):
    """A job that will run, and Snakemake's reason."""
    changed = SimpleNamespace(only_old=set(before), only_new=set(now))
    reason = SimpleNamespace(
        params_changed=changed if before or now else None,
        missing_output=set(missing),
        input_changed=inputs,
        updated_input={*newer, *follows},
        updated_input_run=set(follows),
    )
    return SimpleNamespace(rule=SimpleNamespace(name=rule)), reason


def found(*pairs):
    reasons = {id(each): reason for each, reason in pairs}
    dag = SimpleNamespace(
        needrun_jobs=lambda: [each for each, _ in pairs],
        reason=lambda each: reasons[id(each)],
    )
    return reruns.causes(dag)


def test_each_cause_is_told_with_its_jobs(config, tmp_path):
    causes = found(
        job("train", ["'train 1'"], ["'train 2'"]),
        job("train", ["'train 1'"], ["'train 2'"]),
        job("predict", follows=["results/a/model.keras"]),
        job("augment", missing=["results/dataset/val.npy"]),
        job("evaluate", ["'code 00ff'"], ["'code ff00'"], follows=["results/a/cost.json"]),
        job("embed", ["{'seed': 1}"], ["{'seed': 2}", "'embed 3'"]),
        job("split", inputs=True, newer=["results/dataset/images.npy"]),
    )
    assert causes == {
        "the revision of train is 2 here and was 1": ["train", "train"],
        reruns.OTHER_CODE: ["evaluate"],
        "the revision of embed is 3 here and was none and settings or pictures changed": [
            "embed"
        ],
        "they rest on other files than before and files that they rest on are newer": ["split"],
    }
    write_json(tmp_path / names.STUDY, {"commit": "abc123", "changed": True})
    write_config(config | {"seed": 7}, tmp_path / names.CONFIG)
    said = reruns.describe(causes, tmp_path, config)
    assert "\n  the revision of train is 2 here and was 1: train (2)\n" in said
    assert "the commit that made them and its packages: abc123 with changes\n" in said
    assert "The study last ran with another config (seed)." in said
    assert said.endswith(f": --configfile {tmp_path / names.CONFIG}\n")
    (tmp_path / names.CONFIG).write_text("of_another_release: 1")
    assert "another config" not in reruns.describe(causes, tmp_path, config)
    assert reruns.describe({}, tmp_path, config) == ""
