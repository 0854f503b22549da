"""New pictures are read as training pictures were; what cannot be read stops nothing."""

import csv
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from hemagrid.cli import predict
from hemagrid.errors import InputError
from hemagrid.evaluation import inference
from hemagrid.models import cnns
from hemagrid.training import embeddings
from hemagrid.training.predictions import write_predictions

PROGRAM = Path(__file__).parents[3] / "scripts" / "predict.py"
CLASSES = ["basophil", "ig, immature", "platelet"]
SIZE = 16
RUN = "tiny_cnn"
CNN = {"filters": [4], "batch_norm": False, "dropout": 0, "dense": 8, "dense_dropout": 0}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A study with one trained run, and its network."""
    folder = tmp_path_factory.mktemp("study")
    keras.utils.set_random_seed(3)
    network = cnns.build_cnn(CNN, SIZE, len(CLASSES))
    network.get_layer("probabilities").kernel.assign(
        np.random.default_rng(3).normal(size=(8, 3)) / 20
    )
    results = folder / "results" / RUN
    results.mkdir(parents=True)
    network.save(results / "model.keras")
    subsets = {"test": (np.zeros(1), np.eye(3)[:1], np.zeros(1))}
    write_predictions(results / "predictions.npz", CLASSES, subsets)
    return folder, network


@pytest.fixture
def pictures(tmp_path, draw):
    """A folder of pictures of the run's size and of others, files between them."""
    folder = tmp_path / "slides"
    (folder / "a" / "deep").mkdir(parents=True)
    images = draw(range(3), SIZE)
    for name, image in zip(("b.png", "a/1.png", "a/deep/2.png"), images, strict=True):
        Image.fromarray(image).save(folder / name)
    Image.fromarray(draw([1], 40)[0]).convert("L").save(folder / "c.jpg")
    (folder / ".hidden.png").write_bytes((folder / "b.png").read_bytes())
    (folder / ".cache").mkdir()
    (folder / ".cache" / "b.png").write_bytes((folder / "b.png").read_bytes())
    return folder


def classified(study, paths):
    refused = {}
    found = inference.classify(study[0] / "results" / RUN, paths, refused.__setitem__)
    return dict(found), refused


def test_folders_are_searched_in_order_without_hidden_files(pictures, tmp_path):
    names = ["a/1.png", "a/deep/2.png", "b.png", "c.jpg"]
    expected = [pictures / name for name in names]
    assert inference.find_pictures([pictures]) == expected
    given = [pictures / "c.jpg", pictures / "a"]
    assert inference.find_pictures(given) == [expected[3], *expected[:2]]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty: found no files"):
        inference.find_pictures([tmp_path / "empty"])


def test_probabilities_are_those_of_the_network(study, pictures, draw):
    found, refused = classified(study, inference.find_pictures([pictures]))
    assert not refused
    expected = embeddings.predict(study[1], draw(range(3), SIZE))
    for name, probabilities in zip(("b.png", "a/1.png", "a/deep/2.png"), expected, strict=True):
        np.testing.assert_allclose(found[str(pictures / name)], probabilities, rtol=1e-5)
    assert len(found) == 4 and found[str(pictures / "c.jpg")].shape == (3,)


def test_bad_pictures_are_refused_and_the_others_go_on(study, pictures, monkeypatch):
    (pictures / "a" / "2.png").write_bytes((pictures / "b.png").read_bytes()[:-60])
    (pictures / "notes.txt").write_text("no picture")
    (pictures / os.fsdecode(b"caf\xe9\n.png")).touch()
    paths = [*inference.find_pictures([pictures]), pictures / "gone.png"]
    monkeypatch.setattr(features, "BATCH", 3)
    found, refused = classified(study, paths)
    assert refused.pop(str(pictures / "a" / "2.png")).startswith("unreadable")
    assert "Pillow" in refused.pop(str(pictures / "notes.txt"))
    assert "Pillow" in refused.pop(f"{pictures}/caf\\udce9\\n.png")
    assert "broken link" in refused.pop(str(pictures / "gone.png"))
    assert not refused
    names = ["a/1.png", "a/deep/2.png", "b.png", "c.jpg"]
    assert list(found) == [str(pictures / name) for name in names]
    whole, _ = classified(study, [pictures / name for name in names])
    for name in found:
        np.testing.assert_allclose(found[name], whole[name], rtol=1e-5)


def test_no_more_than_a_batch_is_read_at_once(study, pictures, monkeypatch):
    read, predict = [], embeddings.predict
    monkeypatch.setattr(features, "BATCH", 2)
    monkeypatch.setattr(
        features,
        "predict",
        lambda model, x, size: read.append(len(x)) or predict(model, x, size),
    )
    folder = study[0] / "results" / RUN
    results = inference.classify(folder, [pictures / "b.png"] * 5, None)
    next(results)
    assert read == [2]
    assert len(list(results)) == 4 and read == [2, 2, 1]


def test_a_run_that_is_not_there_is_told_with_those_that_are(study, tmp_path):
    folder = study[0]
    assert inference.find_run(RUN, folder) == folder / "results" / RUN
    with pytest.raises(InputError, match="vgg16_cfg1: found no model.keras.*: tiny_cnn. Name"):
        inference.find_run("vgg16_cfg1", folder)
    with pytest.raises(InputError, match="trained in this study: none"):
        inference.find_run(RUN, tmp_path)


def test_a_model_that_does_not_load_is_told(tmp_path):
    (tmp_path / "model.keras").write_bytes(b"not a zip")
    with pytest.raises(InputError, match="model.keras: Keras .* cannot load it"):
        list(inference.classify(tmp_path, [tmp_path / "a.png"], None))


RESULTS = [
    ("a, b.png", np.float32([0.25, 0.70, 0.05])),
    ("folder/" * 20 + "cell.png", np.float32([0.0, 0.0, 1.0])),
]


def test_the_csv_has_every_class():
    stream = StringIO()
    predict.write_csv(CLASSES, iter(RESULTS), stream)
    rows = list(csv.reader(stream.getvalue().splitlines()))
    assert rows[0] == ["file", "class", *CLASSES]
    assert rows[1] == ["a, b.png", "ig, immature", "0.250000", "0.700000", "0.050000"]
    assert rows[2][:2] == [RESULTS[1][0], "platelet"]


def test_the_table_shows_the_class_and_the_next_within_its_width():
    stream = StringIO()
    predict.write_table(CLASSES, iter(RESULTS), stream)
    header, first, second = stream.getvalue().splitlines()
    assert header.split() == ["file", "class", "probability", "next", "its", "probability"]
    assert first.startswith("a, b.png ") and first.split()[2:] == [
        *("ig,", "immature", "70.0", "%", "basophil", "25.0", "%")
    ]
    assert second.startswith("\N{HORIZONTAL ELLIPSIS}") and "/cell.png  " in second
    assert len(header) == len(first) == len(second) == predict.WIDTH


def test_the_program(study, pictures, tmp_path):
    (pictures / "broken.png").write_bytes(b"\x89PNG")

    def call(*arguments):
        environment = {key: os.environ[key] for key in os.environ if key != "KERAS_HOME"}
        return subprocess.run(
            [sys.executable, PROGRAM, *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )

    done = call(RUN, "slides", "--directory", study[0], "--csv")
    assert done.returncode == 1
    assert "slides/broken.png: not a picture that Pillow knows" in done.stderr
    rows = list(csv.reader(done.stdout.splitlines()))
    assert [row[0] for row in rows[1:]] == [
        f"slides/{name}" for name in ("a/1.png", "a/deep/2.png", "b.png", "c.jpg")
    ]
    for row in rows[1:]:
        shares = np.array(row[2:], float)
        assert row[1] == CLASSES[shares.argmax()] and abs(shares.sum() - 1) < 1e-5
    assert [path.name for path in tmp_path.iterdir()] == ["slides"]

    # As `| head -1`, which reads one line and leaves.
    piped = subprocess.Popen(
        [sys.executable, PROGRAM, RUN, "slides", "--directory", study[0], "--csv"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    piped.stdout.close()
    assert "Traceback" not in piped.stderr.read()
    piped.wait()

    refused = call("vgg16_cfg1", "slides", "--directory", study[0])
    assert refused.returncode == 1 and refused.stdout == ""
    assert refused.stderr.startswith("Error: ") and RUN in refused.stderr
    assert "Traceback" not in refused.stderr
