import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from hemagrid.evaluation import statistics
from hemagrid.evaluation.statistics import (
    clopper_pearson,
    difference,
    effective_groups,
    gamma_interval,
    holm,
    paired,
    resampled_sums,
    sign_flip_test,
    tango,
)


def draws(rows, groups, resamples, seed):
    return np.concatenate(
        list(resampled_sums(np.asarray(rows), groups, resamples=resamples, seed=seed))
    )


def compare(differences, groups=None, resamples=500, seed=42, **family):
    differences = np.asarray(differences)
    groups = np.arange(len(differences)) if groups is None else groups
    (found,) = paired(differences[:, None], groups, resamples=resamples, seed=seed, **family)
    return found


# Resampling


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 12))
def test_a_resample_draws_whole_groups(seed, n_groups):
    rng = np.random.default_rng(seed)
    groups = np.concatenate([np.arange(n_groups), rng.integers(n_groups, size=9)]) * 7
    membership = groups[:, None] == 7 * np.arange(n_groups)
    sums = draws(membership.astype(int), groups, 20, seed)
    sizes = membership.sum(axis=0)
    assert sums.shape == (20, n_groups) and (sums % sizes == 0).all()
    assert ((sums // sizes).sum(axis=1) == n_groups).all()


def test_draws_do_not_depend_on_how_many_fit_into_memory(monkeypatch):
    rows, groups = np.arange(90).reshape(30, 3), np.arange(30) // 2
    whole = draws(rows, groups, 50, 1)
    monkeypatch.setattr(statistics, "_CELLS_AT_ONCE", 40)
    assert (draws(rows, groups, 50, 1) == whole).all()


# Intervals of proportions


@pytest.mark.parametrize(("hits", "n"), [(0, 20), (20, 20), (1, 20), (13, 20)])
def test_clopper_pearson_is_that_of_scipy(hits, n):
    expected = stats.binomtest(hits, n).proportion_ci()
    assert clopper_pearson(hits / n, n) == pytest.approx((expected.low, expected.high))


def test_groups_are_worth_as_many_images_as_they_vary_like():
    sizes = np.full(200, 4)
    together = np.repeat([4, 0], [150, 50])
    assert effective_groups(together, sizes) == pytest.approx(200, rel=0.01)
    # Independent copies would be worth 800 images, but that is hard to know.
    rng = np.random.default_rng(0)
    assert effective_groups(rng.binomial(4, 0.75, 200), sizes) == 200
    # One large group that is wrong is one piece of evidence among a few.
    sizes[0], together[0] = 400, 0
    assert effective_groups(together, sizes) < 20
    for right in (np.zeros(5), np.full(5, 4), np.full(5, 2)):
        assert effective_groups(right, np.full(5, 4)) == 5
    assert effective_groups(np.array([3]), np.array([4])) == 1


def test_the_gamma_interval_is_garwoods_for_one_weight():
    # Garwood 1936 (Biometrika 28), the exact interval of a Poisson count.
    for count in (0, 1, 4):
        low = stats.chi2.ppf(0.025, 2 * count) / 2 if count else 0
        high = stats.chi2.ppf(0.975, 2 * count + 2) / 2
        found = gamma_interval(count / 400, np.array([count]), np.array([1 / 400]))
        assert found == pytest.approx((low / 400, high / 400))
    # What is not seen may be of the rarest class.
    weights = np.array([1 / 20, 1 / 2000])
    assert gamma_interval(0, np.zeros(2), weights)[1] == pytest.approx(-np.log(0.025) / 20)
    assert gamma_interval(0, np.zeros(1), np.ones(1)) == (0, 1)


# Paired comparisons


def by_enumeration(differences):
    """The p value over all 2**g signs."""
    signs = np.array(list(itertools.product([-1, 1], repeat=len(differences))))
    sums = signs @ np.asarray(differences)
    return np.mean(abs(sums) >= abs(sum(differences)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1, 1), min_size=1))
def test_with_one_row_per_group_it_is_mcnemars_exact_test(differences):
    won, lost = differences.count(1), differences.count(-1)
    result = compare(differences, resamples=5)
    expected = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert result["p"] == pytest.approx(expected, rel=1e-9)
    assert result["value"] == pytest.approx((won - lost) / len(differences))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=11))
def test_the_clustered_p_value_is_that_of_all_signs(differences):
    expected = by_enumeration(differences)
    assert sign_flip_test(differences) == pytest.approx(expected, rel=1e-9)


def test_a_group_is_one_piece_of_evidence():
    differences = np.repeat([1, -1, 0], [80, 40, 80])
    alone = compare(differences)
    together = compare(differences, np.arange(200) // 4)
    assert alone["p"] == pytest.approx(by_counts(80, 40))
    assert together["p"] == pytest.approx(by_counts(20, 10))
    assert alone["value"] == together["value"] == 0.2
    # Four equal copies carry the information of one: twice the width.
    width = {id(r): r["high"] - r["low"] for r in (alone, together)}
    assert width[id(together)] == pytest.approx(2 * width[id(alone)], rel=0.2)


def by_counts(won, lost):
    return stats.binomtest(won, won + lost).pvalue


def test_the_order_of_rows_and_the_names_of_groups_do_not_matter():
    rng = np.random.default_rng(3)
    differences, groups = rng.integers(-1, 2, size=60), np.arange(60) // 4
    mixed = rng.permutation(60)
    again = compare(differences[mixed], groups[mixed] * 7 + 5)
    assert again == compare(differences, groups)


def test_swapping_the_runs_turns_the_sign():
    differences = np.random.default_rng(5).integers(-1, 2, size=80)
    for groups in (np.arange(80) // 2, np.arange(80) // 16):  # many, and few
        there, back = compare(differences, groups), compare(-differences, groups)
        assert back["value"] == -there["value"] and back["p"] == there["p"]
        assert (back["low"], back["high"]) == pytest.approx((-there["high"], -there["low"]))


def test_a_pair_does_not_depend_on_the_others():
    differences = np.random.default_rng(7).integers(-1, 2, size=(120, 3))
    together = paired(differences, np.arange(120), resamples=300, seed=1)
    assert together == [compare(column, resamples=300, seed=1) for column in differences.T]


def test_bounds_of_a_family_are_percentiles_further_out():
    differences, groups = np.random.default_rng(7).integers(-1, 2, size=200), np.arange(200)
    sums = draws(differences[:, None], groups, 1000, 1)[:, 0] / 200
    found = compare(differences, groups, resamples=300, seed=1, family=5)
    expected = np.quantile(sums, [0.005, 0.995])
    assert (found["low"], found["high"]) == pytest.approx(tuple(expected))
    assert found["p"] == compare(differences, groups)["p"]


@pytest.mark.parametrize(
    "differences", [np.zeros(200), np.ones(200), np.repeat([1, 0], [3, 197])]
)
def test_an_interval_is_never_a_point(differences):
    found = compare(differences.astype(int))
    assert found["low"] < found["high"]
    assert found["low"] <= found["value"] <= found["high"]


def test_tangos_interval():
    z = stats.norm.isf(0.025)
    assert tango(0, 0, 200) == pytest.approx((-(z**2) / (200 + z**2), z**2 / (200 + z**2)))
    # At the bound the score statistic is z; for no difference that is McNemar's.
    won = 1 + (z**2 + z * np.sqrt(z**2 + 8)) / 2
    assert (won - 1) / np.sqrt(won + 1) == pytest.approx(z)
    assert tango(won, 1, 100)[0] == pytest.approx(0, abs=1e-9)
    assert tango(50, 0, 50)[1] == 1 and tango(0, 50, 50)[0] == -1


def test_the_interval_covers_a_true_difference_as_often_as_it_says():
    rng = np.random.default_rng(11)
    covered = {0.1: 0, 0.002: 0}
    for true, seed in itertools.product(covered, range(200)):
        # Copies of an image share its difficulty; the second model errs more often by `true`.
        hard = np.repeat(rng.uniform(0, 4 * true, 150), 4)
        differences = (rng.random(600) < hard + true).astype(int) - (rng.random(600) < hard)
        result = compare(differences, np.arange(600) // 4, 200, seed)
        covered[true] += result["low"] <= true <= result["high"]
    # 190 expected, standard deviation 3.1; with a few differences the interval is wider.
    assert 178 <= covered[0.1] <= 199 and covered[0.002] >= 181


def test_the_intervals_of_a_family_hold_together_and_few_equal_runs_seem_to_differ():
    rng, together, wrong = np.random.default_rng(13), 0, 0
    true = np.array([0, 0, 0, 0, 0.01, 0.03, 0.1, 0.3])
    groups = np.arange(600) // 2
    for seed in range(80):
        # The runs err on the same hard images, the rivals more often by `true`.
        hard = np.repeat(rng.beta(0.4, 3.6, 300), 2)
        winner = rng.random(600) < hard
        rivals = rng.random((8, 600)) < hard + true[:, None]
        found = paired(
            (rivals.astype(int) - winner).T, groups, resamples=100, seed=seed, family=8
        )
        bounds = np.array([(each["low"], each["high"]) for each in found])
        together += ((bounds[:, 0] <= true) & (true <= bounds[:, 1])).all()
        wrong += (holm([each["p"] for each in found])[:4] <= 0.05).any()
    # At most 4 of 80 expected to fail, standard deviation 2.
    assert together >= 70 and wrong <= 10


def test_large_sets_are_exact():
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


def test_a_difference_of_independent_scores_is_that_of_newcombes_example():
    # Newcombe 1998, table II, method 10, contrast (a): 56 of 70 against 48 of 80.
    scores = []
    for hits, n in ((56, 70), (48, 80)):
        bounds = stats.binomtest(hits, n).proportion_ci(method="wilson")
        scores.append({"value": hits / n, "low": bounds.low, "high": bounds.high})
    found = difference(*scores)
    assert found["value"] == pytest.approx(0.2)
    assert (found["low"], found["high"]) == pytest.approx((0.0524, 0.3339), abs=1e-4)
