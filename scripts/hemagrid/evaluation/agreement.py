"""How far runs agree with each other, image by image, whoever is right."""

import itertools
import logging

import numpy as np
import pandas as pd

from hemagrid.errors import InputError
from hemagrid.evaluation import label_noise
from hemagrid.evaluation.predictions import by_run, read_predictions
from hemagrid.io import read_table, write_table
from hemagrid.names import SUBSET_TABLE, TEST, subset_title

MOST_RUNS = 100
"""Pairs are those of so many runs at most, the most accurate ones."""
HARDEST = 1000
"""Images of each test set that are listed as hard."""

logger = logging.getLogger(__name__)


def cohens_kappa(answers, k):
    """Compare every pair of runs on the same images.

    Cohen's kappa (Cohen 1960, Educational and Psychological Measurement 20, "A coefficient of
    agreement for nominal scales") is the share of equal answers beyond what the runs'
    frequencies of classes would give by chance: 1 is full agreement, 0 that of chance.

    Args:
        answers: int (runs, n), the predicted classes.
        k: Number of classes.

    Returns:
        (share of equal answers, kappa), each float (runs, runs). Kappa is NaN where both runs
        give one and the same class to all images.
    """
    n = answers.shape[1]
    equal, chance = (np.zeros((len(answers), len(answers))) for _ in range(2))
    for c in range(k):
        of_class = (answers == c).astype(np.float32)
        share = of_class.mean(axis=1, dtype=float)
        equal += of_class @ of_class.T
        chance += np.outer(share, share)
    equal /= n
    with np.errstate(invalid="ignore", divide="ignore"):
        kappa = np.where(chance < 1, (equal - chance) / (1 - chance), np.nan)
    return equal, kappa


def agreement_table(answers, labels, k):
    """List the agreement of every pair among the most accurate runs.

    Args:
        answers: {run: predicted classes, int (n,)}.
        labels: int (n,), the true classes.
        k: Number of classes.

    Returns:
        A data frame: run, compared_with, images, equal_pct, kappa, and both_wrong_pct, the
        share of images that both get wrong. Runs are in their order.
    """
    right = {run: float(np.mean(of == labels)) for run, of in answers.items()}
    best = set(sorted(right, key=right.get, reverse=True)[:MOST_RUNS])
    runs = [run for run in answers if run in best]
    columns = ["run", "compared_with", "images", "equal_pct", "kappa", "both_wrong_pct"]
    if len(runs) < 2:
        return pd.DataFrame(columns=columns)
    stacked = np.stack([answers[run] for run in runs])
    equal, kappa = cohens_kappa(stacked, k)
    wrong = (stacked != labels).astype(np.float32)
    both_wrong = (wrong @ wrong.T).astype(float) / len(labels)
    pairs = [
        (
            *(runs[i], runs[j], len(labels)),
            *(100 * float(equal[i, j]), float(kappa[i, j]), 100 * float(both_wrong[i, j])),
        )
        for i, j in itertools.combinations(range(len(runs)), 2)
    ]
    return pd.DataFrame(pairs, columns=columns)


def compare_answers(inputs, out):
    """Compare what all runs answer, image by image.

    Predictions are read one file at a time. Augmented copies take no part: a copy may be hard
    because of what was done to it.

    Args:
        inputs: `predictions`, paths of all runs' predictions on test sets of untouched images,
            and `table_{test set}`, the tables of these. Predictions that do not exist are left
            out.
        out: Paths `agreement` (of runs on the test images, as `agreement_table`), `hard_images`
            (the first `HARDEST` rows of `label_noise.images_table` for each test set) and
            `label_noise` (all candidates) of CSV files.

    Raises:
        InputError: Predictions are not of the images of a test set as it is now.
    """
    found, answers, classes = {}, {}, []
    for run, paths in by_run(inputs["predictions"]).items():
        for path in paths:
            classes, ((subset, (labels, probabilities, _)),) = _read(path)
            if subset not in found:
                table = read_table(inputs[f"table_{subset}"])
                found[subset] = (
                    label_noise.Consensus(table["label"].to_numpy(), len(classes)),
                    table,
                )
            consensus, table = found[subset]
            if not np.array_equal(labels, consensus.labels):
                where = SUBSET_TABLE.format(subset=subset)
                raise InputError(
                    f"{path}: found predictions for {len(labels)} images, expected those of "
                    f"{where}, {len(table)} with the same labels; remove the file and run again"
                )
            consensus.add(run, probabilities)
            if subset == TEST:
                answers[run] = probabilities.argmax(axis=1).astype(np.int16)
    hard, noisy = [], []
    for subset, (consensus, table) in found.items():
        listed = label_noise.images_table(consensus, table, classes)
        listed.insert(0, "subset", subset)
        hard.append(listed[:HARDEST].drop(columns="candidate"))
        noisy.append(label_noise.candidates(listed))
        logger.info(
            f"{subset_title(subset)} images: {len(noisy[-1])} of {len(table)} labels may be "
            f"wrong, by {len(consensus.runs)} runs"
        )
    labels = found[TEST][0].labels if TEST in found else None
    write_table(out["agreement"], agreement_table(answers, labels, len(classes)))
    write_table(out["hard_images"], _joined(hard))
    write_table(out["label_noise"], _joined(noisy))


def _read(path):
    classes, subsets = read_predictions([path])
    return classes, tuple(subsets.items())


def _joined(tables):
    columns = ["subset", "row", "id", "source", "label", "runs", "wrong_runs", "label_pct"]
    columns += ["named", "naming_runs", "named_pct"]
    filled = [table for table in tables if len(table)]
    return pd.concat(filled) if filled else pd.DataFrame(columns=columns)
