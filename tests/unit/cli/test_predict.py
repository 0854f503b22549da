"""What `hemagrid predict` prints."""

import csv
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from answers import write_answers
from PIL import Image

from hemagrid.cli import predict
from hemagrid.models import cnns

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
    subsets = {"val": (np.zeros(1), np.eye(3)[:1], np.zeros(1))}
    write_answers(results / "predictions", CLASSES, subsets)
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


def test_the_command(hemagrid, study, draw, tmp_path):
    (tmp_path / "slides" / "a").mkdir(parents=True)
    images = draw([0, 1, 2], SIZE)
    for name, image in zip(("a/1.png", "b.png"), images[:2], strict=True):
        Image.fromarray(image).save(tmp_path / "slides" / name)
    Image.fromarray(np.zeros((8, 99), "uint8")).save(tmp_path / "slides" / "grey.png")
    (tmp_path / "slides" / "broken.png").write_bytes(b"\x89PNG")
    dataset = study / "results" / "dataset"
    dataset.mkdir()
    np.save(dataset / "images.npy", images)
    table = pd.DataFrame({"source": ["1.png", "2.png", "3.png"], "changes": "", "skipped": ""})
    table.to_csv(dataset / "samples.csv")
    done = hemagrid("predict", RUN, "slides", "--directory", study, "--csv")
    assert done.status == 1
    broken, header, *unlike = done.error.splitlines()  # and no word of the framework's
    assert broken == "slides/broken.png: not a picture that Pillow knows"
    assert header.startswith("Unlike the pictures of the study: 1. ")
    for difference in (
        "to RGB, as none of theirs was",
        "padded, as ",
        "brightest value outside",
    ):
        assert any(line.startswith(f"  {difference}") for line in unlike), unlike
    assert all(line.endswith(": slides/grey.png") for line in unlike)
    rows = list(csv.reader(done.out.splitlines()))
    files = [f"slides/{name}" for name in ("a/1.png", "b.png", "grey.png")]
    assert [row[0] for row in rows[1:]] == files
    for row in rows[1:]:
        shares = np.array(row[2:], float)
        assert row[1] == CLASSES[shares.argmax()] and abs(shares.sum() - 1) < 1e-5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slides", "study"]


def test_a_wrong_run_is_told_with_the_right_ones(hemagrid, study):
    refused = hemagrid("predict", "tiny_cn", "slides", "--directory", study)
    assert refused.status == 1 and refused.out == ""
    assert refused.error.startswith("Error: ") and f"did you mean {RUN}?" in refused.error
    refused = hemagrid("predict", RUN, "slides", "--directory", "nowhere")
    assert refused.error == "Error: nowhere: found no such folder, expected that of a study\n"


def test_pictures_that_are_not_there_are_named(hemagrid, study):
    refused = hemagrid("predict", RUN, "no.png", "--directory", study)
    assert (refused.status, refused.error) == (1, "no.png: not found\n")
