"""Which folders are classes and which files may be pictures; doubtful layouts are refused."""

import logging
import os
import shutil

import pytest

from hemagrid.data import folders
from hemagrid.errors import InputError


@pytest.fixture
def make(tmp_path):
    """A function that makes files, and their folders, and returns the folder above."""

    def make(*names):
        for name in names:
            path = tmp_path / "in" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return tmp_path / "in"

    return make


def names(folder, classes=None):
    return list(folders.class_folders(folder, classes))


@pytest.mark.parametrize(
    "order",
    [
        ["0", "1", "2", "10", "11", "100"],
        ["class_1", "class_2", "class_10"],
        ["01", "1", "2"],
        ["3 lobes", "4 lobes", "10 lobes", "blast", "ig2", "ig10"],
        ["007", "NA", "nan", "null"],
    ],
)
def test_numbers_in_names_are_in_the_order_of_numbers(make, order):
    assert names(make(*(f"{name}/a.png" for name in reversed(order)))) == order


def test_names_in_the_config_may_be_composed_in_another_way(make):
    folder = make("cellule e\u0301/a.png", "ig/a.png")
    for classes in (None, ["ig", "cellule \u00e9"], ["ig", "cellule e\u0301"]):
        assert set(names(folder, classes)) == {"cellule \u00e9", "ig"}


def test_two_folders_of_one_name_are_refused(make):
    folder = make("cellule \u00e9/a.png", "cellule e\u0301/b.png", "ig/a.png")
    for classes in (None, ["cellule \u00e9", "ig"]):
        with pytest.raises(InputError) as refusal:
            names(folder, classes)
        assert r"'cellule e\u0301'" in str(refusal.value)
        assert r"'cellule \xe9'" in str(refusal.value)


def test_one_name_twice_in_the_config_is_refused(make):
    folder = make("\u00e9/a.png", "ig/a.png")
    with pytest.raises(InputError, match=r"dataset.classes: found one name twice.*'e\\u0301'"):
        names(folder, ["\u00e9", "e\u0301", "ig"])


@pytest.mark.parametrize(
    "twin", ["basophil", "Band_Cell ", "band-cell", "BAND CELL", "Basophi\uff4c"]
)
def test_names_that_are_nearly_the_same_are_told(make, caplog, twin):
    folder = make("Basophil/a.png", "Band cell/a.png", f"{twin}/a.png")
    with caplog.at_level(logging.INFO, "hemagrid"):
        assert len(names(folder)) == 3
    assert "differ only in case or punctuation" in caplog.text and repr(twin) in caplog.text


def test_names_of_symbols_are_not_taken_for_one(make, caplog):
    with caplog.at_level(logging.INFO, "hemagrid"):
        assert len(names(make("+/a", "-/a", "++/a"))) == 3
    assert not caplog.text


@pytest.mark.parametrize(
    "splits",
    [
        ("train", "test"),
        ("Train", "TestA", "TestB"),
        ("TRAIN", "TEST", "TEST_SIMPLE"),
        ("training", "validation", "testing"),
        ("train_set", "val_set"),
        ("trainset", "testset"),
        ("training_data", "test_data"),
        ("valid", "holdout"),
        ("train1", "test2"),
        ("dev", "eval"),
        ("fold1", "fold2", "fold3"),
        ("images", "masks"),
        ("batch_1", "batch_2"),
        ("1_train", "2_test"),
        ("cells-training", "cells-validation"),
    ],
)
def test_splits_are_not_classes(make, splits):
    folder = make(*(f"{split}/{name}/a.png" for split in splits for name in ("ig", "blast")))
    for classes in (None, ["blast", "ig"]):
        with pytest.raises(InputError, match="which are parts of a data set") as refusal:
            names(folder, classes)
        assert f"such as {folder / sorted(splits)[0]}" in str(refusal.value)


def test_splits_without_class_folders_are_refused_too(make):
    with pytest.raises(
        InputError, match="found the folders test, train, which are parts of a data set"
    ):
        names(make("train/a.png", "test/b.png"))


def test_splits_are_found_beside_other_folders_and_lacking_a_class(make):
    folder = make("train/ig/a.png", "train/blast/a.png", "test/ig/b.png", "docs/a.txt")
    with pytest.raises(InputError, match="which are parts of a data set"):
        names(folder)


@pytest.mark.parametrize("test", ["test/a.png", "test/unlabelled/a.png"])
def test_splits_are_found_though_one_has_no_classes(make, test):
    with pytest.raises(InputError, match="found the folders test, train, which are parts"):
        names(make("train/ig/a.png", "train/blast/a.png", test))


def test_folders_in_every_class_that_may_be_the_classes_are_told(make, caplog):
    with caplog.at_level(logging.INFO, "hemagrid"):
        folder = make("ig/slide 1/a.png", "ig/slide 2/a.png", "blast/slide 1/a.png")
        names(folder)
        assert not caplog.messages
        shutil.rmtree(folder)
        names(make(*(f"{part}/{name}/a.png" for part in ("40X", "100X") for name in "ab")))
    (told,) = caplog.messages
    assert "each holds the folders a, b; if these are the classes, merge them" in told


@pytest.mark.parametrize(
    "classes",
    [
        ("skin test", "patch test"),
        ("testis", "trainee"),
        ("valve", "value"),
        ("developing", "evaluated"),
        ("train", "ig"),
        ("tests", "blast"),
        ("masked", "setting", "partial"),
    ],
)
def test_classes_are_not_taken_for_splits(make, classes):
    assert names(make(*(f"{name}/a.png" for name in classes))) == sorted(classes)


def test_classes_called_like_splits_are_taken_when_the_config_names_them(make):
    folder = make("train/a.png", "test/b.png")
    assert names(folder, ["train", "test"]) == ["train", "test"]


@pytest.mark.parametrize("wrapper", ["PBC", "a/b/c"])
def test_a_path_too_high_is_answered_with_the_right_one(make, wrapper):
    folder = make(f"{wrapper}/ig/a.png", f"{wrapper}/blast/a.png", "README", "__MACOSX/x/a.png")
    for classes in (None, ["ig", "blast"]):
        with pytest.raises(InputError, match="set dataset.path to") as refusal:
            names(folder, classes)
        assert str(refusal.value).endswith(str(folder / wrapper))


def test_a_path_too_deep_is_answered(make):
    with pytest.raises(InputError, match="2 files, .*set dataset.path to the folder above"):
        names(make("a.png", "b.png", ".DS_Store"))


def test_a_single_class_is_refused(make):
    with pytest.raises(InputError, match="found one folder, ig, expected two classes or more"):
        names(make("ig/a.png", "ig/slide 1/b.png"))


def test_a_folder_that_is_missing_or_unexpected_is_named(make, tmp_path):
    with pytest.raises(InputError, match="no such folder"):
        names(tmp_path / "gone")
    folder = make("blast/a.png", "ig/a.png")
    assert names(folder, ["ig", "blast"]) == ["ig", "blast"]
    with pytest.raises(InputError, match="found the folders blast, ig.*Missing: baso;"):
        names(folder, ["blast", "ig", "baso"])
    with pytest.raises(InputError, match="unexpected: ig"):
        names(folder, ["blast"])


def test_litter_is_passed_over_at_every_level(make):
    litter = [
        *("Thumbs.db", "desktop.ini", ".DS_Store", "._a.png", "~$notes.docx", "Desktop.ini"),
        *("@eaDir/a.png/thumb.jpg", "__MACOSX/a.png", ".ipynb_checkpoints/a.png"),
        *("$RECYCLE.BIN/a.png", "lost+found/a.png", "#recycle/a.png", "__pycache__/a.pyc"),
        "System Volume Information/a.png",
    ]
    kept = ["ig/a.png", "ig/slide 1/b.png"]
    folder = make(
        *kept, "blast/a.png", *(f"{p}{x}" for p in ("", "ig/", "ig/s/") for x in litter)
    )
    found = folders.class_folders(folder, None)
    assert list(found) == ["blast", "ig"]
    paths = [path.relative_to(folder).as_posix() for path in folders.files(found["ig"])]
    assert paths == kept


def test_linked_folders_are_listed_and_not_entered(make):
    folder = make("ig/a.png", "blast/a.png")
    os.symlink(folder / "blast", folder / "ig" / "more")
    os.symlink(folder / "ig", folder / "ig" / "round")
    os.symlink(folder / "ig", folder / "linked")
    found = folders.class_folders(folder, None)
    assert [path.name for path in folders.files(found["ig"])] == ["a.png", "more", "round"]
    assert [path.name for path in folders.files(found["linked"])] == ["a.png", "more", "round"]


def test_masks_beside_pictures_are_told_from_pictures(make):
    folder = make(
        *("ig/a.png", "ig/a_mask.png", "ig/b.jpg", "ig/b-segmentation.png", "ig/b_GT.png"),
        *("ig/images/c.png", "ig/masks/c.png", "ig/Mask/sub/d.png", "ig/lonely_mask.png"),
        *("ig/masked cell.png", "ig/c_annotation.png"),
    )
    found = folders.masks(folders.files(folder / "ig"), folder / "ig")
    reasons = {path.relative_to(folder / "ig").as_posix(): why for path, why in found.items()}
    assert reasons == {
        "a_mask.png": "mask: of a",
        "b-segmentation.png": "mask: of b",
        "b_GT.png": "mask: of b",
        "masks/c.png": "mask: in a folder of masks",
        "Mask/sub/d.png": "mask: in a folder of masks",
    }


def test_a_folder_that_cannot_be_listed_is_refused(make, monkeypatch):
    folder = make("ig/slide 1/a.png", "ig/slide 2/b.png")
    scandir = os.scandir

    def forbidding(path):
        if str(path).endswith("slide 2"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", forbidding)
    with pytest.raises(InputError, match="slide 2: cannot be listed .Permission denied"):
        folders.files(folder / "ig")
