import pandas as pd
import pytest

from hemagrid.io import write_table
from hemagrid.reporting.tables import trials_table
from hemagrid.reporting.text import shown
from hemagrid.tuning.trials import best_trial, read_trials


def trials():
    return pd.DataFrame(
        {
            "trial": [0, 1, 2, 3],
            "bracket": [1, 1, 1, 1],
            "round": [0, 0, 0, 1],
            "parent": ["", "", "", 1],
            "initial_epoch": [0, 0, 0, 2],
            "epochs": [2, 2, 2, 4],
            "layers": [0, 1, 1, 1],
            "dense": ["", "128", "64", "128"],
            "dropout": ["0.1", "0.3", "0.5", "0.3"],
            "learning_rate": [0.001, 0.01, 0.0001, 0.01],
            "weight_decay": [""] * 4,
            "val_accuracy": [0.5, 0.75, 0.25, 0.75],
            "val_loss": [1.0, 0.6, 2.0, 0.7],
            "seconds": [1.2, 2.1, 1.0, 62.0],
        }
    )


def test_trials_are_read_and_shown(tmp_path):
    write_table(tmp_path / "trials.csv", trials())
    table = read_trials(tmp_path / "trials.csv")
    assert best_trial(table)["trial"] == 1
    text = shown(trials_table(table))
    assert list(text["Dense"]) == ["none", "128", "64", "128"]
    assert list(text["parent"]) == ["\N{EN DASH}"] * 3 + ["1"]
    assert list(text["validation accuracy, %"])[1] == "75.0"
    assert list(text["time"]) == ["1 s", "2 s", "1 s", "1 min 02 s"]


@pytest.mark.parametrize(
    ("accuracies", "losses", "best"),
    [
        ([0.5, 0.7, 0.6, 0.1], [1, 1, 1, 1], 1),
        ([0.5] * 4, [3, 1, 2, 1], 1),
        ([0.8, 0.9, 0.9, 0.9], [0.1, 0.5, 0.4, 0.4], 2),
    ],
)
def test_the_best_trial_of_equals(accuracies, losses, best):
    table = trials().assign(val_accuracy=accuracies, val_loss=losses)
    assert best_trial(table)["trial"] == best
    assert best_trial(table[::-1])["trial"] == best
