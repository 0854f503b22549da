"""Content decides whether the user's files have changed."""

import os

import pytest

from hemagrid.data import sources
from hemagrid.io import read_json


@pytest.fixture
def read(tmp_path):
    """A folder that was read, and a function that says whether it looks unchanged."""
    folder, record = tmp_path / "pictures", tmp_path / "source.json"
    for name in ("a/1.png", "a/2.png", "b/deep/3.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    text = sources.fingerprint(folder, record)
    sources.write_record(folder, text, record)
    return folder, record, lambda: sources.fingerprint(folder, record) == text


def set_back(path):
    stat = path.stat()
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns - 10**12))


def replace(path, content):
    path.write_text(content)
    set_back(path)


def keep_time(path, content):
    stat = path.stat()
    path.write_text(content)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


CHANGES = {
    "added": lambda folder: (folder / "b" / "4.png").write_text("4"),
    "added deep down": lambda folder: (folder / "b" / "deep" / "4.png").write_text("4"),
    "removed": lambda folder: (folder / "a" / "1.png").unlink(),
    "renamed": lambda folder: (folder / "a" / "1.png").rename(folder / "a" / "9.png"),
    "moved": lambda folder: (folder / "a" / "1.png").rename(folder / "b" / "1.png"),
    "folder renamed": lambda folder: (folder / "b" / "deep").rename(folder / "b" / "other"),
    "older, same size": lambda folder: replace(folder / "a" / "1.png", "a/9.png"),
    "same time, other size": lambda folder: keep_time(folder / "a" / "1.png", "longer than it"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_changed_folder_is_told_and_stays_settled_once_it_is_read(read, change):
    folder, record, unchanged = read
    change(folder)
    assert not unchanged()
    text = sources.fingerprint(folder, record)
    set_back(folder / "a" / "2.png")  # touched while it was read
    sources.write_record(folder, text, record)
    assert sources.fingerprint(folder, record) == text


def test_folders_that_changed_places_are_told_though_names_sizes_and_times_are_equal(tmp_path):
    folder, record = tmp_path / "pictures", tmp_path / "source.json"
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        (folder / name / "1.png").write_text(name)
        os.utime(folder / name / "1.png", (0, 0))
    text = sources.fingerprint(folder, record)
    sources.write_record(folder, text, record)
    (folder / "a").rename(folder / "c")
    (folder / "b").rename(folder / "a")
    (folder / "c").rename(folder / "b")
    assert sources.fingerprint(folder, record) != text


SAME = {
    "nothing": lambda folder: None,
    "touched": lambda folder: [path.touch() for path in folder.rglob("*")],
    "hidden file": lambda folder: (folder / "a" / ".DS_Store").touch(),
    "thumbnails": lambda folder: (folder / "a" / "@eaDir").mkdir(),
    "link to itself": lambda folder: (folder / "a" / "again").symlink_to(folder),
    "broken link": lambda folder: (folder / "a" / "gone").symlink_to("nowhere"),
}


@pytest.mark.parametrize("change", SAME.values(), ids=SAME)
def test_what_is_no_change_of_content_is_none(read, change):
    folder, _, unchanged = read
    change(folder)
    assert unchanged()


def test_an_npz_is_known_by_its_content(tmp_path):
    path, record = tmp_path / "set.npz", tmp_path / "source.json"
    path.write_text("one")
    text = sources.fingerprint(path, record)
    sources.write_record(path, text, record)
    path.touch()
    assert sources.fingerprint(path, record) == text
    replace(path, "two")
    assert sources.fingerprint(path, record) != text


def test_the_record_names_the_folder_and_one_digest_for_all_of_it(read, tmp_path):
    folder, record, _ = read
    first = read_json(record)
    assert (first["path"], first["bytes"]) == (str(folder), len("a/1.png" * 2 + "b/deep/3.png"))
    copy = folder.rename(tmp_path / "elsewhere")
    sources.write_record(copy, "", record)
    assert read_json(record)["sha256"] == first["sha256"]
    (copy / "a" / "1.png").rename(copy / "a" / "9.png")
    sources.write_record(copy, "", record)
    assert read_json(record)["sha256"] != first["sha256"]


def test_a_damaged_record_counts_as_none(read):
    folder, record, _ = read
    record.write_text('{"files":')
    assert sources.fingerprint(folder, record) == sources.fingerprint(folder, "nowhere")
