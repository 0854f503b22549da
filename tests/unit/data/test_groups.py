"""Each image gets its group from a pattern, a CSV or an npz, or is refused by name."""

import logging

import numpy as np
import pytest

from hemagrid.data.groups import check, name_groups, read_groups
from hemagrid.errors import InputError

SOURCES = ["ig/P1_a.png", "ig/P2_b.png", "mono/P1_c.png"]


def settings(**given):
    return {"pattern": None, "csv": None, "key": None} | given


@pytest.fixture
def write(tmp_path):
    def write(text, encoding="utf-8"):
        path = tmp_path / "groups.csv"
        path.write_bytes(text.encode(encoding))
        return str(path)

    return write


def test_a_pattern_names_the_groups(caplog):
    with caplog.at_level(logging.INFO, "hemagrid"):
        names = name_groups(settings(pattern="/(?P<group>[^_]+)_"), SOURCES)
    assert names == ["P1", "P2", "P1"]
    assert "Groups: 2, of 1 to 2 images (median 1.5)" in caplog.text


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("(?P<group>Q[0-9])", "no group for 3 of 3 images: 'ig/P1_a.png', 'ig/P2_b.png'"),
        ("mono/(?P<group>P[0-9])", "no group for 2 of 3 images"),
        ("mono|(?P<group>P2)", "no group for 2 of 3 images"),  # it matches, the group does not
        ("ig/(?P<group>)|mono/(?P<group2>)", "no group for 3 of 3 images"),
    ],
)
def test_files_without_a_match_are_refused(pattern, found):
    with pytest.raises(InputError, match=found):
        name_groups(settings(pattern=pattern), SOURCES)


def test_a_csv_may_spell_names_as_its_system_does(write, caplog):
    text = (
        "\ufeffgroup, file ,age\r\n"
        "P 1,./ig/P1_a.png,30\r\n"
        "007,ig\\P2_b.png ,\r\n"
        "\r\n"
        'P 1 ,"mono//a, b\u00a0c.png",7\r\n'
        "\u00fc,ig/u\u0308.png,\r\n"
        "P 1,ig/P1_a.png,30\r\n"
        "P9,ig/another.png,\r\n"
    )
    sources = ["ig/P1_a.png", "ig/P2_b.png", "mono/a, b\\xa0c.png", "ig/\u00fc.png"]
    with caplog.at_level(logging.INFO, "hemagrid"):
        names = name_groups(settings(csv=write(text)), sources)
    assert names == ["P 1", "007", "P 1", "\u00fc"]
    assert "1 files are no images of this data set" in caplog.text


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "found the columns none, expected file and group"),
        ("file;group\na;1\n", "found the columns 'file;group'"),
        ("file,group,group\na,1,2\n", "expected file and group, once each"),
        ("file,group\na,1\nb\n", "line 3: found 1 cells, expected 2"),
        ("file,group\na,1\n,2\n", "line 3: found the file ''"),
        ("file,group\na,\n", "line 2: found the file 'a' and the group ''"),
        ("file,group\na,NaN\n", "the group 'NaN', expected both"),
        ("file,group\na,1\n./a,2\n", "line 3: found a in the group '2', and before in '1'"),
        ('file,group\n"a,1\n', "cannot be read"),
    ],
)
def test_a_bad_csv_is_refused_at_start_up(write, text, found):
    path = write(text)
    with pytest.raises(InputError, match=found) as refusal:
        check({"dataset": {"groups": settings(csv=path)}})
    assert path in str(refusal.value)


def test_other_encodings_and_files_that_are_missing_are_refused(write, tmp_path):
    for path in (write("file,group\na,1\n", "utf-16"), str(tmp_path / "none.csv")):
        with pytest.raises(InputError, match="cannot be read"):
            read_groups(path)
    check({"dataset": {"groups": None}})


def test_images_that_a_csv_lacks_are_named_and_counted(write):
    text = "file,group\n" + "".join(f"cells/{source},1\n" for source in SOURCES)
    with pytest.raises(InputError, match="no group for 3 of 3 images") as refusal:
        name_groups(settings(csv=write(text)), SOURCES)
    assert "names files such as 'cells/ig/P1_a.png'" in str(refusal.value)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([7, 12, 7], ["7", "12", "7"]),
        (np.array([[7], [12], [7]], ">u2"), ["7", "12", "7"]),
        (["a ", "\u00fc", "a"], ["a", "\u00fc", "a"]),
        (np.array([b"a", "\u00fc".encode(), b"a"]), ["a", "\u00fc", "a"]),
    ],
)
def test_an_npz_names_groups_by_text_or_number(tmp_path, values, names):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, patients=values)
    assert name_groups(settings(key="patients"), ["a[0]", "a[1]", "a[2]"], path) == names


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([1.0, np.nan, 2.0], "'patients' is float64"),
        ([1, 2], r"\(2,\), expected text or integers \(3,\)"),
        ([1, -1, 2], "row 1 holds -1"),
        (["a", "", "nan"], "no group for 2 of 3 images"),
        (["", "", ""], "no group for 3 of 3 images"),
        (np.array([b"a", b"\xff", b"b"]), "damaged"),
        (np.array([None, 1, "x"]), "pickled objects"),
    ],
)
def test_other_arrays_are_refused(tmp_path, values, found):
    path = tmp_path / "a.npz"
    np.savez(path, patients=values)
    with pytest.raises(InputError, match=found):
        name_groups(settings(key="patients"), ["a[0]", "a[1]", "a[2]"], path)
    with pytest.raises(InputError, match="found the keys patients, expected 'slides'"):
        name_groups(settings(key="slides"), ["a[0]"], path)
