import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hemagrid.evaluation.metrics import accuracy
from hemagrid.evaluation.statistics import holm, paired, resampled_confusions, sign_flip_test


def compare(labels, ours, theirs, groups=None, resamples=500, seed=42):
    labels, ours, theirs = map(np.asarray, (labels, ours, theirs))
    groups = np.arange(len(labels)) if groups is None else np.asarray(groups)
    return paired(labels, ours, theirs, groups, resamples=resamples, seed=seed)


def by_enumeration(differences):
    """The p value over all 2**g signs."""
    signs = np.array(list(itertools.product([-1, 1], repeat=len(differences))))
    sums = signs @ np.asarray(differences)
    return np.mean(abs(sums) >= abs(sum(differences)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), min_size=1))
def test_with_one_row_per_image_it_is_mcnemars_exact_test(rows):
    labels, ours, theirs = np.array(rows).T
    won = int(((ours == labels) & (theirs != labels)).sum())
    lost = int(((ours != labels) & (theirs == labels)).sum())
    result = compare(labels, ours, theirs, resamples=5)
    expected = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert result["p"] == pytest.approx(expected, rel=1e-9)
    assert result["value"] == pytest.approx((won - lost) / len(rows))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=11))
def test_the_clustered_p_value_is_that_of_all_signs(differences):
    expected = by_enumeration(differences)
    assert sign_flip_test(differences) == pytest.approx(expected, rel=1e-9)


def test_copies_of_an_image_are_one_piece_of_evidence():
    labels = np.zeros(32, int)
    ours, theirs = np.zeros(32, int), np.repeat([1, 0], [20, 12])
    alone = compare(labels, ours, theirs)
    together = compare(labels, ours, theirs, groups=np.arange(32) // 4)
    assert alone["p"] == pytest.approx(2 * 0.5**20)
    assert together["p"] == pytest.approx(2 * 0.5**5)
    assert alone["value"] == together["value"] == 20 / 32
    assert together["high"] - together["low"] > 1.5 * (alone["high"] - alone["low"])


def test_the_order_of_rows_and_the_names_of_groups_do_not_matter():
    rng = np.random.default_rng(3)
    labels, ours, theirs = rng.integers(3, size=(3, 60))
    groups = np.arange(60) // 4
    straight = compare(labels, ours, theirs, groups)
    mixed = rng.permutation(60)
    assert compare(labels[mixed], ours[mixed], theirs[mixed], groups[mixed] * 7 + 5) == straight


def test_equal_runs_do_not_differ():
    labels = np.arange(40) % 3
    answers = np.where(np.arange(40) < 25, labels, 0)
    assert compare(labels, answers, answers) == {"value": 0, "low": 0, "high": 0, "p": 1}
    # Other answers, equally often right.
    assert sign_flip_test([1, -1, 2, -2]) == 1


def test_swapping_the_runs_turns_the_sign():
    rng = np.random.default_rng(5)
    labels, ours, theirs = rng.integers(2, size=(3, 80))
    groups = np.arange(80) // 2
    there, back = compare(labels, ours, theirs, groups), compare(labels, theirs, ours, groups)
    assert back["value"] == -there["value"] and back["p"] == there["p"]
    assert (back["low"], back["high"]) == pytest.approx((-there["high"], -there["low"]))


def test_resamples_are_paired_and_those_of_the_accuracies():
    rng = np.random.default_rng(7)
    labels, ours, theirs = rng.integers(2, size=(3, 200))
    groups = np.arange(200) // 4
    ours_right, theirs_right = (
        accuracy(resampled_confusions(labels, of, groups, 2, resamples=300, seed=1))
        for of in (ours, theirs)
    )
    low, high = np.quantile(ours_right - theirs_right, [0.025, 0.975])
    result = compare(labels, ours, theirs, groups, resamples=300, seed=1)
    assert (result["low"], result["high"]) == pytest.approx((low, high))


def test_the_interval_covers_a_true_difference_as_often_as_it_says():
    rng = np.random.default_rng(11)
    covered = 0
    for seed in range(200):
        labels = np.zeros(600, int)
        # Copies of an image share its difficulty; the models differ by 0.1.
        hard = np.repeat(rng.uniform(0, 0.4, 150), 4)
        ours = (rng.random(600) < hard).astype(int)
        theirs = (rng.random(600) < hard + 0.1).astype(int)
        result = compare(labels, ours, theirs, np.arange(600) // 4, 200, seed)
        covered += result["low"] <= 0.1 <= result["high"]
    # 190 expected, standard deviation 3.1.
    assert 178 <= covered <= 199


def test_large_sets_are_exact_and_quick():
    differences = np.repeat([1, -1, 2, -2, 4], [700, 640, 300, 290, 10])
    p = sign_flip_test(differences)
    deviation = np.sqrt((differences**2).sum())
    # Sums are 2 apart; half of that is the continuity correction.
    normal = 2 * stats.norm.sf((differences.sum() - 1) / deviation)
    assert p == pytest.approx(normal, rel=0.002)
    assert sign_flip_test(np.ones(5000, int)) == 0.0  # 2**-4999 is no float64
    assert 0 < sign_flip_test(np.ones(900, int)) < 1e-200


def test_holm():
    # Holm 1979 by hand: 4 * 0.01, 3 * 0.02, the larger of it and 2 * 0.025, 1 * 0.2.
    corrected = holm([0.025, 0.01, 0.2, 0.02])
    assert corrected == pytest.approx([0.06, 0.04, 0.2, 0.06])
    assert list(holm([0.7, 0.6])) == [1, 1]
    assert list(holm([0.03])) == [0.03]
    assert list(holm([])) == []
