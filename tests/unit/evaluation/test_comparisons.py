import numpy as np
import pandas as pd
import pytest
from answers import write_answers
from scipy import stats

from hemagrid.errors import InputError
from hemagrid.evaluation.comparisons import (
    BETTER,
    NOT_SHOWN,
    WORSE,
    beats_controls,
    compare,
    control_table,
    frugal_run,
    tuning_gain_table,
    winner_table,
)
from hemagrid.evaluation.statistics import holm, paired

N = 200
# Right answers of 200 on the test images, and of 400 on their augmented copies.
RIGHT = {
    "baseline_cnn": (120, 200),
    "vgg16_cfg1": (190, 300),
    "vgg16_cfg2": (188, 310),
    "convnext_cfg1": (198, 290),
    "convnext_cfg3": (160, 280),
    "convnext_tuned": (170, 208),
    "convnext_tuned_adamw": (170, 212),
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
    found = {}
    for name, (labels, probabilities, _) in subsets.items():
        value = np.mean(probabilities.argmax(axis=1) == labels)
        found[name] = {"accuracy": {"value": value, "low": value - 0.02, "high": value + 0.02}}
    backbone, _, head = run.partition("_")
    kind = "control" if run == "random_labels" else "transfer"
    return {"kind": kind, "backbone": backbone, "head": head, "subsets": found}


METRICS = {run: metrics_of(run, subsets_of(run)) for run in RIGHT}


@pytest.fixture(scope="module")
def predictions(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    return {run: write_answers(root / run, ["a", "b", "c"], subsets_of(run)) for run in RIGHT}


def differences(run, other, subset):
    right = [
        probabilities.argmax(axis=1) == labels
        for labels, probabilities, _ in (subsets_of(of)[subset] for of in (run, other))
    ]
    return right[0].astype(int) - right[1]


def test_every_other_run_meets_the_winner_on_each_test_subset(predictions):
    table = winner_table(METRICS, predictions, **SETTINGS)
    others = [run for run in RIGHT if run not in ("vgg16_cfg2", "random_labels")]
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
    assert verdicts["baseline_cnn", "test"] == WORSE
    assert verdicts["vgg16_cfg1", "test"] == NOT_SHOWN
    # Beaten on the images that the winner was chosen by, and yet better here.
    assert verdicts["convnext_cfg1", "test"] == BETTER


def test_the_numbers_are_those_of_the_paired_comparison(predictions):
    table = winner_table(METRICS, predictions, **SETTINGS).set_index(["run", "subset"])
    row = table.loc["baseline_cnn", "test_augmented"]
    found = differences("baseline_cnn", "vgg16_cfg2", "test_augmented")
    (expected,) = paired(found[:, None], np.arange(2 * N) // 2, resamples=100, seed=3, family=6)
    assert row["p_value"] == pytest.approx(expected["p"])
    bounds = [row["difference_points_low"], row["difference_points_high"]]
    assert bounds == pytest.approx([-100 * expected["high"], -100 * expected["low"]])
    # One row per image: the exact test of McNemar.
    found = differences("vgg16_cfg2", "convnext_cfg1", "test")
    assert table.loc[("convnext_cfg1", "test"), "p_value"] == pytest.approx(
        stats.binomtest((found > 0).sum(), (found != 0).sum()).pvalue
    )


def test_each_subset_is_a_family_of_the_winner_table(predictions):
    table = winner_table(METRICS, predictions, **SETTINGS)
    for subset, rows in table.groupby("subset"):
        title = subset.replace("test_augmented", "augmented test")
        assert set(rows["family"]) == {f"6 comparisons on the {title} images"}
        assert list(rows["p_holm"]) == pytest.approx(list(holm(rows["p_value"])))
    assert (table["p_holm"] < holm(table["p_value"])).any()


def test_the_winner_is_chosen_on_the_subset_of_the_config(predictions):
    table = winner_table(METRICS, predictions, **SETTINGS | {"select_by": "test"})
    assert set(table["compared_with"]) == {"convnext_cfg1"}


def test_what_is_missing_has_no_row(predictions, tmp_path):
    some = {run: predictions[run] for run in ("vgg16_cfg2", "baseline_cnn")}
    assert set(winner_table(METRICS, some, **SETTINGS)["run"]) == {"baseline_cnn"}
    unknown = METRICS | {"baseline_cnn": None}
    assert "baseline_cnn" not in set(winner_table(unknown, predictions, **SETTINGS)["run"])
    # A subset that only the winner predicted on
    part = {"test_augmented": subsets_of("vgg16_cfg1")["test_augmented"]}
    paths = write_answers(tmp_path, ["a", "b", "c"], part)
    metrics = {"vgg16_cfg2": METRICS["vgg16_cfg2"], "x": metrics_of("x", part)}
    table = winner_table(metrics, predictions | {"x": paths}, **SETTINGS)
    assert list(table["subset"]) == ["test_augmented"]


@pytest.mark.parametrize("runs", [[], ["vgg16_cfg1"], ["random_labels"]])
def test_without_two_runs_the_tables_are_empty(predictions, runs):
    metrics = {run: METRICS[run] for run in runs}
    for build in (winner_table, tuning_gain_table):
        table = build(metrics, predictions, **SETTINGS)
        assert table.empty and {"run", "p_holm", "family", "verdict"} <= set(table)


def test_every_run_meets_every_control(predictions):
    metrics = METRICS | {"convnext_cfg3": None}
    table = control_table(metrics, predictions)
    runs = [run for run in RIGHT if run not in ("convnext_cfg3", "random_labels")]
    expected = [(run, subset) for run in runs for subset in ("test", "test_augmented")]
    assert list(table[["run", "subset"]].itertuples(index=False, name=None)) == expected
    assert set(table["compared_with"]) == {"random_labels"}
    for row in table.itertuples():
        place = row.subset == "test_augmented"
        gain = RIGHT[row.run][place] - RIGHT["random_labels"][place]
        assert row.gain_points == pytest.approx(100 * gain / N / (1 + place))
        assert row.gain_points_low <= row.gain_points <= row.gain_points_high
        shown = row.gain_points_low > 0 or row.gain_points_high < 0
        assert shown == (row.verdict != NOT_SHOWN)
        assert row.family.startswith("6 comparisons")


def test_the_best_of_many_coins_does_not_beat_a_coin(tmp_path):
    rng = np.random.default_rng(0)
    labels, groups = np.arange(60) % 2, np.arange(60)
    runs = [f"coin{n:02}" for n in range(30)]
    metrics, paths = {}, {}
    for run in (*runs, "good", "random_labels"):
        coin = rng.integers(2, size=60)
        told = np.eye(2)[
            np.where(rng.random(60) < 0.9, labels, coin) if run == "good" else coin
        ]
        paths[run] = write_answers(tmp_path / run, ["a", "b"], {"test": (labels, told, groups)})
        metrics[run] = metrics_of(run, {"test": (labels, told, groups)})
    table = control_table(metrics, paths)
    assert (table["p_value"] < 0.05).sum() > 1
    assert beats_controls(table) == {"test": ["good"]}


def test_the_frugal_run_is_cheap_and_neither_worse_nor_a_guess():
    seconds = {"best": 90, "dear": 80, "cheap": 20, "worse": 10, "guess": 5, "both": 1}
    metrics = {
        run: {"kind": "ensemble" if run == "both" else "transfer"}
        | {"cost": {"seconds": cost, "parameters": 7}}
        for run, cost in seconds.items()
    }
    verdicts = {"dear": BETTER, "cheap": NOT_SHOWN, "guess": NOT_SHOWN, "both": NOT_SHOWN}
    rows = [(run, "best", verdict) for run, verdict in verdicts.items()]
    rows += [("worse", "best", NOT_SHOWN), ("worse", "best", WORSE)]
    winner = pd.DataFrame(rows, columns=["run", "compared_with", "verdict"])
    better = ["best", "dear", "cheap", "worse", "both"]
    assert frugal_run(metrics, winner, better) == "cheap"
    # The search and the embedding count.
    metrics["cheap"]["cost"] |= {"embedding_seconds": 50, "search_seconds": 21}
    assert frugal_run(metrics, winner, better) == "dear"
    assert frugal_run(metrics, winner, []) is None


def test_a_tuned_run_meets_the_best_untuned_run_of_its_backbone(predictions):
    gain = tuning_gain_table(METRICS, predictions, **SETTINGS)
    pairs = gain[["run", "compared_with", "subset"]].itertuples(index=False, name=None)
    tuned, adamw, untuned = "convnext_tuned", "convnext_tuned_adamw", "convnext_cfg1"
    assert list(pairs) == [
        # The search with AdamW meets both.
        (tuned, untuned, "test"),
        (tuned, untuned, "test_augmented"),
        (adamw, untuned, "test"),
        (adamw, untuned, "test_augmented"),
        (adamw, tuned, "test"),
        (adamw, tuned, "test_augmented"),
    ]
    assert list(gain["gain_points"]) == pytest.approx([-14, -20.5, -14, -19.5, 0, 1])
    difference = gain["tuned_accuracy_pct"] - gain["other_accuracy_pct"]
    assert list(gain["gain_points"]) == pytest.approx(list(difference))
    assert list(gain["verdict"]) == 4 * [WORSE] + 2 * [NOT_SHOWN]
    assert (gain["gain_points_low"] <= gain["gain_points"]).all()
    # All rows answer one question.
    assert set(gain["family"]) == {"6 comparisons of this table"}
    assert list(gain["p_holm"]) == pytest.approx(list(holm(gain["p_value"])))
    by_val = tuning_gain_table(METRICS, predictions, **SETTINGS | {"select_by": "val"})
    assert list(by_val["compared_with"][:2]) == [untuned] * 2


def written(folder, subset, groups=None, **right):
    """Write the answers of runs to images of one class; `right` holds bool (n,) by run."""
    paths = {}
    for run, answers in right.items():
        rows = np.eye(2)[(~np.asarray(answers)).astype(int)]
        n = len(rows)
        parts = (np.zeros(n, int), rows, np.arange(n) if groups is None else groups)
        paths[run] = write_answers(folder / run, ["a", "b"], {subset: parts})
    return paths


@pytest.mark.parametrize(("others", "verdict"), [(0, BETTER), (2, BETTER), (3, NOT_SHOWN)])
def test_a_difference_among_many_must_be_larger(tmp_path, others, verdict):
    # Seven answers against none: p is 2/128, times the number of comparisons.
    places = np.arange(50)
    right = {"x": places >= 0, "y": places >= 7} | {f"z{n}": places >= 0 for n in range(others)}
    paths = written(tmp_path, "holdout", **right)
    pairs = [("x", "y"), *(("x", f"z{n}") for n in range(others))]
    table = compare(pairs, paths, family="subset", bootstrap=10, seed=0)
    row = table.iloc[0]
    assert row["p_holm"] == pytest.approx(2 / 128 * (1 + others))
    assert row["verdict"] == verdict and row["subset"] == "holdout"
    assert (row["points_low"] <= 0) == (verdict == NOT_SHOWN)


def test_copies_of_an_image_are_one_piece_of_evidence(tmp_path):
    places = np.arange(80)
    right = {"x": places >= 0, "y": places >= 20}
    verdicts = []
    for groups in (places, places // 4):
        paths = written(tmp_path, "test", groups, **right)
        table = compare([("x", "y")], paths, family="subset", bootstrap=100, seed=0)
        verdicts.append(table["verdict"][0])
    # 20 against none, and 5 against none: p is 2 / 2**5.
    assert verdicts == [BETTER, NOT_SHOWN]


def test_words_and_intervals_never_contradict(tmp_path):
    """Families of every mix of large, small and no differences, few images and many."""
    rng, seen = np.random.default_rng(0), []
    for family in range(40):
        n = int(rng.integers(12, 200))
        copies = np.arange(n) // int(rng.integers(1, 4))
        ours = rng.random(n) < rng.choice([0.7, 0.95, 1])
        right = {"x": ours}
        for rival in range(int(rng.integers(1, 8))):
            flipped = rng.random(n) < rng.choice([0, 0.03, 0.1, 0.3])
            right[f"y{rival}"] = np.where(flipped, rng.random(n) < rng.random(), ours)
        paths = written(tmp_path, "test", copies, **right)
        pairs = [("x", run) if family % 2 else (run, "x") for run in right if run != "x"]
        for kind in ("subset", "table"):
            seen.append(compare(pairs, paths, family=kind, bootstrap=200, seed=family))
    table = pd.concat(seen)
    zero = (table["points_low"] <= 0) & (table["points_high"] >= 0)
    assert (zero == (table["verdict"] == NOT_SHOWN)).all()
    assert ((table["points_low"] > 0) == (table["verdict"] == BETTER)).all()
    assert ((table["points_high"] < 0) == (table["verdict"] == WORSE)).all()
    assert (table["points_low"] <= table["points"] + 1e-9).all()
    assert (table["points_high"] >= table["points"] - 1e-9).all()
    assert (table["points_low"] < table["points_high"]).all()
    assert set(table["verdict"]) == {BETTER, WORSE, NOT_SHOWN}


def test_runs_on_other_images_are_refused(predictions, tmp_path):
    labels, probabilities, groups = subsets_of("vgg16_cfg1")["test"]
    subset = (labels, probabilities, groups[::-1])
    found = write_answers(tmp_path, ["a", "b", "c"], {"test": subset})
    paths = predictions | {"vgg16_cfg1": found}
    with pytest.raises(InputError, match="vgg16_cfg1 and vgg16_cfg2 .* same test images"):
        winner_table(METRICS, paths, **SETTINGS)


def test_replicates_bring_the_seed_into_a_comparison(tmp_path):
    rng, paths = np.random.default_rng(0), {}
    accuracies = {"x": [0.86, 0.9, 0.94], "y": [0.8, 0.84, 0.82], "z": [0.84]}
    for run, values in accuracies.items():
        for number, accuracy in enumerate(values, start=1):
            name = f"{run}_s{number}" if number > 1 else run
            paths |= written(tmp_path, "test", **{name: rng.random(1000) < accuracy})
    settings = {"family": "subset", "bootstrap": 200, "seed": 0}
    alone = compare([("x", "y"), ("x", "z"), ("y", "z")], paths, **settings)
    assert "covers" not in alone
    replicates = {run: [run, f"{run}_s2", f"{run}_s3"] for run in ("x", "y")}
    table = compare(
        [("x", "y"), ("x", "z"), ("z", "z")], paths, replicates=replicates, **settings
    )
    assert list(table["covers"]) == [
        "images and seeds",
        "images, no seed of z",
        "images, no seed",
    ]
    assert table["points"][0] == pytest.approx(8, abs=2)
    width, narrow = ((of["points_high"] - of["points_low"])[0] for of in (table, alone))
    assert width > 1.5 * narrow
    assert 50 < table["seed_share_pct"][0] < 100 and np.isnan(table["seed_share_pct"][2])


def test_replicates_on_other_images_are_refused(tmp_path):
    paths = written(tmp_path, "test", x=np.ones(20) > 0, y=np.ones(20) > 0)
    paths |= written(tmp_path, "test", x_s2=np.ones(21) > 0)
    with pytest.raises(InputError, match="x and x_s2 did not predict on the same test images"):
        compare(
            [("x", "y")],
            paths,
            family="subset",
            bootstrap=100,
            seed=0,
            replicates={"x": ["x", "x_s2"]},
        )
