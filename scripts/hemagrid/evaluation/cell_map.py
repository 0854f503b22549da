"""A map of the cells: images that a frozen backbone finds alike lie close together."""

import logging

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from hemagrid.errors import InputError
from hemagrid.io import read_table, take, write_table

MOST = 2000
"""Rows on a map, drawn at random from more."""
FEWEST = 4
"""Fewer rows make no map."""
DIMENSIONS = 50
"""Principal components that t-SNE starts from, at most."""
PERPLEXITY = 30
"""About how many neighbours each image has, where there are three times as many."""

logger = logging.getLogger(__name__)


def map_rows(features, seed):
    """Place rows in the plane by t-SNE, so that rows with similar features are neighbours.

    Features are as they are, not standardised; their first principal components go into t-SNE
    (van der Maaten & Hinton 2008, Journal of Machine Learning Research 9, "Visualizing data
    using t-SNE").

    Args:
        features: float (n, F), n of at least `FEWEST`.
        seed: Of the components and of t-SNE.

    Returns:
        float (n, 2); all zeros if all rows are equal.
    """
    if (features == features[0]).all():
        return np.zeros((len(features), 2))
    components = min(*features.shape, DIMENSIONS)
    reduced = PCA(components, random_state=seed).fit_transform(features)
    reduced = np.pad(reduced, ((0, 0), (0, max(0, 2 - components))))
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    return TSNE(perplexity=perplexity, random_state=seed).fit_transform(reduced)


def write_map(out, embeddings, table, *, seed):
    """Map the copies of a subset.

    Args:
        out: Path of a CSV: row in the subset, x, y, label. It is empty if the subset has fewer
            than `FEWEST` rows.
        embeddings: Path of the features that a frozen backbone gives, float32 (N, F).
        table: Path of the subset's table, with `label`.
        seed: Of the rows that are drawn, and of `map_rows`.

    Raises:
        InputError: Embeddings and table have different rows.
    """
    features, labels = np.load(embeddings, mmap_mode="r"), read_table(table)["label"].to_numpy()
    if len(features) != len(labels):
        raise InputError(
            f"{embeddings}: found {len(features)} rows, expected the {len(labels)} of {table}; "
            "remove the file and run again"
        )
    rows = np.arange(len(labels))
    if len(rows) > MOST:
        rows = np.sort(np.random.default_rng(seed).choice(rows, MOST, replace=False))
    if len(rows) < FEWEST:
        rows, places = rows[:0], np.empty((0, 2))
    else:
        places = map_rows(take(features, rows), seed).round(3)
    logger.info(f"Mapped {len(rows)} of {len(labels)} images")
    found = {"row": rows, "x": places[:, 0], "y": places[:, 1], "label": labels[rows]}
    write_table(out, pd.DataFrame(found))
