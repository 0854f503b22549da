import csv
import os
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hemagrid.cli import predict
from hemagrid.models import cnns
from hemagrid.training.predictions import write_predictions

PROGRAM = Path(__file__).parents[3] / "scripts" / "predict.py"
CLASSES = ["basophil", "ig, immature", "platelet"]
SIZE = 16
RUN = "tiny_cnn"
CNN = {"filters": [4], "batch_norm": False, "dropout": 0, "dense": 8, "dense_dropout": 0}


@pytest.fixture
def study(tmp_path):
    """A study with one run, untrained, and a folder of pictures."""
    results = tmp_path / "study" / "results" / RUN
    results.mkdir(parents=True)
    cnns.build_cnn(CNN, SIZE, len(CLASSES)).save(results / "model.keras")
    subsets = {"test": (np.zeros(1), np.eye(3)[:1], np.zeros(1))}
    write_predictions(results / "predictions.npz", CLASSES, subsets)
    return tmp_path / "study"


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


def test_the_program(study, draw, tmp_path):
    (tmp_path / "slides" / "a").mkdir(parents=True)
    for name, image in zip(("a/1.png", "b.png"), draw([0, 1], SIZE), strict=True):
        Image.fromarray(image).save(tmp_path / "slides" / name)
    (tmp_path / "slides" / "broken.png").write_bytes(b"\x89PNG")

    def call(*arguments):
        environment = {key: os.environ[key] for key in os.environ if key != "KERAS_HOME"}
        return subprocess.run(
            [sys.executable, PROGRAM, *map(str, arguments)],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )

    done = call(RUN, "slides", "--directory", study, "--csv")
    assert done.returncode == 1
    assert "slides/broken.png: not a picture that Pillow knows" in done.stderr
    rows = list(csv.reader(done.stdout.splitlines()))
    assert [row[0] for row in rows[1:]] == [f"slides/{name}" for name in ("a/1.png", "b.png")]
    for row in rows[1:]:
        shares = np.array(row[2:], float)
        assert row[1] == CLASSES[shares.argmax()] and abs(shares.sum() - 1) < 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slides", "study"]

    # As `| head -1`, which reads one line and leaves.
    piped = subprocess.Popen(
        [sys.executable, PROGRAM, RUN, "slides", "--directory", study, "--csv"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    piped.stdout.close()
    assert "Traceback" not in piped.stderr.read()
    piped.wait()

    refused = call("vgg16_cfg1", "slides", "--directory", study)
    assert refused.returncode == 1 and refused.stdout == ""
    assert refused.stderr.startswith("Error: ") and RUN in refused.stderr
    assert "Traceback" not in refused.stderr
