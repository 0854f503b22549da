"""Checks between keys, and of the files that a config names."""

import contextlib

import pytest

from hemagrid.config import checks
from hemagrid.config.schema import validated
from hemagrid.errors import InputError
from hemagrid.names import RESERVED

from .conftest import CONFIG, DEFAULTS, SCHEMA, changed, problems


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"splits": {"train": 0.7}}, "splits: found shares that sum to 1.1, expected 1"),
        ({"dataset": {"path": None}}, "dataset.path: found null, expected a path"),
        ({"dataset": {"source": "npz"}}, "dataset.path: found resources/bloodmnist, the place"),
        (
            {"dataset": {"source": "folder", "classes": None}},
            "dataset.path: found resources/bloodmnist, the place",
        ),
        (
            {"dataset": {"source": "npz", "path": "a.npz", "classes": None}},
            "dataset.classes: found null",
        ),
        ({"dataset": {"classes": None}}, "dataset.classes: found null"),
        ({"dataset": {"classes": ["a", "b"]}}, "dataset.classes: found 2 names, expected 8"),
        (
            {"dataset": {"path": "{set}/blood"}},
            "dataset.path: found {set}/blood, expected a path",
        ),
        (
            {"dataset": {"path": "~/blood"}},
            "dataset.path: found ~/blood, expected a path without",
        ),
        *(
            (
                {"dataset": {"source": source, "path": "a", "groups": groups}},
                f"dataset.groups{expected}",
            )
            for source, groups, expected in (
                ("folder", {}, ": found nothing, expected one of pattern, csv and key"),
                ("folder", {"csv": "a", "key": "b"}, ": found csv and key, expected one of"),
                ("folder", {"key": "b"}, ": found key, expected pattern or csv, because"),
                ("npz", {"csv": "a"}, ": found csv, expected key, the name of an array"),
                ("bloodmnist", {"csv": "a"}, ": found csv, expected null, because BloodMNIST"),
                (
                    "folder",
                    {"pattern": "("},
                    ".pattern: found (, expected a regular expression",
                ),
                ("folder", {"pattern": "(.)_"}, ".pattern: found (.)_, expected a named group"),
                (
                    "folder",
                    {"csv": "~/a.csv"},
                    ".csv: found ~/a.csv, expected a path without ~",
                ),
            )
        ),
        (
            {"test_sets": {"lab": {"source": "npz", "path": "a}.npz"}}},
            "test_sets.lab.path: found a}.npz, expected",
        ),
        (
            changed("backbones.vgg16.weights", "~/a.weights.h5"),
            "backbones.vgg16.weights: found ~/a.weights.h5, expected a path without ~",
        ),
        (
            changed("backbones.vgg16.module", "own.py"),
            "backbones.vgg16: found application and module, expected one of them",
        ),
        (
            changed("backbones.mine", {"weights": "random"}),
            "backbones.mine.application: found nothing, expected a name in keras.applications",
        ),
        (
            changed("backbones.mine", {"module": "own.py"}),
            "backbones.mine.weights: found imagenet, expected own, random or a file",
        ),
        (
            changed("backbones.vgg16.weights", "own"),
            "backbones.vgg16.weights: found own, expected imagenet, random or a file",
        ),
        (
            changed("backbones.mine", {"module": "~/own.py", "weights": "own"}),
            "backbones.mine.module: found ~/own.py, expected a path without ~",
        ),
        (
            {"cnns": CONFIG["cnns"] | {"deep": {"filters": [8] * 7}}},
            "cnns.deep.filters: found 7 blocks, each of which halves",
        ),
        (
            {"heads": CONFIG["heads"] | {"cfg1": {"dropout": []}}},
            "heads.cfg1.dropout: found 0 rates, expected 1, on the embedding",
        ),
        (
            {"heads": CONFIG["heads"] | {"cfg1": {"dense": [8, 4]}}},
            "heads.cfg1.dropout: found 1 rates, expected 2, one per Dense layer",
        ),
        (
            {"corruptions": {"kinds": ["bubble", "defocus_blurr"]}},
            "corruptions.kinds[1]: found the text 'defocus_blurr', expected one of "
            "jpeg_compression, pixelate",
        ),
        (
            {"grid": {"heads": ["cfg1", "cgf2"]}},
            "grid.heads[1]: found the text 'cgf2', expected an entry of heads: "
            "cfg1, cfg2, cfg3; did you mean cfg2?",
        ),
        ({"grid": {"backbones": ["resnet"]}}, "grid.backbones[0]: found the text 'resnet'"),
        ({"grid": {"cnns": ["cnn"]}}, "grid.cnns[0]: found the text 'cnn'"),
        ({"grid": {"heads": ["cfg1", "cfg1"]}}, "grid.heads: found the text 'cfg1' again"),
        ({"grid": {"cnns": [], "heads": []}}, "grid: found no run"),
        (
            {"cnns": {"vgg16_cfg1": {}}, "grid": {"cnns": ["vgg16_cfg1"]}},
            "grid: found two runs named vgg16_cfg1",
        ),
        (
            {
                "backbones": {"majority": {"application": "VGG16", "top": "block4_pool"}},
                "heads": {"class": {}},
                "grid": {"backbones": ["majority"], "heads": ["class"]},
            },
            "grid: found a run named majority_class, which is a folder",
        ),
        *(
            ({"cnns": {name: {}}, "grid": {"cnns": [name]}}, f"found a run named {name}")
            for name in RESERVED
        ),
        (
            {"cnns": {"net_s2": {}}, "grid": {"cnns": ["net_s2"]}, "replicates": 2},
            "replicates: found a run named net_s2, which reads as a replicate",
        ),
        ({"replicates": 0}, "replicates: found 0, expected a number from 1 to 100 or a"),
        (
            {"replicates": {"runs": 2}},
            "replicates: found a mapping, expected a number from 1 to 100 or a mapping of cnns",
        ),
        (
            changed("heads.tuned", {}),
            "heads.tuned: found the name of a head that a search finds",
        ),
        (
            {"tuning": {"backbones": ["vgg61"]}},
            "tuning.backbones[0]: found the text 'vgg61', expected an entry of backbones: "
            "convnext, efficientnetv2m, mobilenetv3, vgg16; did you mean vgg16?",
        ),
        (
            changed("tuning.space.neurons.min", 600),
            "tuning.space.neurons: found min 600 above max 512, expected a range",
        ),
        (
            changed("tuning.space.layers.max", 0),
            "tuning.space: found 15 different heads, expected 17 or more, as many as a search "
            "by tuning.hyperband draws; widen it, or lower tuning.hyperband.max_epochs",
        ),
        (
            {"codabench": {"runs": ["convnext_cfg7"]}},
            "codabench.runs: found the text 'convnext_cfg7', expected a run of this study: "
            "baseline_cnn, ",
        ),
        (
            {"ensembles": {"vgg16_cfg1": {"best": 2}}},
            "ensembles.vgg16_cfg1: found the name of a run, expected another",
        ),
        (
            {"ensembles": {"tables": {"best": 2}}},
            "ensembles.tables: found the name of a folder of results/, expected another",
        ),
        (
            {"ensembles": {"both": {"best": 2, "members": ["vgg16_cfg1", "vgg16_tuned"]}}},
            "ensembles.both: found members and best, expected one of them",
        ),
        (
            {"ensembles": {"none": {}}},
            "ensembles.none: found neither members nor best, expected",
        ),
        (
            {"ensembles": {"one": {"members": ["vgg16_cfg1"]}}},
            "ensembles.one.members: found ['vgg16_cfg1'], expected a list of two or more runs",
        ),
        (
            # 14 of the grid, two finalists and the search with weight decay
            {"ensembles": {"all": {"best": 18}}},
            "ensembles.all.best: found 18, expected at most 17, the runs of this study",
        ),
        (
            {"ensembles": {"two": {"members": ["vgg16_cfg1", "vgg16_cfg1_s2"]}}},
            "ensembles.two.members: found the text 'vgg16_cfg1_s2', expected a run of this "
            "study: baseline_cnn, ",
        ),
        (
            {"views": ["vgg16+views"]},
            "views: found the text 'vgg16+views', expected a run of this study",
        ),
        (
            {"codabench": {"scores": {"convnext": 92}}},
            "codabench.scores: found the text 'convnext', expected a run of this study",
        ),
        (
            {"codabench": {"hidden_set": "hidden.npz"}},
            "codabench.hidden_set: found the text 'hidden.npz', expected the name of an entry "
            "of test_sets; images get one by test_sets: {NAME: {source: npz, path: FILE.npz}}",
        ),
        (
            {"test_sets": {"splits": {"source": "npz", "path": "a.npz"}}},
            "test_sets.splits: found a name that the study uses itself, expected another name",
        ),
        (
            {
                "test_sets": {"lab": {"source": "npz", "path": "a.npz"}},
                "dataset": {"source": "folder", "path": "cells", "classes": None},
            },
            "test_sets.lab.classes: found no entry and no dataset.classes, expected the class",
        ),
        (
            {
                "test_sets": {
                    "lab": {"source": "npz", "path": "a.npz", "classes": {1: "ig", 2: None}}
                }
            },
            "test_sets.lab.classes: found 1, 2, expected the labels of the npz, 0, 1, 2, ...",
        ),
        (
            {"test_sets": {"lab": {"source": "folder", "path": "a", "classes": {"IG": "igs"}}}},
            "test_sets.lab.classes.IG: found the text 'igs', expected one of dataset.classes",
        ),
        (
            {"tuning": {"select_by": "tset_augmented"}},
            "tuning.select_by: found the text 'tset_augmented', expected val, test_augmented "
            "or an entry of test_sets; did you mean test_augmented?",
        ),
    ],
)
def test_a_contradiction_is_the_one_problem_named(config, expected):
    (line,) = problems(config)
    assert expected in line


def test_smears_need_no_path():
    config = {"dataset": {"source": "smears", "path": None, "classes": None}}
    checks.check_dataset(validated(config, SCHEMA))


@pytest.fixture
def study(tmp_path, monkeypatch):
    """The folder of a study beside pictures, results and an npz; it is the current one."""
    for folder in ("study/results/cells", "study/cells", "study/cubes"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "study" / "cells.npz").touch()
    (tmp_path / "study" / "lost").symlink_to("nowhere")
    monkeypatch.chdir(tmp_path / "study")
    monkeypatch.setenv("DATA", "/data")
    return tmp_path / "study"


def of(source, path):
    return validated({"dataset": {"source": source, "path": str(path)}}, SCHEMA)


def test_images_that_are_there_are_accepted(study):
    checks.check_dataset(of("npz", "cells.npz"))
    for path in ("cells", "./cells/", study / "cells", "../study/cells"):
        checks.check_dataset(of("folder", path))
    checks.check_dataset(DEFAULTS)  # BloodMNIST is downloaded where it is not


@pytest.mark.parametrize(
    ("source", "path", "expected"),
    [
        (
            "folder",
            "cels",
            r"nothing at {study}/cels, expected a folder of .*did you mean cells",
        ),
        ("folder", "cells.npz", "a file at {study}/cells.npz, expected a folder"),
        ("folder", "lost", "a dead link at {study}/lost"),
        ("folder", "x/y", r"{study} holds cells, cells.npz, cubes, lost, results \(a relative"),
        ("folder", "$DATA/x", "; only a shell replaces variables, write /data/x"),
        ("npz", "cells", "a folder at {study}/cells, expected an npz file"),
        ("npz", "cells.zip", "did you mean cells.npz"),
        ("folder", ".", "{study}, the folder of the study"),
        ("folder", "../study/", "{study}, the folder of the study"),
        ("folder", "..", "which the study lies in"),
        (
            "folder",
            "results/cells",
            r"{study}/results/cells, a place in results/, which the st",
        ),
        ("bloodmnist", "checkpoints", "a place in checkpoints/"),
        ("bloodmnist", "cells.npz", "a file at {study}/cells.npz, expected a folder"),
    ],
)
def test_images_that_are_not_there_or_in_the_way_are_refused(study, source, path, expected):
    with pytest.raises(
        InputError, match=f"^dataset.path: found .*{expected}".format(study=study)
    ):
        checks.check_dataset(of(source, path))


def test_a_test_set_that_is_not_there_or_in_the_way_is_refused(study):
    def check(path, **entry):
        entry = {"source": "npz", "path": path, **entry}
        checks.check_test_sets(validated({"test_sets": {"lab": entry}}, SCHEMA))

    checks.check_test_sets(DEFAULTS)
    check("cells.npz")
    with pytest.raises(InputError, match=r"lab\.path: found nothing at .* mean cells\.npz"):
        check("cell.npz")
    with pytest.raises(
        InputError, match=r"lab\.path: found a file .* a folder of class folders"
    ):
        check("cells.npz", source="folder")
    with pytest.raises(InputError, match=r"lab\.path: found .*, the folder of the study"):
        check(".", source="folder")


def test_predictions_of_an_earlier_release_are_told_and_what_to_do(study):
    checks.check_layout()
    for run in ("vgg16_cfg1", "random_labels"):
        path = study / "results" / run / "predictions.npz"
        path.parent.mkdir(parents=True)
        path.touch()
    with pytest.raises(
        InputError, match=r"random_labels/predictions.npz: found .*\(2 runs with"
    ):
        checks.check_layout()


def test_labels_of_a_class_map_may_be_numbers():
    entry = {"source": "npz", "path": "a.npz", "classes": {0: "ig", 1: None}}
    config = validated({"test_sets": {"lab": entry}}, SCHEMA)
    assert config["test_sets"]["lab"]["classes"] == {"0": "ig", "1": None}


def test_a_missing_csv_of_groups_is_refused(study):
    config = changed("dataset.groups.csv", "cells.csv")
    config["dataset"] |= {"source": "smears"}
    with pytest.raises(InputError, match=r"groups.csv: found nothing at .* or cells\.npz"):
        checks.check_dataset(validated(config, SCHEMA))


def test_weights_must_be_there_even_once_they_are_converted(study):
    checks.check_backbones(DEFAULTS)
    config = validated(changed("backbones.vgg16.weights", "my.weights.h5"), SCHEMA)
    with pytest.raises(InputError, match=r"backbones.vgg16.weights: found nothing .*VGG16\("):
        checks.check_backbones(config)
    itself = validated(
        changed("backbones.vgg16.weights", "resources/weights/vgg16.weights.h5"), SCHEMA
    )
    with pytest.raises(InputError, match="where the workflow puts its own copy"):
        checks.check_backbones(itself)
    converted = study / "resources" / "weights" / "vgg16.weights.h5"
    converted.parent.mkdir(parents=True)
    converted.touch()
    with pytest.raises(InputError, match="found nothing"):
        checks.check_backbones(config)
    (study / "my.weights.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    checks.check_backbones(config)


@pytest.mark.parametrize("suffix", [".weights.h5", ".h5", ".keras"])
def test_a_file_of_weights_begins_as_its_suffix_says(study, suffix):
    path = study / f"my{suffix}"
    path.write_bytes(b"<html>not found</html>")
    config = validated(changed("backbones.vgg16.weights", path.name), SCHEMA)
    with pytest.raises(InputError, match="vgg16.weights: found a file that begins with b'<ht"):
        checks.check_backbones(config)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, r"backbones\.mine\.module: found nothing at .*own\.py"),
        ("def build(size)\n    pass", r"own\.py, line 1: found expected ':'"),
        ("import os\ndef biuld(size): pass", r"no `def build` in own\.py.*did you mean biuld"),
        ("build = 3", r"mine\.function: found no `def build` in own\.py.* defines none"),
        ("def build(size):\n    return undefined", None),
    ],
)
def test_a_file_with_a_network_is_read_without_running_it(study, text, found):
    if text:
        (study / "own.py").write_text(text)
    mine = {"module": "own.py", "weights": "own"}
    config = changed("backbones.mine", mine) | {"grid": {"backbones": ["mine"]}}
    refused = pytest.raises(InputError, match=found) if found else contextlib.nullcontext()
    with refused:
        checks.check_backbones(validated(config, SCHEMA))


def test_a_folder_that_nobody_may_write_to_is_refused_before_snakemake_tries(
    tmp_path, monkeypatch
):
    checks.check_folder(tmp_path)
    monkeypatch.setattr("os.access", lambda path, mode: False)
    with pytest.raises(InputError, match=f"{tmp_path}: found no permission to write"):
        checks.check_folder(tmp_path)
    # A colleague's study may be planned.
    (tmp_path / ".snakemake").mkdir()
    checks.check_folder(tmp_path)
