"""Measured speeds of networks: the table that comes with hemagrid, and the user's own."""

from pathlib import Path

import pandas as pd

from hemagrid import io
from hemagrid.errors import InputError

SPEEDS = Path(__file__).with_name("throughput.csv")
OWN_SPEEDS = Path("resources", "throughput.csv")
"""A table in the folder of a study. Its rows win over those of `SPEEDS`."""
MEASURE = "python tests/benchmarks/measure_throughput.py"
"""The command that writes such a table."""

KEYS = ["device", "application", "top", "stage", "image_size"]
COLUMNS = [*KEYS, "batch", "threads", "images_per_second", "startup_seconds"]
# Of one image: the shape that comes out, and a CNN's multiplications.
COLUMNS += ["output", "parameters", "multiplications"]
PARTS = ("trunk", "top")
# Rows of the table that are of no backbone.
CNN, AUGMENTATION = ("cnn", ""), ("augmentation", "")
_NUMBERS = {"images_per_second": float, "startup_seconds": float, "image_size": int}
_NUMBERS["threads"] = int


def network_of(settings):
    """Return what the table calls a backbone of the config: (`application`, `top`)."""
    own = f"{settings['module']}:{settings['function']}"
    return settings["application"] or own, settings["top"] or ""


def read_speeds(folder="."):
    """Read the speeds that come with hemagrid, and over them those of a study's own table.

    Args:
        folder: Folder of the study.

    Returns:
        Data frame with one row per network, stage, device and image size.

    Raises:
        InputError: A table is damaged.
    """
    tables = [read_table(path) for path in (SPEEDS, Path(folder, OWN_SPEEDS)) if path.exists()]
    return pd.concat(tables).drop_duplicates(KEYS, keep="last", ignore_index=True)


def read_table(path):
    """Read one table of speeds. Raises InputError if it is damaged."""
    try:
        table = pd.read_csv(path, dtype=dict.fromkeys(["application", "top", "output"], str))
        table = table[COLUMNS].fillna({"top": "", "output": ""}).astype(_NUMBERS)
        problem = _problem(table)
    except (KeyError, ValueError) as error:
        problem = f"({error})"
    if problem:
        raise InputError(
            f"{path}: found no table of speeds {problem}, expected the columns "
            f"{', '.join(COLUMNS)}; remove it and run `{MEASURE}`"
        )
    return table


def _problem(table):
    """Say what makes a table of speeds unusable. Return "" if nothing does."""
    speeds = table[table["stage"] != "start"]
    slow = speeds[~(speeds["images_per_second"] > 0)]
    if len(slow):
        return f"(row {slow.index[0] + 1}: no images_per_second above 0)"
    shaped = table[table["stage"].isin(PARTS)]
    shapeless = shaped[~shaped["output"].str.fullmatch(r"\d+(x\d+)*")]
    if len(shapeless):
        return f"(row {shapeless.index[0] + 1}: no shape as output)"
    return ""


def add_speeds(path, rows):
    """Add rows to the table at `path`, over older ones of the same keys."""
    tables = [read_table(path), rows] if Path(path).exists() else [rows]
    table = pd.concat(tables)[COLUMNS].drop_duplicates(KEYS, keep="last")
    table = table.astype({"parameters": "Int64", "multiplications": "Int64"})
    io.write_table(path, table.sort_values(KEYS))
