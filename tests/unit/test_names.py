"""Where studies keep what no rule declares."""

import pytest

from hemagrid.names import checkpoints_of


def test_checkpoints_in_the_study_are_where_the_config_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(checkpoints_of("checkpoints")) == "checkpoints"
    assert str(checkpoints_of("checkpoints", "cells/")) == "cells/checkpoints"
    assert checkpoints_of(tmp_path / "kept") == tmp_path / "kept"


@pytest.mark.parametrize("folder", ["{kept}", "../../kept", "link"])
def test_no_two_studies_share_their_checkpoints(tmp_path, monkeypatch, folder):
    kept = tmp_path / "kept"
    places = set()
    for name in ("one/cells", "two/cells"):
        study = tmp_path / name
        study.mkdir(parents=True)
        (study / "link").symlink_to(kept)
        monkeypatch.chdir(study)
        place = checkpoints_of(folder.format(kept=kept))
        # `hemagrid status`, called from elsewhere, finds the same place.
        monkeypatch.chdir(tmp_path)
        assert checkpoints_of(folder.format(kept=kept), name) == place
        places.add(place)
    assert len(places) == 2 and {place.parent for place in places} == {kept}


def test_prefixes_and_storages_tell_studies_apart(tmp_path, monkeypatch):
    study = tmp_path / "study"
    study.mkdir()
    monkeypatch.chdir(study)
    given = (("",), ("a/",), ("b/",), ("", "s3://a"), ("", "s3://b"))
    assert len({checkpoints_of(tmp_path / "kept", *of) for of in given}) == len(given)
