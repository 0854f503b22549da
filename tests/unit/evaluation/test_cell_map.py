import numpy as np
import pandas as pd
import pytest

from hemagrid.errors import InputError
from hemagrid.evaluation import cell_map
from hemagrid.evaluation.cell_map import map_rows, write_map
from hemagrid.io import write_table


def features(labels, width=60):
    cells = np.random.default_rng(1).normal(size=(len(labels), width)).astype("float32")
    cells[:, 0] += 50 * labels
    return cells


def mapped(tmp_path, labels, seed=1):
    np.save(tmp_path / "val.npy", features(labels))
    write_table(tmp_path / "val.csv", pd.DataFrame({"label": labels}))
    write_map(tmp_path / "map.csv", tmp_path / "val.npy", tmp_path / "val.csv", seed=seed)
    return pd.read_csv(tmp_path / "map.csv")


def test_a_map_has_no_more_rows_than_it_may_and_they_depend_on_the_seed(tmp_path, monkeypatch):
    monkeypatch.setattr(cell_map, "MOST", 60)
    labels = np.repeat([0, 1], 50)
    table = mapped(tmp_path, labels)
    assert list(table) == ["row", "x", "y", "label"]
    assert len(table) == table["row"].nunique() == 60 and table["row"].is_monotonic_increasing
    assert (table["label"] == labels[table["row"]]).all()
    assert table.equals(mapped(tmp_path, labels))
    assert set(mapped(tmp_path, labels, seed=2)["row"]) != set(table["row"])


def test_neighbours_are_alike(tmp_path):
    table = mapped(tmp_path, np.repeat([0, 1], 30))
    places = table[["x", "y"]].to_numpy()
    distances = np.linalg.norm(places[:, None] - places, axis=2)
    np.fill_diagonal(distances, np.inf)
    labels = table["label"].to_numpy()
    assert (labels[distances.argmin(axis=1)] == labels).all()


def test_few_rows_are_mapped_and_fewer_are_not(tmp_path):
    assert len(mapped(tmp_path, np.arange(3))) == 0
    assert np.isfinite(mapped(tmp_path, np.arange(4))[["x", "y"]]).all(axis=None)
    assert map_rows(np.arange(9.0)[:, None], 1).shape == (9, 2)
    assert not map_rows(np.ones((9, 5)), 1).any()


def test_embeddings_of_other_images_are_refused(tmp_path):
    mapped(tmp_path, np.arange(5))
    np.save(tmp_path / "val.npy", features(np.arange(6)))
    with pytest.raises(InputError, match=r"val.npy: found 6 rows, expected the 5 of"):
        write_map(tmp_path / "map.csv", tmp_path / "val.npy", tmp_path / "val.csv", seed=1)
