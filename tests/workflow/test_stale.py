"""What is made again, and what is not, when pictures, config, code or versions change."""

import ast
import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from hemagrid import names
from hemagrid.revisions import REVISIONS

from ..conftest import ROOT, TINY

# Without a revision: these follow training, or only look at what it rests on.
CHEAP = {
    *("audit", "audit_copies", "contact_sheet", "control", "evaluate", "plot_run"),
    *("plot_trials", "explain", "package_submission", "score_submission", "aggregate"),
    *("compare_tuned", "compare_with_winner", "plot_grid", "plot_classes", "provenance"),
    *("record_study", "report", "select_finalists", "compare_corruptions", "ensemble"),
    *("plot_combined", "summarize", "list_replicates", "compare_answers", "checksums"),
}
# Before the finalists are chosen again nothing is planned for their runs. The study has no
# replicates.
SEEN = CHEAP - {"plot_trials", "summarize", "list_replicates"}
HDF5 = b"\x89HDF\r\n\x1a\n"
REPORT = {"report"}
COMPARED = REPORT | {
    *("aggregate", "compare_with_winner", "compare_tuned", "plot_grid", "explain"),
    *("record_study", "select_finalists", "compare_corruptions", "compare_answers"),
}
# What follows the training of a run. The best runs make an ensemble, which has a package.
TRAINED = {"train", "predict", "evaluate", "plot_run", "ensemble", "plot_combined"}
TRAINED |= {"package_submission", "score_submission"}


@pytest.fixture
def remade(study, plan):
    """A function from overlays and targets to the rules that would run again."""

    def remade(*arguments):
        return set(plan(study.folder, *study.arguments, *arguments).values())

    return remade


@pytest.fixture
def overlay(tmp_path):
    def overlay(text):
        path = tmp_path / "overlay.yaml"
        path.write_text(text)
        return path

    return overlay


# Code, versions and revisions, in a clone that is newer than every result.


@pytest.fixture
def clone(checkout, tmp_path):
    """A newer clone than the one that the study was made with."""
    return Path(shutil.copytree(checkout, tmp_path / "clone", copy_function=shutil.copy))


@pytest.fixture
def by_clone(study, plan, in_folder, clone):
    """A function from variables to the rules that a clone of the workflow would run again."""

    def by_clone(**variables):
        arguments = in_folder(study.folder, TINY, root=clone)
        return set(plan(study.folder, *arguments, **variables).values())

    return by_clone


def edit(path, old, new):
    text = path.read_text()
    assert text.count(old) == 1, old
    path.write_text(text.replace(old, new))


def test_comments_and_docstrings_in_a_newer_clone_make_nothing_again(clone, by_clone):
    library = clone / "scripts" / "hemagrid"
    for path in (library / "training" / "trainer.py", clone / "scripts" / "train.py"):
        text = path.read_text()
        document = ast.get_docstring(ast.parse(text), clean=False)
        path.write_text(text.replace(document, "Rewritten.", 1) + "# a comment\n")
    (library / "cli" / "status.py").write_text("rewritten = True\n")
    assert by_clone() == set()


@pytest.mark.parametrize("file", ["hemagrid/training/trainer.py", "evaluate.py"])
def test_other_code_makes_the_cheap_stages_again(clone, by_clone, file):
    path = clone / "scripts" / file
    path.write_text(path.read_text() + "\nchanged = True\n")
    assert by_clone() == SEEN


def test_another_version_of_keras_makes_the_cheap_stages_again(tmp_path, by_clone):
    installed = tmp_path / "keras-99.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: keras\nVersion: 99.0\n")
    assert by_clone(PYTHONPATH=str(tmp_path)) == SEEN


RESTS_ON_SPLITS = {"originals", "augment", "backbone_weights", "embed", "train", "predict"}
RESTS_ON_SPLITS |= {"map_cells"}


@pytest.mark.parametrize(
    ("stage", "expensive"),
    [
        ("corrupt", {"predict"}),
        ("search", {"search", "train", "predict"}),
        ("embed", {"embed", "map_cells", "train", "predict"}),
        ("augment", {"augment", "embed", "map_cells", "train", "predict"}),
        ("split", {"split"} | RESTS_ON_SPLITS),
        (
            "acquire_dataset",
            {"acquire_dataset", "fingerprint", "deduplicate", "split"} | RESTS_ON_SPLITS,
        ),
    ],
)
def test_a_raised_revision_makes_its_stage_and_what_follows_again(
    clone, by_clone, stage, expensive
):
    edit(
        clone / "scripts/hemagrid/revisions.py",
        f'"{stage}": {REVISIONS[stage]},',
        f'"{stage}": 99,',
    )
    again = by_clone()
    assert again & REVISIONS.keys() == expensive
    assert COMPARED - {"select_finalists"} <= again


def test_every_stage_that_training_rests_on_has_a_revision():
    rules = {
        name: body
        for file in (ROOT / "workflow" / "rules").glob("*.smk")
        for name, body in re.findall(
            r"^(?:rule|checkpoint) (\w+):\n(.*?)(?=^\S|\Z)", file.read_text(), re.M | re.S
        )
    }
    for stage in REVISIONS.keys() - {"corrupt"}:  # a part of the rule predict
        assert f'revision=revision("{stage}")' in rules.pop(stage)
    del rules["fetch_bloodmnist"]  # a published file, held to its checksum
    assert 'revision=revision("predict")' in rules.pop("views")
    assert rules.keys() == CHEAP
    assert all("code=CODE" in body for body in rules.values())


# The config.


def test_a_config_that_means_the_same_makes_nothing_again(study, plan, overlay):
    def turned(value):
        if not isinstance(value, dict):
            return value
        return {key: turned(value[key]) for key in reversed(value)}

    recorded = yaml.safe_load((study.folder / names.CONFIG).read_text())
    recorded["backbones"]["mobilenetv3"] |= {"mem_mb": 9000, "runtime": 999}
    recorded["require_gpu"] = True
    changed = overlay(yaml.safe_dump(turned(recorded), sort_keys=False))
    assert plan(study.folder, *study.arguments, changed) == {}


@pytest.mark.parametrize(
    ("text", "runs", "others"),
    [
        # Its finalist is what it was, and so is all that was tuned.
        ("heads: {cfg2: {dropout: [0.5]}}", ["mobilenetv3_cfg2"], {"select_finalists"}),
        ("cnns: {baseline_cnn: {dense: 32}}", ["baseline_cnn"], set()),
        ("heads: {cfg3: {learning_rate: 1.0e-2}}", [], set()),
        ("local_images: 0", [], set()),  # on a cluster, other rules become jobs
        (
            "tuning: {space: {weight_decay: [0.1]}}",
            ["mobilenetv3_tuned_adamw"],
            {"search", "plot_trials"},
        ),
        (
            "training: {finetune_all: {epochs: 2}}",
            # Before the finalists are chosen again nothing is planned for their runs.
            ["mobilenetv3_cfg1", "mobilenetv3_cfg2"],
            {"select_finalists"},
        ),
    ],
    ids=["a head", "a CNN", "a head not in use", "where rules run", "a search", "a phase"],
)
def test_a_change_in_the_config_makes_its_runs_again(study, plan, overlay, text, runs, others):
    again = plan(study.folder, *study.arguments, overlay(text))
    assert {path.split("/")[1] for path, rule in again.items() if rule == "train"} == set(runs)
    expected = {"provenance", "report"} | others
    if runs:
        expected |= TRAINED | COMPARED - {"select_finalists"}
    assert set(again.values()) == expected


def test_another_test_set_trains_nothing(study, plan, overlay, tmp_path):
    for number in range(4):
        path = tmp_path / "lab" / ("basophil", "platelet")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    added = overlay(f"test_sets: {{raabin: {{source: folder, path: {tmp_path / 'lab'}}}}}")
    again = set(plan(study.folder, *study.arguments, added).values())
    expensive = REVISIONS.keys() & again
    assert expensive == {"acquire_test_set", "test_set", "predict"}
    assert {"audit", "control", "evaluate", "plot_run"} | COMPARED <= again


def test_a_reported_score_makes_only_what_shows_it_again(remade, overlay):
    again = remade(overlay("codabench: {scores: {mobilenetv3_cfg2: 50}}"))
    assert again == {"aggregate", "compare_tuned", "provenance", "report"}


def test_another_severity_trains_nothing(remade, overlay):
    again = remade(overlay("corruptions: {severities: [3, 5]}"))
    assert again - CHEAP == {"predict"}
    assert "compare_corruptions" in again


def test_another_replicate_trains_itself_alone(study, plan, overlay):
    planned = plan(study.folder, *study.arguments, overlay("replicates: {cnns: 2}"))
    later = {"baseline_cnn_s2", "regularized_cnn_s2"}
    for rule in ("train", "predict"):
        assert {Path(path).parts[1] for path in planned if planned[path] == rule} == later
    assert {"summarize", "list_replicates"} <= set(planned.values())
    assert set(planned.values()) - CHEAP == {"train", "predict"}


def test_the_reason_for_a_job_fits_on_the_screen(study, snakemake, overlay):
    changed = overlay("training: {finetune_all: {epochs: 2}}\nevaluation: {bootstrap: 300}\n")
    result = snakemake(study.folder, *study.arguments, changed, "--dry-run")
    reasons = re.findall(r"Reason: (.*Params have changed.*)", result.said)
    assert reasons
    assert max(map(len, reasons)) < 2_000


def test_a_deleted_model_is_trained_from_its_caches(study, tmp_path, remade):
    model = study.folder / names.MODEL.format(run="mobilenetv3_cfg1")
    model.rename(tmp_path / "model.keras")
    try:
        again = remade()
    finally:
        (tmp_path / "model.keras").rename(model)
    assert again == TRAINED | COMPARED


def test_a_study_without_caches_trains_nothing_again(study, tmp_path, remade, clone, by_clone):
    folders = [p.partition("/{")[0] for p in (names.ACTIVATIONS, names.EMBEDDINGS)]
    caches = [file for folder in folders for file in (study.folder / folder).rglob("*.npy")]
    mapped = study.folder / names.CELL_MAP.format(backbone="mobilenetv3")
    moved = {file: tmp_path / str(number) for number, file in enumerate([*caches, mapped])}
    try:
        for file in caches:
            file.rename(moved[file])
        assert caches and remade() == set()
        mapped.rename(moved[mapped])
        assert remade() == REPORT
        code = clone / "scripts" / "evaluate.py"
        code.write_text(code.read_text() + "\nchanged = True\n")
        assert by_clone() == SEEN
    finally:
        for file, place in moved.items():
            if place.exists():
                place.rename(file)


# The user's own files.


def picture(seed, size=32):
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), "uint8")
    return Image.fromarray(noise.repeat(size // 4, axis=0).repeat(size // 4, axis=1))


@pytest.fixture(scope="module")
def acquired(tmp_path_factory, snakemake, in_folder):
    """A study of class folders whose pictures were read, with the arguments for it."""
    folder = tmp_path_factory.mktemp("acquired")
    for number in range(20):
        path = folder / "my" / "ab"[number % 2] / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture(number).save(path)
    config = folder / "my.yaml"
    shutil.copytree(folder / "my", folder / "lab")
    config.write_text(
        "dataset: {source: folder, path: my, classes: null, image_size: 32}\n"
        "test_sets: {lab: {source: folder, path: lab}}\n"
    )
    arguments = [names.SAMPLES, *in_folder(folder, config)]
    found = names.FOUND_TABLE.format(test_set="lab")
    result = snakemake(folder, found, *arguments, "--cores", 1)
    assert result.returncode == 0, result.said
    return folder, arguments


@pytest.fixture
def pictures(acquired, plan, tmp_path):
    """The folder of pictures, to change, and what is then planned; it is put back after."""
    folder, arguments = acquired
    shutil.copytree(folder / "my", tmp_path / "my")
    yield folder / "my", lambda: set(plan(folder, *arguments).values())
    shutil.rmtree(folder / "my")
    shutil.copytree(tmp_path / "my", folder / "my")


def replace_keeping_time_and_size(my):
    stat = (my / "a" / "0.bmp").stat()
    picture(99).save(my / "a" / "0.bmp")
    os.utime(my / "a" / "0.bmp", ns=(stat.st_atime_ns, stat.st_mtime_ns - 10**12))
    assert (my / "a" / "0.bmp").stat().st_size == stat.st_size


@pytest.mark.parametrize(
    "change",
    [
        lambda my: picture(99).save(my / "a" / "new.bmp"),
        lambda my: (my / "a" / "0.bmp").rename(my / "b" / "moved.bmp"),
        lambda my: (my / "a").rename(my / "c"),
        replace_keeping_time_and_size,
    ],
    ids=["added", "moved", "class renamed", "replaced by an older one of the same size"],
)
def test_pictures_that_change_are_read_again(pictures, change):
    my, planned = pictures
    change(my)
    assert planned() == {"acquire_dataset"}


def test_pictures_that_only_look_changed_are_not_read_again(pictures):
    my, planned = pictures
    for path in my.rglob("*"):
        path.touch()
    (my / "a" / ".DS_Store").write_text("where icons are")
    assert planned() == set()


def test_pictures_of_a_test_set_that_change_are_read_again(acquired, plan):
    folder, arguments = acquired
    arguments = [names.FOUND_TABLE.format(test_set="lab"), *arguments]
    for path in (folder / "lab").rglob("*"):
        path.touch()
    assert plan(folder, *arguments) == {}
    replace_keeping_time_and_size(folder / "lab")
    assert set(plan(folder, *arguments).values()) == {"acquire_test_set"}


def test_a_mistyped_folder_is_refused_though_all_results_are_there(acquired, snakemake):
    folder, arguments = acquired
    mistyped = folder / "mistyped.yaml"
    mistyped.write_text("dataset: {path: mx}")
    result = snakemake(folder, *arguments, mistyped, "--dry-run")
    assert result.returncode != 0
    assert f"dataset.path: found nothing at {folder / 'mx'}" in result.said


def replaced_by_an_older_file(path, content):
    stat = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - 10**12))


def test_an_npz_is_read_again_by_its_content(tmp_path, snakemake, plan, in_folder):
    config, path = tmp_path / "my.yaml", tmp_path / "set.npz"
    config.write_text(
        f"dataset: {{source: npz, path: {path}, image_size: 32, classes: [a, b]}}"
    )
    arguments = [names.SAMPLES, *in_folder(tmp_path, config)]
    images = np.stack([np.asarray(picture(seed)) for seed in range(20)])
    np.savez(path, images=images, labels=np.arange(20) % 2)
    result = snakemake(tmp_path, *arguments, "--cores", 1)
    assert result.returncode == 0, result.said
    path.touch()
    assert plan(tmp_path, *arguments) == {}
    content = bytearray(path.read_bytes())
    content[-2000] ^= 1
    replaced_by_an_older_file(path, content)
    assert set(plan(tmp_path, *arguments).values()) == {"acquire_dataset"}


def test_backbones_are_made_again_by_the_content_of_their_files(
    tmp_path, snakemake, plan, in_folder
):
    (tmp_path / "my.yaml").write_text(
        "backbones: {mine: {module: own.py, weights: my.weights.h5}}\ngrid: {backbones: [mine]}"
    )
    weights, module = tmp_path / "my.weights.h5", tmp_path / "own.py"
    weights.write_bytes(HDF5 + b"one")
    module.write_text("def build(image_size): pass")
    target = names.WEIGHTS.format(backbone="mine")
    arguments = [target, *in_folder(tmp_path, tmp_path / "my.yaml")]
    # A stand-in, which --touch takes for what its rule made.
    (tmp_path / target).parent.mkdir(parents=True)
    (tmp_path / target).touch()
    chosen = ["--allowed-rules", "backbone_weights"]
    result = snakemake(tmp_path, *arguments, "--force", "--touch", "--cores", 1, *chosen)
    assert result.returncode == 0, result.said
    weights.touch()
    module.touch()
    assert plan(tmp_path, *arguments, *chosen) == {}
    for file, content in ((weights, HDF5 + b"two"), (module, b"def build(size): pass")):
        before = file.read_bytes()
        replaced_by_an_older_file(file, content)
        assert set(plan(tmp_path, *arguments, *chosen).values()) == {"backbone_weights"}
        file.write_bytes(before)
