"""What bad input gets: each answer of the design's table, as its user sees it.

The library's own tests hold every variant (test_sources, test_config, test_backbones);
here each row is met once, mostly through snakemake.
"""

import json
import re
import resource
import zipfile
from io import BytesIO

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from hemagrid.data.readers import from_npz
from hemagrid.errors import InputError

CLASSES = ["alpha", "beta"]
SAMPLES = "results/dataset/samples.csv"
SPLITS = "results/dataset/splits.csv"
AUDIT = "results/dataset/audit.json"


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "study"


@pytest.fixture
def run(tmp_path, folder, snakemake, in_folder):
    """A function that runs targets of a study with the given config in `folder`."""
    folder.mkdir()

    def run(*targets, config, **variables):
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump(config))
        return snakemake(folder, *in_folder(folder, file), "-c2", *targets, **variables)

    return run


def refused(result, *texts):
    """Assert that a run failed with these texts and without a traceback."""
    assert result.returncode != 0
    for text in texts:
        assert text in result.said, result.said
    assert "Traceback" not in result.said, result.said


def dataset(source, path, classes=CLASSES, **settings):
    return {
        "dataset": {
            "source": source,
            "path": str(path),
            "classes": list(classes),
            "image_size": 32,
            **settings,
        }
    }


def pictures(count, seed=0):
    """Pictures of which no two are near duplicates, uint8 (count, 32, 32, 3)."""
    noise = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 3), "uint8")
    return noise.repeat(8, axis=1).repeat(8, axis=2)


@pytest.fixture
def class_folders(tmp_path):
    """A folder with five pictures of each of two classes."""

    def save(classes=CLASSES, count=5):
        root = tmp_path / "images"
        for number, name in enumerate(classes):
            (root / name).mkdir(parents=True)
            for index, pixels in enumerate(pictures(count, seed=number)):
                Image.fromarray(pixels).save(root / name / f"{index}.png")
        return root

    return save


# Unknown or misspelt key, wrong type, out of range.


def test_a_bad_config_is_refused_before_anything_is_planned(run, folder):
    result = run(
        config={
            "dataset": {"image_sise": 96},
            "training": {"finetune_all": {"epochs": "ten"}},
            "splits": {"train": 1.6},
        }
    )
    refused(
        result,
        "dataset.image_sise: found an unknown key",
        "did you mean image_size?",
        "training.finetune_all.epochs: found the text 'ten', expected a whole number",
        "splits.train: found 1.6, expected a finite number above 0 and below 1",
    )
    assert "Building DAG" not in result.said
    assert not (folder / "results").exists()


def test_a_wrong_run_name_is_told_before_anything_is_planned(run):
    result = run("results/convnxt_cfg1/metrics.json", "-n", config={})
    refused(
        result, "found no run named convnxt_cfg1, expected one of baseline_cnn, regularized"
    )
    assert "did you mean convnext_cfg1?" in result.said
    assert "Building DAG" not in result.said


# A bad npz.


def npz(path, images, labels):
    np.savez_compressed(path, images=images, labels=labels)
    return path


def test_a_damaged_npz_is_refused(tmp_path, folder, run):
    path = npz(tmp_path / "set.npz", pictures(10), np.arange(10) % 2)
    with zipfile.ZipFile(path) as archive:
        inside = archive.getinfo("images.npy").header_offset + 200
    content = bytearray(path.read_bytes())
    content[inside] ^= 0xFF
    path.write_bytes(content)
    result = run(SAMPLES, config=dataset("npz", path))
    refused(result, f"Error: {path}: not an npz, or a damaged one")
    assert not [*folder.glob("results/dataset/*")]


def test_pickled_objects_are_never_loaded(tmp_path, folder, run):
    class Trap:
        def __reduce__(self):
            return (exit, (0,))

    labels = np.array([Trap(), 1, 0], dtype=object)
    path = npz(tmp_path / "set.npz", pictures(3), labels)
    result = run(SAMPLES, config=dataset("npz", path))
    refused(result, f"Error: {path}: 'labels' holds pickled objects", "never loaded")
    assert not [*folder.glob("results/dataset/*")]


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_an_npz_damaged_anywhere_is_read_or_refused(tmp_path, save):
    whole = BytesIO()
    save(whole, images=np.zeros((4, 8, 8, 3), "uint8"), labels=np.arange(4) % 2)
    path, out = tmp_path / "set.npz", (tmp_path / "images.npy", tmp_path / "samples.csv")
    refusals = 0
    for at in range(len(whole.getvalue())):
        content = bytearray(whole.getvalue())
        content[at] ^= 0xFF
        path.write_bytes(content)
        try:
            from_npz(path, *out, classes=CLASSES, image_size=8)
        except InputError as error:
            assert str(error).startswith(f"{path}: ")
            refusals += 1
    assert refusals > 200


def test_a_missing_npz_is_named(tmp_path, run):
    path = tmp_path / "nowhere.npz"
    refused(
        run(SAMPLES, config=dataset("npz", path)), "dataset.path: found nothing at", str(path)
    )


# Files in class folders that give no picture.


def test_unusable_files_are_listed_and_the_others_converted(class_folders, folder, run):
    root = class_folders()
    whole = (root / "alpha" / "0.png").read_bytes()
    (root / "alpha" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "alpha" / "notes.txt").write_text("Stained on Tuesday.\n")
    (root / "beta" / ".DS_Store").write_bytes(b"\0\0\0\1Bud1")
    bomb = BytesIO()
    Image.new("1", (10_000, 10_000)).save(bomb, "PNG")
    (root / "beta" / "bomb.png").write_bytes(bomb.getvalue())
    grey = Image.new("L", (200, 100), 128)
    grey.paste(255, (100, 0, 200, 100))
    grey.save(root / "beta" / "grey.jpg")

    result = run(SAMPLES, config=dataset("folder", root))
    assert result.returncode == 0, result.said
    samples = pd.read_csv(folder / SAMPLES, keep_default_na=False)
    skipped = samples[samples["skipped"] != ""].set_index("source")["skipped"]
    assert set(skipped.index) == {
        "alpha/cut.png",
        "alpha/notes.txt",
        "beta/bomb.png",
    }
    assert skipped["alpha/cut.png"].startswith("unreadable")
    assert skipped["alpha/notes.txt"] == "not a picture that Pillow knows"
    assert "larger than" in skipped["beta/bomb.png"]
    assert "beta/grey.jpg" in set(samples["source"]) - set(skipped.index)
    assert np.load(folder / "results/dataset/images.npy").shape == (11, 32, 32, 3)


def test_strict_refuses_them(class_folders, folder, run):
    root = class_folders()
    (root / "alpha" / "notes.txt").write_text("Stained on Tuesday.\n")
    Image.new("RGB", (40, 40)).save(root / "beta" / "large.png")
    result = run(SAMPLES, config=dataset("folder", root, strict=True))
    refused(
        result,
        f"Error: {root}: 2 files are refused",
        "alpha/notes.txt: not a picture",
        "beta/large.png: 40x40 in mode RGB, expected 32x32",
    )
    assert not (folder / "results/dataset/images.npy").exists()


# A class too small, a picture under two labels.


def test_a_class_too_small_to_split_is_named_with_its_count(class_folders, folder, run):
    root = class_folders()
    for index in range(2, 5):
        (root / "beta" / f"{index}.png").unlink()
    result = run(SPLITS, config=dataset("folder", root))
    refused(result, "Error: class 'beta': found 2 images", "train, val, test")
    assert not (folder / SPLITS).exists()


def test_a_picture_under_two_labels_is_a_conflict(class_folders, folder, run):
    """Dropped here; kept once in test_study, as published."""
    root = class_folders()
    (root / "beta" / "again.png").write_bytes((root / "alpha" / "0.png").read_bytes())
    result = run(AUDIT, config=dataset("folder", root, label_conflicts="drop"))
    assert result.returncode == 0, result.said
    audit = json.loads((folder / AUDIT).read_text())
    assert audit["counts"]["kept"] == 9
    (conflict,) = audit["label_conflicts"]["examples"]
    assert conflict["sources"] == ["alpha/0.png", "beta/again.png"]
    assert conflict["outcome"] == "all dropped"


# Weights.


@pytest.fixture
def offline():
    """Variables under which every address is refused at once."""
    dead = "http://127.0.0.1:9"
    return {"http_proxy": dead, "https_proxy": dead, "HTTPS_PROXY": dead}


def test_weights_that_cannot_be_fetched_say_which_file_goes_where(folder, run, offline):
    target = "resources/weights/mobilenetv3.weights.h5"
    result = run(target, config={}, **offline)
    refused(
        result,
        "Error: ImageNet weights of MobileNetV3Large",
        str(folder / "resources" / "keras" / "models"),
        "weights: random",
    )
    file = r"weights_mobilenet_v3_large_224_1\.0_float_no_top_v2\.h5"
    assert re.search(file, result.said), result.said
    assert not (folder / target).exists()


def test_weights_of_the_users_that_are_not_there_are_refused_before_any_job(folder, run):
    config = {"backbones": {"vgg16": {"weights": "mine/vgg.weights.h5"}}}
    result = run(config=config)
    refused(
        result,
        f"backbones.vgg16.weights: found nothing at {folder / 'mine' / 'vgg.weights.h5'}",
        "keras.applications.VGG16",
        "imagenet",
    )
    config = {"backbones": {"mine": {"module": "own.py", "weights": "own"}}}
    config["grid"] = {"backbones": ["mine"]}
    (folder / "own.py").write_text("def build(size):\n  return (")
    refused(run(config=config), "backbones.mine.module: own.py, line 2: found '(' was never")
    assert not any(folder.glob("logs/*"))


def test_a_download_that_fails_says_which_file_goes_where(folder, run, offline):
    archive = "resources/bloodmnist/bloodmnist_128.npz"
    result = run(archive, config={}, **offline)
    refused(result, "Error: ", "bloodmnist_128.npz", "zenodo.org")
    assert not (folder / archive).exists()


# A class name that holds markup.


def test_markup_in_a_class_name_is_text_in_the_report(class_folders, folder, run):
    name = "<img src=x onerror=alert(1)>"
    root = class_folders([name, "b&b"])
    config = dataset("folder", root, classes=[name, "b&b"]) | {
        "grid": {"cnns": ["baseline_cnn"], "backbones": [], "heads": []},
        "cnns": {"baseline_cnn": {"filters": [2], "dense": 4, "epochs": 1}},
        "augmentation": {
            subset: {
                "copies": 1,
                "randaugment": {"n": 1, "m": 0.1},
                "augmix": {"k": 1, "m": 0.1},
            }
            for subset in ("train", "val", "test_augmented")
        },
        "evaluation": {"bootstrap": 100},
    }
    result = run(config=config)
    assert result.returncode == 0, result.said
    page = (folder / "results" / "report.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(1)&gt;" in page
    assert "b&amp;b" in page
    figures = [*folder.glob("results/**/*.svg")]
    assert figures
    assert not [file for file in figures if "<img" in file.read_text()]


# Disk full, killed in mid-write: test_study kills a job in the middle of a file.


def test_a_full_disk_leaves_nothing_and_the_next_run_makes_it(tmp_path, folder, run):
    """A limit on the size of files stands for the disk: the write fails in the middle."""
    path = npz(tmp_path / "set.npz", pictures(100), np.arange(100) % 2)
    config = dataset("npz", path)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        result = run(SAMPLES, config=config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    refused(result, "File too large")
    assert not [*folder.glob("results/dataset/*")]
    assert not [*folder.glob("results/dataset/.*")]
    assert run(SAMPLES, config=config).returncode == 0
