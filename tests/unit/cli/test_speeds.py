"""The tables of measured speeds."""

import pandas as pd
import pytest

from hemagrid.cli import speeds
from hemagrid.errors import InputError

from .conftest import MEASURED, measured


def test_a_new_measurement_takes_the_place_of_the_old_one(tmp_path):
    path = tmp_path / "resources" / "throughput.csv"
    speeds.add_speeds(path, measured())
    speeds.add_speeds(path, measured(faster=2).query("stage == 'trunk'"))
    table = speeds.read_table(path)
    assert len(table) == len(MEASURED)
    rates = table.set_index("stage")["images_per_second"]
    assert (rates["trunk"], rates["top"]) == (40, 100)
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="throughput.csv: found no table of speeds"):
        speeds.read_speeds(tmp_path)


@pytest.mark.parametrize(
    ("stage", "column", "value"),
    [
        ("top", "images_per_second", "fast"),
        ("top", "images_per_second", 0),
        ("top", "images_per_second", None),
        ("top", "output", None),
        ("start", "startup_seconds", "soon"),
        ("start", "image_size", None),
    ],
)
def test_a_table_with_a_cell_that_is_no_measurement_is_refused(tmp_path, stage, column, value):
    path = tmp_path / "resources" / "throughput.csv"
    speeds.add_speeds(path, measured())
    speeds.read_table(path)
    table = pd.read_csv(path).astype(object)
    table.loc[table["stage"] == stage, column] = value
    table.to_csv(path, index=False)
    with pytest.raises(InputError, match="throughput.csv: found no table of speeds"):
        speeds.read_table(path)


def test_a_table_of_no_rows_tells_nothing(tmp_path):
    path = tmp_path / "resources" / "throughput.csv"
    speeds.add_speeds(path, measured()[:0])
    assert len(speeds.read_speeds(tmp_path)) == len(speeds.read_table(speeds.SPEEDS))
