"""A test set has the study's classes, nothing that the study has, and no picture twice."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from hemagrid import io
from hemagrid.data.duplicates import fingerprint
from hemagrid.data.test_sets import acquire_test_set, read_test_sets, write_test_set
from hemagrid.errors import InputError

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


CLASSES = ["basophil", "ig", "platelet"]


@pytest.fixture
def written(tmp_path):
    """A function that writes a test set named raabin out of pictures and their labels."""

    def written(pictures, labels, study):
        table = pd.DataFrame({"id": range(len(labels)), "label": labels, "class_name": "NA"})
        table["class_name"] = [CLASSES[label] for label in labels]
        table["source"] = [f"x.npz[{row}]" for row in range(len(labels))]
        junk = {"class_name": "other", "source": "junk.png", "skipped": "class left out: other"}
        table = pd.concat([table.assign(skipped=""), pd.DataFrame([junk])])
        table = table.astype({"id": "Int64", "label": "Int64"}).assign(sha256="")
        np.save(tmp_path / "found.npy", pictures)
        io.write_table(tmp_path / "found.csv", table)
        found = {"images": tmp_path / "found.npy", "table": tmp_path / "found.csv"}
        out = {key: tmp_path / key for key in ("images", "table", "left_out")}
        out["images"] = tmp_path / "images.npy"
        write_test_set("raabin", found, fingerprint(study), SETTINGS, out)
        ((kept, left_out),) = read_test_sets([out["table"]], [out["left_out"]]).values()
        return io.open_images(out["images"]), kept, left_out

    return written


def test_pictures_of_the_study_and_copies_are_left_out(pictures, written, caplog):
    slightly = pictures[1].copy()
    slightly[:4, :4] += 6
    came = np.stack(
        [
            pictures[0],  # of the study
            pictures[6],
            slightly,  # nearly of the study
            pictures[2][:, ::-1],  # of the study, mirrored
            pictures[7],
            pictures[6],  # a copy within the set
            pictures[7][::-1],  # a near duplicate within the set
            pictures[8],
        ]
    )
    with caplog.at_level("INFO", "hemagrid"):
        images, kept, left_out = written(came, [0, 1] * 4, pictures[:6])

    rows = [1, 4, 6, 7]
    np.testing.assert_array_equal(images, came[rows])
    assert kept["source"].tolist() == [f"x.npz[{row}]" for row in rows]
    assert kept["id"].tolist() == kept["parent_id"].tolist() == [0, 1, 2, 3]
    assert kept["group"].tolist() == [0, 1, 1, 3]
    assert kept["label"].tolist() == [1, 0, 0, 1]
    assert left_out["source"].tolist() == [
        "junk.png",
        *(f"x.npz[{row}]" for row in (0, 2, 3, 5)),
    ]
    assert left_out["reason"].str.replace("near ", "").tolist() == [
        "class left out: other",
        "duplicate of study image 0",
        "duplicate of study image 1",
        "duplicate of study image 2",
        "duplicate of raabin image 1",
    ]
    assert left_out["reason"][2].startswith("near")
    assert caplog.messages == [
        "raabin: 4 of 8 images kept. Pictures that the study already has: 3; duplicates among"
        " themselves: 1"
    ]


def test_a_set_without_two_classes_of_new_images_is_refused(pictures, written):
    with pytest.raises(InputError, match="0 of 4 images kept.*has: 4;.*of no class, expected"):
        written(pictures[:4], [0, 1, 0, 1], pictures)
    with pytest.raises(InputError, match="raabin: 3 of 4 .*images of ig, expected new images"):
        written(pictures[:4], [0, 1, 1, 1], pictures[:1])


@pytest.fixture
def acquired(tmp_path):
    """A function that reads a set named raabin from a folder or an npz."""

    def acquired(source, classes, kind="folder"):
        settings = {"image_size": 32, "fit": "pad", "bit_depth": "auto", "strict": False}
        out = {"images": tmp_path / "found.npy", "table": tmp_path / "found.csv"}
        acquire_test_set("raabin", source, kind, classes, CLASSES, settings, out)
        return io.open_images(out["images"]), pd.read_csv(out["table"], keep_default_na=False)

    return acquired


@pytest.fixture
def lab(tmp_path, pictures):
    """A folder of two pictures of each of four classes."""
    for number, name in enumerate(["Artefact", "Basophils", "platelet", "Metamyelocyte"]):
        for copy in range(2):
            path = tmp_path / "lab" / name / f"{copy}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pictures[2 * number + copy]).save(path)
    return tmp_path / "lab"


def test_classes_of_a_folder_go_by_the_map_or_by_their_name(lab, acquired, caplog):
    with caplog.at_level("INFO", "hemagrid"):
        names = {"Artefact": None, "Basophils": "basophil", "Metamyelocyte": "platelet"}
        images, table = acquired(lab, names)
    read = table[table["skipped"] == ""]
    assert images.shape == (6, 32, 32, 3)
    assert read["class_name"].tolist() == ["basophil"] * 2 + ["platelet"] * 4
    assert read["label"].astype(int).tolist() == [0, 0, 2, 2, 2, 2]
    assert read["source"].tolist()[4:] == ["platelet/0.png", "platelet/1.png"]
    assert table["skipped"].tolist()[6:] == ["class left out: Artefact"] * 2
    assert caplog.messages[-2:] == [
        "Class Artefact of raabin is left out: 2 images",
        "raabin has no images of ig, which are left out of its means",
    ]


def test_labels_of_an_npz_count_through_the_classes_or_go_by_the_map(
    tmp_path, pictures, acquired
):
    path = tmp_path / "lab.npz"
    np.savez(path, images=pictures[:4], labels=np.array([[2], [0], [1], [2]]))
    images, table = acquired(path, {}, "npz")
    assert table["class_name"].tolist() == ["platelet", "basophil", "ig", "platelet"]
    images, table = acquired(path, {"0": "ig", "1": None, "2": "platelet"}, "npz")
    assert len(images) == 3
    assert table["class_name"].tolist() == ["platelet", "ig", "platelet", "1"]
    assert table["source"].tolist() == [f"lab.npz[{row}]" for row in (0, 1, 3, 2)]
    with pytest.raises(InputError, match=r"row 0 holds 2, expected 0 to 1 .*raabin\.classes"):
        acquired(path, {"0": "ig", "1": None}, "npz")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (
            {},
            "no classes of the study(.|\n)*\n  Basophils; did you mean basophil(.|\n)*or null",
        ),
        ({"Basophils": "basophile"}, "classes.Basophils: found 'basophile'.*mean basophil"),
        ({"Basophil": "basophil"}, "classes: found 'Basophil', expected a folder.*Basophils"),
    ],
)
def test_an_unknown_class_is_refused_with_the_nearest(lab, acquired, classes, message):
    with pytest.raises(InputError, match=message):
        acquired(lab, classes)


def test_a_folder_that_holds_no_classes_is_refused(lab, acquired):
    with pytest.raises(InputError, match=r"0 files.*set test_sets\.raabin\.path"):
        (lab / "none").mkdir()
        acquired(lab / "none", {})
    with pytest.raises(InputError, match=r"one folder, lab.*test_sets\.raabin\.path"):
        acquired(lab.parent, {})
