import numpy as np
import pandas as pd
import pytest
from answers import write_answers
from sklearn.metrics import cohen_kappa_score

from hemagrid.errors import InputError
from hemagrid.evaluation import agreement
from hemagrid.evaluation.agreement import agreement_table, cohens_kappa, compare_answers
from hemagrid.io import read_table, write_table


def test_kappa_is_cohens():
    answers = np.random.default_rng(1).integers(4, size=(3, 60))
    equal, kappa = cohens_kappa(answers, 4)
    for i in range(3):
        for j in range(3):
            assert kappa[i, j] == pytest.approx(cohen_kappa_score(answers[i], answers[j]))
            assert equal[i, j] == pytest.approx(np.mean(answers[i] == answers[j]))


def test_kappa_of_one_and_the_same_class_is_not_defined():
    assert np.isnan(cohens_kappa(np.zeros((2, 5), int), 3)[1]).all()


def test_pairs_are_those_of_the_most_accurate_runs(monkeypatch):
    monkeypatch.setattr(agreement, "MOST_RUNS", 2)
    labels = np.array([0, 0, 1, 1])
    answers = {"poor": 1 - labels, "good": labels, "fair": np.array([0, 1, 1, 1])}
    table = agreement_table(answers, labels, 2)
    assert table[["run", "compared_with"]].to_numpy().tolist() == [["good", "fair"]]
    assert table.loc[0, "equal_pct"] == 75 and table.loc[0, "both_wrong_pct"] == 0
    assert agreement_table({"alone": labels}, labels, 2).empty


@pytest.fixture
def inputs(tmp_path):
    labels = np.repeat([0, 1, 2], 8)
    rng, paths = np.random.default_rng(3), []
    for run in ("a", "b"):
        answers = np.eye(3)[labels] * 0.8 + rng.dirichlet([1, 1, 1], 24) * 0.2
        parts = {subset: (labels, answers, np.arange(24)) for subset in ("test", "lab")}
        paths += write_answers(tmp_path / run / "predictions", ["x", "y", "z"], parts)
    columns = {"parent_id": range(24), "label": labels, "source": "p.png"}
    for subset in ("test", "lab"):
        write_table(tmp_path / f"{subset}.csv", pd.DataFrame(columns))
    tables = {f"table_{subset}": tmp_path / f"{subset}.csv" for subset in ("test", "lab")}
    return {"predictions": [*paths, tmp_path / "c" / "predictions" / "test.npz"], **tables}


def test_every_test_set_has_its_images_and_the_test_set_its_pairs(tmp_path, inputs):
    out = {
        name: tmp_path / f"{name}.csv" for name in ("agreement", "hard_images", "label_noise")
    }
    compare_answers(inputs, out)
    hard = read_table(out["hard_images"])
    assert hard.groupby("subset")["row"].nunique().to_dict() == {"test": 24, "lab": 24}
    assert read_table(out["label_noise"]).empty
    (pair,) = read_table(out["agreement"]).itertuples()
    assert (pair.run, pair.compared_with, pair.equal_pct) == ("a", "b", 100)


def test_predictions_of_other_images_are_refused(tmp_path, inputs):
    write_table(inputs["table_lab"], read_table(inputs["table_lab"])[:20])
    with pytest.raises(InputError, match="24 images, expected those of .*lab.csv, 20"):
        compare_answers(inputs, {})
