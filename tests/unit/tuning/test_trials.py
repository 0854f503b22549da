import pandas as pd
import pytest

from hemagrid.io import write_table
from hemagrid.tuning.trials import best_trial, read_trials


def trials(accuracies, losses):
    return pd.DataFrame({"trial": range(4), "val_accuracy": accuracies, "val_loss": losses})


@pytest.mark.parametrize(
    ("accuracies", "losses", "best"),
    [
        ([0.5, 0.7, 0.6, 0.1], [1, 1, 1, 1], 1),
        ([0.5] * 4, [3, 1, 2, 1], 1),
        ([0.8, 0.9, 0.9, 0.9], [0.1, 0.5, 0.4, 0.4], 2),
    ],
)
def test_ties_go_to_the_lower_loss_then_to_the_earlier_trial(accuracies, losses, best):
    table = trials(accuracies, losses)
    assert best_trial(table)["trial"] == best
    assert best_trial(table[::-1])["trial"] == best


def test_layers_and_rates_are_read_as_text_and_empty_cells_as_missing(tmp_path):
    table = trials([0.5] * 4, [1] * 4).assign(dense=["", "128", "64, 8", "128"], dropout="0.1")
    write_table(tmp_path / "trials.csv", table.assign(parent=["", "", "", 1]))
    table = read_trials(tmp_path / "trials.csv")
    assert table["dense"].isna().tolist() == [True, False, False, False]
    assert list(table["dense"][1:]) == ["128", "64, 8", "128"]
    assert list(table["dropout"]) == ["0.1"] * 4 and table["parent"].sum() == 1
