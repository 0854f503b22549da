"""The published study's numbers, shown beside ours."""

from pathlib import Path

import pandas as pd

from hemagrid.names import TEST_AUGMENTED, VAL

_NUMBERS = ("learning_rate", "val", "test", "test_augmented", "codabench")


def published():
    """Read every published row: accuracies in %, NaN where the study gives none.

    Source: "AN2DL - First Homework Report, Bio.log(y) Team", January 2025. Column
    `table` is `configurations` (the heads that were tried), `heads` (the best head of each
    model) or `tuned` (after the Hyperband search); `run` is the name that the same model has
    here.
    """
    table = pd.read_csv(
        Path(__file__).with_name("published.csv"), dtype=str, keep_default_na=False
    )
    return table.assign(**{name: pd.to_numeric(table[name]) for name in _NUMBERS})


def published_configurations():
    """Read the heads of the grid, one row each, columns named as in our own table."""
    names = ("dense", "batch_norm", "dropout", "learning_rate")
    return _renamed("configurations", "head", {name: name for name in names})


def published_heads():
    """Read the rows of the best head of each CNN and backbone, one row each."""
    table = published()
    return table[table["table"] == "heads"].reset_index(drop=True)


def published_tuned():
    """Read the rows of the tuned runs, one row each, columns named as in our own tables."""
    names = {"dense": "dense", "dropout": "dropout", "learning_rate": "learning_rate"}
    names |= {
        VAL: "val_pct",
        TEST_AUGMENTED: "test_augmented_pct",
        "codabench": "codabench",
    }
    return _renamed("tuned", "run", names)


def _renamed(name, key, names):
    """Read the rows of one table: `key`, and {their column: our column} as published_*."""
    table = published()
    table = table[table["table"] == name].replace("", None)
    names = {theirs: f"published_{ours}" for theirs, ours in names.items()}
    return table[[key, *names]].rename(columns=names).reset_index(drop=True)
