"""Images that are hard for all runs, and images whose label may be wrong.

A label is a candidate for an error where the mean probability over runs finds another class by
confident learning (Northcutt, Jiang & Chuang 2021, Journal of Artificial Intelligence Research
70, "Confident learning: estimating uncertainty in dataset labels", section 3.1), and most runs
name that class. It is what a person should look at, not a verdict: all runs learned from labels
of the same source.
"""

import numpy as np
import pandas as pd

AGREE = 0.75
"""The share of runs that must name the same other class."""


class Consensus:
    """What all runs answer for the images of one test set, added up run by run.

    Args:
        labels: int (n,), the classes by label.
        k: Number of classes.
    """

    def __init__(self, labels, k):
        self.labels, self.runs = labels, []
        self.votes = np.zeros((len(labels), k), np.int32)
        self.sums = np.zeros((len(labels), k))

    def add(self, run, probabilities):
        """Add the probabilities, float (n, k), of a run; one that knows nothing is left out.

        That is a run which is right no more often than the most frequent class.
        """
        predicted = probabilities.argmax(axis=1)
        right = np.count_nonzero(predicted == self.labels)
        if right <= np.bincount(self.labels).max():
            return
        self.runs.append(run)
        self.votes[np.arange(len(predicted)), predicted] += 1
        self.sums += probabilities

    @property
    def probabilities(self):
        """The mean over runs, float (n, k)."""
        return self.sums / max(len(self.runs), 1)


def confident_class(labels, probabilities):
    """Find the class that each image confidently belongs to.

    The threshold of a class is the mean probability of it over the images with its label. Of
    the classes whose threshold an image reaches, the most probable one counts (Northcutt et al.
    2021, equations 1 and 2). No image confidently belongs to a class that no label names.

    Args:
        labels: int (n,).
        probabilities: float (n, k), of networks that did not learn from these images.

    Returns:
        int (n,), -1 where no threshold is reached.
    """
    k = probabilities.shape[1]
    found = np.bincount(labels, minlength=k)
    own = np.bincount(labels, probabilities[np.arange(len(labels)), labels], minlength=k)
    thresholds = np.where(found > 0, own / np.maximum(found, 1), np.inf)
    reached = np.where(probabilities >= thresholds, probabilities, -1.0)
    return np.where(reached.max(axis=1) >= 0, reached.argmax(axis=1), -1)


def images_table(consensus, images, class_names):
    """List the images of a test set by how hard they are, the hardest first.

    An image is the harder, the more runs are wrong about it, then the less probable they find
    its label on average.

    Args:
        consensus: A `Consensus`.
        images: The test set's table, with `parent_id` and `source`, in the order of its rows.
        class_names: Names of the classes.

    Returns:
        A data frame: `row` in the test set, `id` of the original (in a test set of other images
        its own), `source` file, `label`, `runs` that count, `wrong_runs`, `label_pct` (mean
        probability of the label), `named` (the class that most runs name), `naming_runs`,
        `named_pct` (mean probability of that class), and `candidate`, whether the label may be
        wrong. Without a run that knows anything it is empty.
    """
    labels, votes = consensus.labels, consensus.votes
    probabilities, runs = consensus.probabilities, len(consensus.runs)
    rows = np.arange(len(labels))
    named = votes.argmax(axis=1)
    table = pd.DataFrame(
        {
            "row": rows,
            "id": images["parent_id"].to_numpy(),
            "source": images["source"].to_numpy(),
            "label": np.array(class_names, object)[labels],
            "runs": runs,
            "wrong_runs": runs - votes[rows, labels],
            "label_pct": 100 * probabilities[rows, labels],
            "named": np.array(class_names, object)[named],
            "naming_runs": votes[rows, named],
            "named_pct": 100 * probabilities[rows, named],
        }
    )
    table["candidate"] = (
        (named != labels)
        & (confident_class(labels, probabilities) == named)
        & (table["naming_runs"] >= AGREE * runs)
    )
    table = table.sort_values(["wrong_runs", "label_pct"], ascending=[False, True])
    return table if runs else table[:0]


def candidates(table):
    """Choose the label-noise candidates of `images_table`, the clearest first.

    They are ranked by how far the mean probability of the class named exceeds that of the label
    (the normalized margin of Northcutt et al. 2021, section 3.2).
    """
    found = table[table["candidate"]].drop(columns="candidate")
    margin = found["label_pct"] - found["named_pct"]
    return found.loc[margin.sort_values(kind="stable").index]
