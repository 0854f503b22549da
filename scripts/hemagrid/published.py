"""The published study's numbers, shown beside ours."""

from pathlib import Path

import pandas as pd

_NUMBERS = ("learning_rate", "val", "test", "test_augmented", "codabench")


def published():
    """Read every published row: accuracies in %, NaN where the study gives none.

    Source: "AN2DL - First Homework Report, Bio.log(y) Team", January 2025. Column
    `table` is `heads` (the best head of each model) or `tuned` (after the Hyperband
    search); `run` is the name that the same model has here.
    """
    table = pd.read_csv(
        Path(__file__).with_name("published.csv"), dtype=str, keep_default_na=False
    )
    return table.assign(**{name: pd.to_numeric(table[name]) for name in _NUMBERS})


def published_heads():
    """Read the rows of the best head of each CNN and backbone, one row each."""
    table = published()
    return table[table["table"] == "heads"].reset_index(drop=True)
