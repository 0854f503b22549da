"""The holdout holds nothing that the study has, and no picture twice."""

import numpy as np
import pandas as pd
import pytest

from hemagrid import io
from hemagrid.data.duplicates import fingerprint
from hemagrid.data.holdout import write_holdout

SETTINGS = {
    "duplicates": "pixels",
    "duplicate_difference": 0.06,
    "near_duplicate_difference": 0.15,
    "near_duplicate_distance": 4,
}


@pytest.fixture
def pictures():
    """Twelve smooth pictures, uint8 (12, 48, 48, 3)."""
    coarse = np.random.default_rng(0).integers(40, 216, (12, 6, 6, 3))
    return coarse.repeat(8, axis=1).repeat(8, axis=2).astype("uint8")


def test_pictures_of_the_study_and_copies_are_left_out(pictures, tmp_path, caplog):
    slightly = pictures[1].copy()
    slightly[:4, :4] += 6
    study = pictures[:6]
    holdout = np.stack(
        [
            pictures[0],  # of the study
            pictures[6],
            slightly,  # nearly of the study
            pictures[2][:, ::-1],  # of the study, mirrored
            pictures[7],
            pictures[6],  # a copy within the holdout
            pictures[7][::-1],  # a near duplicate within the holdout
            pictures[8],
        ]
    )
    table = pd.DataFrame({"id": range(8), "label": [0, 1] * 4, "class_name": "NA"})
    table["source"] = [f"test_images[{row}]" for row in range(8)]
    table = table.assign(sha256="", parent_id=table["id"], copy=0, policy="original")
    np.save(tmp_path / "found.npy", holdout)
    io.write_table(tmp_path / "found.csv", table)
    found = {"images": tmp_path / "found.npy", "table": tmp_path / "found.csv"}
    out = {key: tmp_path / key for key in ("images.npy", "table", "duplicates")}
    out["images"] = out.pop("images.npy")
    with caplog.at_level("INFO", "hemagrid"):
        write_holdout(found, fingerprint(study), SETTINGS, out)

    kept = io.read_table(out["table"])
    rows = [1, 4, 6, 7]
    np.testing.assert_array_equal(io.open_images(out["images"]), holdout[rows])
    assert kept["source"].tolist() == [f"test_images[{row}]" for row in rows]
    assert kept["id"].tolist() == kept["parent_id"].tolist() == [0, 1, 2, 3]
    assert kept["group"].tolist() == [0, 1, 1, 3]
    assert set(kept["class_name"]) == {"NA"}
    left_out = io.read_table(out["duplicates"])
    assert left_out["id"].tolist() == [0, 2, 3, 5]
    assert left_out["reason"].str.replace("near ", "").tolist() == [
        "duplicate of study image 0",
        "duplicate of study image 1",
        "duplicate of study image 2",
        "duplicate of holdout image 1",
    ]
    assert left_out["reason"][2].startswith("near")
    assert caplog.messages == [
        "Holdout: 4 of 8 images kept. Pictures that the study already has: 3; duplicates among"
        " themselves: 1"
    ]
