"""Predictions written as a study writes them."""

from pathlib import Path

from hemagrid.evaluation.predictions import write_predictions


def write_answers(folder, class_names, subsets):
    """Write predictions into `folder`; return the paths.

    Args:
        folder: Where the files go, `results/{run}/predictions`.
        class_names: Names of the classes.
        subsets: {subset: (labels, probabilities, groups)}.
    """
    paths = [Path(folder, f"{subset}.npz") for subset in subsets]
    for path, parts in zip(paths, subsets.values(), strict=True):
        write_predictions(path, class_names, *parts)
    return paths
