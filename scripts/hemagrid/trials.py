"""The trials of a search: read, ranked, and laid out for people."""

import pandas as pd

from hemagrid import files, tables


def read_trials(path):
    """Read the trials of a search (results/tuning/{run}_trials.csv); empty is missing."""
    return files.read_sparse(path, "dense", "dropout")


def best_trial(trials):
    """Return the row of the best trial: by accuracy, then by loss, then the earliest."""
    order = trials.sort_values(
        ["val_accuracy", "val_loss", "trial"], ascending=[False, True, True]
    )
    return order.iloc[0]


def shown_trials(trials):
    """Turn the trials of a search into text for people, a row for each, in their order."""
    return tables.shown(
        pd.DataFrame(
            {
                "trial": trials["trial"],
                "bracket": trials["bracket"],
                "round": trials["round"],
                "parent": trials["parent"],
                "epochs": trials["epochs"],
                "dense": trials["dense"].fillna("none"),
                "dropout": trials["dropout"],
                "learning_rate": trials["learning_rate"],
                "weight_decay": trials["weight_decay"],
                "val_accuracy_pct": 100 * trials["val_accuracy"],
                "val_loss": trials["val_loss"],
                "seconds": trials["seconds"],
            }
        )
    )
