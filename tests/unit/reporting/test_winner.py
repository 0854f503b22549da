import numpy as np
import pytest
from scipy import stats

from hemagrid.errors import InputError
from hemagrid.evaluation.comparisons import winner_table
from hemagrid.evaluation.statistics import holm, paired
from hemagrid.io import write_json
from hemagrid.reporting.tables import compare_with_winner, read_winner
from hemagrid.training.predictions import write_predictions

N = 200
CHANCE = "no difference beyond chance"
# Right answers of 200 on the test images, and of 400 on their augmented copies.
RIGHT = {
    "baseline_cnn": (120, 200),
    "vgg16_cfg1": (190, 300),
    "vgg16_cfg2": (188, 310),
    "convnext_cfg1": (198, 290),
    "convnext_tuned": (170, 308),
    "random_labels": (199, 399),
}
SETTINGS = {"select_by": "test_augmented", "bootstrap": 100, "seed": 3}


def answers(labels, right, shift=0):
    """Probabilities that are right on `right` rows, the first ones after `shift`."""
    place = (np.arange(len(labels)) - shift) % len(labels)
    return np.eye(3)[np.where(place < right, labels, (labels + 1) % 3)]


def subsets_of(run):
    test, augmented = RIGHT[run]
    shift = list(RIGHT).index(run)
    labels = np.arange(N) % 3
    repeated, groups = np.repeat(labels, 2), np.arange(2 * N) // 2
    return {
        "val": (labels, answers(labels, test), np.arange(N)),
        "test": (labels, answers(labels, test, shift), np.arange(N)),
        "test_augmented": (repeated, answers(repeated, augmented, shift), groups),
    }


def metrics_of(run, subsets):
    def accuracy(labels, probabilities):
        value = np.mean(probabilities.argmax(axis=1) == labels)
        return {"accuracy": {"value": value, "low": value - 0.02, "high": value + 0.02}}

    return {
        "kind": "control" if run == "random_labels" else "transfer",
        "subsets": {name: accuracy(*parts[:2]) for name, parts in subsets.items()},
    }


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    for run in RIGHT:
        subsets = subsets_of(run)
        write_predictions(root / run / "predictions.npz", ["a", "b", "c"], subsets)
        write_json(root / run / "metrics.json", metrics_of(run, subsets))
    return root


def compare(study, out, runs=RIGHT, **changes):
    inputs = {
        "metrics": [study / run / "metrics.json" for run in runs],
        "predictions": [study / run / "predictions.npz" for run in runs],
    }
    compare_with_winner(inputs, {"winner": out / "winner.csv"}, SETTINGS | changes)
    return read_winner(out / "winner.csv")


def test_every_other_run_meets_the_winner_on_each_test_subset(study, tmp_path):
    table = compare(study, tmp_path)
    others = ["baseline_cnn", "vgg16_cfg1", "convnext_cfg1", "convnext_tuned"]
    expected = [(run, subset) for run in others for subset in ("test", "test_augmented")]
    assert list(table[["run", "subset"]].itertuples(index=False, name=None)) == expected
    assert set(table["compared_with"]) == {"vgg16_cfg2"}
    for row in table.itertuples():
        place = row.subset == "test_augmented"
        n = N * (1 + place)
        ours = 100 * RIGHT[row.run][place] / n
        assert row.accuracy_pct == pytest.approx(ours)
        assert row.accuracy_pct_low == pytest.approx(ours - 2)
        assert row.accuracy_pct_high == pytest.approx(ours + 2)
        winner = 100 * RIGHT["vgg16_cfg2"][place] / n
        assert row.difference_points == pytest.approx(winner - ours)
        assert row.difference_points_low <= row.difference_points <= row.difference_points_high
    verdicts = table.set_index(["run", "subset"])["verdict"]
    assert verdicts["baseline_cnn", "test"] == "worse"
    assert verdicts["vgg16_cfg1", "test"] == CHANCE
    # Beaten on the images that the winner was chosen by, and yet better here.
    assert verdicts["convnext_cfg1", "test"] == "better"
    assert verdicts["convnext_tuned", "test_augmented"] == CHANCE


def test_the_numbers_are_those_of_the_paired_comparison(study, tmp_path):
    table = compare(study, tmp_path).set_index(["run", "subset"])
    labels, winner, groups = subsets_of("vgg16_cfg2")["test_augmented"]
    run = subsets_of("vgg16_cfg1")["test_augmented"][1]
    expected = paired(
        labels, winner.argmax(axis=1), run.argmax(axis=1), groups, resamples=100, seed=3
    )
    row = table.loc["vgg16_cfg1", "test_augmented"]
    assert row["p_value"] == pytest.approx(expected["p"])
    bounds = [row["difference_points_low"] / 100, row["difference_points_high"] / 100]
    assert bounds == pytest.approx([expected["low"], expected["high"]])
    # One row per image: the exact test of McNemar.
    labels, winner, _ = subsets_of("vgg16_cfg2")["test"]
    right = winner.argmax(axis=1) == labels
    other = subsets_of("convnext_cfg1")["test"][1].argmax(axis=1) == labels
    won, lost = (right & ~other).sum(), (other & ~right).sum()
    assert table.loc[("convnext_cfg1", "test"), "p_value"] == pytest.approx(
        stats.binomtest(won, won + lost).pvalue
    )


def test_each_subset_is_corrected_for_its_own_rows(study, tmp_path):
    table = compare(study, tmp_path)
    for _, rows in table.groupby("subset"):
        assert list(rows["p_holm"]) == pytest.approx(list(holm(rows["p_value"])))
    assert (table["verdict"] == CHANCE).equals(table["p_holm"] > 0.05)
    together = holm(table["p_value"])
    assert (table["p_holm"] < together).any()


def test_the_winner_is_chosen_on_the_subset_of_the_config(study, tmp_path):
    table = compare(study, tmp_path, select_by="test")
    assert set(table["compared_with"]) == {"convnext_cfg1"}


def test_what_is_missing_has_no_row(study, tmp_path):
    runs = [*RIGHT, "vgg16_cfg3"]  # never trained
    assert "vgg16_cfg3" not in set(compare(study, tmp_path, runs)["run"])
    metrics = {run: metrics_of(run, subsets_of(run)) for run in RIGHT}
    predictions = {run: study / run / "predictions.npz" for run in RIGHT}
    some = {run: predictions[run] for run in ("vgg16_cfg2", "baseline_cnn")}
    assert set(winner_table(metrics, some, **SETTINGS)["run"]) == {"baseline_cnn"}
    unknown = metrics | {"baseline_cnn": None}
    assert "baseline_cnn" not in set(winner_table(unknown, predictions, **SETTINGS)["run"])


@pytest.mark.parametrize("runs", [[], ["vgg16_cfg9"], ["vgg16_cfg1"], ["random_labels"]])
def test_without_two_runs_the_table_is_empty(study, tmp_path, runs):
    table = compare(study, tmp_path, runs)
    assert table.empty and {"run", "p_holm", "verdict"} <= set(table)


def test_a_subset_that_one_of_them_lacks_has_no_row(study, tmp_path):
    subsets = subsets_of("vgg16_cfg1")
    part = {"test_augmented": subsets["test_augmented"]}
    write_predictions(tmp_path / "x" / "predictions.npz", ["a", "b", "c"], part)
    predictions = {"vgg16_cfg2": study / "vgg16_cfg2" / "predictions.npz"}
    predictions |= {"x": tmp_path / "x" / "predictions.npz"}
    metrics = {"vgg16_cfg2": metrics_of("vgg16_cfg2", subsets_of("vgg16_cfg2"))}
    metrics |= {"x": metrics_of("x", part)}
    assert list(winner_table(metrics, predictions, **SETTINGS)["subset"]) == ["test_augmented"]


def test_a_run_on_other_images_is_refused(study, tmp_path):
    metrics = {run: metrics_of(run, subsets_of(run)) for run in ("vgg16_cfg1", "vgg16_cfg2")}
    labels, probabilities, groups = subsets_of("vgg16_cfg1")["test"]
    other = tmp_path / "predictions.npz"
    write_predictions(other, ["a", "b", "c"], {"test": (labels, probabilities, groups[::-1])})
    predictions = {"vgg16_cfg1": other, "vgg16_cfg2": study / "vgg16_cfg2" / "predictions.npz"}
    with pytest.raises(InputError, match="vgg16_cfg2 and vgg16_cfg1 .* same test images"):
        winner_table(metrics, predictions, **SETTINGS)
