"""The trials of a search: read, ranked, and laid out for people."""

from hemagrid import io


def read_trials(path):
    """Read the trials of a search (results/tuning/{run}_trials.csv); empty is missing."""
    return io.read_sparse(path, "dense", "dropout")


def best_trial(trials):
    """Return the row of the best trial: by accuracy, then by loss, then the earliest."""
    order = trials.sort_values(
        ["val_accuracy", "val_loss", "trial"], ascending=[False, True, True]
    )
    return order.iloc[0]
