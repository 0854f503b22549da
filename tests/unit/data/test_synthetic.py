"""The drawn data set: what it plants is there, and what it does not plant is not."""

from collections import Counter

import imagehash
import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from hemagrid.data.synthetic import CLASS_NAMES, NEAR_DISTANCE, draw_cell, write_smears
from hemagrid.errors import InputError

PER_CLASS, DUPLICATES, NEAR_DUPLICATES, JUNK = 60, 10, 9, 3
SIZE = 48


@pytest.fixture(scope="module")
def smears(tmp_path_factory):
    """A data set of the demonstration's size, read by the tests and never changed."""
    folder = tmp_path_factory.mktemp("smears") / "cells"
    write_smears(folder, PER_CLASS, SIZE, 42, DUPLICATES, NEAR_DUPLICATES, JUNK)
    return folder


def write_small(folder, per_class=2, seed=7, duplicates=3, near_duplicates=3, junk=2):
    write_smears(folder, per_class, 32, seed, duplicates, near_duplicates, junk)
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.png")
    }


def phash(path):
    return imagehash.phash(Image.open(path))


def cells(folder):
    return sorted(folder.glob("*/*_[0-9][0-9][0-9][0-9].png"))


def originals(copies, ending):
    return [path.with_stem(path.stem.removesuffix(ending)) for path in copies]


def test_every_class_has_its_cells_and_every_file_is_accounted_for(smears):
    assert Counter(path.parent.name for path in cells(smears)) == dict.fromkeys(
        CLASS_NAMES, PER_CLASS
    )
    planted = DUPLICATES + NEAR_DUPLICATES + JUNK + 1
    files = [path for path in smears.rglob("*") if path.is_file()]
    assert len(files) == len(CLASS_NAMES) * PER_CLASS + planted


def test_pictures_are_rgb_of_the_size_asked_for(smears):
    for path in cells(smears):
        with Image.open(path) as picture:
            assert (picture.mode, picture.size) == ("RGB", (SIZE, SIZE))


def test_exact_duplicates_are_copies_of_bytes(smears):
    copies = sorted(smears.glob("*/*_copy.png"))
    assert len(copies) == DUPLICATES
    for copy, original in zip(copies, originals(copies, "_copy"), strict=True):
        assert copy.read_bytes() == original.read_bytes()


def test_near_duplicates_are_near_and_not_equal(smears):
    copies = sorted(smears.glob("*/*_near.png"))
    assert len(copies) == NEAR_DUPLICATES
    for copy, original in zip(copies, originals(copies, "_near"), strict=True):
        assert 0 < phash(copy) - phash(original) <= NEAR_DISTANCE
        difference = np.asarray(Image.open(copy), int) - np.asarray(Image.open(original))
        assert abs(difference).mean() < 15


def test_the_junk_is_one_picture_under_several_labels(smears):
    junk = list(smears.glob("*/artefact.png"))
    assert len({path.parent for path in junk}) == JUNK
    assert len({path.read_bytes() for path in junk}) == 1


def test_one_file_is_no_picture(smears):
    (broken,) = smears.glob("*/broken.png")
    with pytest.raises(UnidentifiedImageError):
        Image.open(broken)


def test_no_two_cells_are_near_by_chance(smears):
    """At this seed not one pair of 481 pictures; another seed may give one or two."""
    paths = [*cells(smears), next(smears.glob("*/artefact.png"))]
    bits = np.stack([phash(path).hash.ravel() for path in paths]).astype(int)
    # For 0/1 vectors, the distance is |a| + |b| - 2 a.b.
    weight = bits.sum(1)
    distances = weight[:, None] + weight - 2 * bits @ bits.T
    pairs = distances[np.triu_indices(len(bits), 1)]
    assert pairs.min() > NEAR_DISTANCE


def test_a_seed_gives_the_same_bytes_again(tmp_path):
    assert write_small(tmp_path / "a") == write_small(tmp_path / "b")


def test_another_seed_gives_other_pictures(tmp_path):
    first, second = write_small(tmp_path / "a"), write_small(tmp_path / "b", seed=8)
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] == second[name]] == ["basophil/broken.png"]


def test_a_picture_does_not_depend_on_how_many_are_drawn(tmp_path):
    few = write_small(tmp_path / "few", 1, duplicates=0, near_duplicates=0, junk=0)
    more = write_small(tmp_path / "more", 3, duplicates=4, near_duplicates=2, junk=1)
    assert few.items() <= more.items()


def test_one_cell_has_one_look_at_every_size():
    small, large = (
        draw_cell("neutrophil", size, np.random.default_rng(0)) for size in (48, 96)
    )
    assert small.dtype == large.dtype == np.uint8
    assert large.shape == (96, 96, 3)
    reduced = np.asarray(Image.fromarray(large).resize((48, 48)), float)
    assert abs(reduced - small).mean() < 5


def mean_area(class_name, level):
    """Mean share of a picture whose red channel is below `level`, over 30 cells."""
    rng = np.random.default_rng(3)
    pictures = np.stack([draw_cell(class_name, SIZE, rng) for _ in range(30)])
    return (pictures[..., 0] < level).mean()


def test_nuclei_and_cells_grow_in_the_order_of_the_textbook():
    stained = {name: mean_area(name, 180) for name in CLASS_NAMES}
    order = ["platelet", "erythroblast", "lymphocyte", "monocyte"]
    assert sorted(order, key=stained.get) == order
    assert stained["lymphocyte"] < stained["ig"] < stained["monocyte"]
    assert stained["platelet"] < 0.5 * stained["lymphocyte"]


def test_only_the_eosinophil_is_orange():
    def orange(name):
        pictures = np.stack(
            [draw_cell(name, SIZE, np.random.default_rng(i)) for i in range(20)]
        ).astype(int)
        return ((pictures[..., 0] - pictures[..., 1]) > 60).mean()

    shares = {name: orange(name) for name in CLASS_NAMES}
    assert shares.pop("eosinophil") > 2 * max(shares.values())


@pytest.mark.parametrize(
    "counts",
    [{"duplicates": 10, "near_duplicates": 7}, {"junk": 9}],
    ids=["more copies than cells", "more junk than classes"],
)
def test_more_than_there_is_room_for_is_refused(tmp_path, counts):
    with pytest.raises(InputError, match="expected at most"):
        write_small(tmp_path / "cells", **counts)
    assert not (tmp_path / "cells").exists()


def test_a_folder_that_holds_files_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="other files"):
        write_small(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_filled(tmp_path):
    assert len(write_small(tmp_path)) == 2 * len(CLASS_NAMES) + 3 + 3 + 2 + 1


def test_an_error_on_the_way_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("hemagrid.data.synthetic._draw_artefact", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_small(tmp_path / "cells")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_class_is_refused():
    with pytest.raises(InputError, match="basofil.*expected one of basophil"):
        draw_cell("basofil", 48, np.random.default_rng(0))
