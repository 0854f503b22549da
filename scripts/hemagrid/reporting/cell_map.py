"""The map of the cells, with what a run answers for each."""

import numpy as np

from hemagrid import io
from hemagrid.evaluation.predictions import read_predictions
from hemagrid.names import VAL


def places(path_map, path_predictions):
    """Join a map with the predictions of a run for the same images.

    Args:
        path_map: Path of what `evaluation.cell_map.write_map` wrote for the validation copies.
        path_predictions: Path of the run's predictions for them.

    Returns:
        (data frame with `x`, `y`, `class`, `predicted` and `answer`, right or wrong; names of
        the classes; number of validation copies). The first is None if the map is of other
        images.
    """
    table = io.read_table(path_map)
    classes, subsets = read_predictions([path_predictions])
    labels, probabilities, _ = subsets[VAL]
    rows = table["row"].to_numpy(int)
    if (rows >= len(labels)).any() or (labels[rows] != table["label"]).any():
        return None, classes, len(labels)
    predicted = probabilities[rows].argmax(axis=1)
    found = table[["x", "y"]].assign(
        **{"class": np.take(classes, labels[rows]), "predicted": np.take(classes, predicted)},
        answer=np.where(predicted == labels[rows], "right", "wrong"),
    )
    return found, classes, len(labels)
