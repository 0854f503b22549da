"""The drawn data set holds what it promises, and nothing else."""

from collections import Counter

import imagehash
import numpy as np
import pytest
from PIL import Image, UnidentifiedImageError

from hemagrid.data.synthetic import CLASS_NAMES, NEAR_DISTANCE, draw_cell, write_smears
from hemagrid.errors import InputError

PER_CLASS, DUPLICATES, NEAR_DUPLICATES, JUNK = 40, 10, 9, 3
SIZE = 48


@pytest.fixture(scope="module")
def smears(tmp_path_factory):
    """A data set of the demonstration's size, which no test changes."""
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


def copies(folder, ending):
    """Pairs of a planted copy and its original."""
    found = sorted(folder.glob(f"*/*{ending}.png"))
    return [(path, path.with_stem(path.stem.removesuffix(ending))) for path in found]


def test_every_class_has_its_cells_and_every_file_is_accounted_for(smears):
    assert Counter(path.parent.name for path in cells(smears)) == dict.fromkeys(
        CLASS_NAMES, PER_CLASS
    )
    planted = DUPLICATES + NEAR_DUPLICATES + JUNK + 1
    files = [path for path in smears.rglob("*") if path.is_file()]
    assert len(files) == len(CLASS_NAMES) * PER_CLASS + planted
    for path in cells(smears):
        with Image.open(path) as picture:
            assert (picture.mode, picture.size) == ("RGB", (SIZE, SIZE))


def test_planted_files_are_what_they_are_called(smears):
    duplicates, near = copies(smears, "_copy"), copies(smears, "_near")
    assert (len(duplicates), len(near)) == (DUPLICATES, NEAR_DUPLICATES)
    for copy, original in duplicates:
        assert copy.read_bytes() == original.read_bytes()
    for copy, original in near:
        assert 0 < phash(copy) - phash(original) <= NEAR_DISTANCE
        difference = np.asarray(Image.open(copy), int) - np.asarray(Image.open(original))
        assert abs(difference).mean() < 15
    junk = list(smears.glob("*/artefact.png"))
    assert len({path.parent for path in junk}) == JUNK
    assert len({path.read_bytes() for path in junk}) == 1
    (broken,) = smears.glob("*/broken.png")
    with pytest.raises(UnidentifiedImageError):
        Image.open(broken)


def test_no_two_cells_are_near_by_chance(smears):
    """Not one pair of 321 pictures at this seed; another seed may give one or two."""
    paths = [*cells(smears), next(smears.glob("*/artefact.png"))]
    bits = np.stack([phash(path).hash.ravel() for path in paths]).astype(int)
    # For 0/1 vectors, the distance is |a| + |b| - 2 a.b.
    weight = bits.sum(1)
    distances = weight[:, None] + weight - 2 * bits @ bits.T
    assert distances[np.triu_indices(len(bits), 1)].min() > NEAR_DISTANCE


def test_the_seed_decides_every_picture(tmp_path):
    first, again = write_small(tmp_path / "a"), write_small(tmp_path / "b")
    other = write_small(tmp_path / "c", seed=8)
    assert first == again
    assert first.keys() == other.keys()
    assert [name for name in first if first[name] == other[name]] == ["basophil/broken.png"]


def test_a_picture_does_not_depend_on_how_many_are_drawn(tmp_path):
    few = write_small(tmp_path / "few", 1, duplicates=0, near_duplicates=0, junk=0)
    more = write_small(tmp_path / "more", 3, duplicates=4, near_duplicates=2, junk=1)
    assert few.items() <= more.items()


def test_a_cell_looks_the_same_at_every_size():
    small, large = (
        draw_cell("neutrophil", size, np.random.default_rng(0)) for size in (48, 96)
    )
    assert small.dtype == large.dtype == np.uint8
    assert large.shape == (96, 96, 3)
    reduced = np.asarray(Image.fromarray(large).resize((48, 48)), float)
    assert abs(reduced - small).mean() < 5


def test_classes_differ_as_in_the_textbook():
    drawn = {
        name: np.stack([draw_cell(name, SIZE, np.random.default_rng(i)) for i in range(20)])
        for name in CLASS_NAMES
    }
    red, green = ({n: p[..., c].astype(int) for n, p in drawn.items()} for c in (0, 1))
    stained = {name: (red[name] < 180).mean() for name in CLASS_NAMES}
    order = ["platelet", "erythroblast", "lymphocyte", "monocyte"]
    assert sorted(order, key=stained.get) == order
    assert stained["lymphocyte"] < stained["ig"] < stained["monocyte"]
    assert stained["platelet"] < 0.5 * stained["lymphocyte"]
    orange = {name: (red[name] - green[name] > 60).mean() for name in CLASS_NAMES}
    assert orange.pop("eosinophil") > 2 * max(orange.values())


@pytest.mark.parametrize(
    "counts",
    [{"duplicates": 10, "near_duplicates": 7}, {"junk": 9}],
    ids=["more copies than cells", "more junk than classes"],
)
def test_more_than_there_is_room_for_is_refused(tmp_path, counts):
    with pytest.raises(InputError, match="expected at most"):
        write_small(tmp_path / "cells", **counts)
    assert not (tmp_path / "cells").exists()


def test_only_an_empty_folder_is_filled(tmp_path):
    assert len(write_small(tmp_path)) == 2 * len(CLASS_NAMES) + 3 + 3 + 2 + 1
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="other files"):
        write_small(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_an_error_on_the_way_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.copyfile", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_small(tmp_path / "cells")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_class_is_refused():
    with pytest.raises(InputError, match="basofil.*expected one of basophil"):
        draw_cell("basofil", 48, np.random.default_rng(0))
