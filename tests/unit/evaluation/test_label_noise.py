import numpy as np
import pandas as pd

from hemagrid.evaluation.label_noise import Consensus, candidates, confident_class, images_table


def test_a_class_counts_where_an_image_reaches_the_mean_of_its_label():
    labels = np.array([0, 0, 0, 1, 1])
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.1, 0.9], [0.2, 0.8], [0.45, 0.55]])
    # The means over their labels: 0.567 of class 0, 0.675 of class 1.
    assert list(confident_class(labels, probabilities)) == [0, 0, 1, 1, -1]


def test_no_image_belongs_to_a_class_without_labels():
    probabilities = np.array([[0.1, 0.2, 0.7], [0.2, 0.7, 0.1]])
    assert list(confident_class(np.array([0, 1]), probabilities)) == [0, 1]


def test_a_wrong_label_is_found_and_a_run_that_knows_nothing_does_not_count():
    labels = np.repeat([0, 1], 10)
    truth = labels.copy()
    truth[3] = 1
    sure = np.full((20, 2), 0.05)
    sure[np.arange(20), truth] = 0.95
    undecided = sure.copy()
    undecided[12] = [0.55, 0.45]  # hard for one run, and no more
    consensus = Consensus(labels, 2)
    for run, answers in {
        "a": sure,
        "b": undecided,
        "blind": np.tile([0.9, 0.1], (20, 1)),
    }.items():
        consensus.add(run, answers)
    images = pd.DataFrame(
        {"parent_id": range(100, 120), "source": [f"{i}.png" for i in range(20)]}
    )
    table = images_table(consensus, images, ["x", "y"])
    assert list(table["row"][:2]) == [3, 12] and set(table["runs"]) == {2}
    hardest = table.iloc[0]
    assert (hardest["id"], hardest["source"], hardest["label"]) == (103, "3.png", "x")
    assert (hardest["wrong_runs"], hardest["named"], hardest["naming_runs"]) == (2, "y", 2)
    assert list(candidates(table)["row"]) == [3]
