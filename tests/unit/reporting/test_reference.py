import pandas as pd
import pytest

from hemagrid.reporting.reference import CLASSES, KEPT, part, published, settings

APPLICATIONS = {
    "mobilenetv3": "MobileNetV3Large",
    "vgg16": "VGG16",
    "efficientnetv2m": "EfficientNetV2M",
    "convnext": "ConvNeXtBase",
}


def numbers(shown=True, source="npz", applications=APPLICATIONS, audit=None):
    return published({"shown": shown, "source": source, "applications": applications}, audit)


def an_audit(classes=CLASSES, kept=KEPT):
    return {"classes": [{"class": name} for name in classes], "counts": {"kept": kept}}


def test_the_published_numbers():
    table = numbers().set_index("run")
    row = table.loc["efficientnetv2m_cfg3"]
    assert list(row[["test", "test_augmented", "codabench"]]) == [98.4, 80.1, 92]
    assert list(table.loc["baseline_cnn", ["test", "test_augmented"]]) == [57.9, 30.9]
    tuned = part(numbers(), "tuned", "run").set_index("run")
    assert list(tuned.index) == [
        "efficientnetv2m_tuned",
        "convnext_tuned",
        "convnext_tuned_adamw",
    ]
    assert tuned.loc["efficientnetv2m_tuned", "published_dense"] == "384, 128"
    assert tuned.loc["convnext_tuned", "published_val_pct"] == 89.6
    assert tuned.loc["convnext_tuned", "published_codabench"] == 90
    assert (
        tuned.loc["convnext_tuned_adamw", ["published_dense", "published_val_pct"]].isna().all()
    )
    heads = part(numbers(), "configurations", "head").set_index("head")
    assert list(heads.index) == ["cfg1", "cfg2", "cfg3"]
    assert list(heads["published_dense"]) == ["none", "512", "512, 256"]
    assert list(heads["published_dropout"]) == ["0.3", "0.3", "0.3, 0.3"]
    assert set(heads["published_learning_rate"]) == {1e-3}
    assert pd.isna(heads.loc["cfg1", "published_batch_norm"])


@pytest.mark.parametrize(
    ("shown", "source", "audit", "expected"),
    [
        (None, "bloodmnist", an_audit(), True),
        (None, "npz", an_audit(), True),
        (None, "npz", an_audit(kept=KEPT + 1), True),
        (None, "npz", an_audit(kept=KEPT - 100), False),
        (None, "npz", an_audit(classes=CLASSES[:7]), False),
        (None, "npz", an_audit(classes=CLASSES[::-1]), False),
        (None, "folder", an_audit(), False),
        (None, "smears", an_audit(), False),
        (True, "folder", an_audit(["normal", "blast"], 203), True),
        (False, "bloodmnist", an_audit(), False),
    ],
)
def test_they_stand_beside_their_own_images_alone(shown, source, audit, expected):
    assert (numbers(shown, source, audit=audit) is not None) == expected


def test_a_backbone_is_known_by_its_application():
    table = numbers(applications={"convnext": "VGG16", "mine": "ConvNeXtBase"})
    runs = dict(zip(table["run"], table["test"], strict=True))
    assert (runs["convnext_cfg1"], runs["mine_cfg1"]) == (96.4, 98.1)
    assert not {"convnext_tuned", "vgg16_cfg1", "mobilenetv3_cfg3"} & set(runs)
    # A model that this study does not have keeps its row, without a name for a run.
    assert table.loc[table["model"] == "MobileNetV3", "run"].isna().all()
    twice = numbers(applications={"one": "VGG16", "two": "VGG16"})
    assert {"one_cfg1", "two_cfg1"} <= set(twice["run"])


def test_the_settings_are_those_of_the_backbones_of_the_study():
    entries = {name: {"application": name.upper(), "batch_size": 32} for name in "abc"}
    config = {"published": None, "dataset": {"source": "npz", "path": "x"}}
    config |= {
        "backbones": entries,
        "grid": {"backbones": ["b"]},
        "tuning": {"backbones": ["c"]},
    }
    expected = {"shown": None, "source": "npz", "applications": {"b": "B", "c": "C"}}
    assert settings(config) == expected
