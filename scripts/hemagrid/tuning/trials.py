"""The trials of a search: reading them, and choosing the best one."""

from hemagrid import io


def read_trials(path):
    """Read a table of trials that `search.search_head` wrote; empty cells are missing."""
    return io.read_sparse(path, "dense", "dropout")


def best_trial(trials):
    """Choose the best trial: by accuracy, then by loss, then the earliest.

    Args:
        trials: Data frame with `val_accuracy`, `val_loss` and `trial`.

    Returns:
        Its row, a series.
    """
    order = trials.sort_values(
        ["val_accuracy", "val_loss", "trial"], ascending=[False, True, True]
    )
    return order.iloc[0]
