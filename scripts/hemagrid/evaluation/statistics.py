"""Intervals and tests for answers to images that come in groups.

A group is an image with its near duplicates and augmented copies. Its answers depend on each
other, so groups are the units of every resample, interval and test here.
"""

import math

import numpy as np
from scipy import optimize, sparse, stats

ALPHA = 0.05
"""Error rate: intervals are at 95 %, p values at most this are called differences."""
FEW = 10
"""Fewer groups than this with a wrong answer, or with a right one, are too few to resample."""

_CELLS_AT_ONCE = 2_000_000  # resampling weights held in memory: 16 MB of int64


def resampled_sums(rows, groups, *, resamples, seed):
    """Bootstrap the sums of columns over groups, a chunk of resamples at a time.

    Each resample draws as many groups as there are, with replacement, and a group brings all
    its rows (cluster bootstrap: Efron & Tibshirani 1993, chapter 8; Davison & Hinkley 1997,
    section 3.8). Counting per group first turns resampling into a matrix product.

    Args:
        rows: int (n, m), a NumPy array or a sparse one.
        groups: int (n,).
        resamples: Number of resamples.
        seed: Seed of the draws.

    Yields:
        int64 (chunk, m).
    """
    _, group = np.unique(groups, return_inverse=True)
    n, n_groups = len(group), group.max() + 1
    members = sparse.csr_array((np.ones(n, np.int64), (group, np.arange(n))), (n_groups, n))
    per_group = members @ sparse.csr_array(rows)
    rng = np.random.default_rng(seed)
    chunk = max(1, _CELLS_AT_ONCE // n_groups)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = rng.integers(n_groups, size=(size, n_groups))
        drawn += np.arange(size)[:, None] * n_groups
        weights = np.bincount(drawn.ravel(), minlength=size * n_groups)
        yield np.ascontiguousarray(weights.reshape(size, -1) @ per_group)


def percentiles(resampled, alpha=ALPHA):
    """Return the two bounds (low, high) between which 1 - `alpha` of the resamples lie."""
    low, high = np.quantile(resampled, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def clopper_pearson(share, n, alpha=ALPHA):
    """Exact interval of a proportion (Clopper & Pearson 1934, Biometrika 26).

    Args:
        share: The proportion found, 0 to 1.
        n: Number of independent units; it may be an effective one, with a fraction.
        alpha: Error rate.

    Returns:
        (low, high).
    """
    hits, misses = share * n, (1 - share) * n
    low = stats.beta.ppf(alpha / 2, hits, misses + 1) if hits > 0 else 0
    high = stats.beta.isf(alpha / 2, hits + 1, misses) if misses > 0 else 1
    return float(low), float(high)


def difference(first, second):
    """Interval of the difference of two scores that were estimated from different images.

    Zou & Donner 2008 (Statistics in Medicine 27, "Construction of confidence limits about
    effect measures: a general approach"; MOVER). It takes the intervals of both scores as they
    are, so images of one group are resampled together, and bounds near 100 % stay exact.
    With Wilson's intervals it is method 10 of Newcombe 1998 (Statistics in Medicine 17).

    Args:
        first: {"value", "low", "high"}, with its 95 % interval.
        second: The same of the other score.

    Returns:
        {"value": first minus second, "low", "high"}.
    """
    value = first["value"] - second["value"]
    below = math.hypot(first["value"] - first["low"], second["high"] - second["value"])
    above = math.hypot(first["high"] - first["value"], second["value"] - second["low"])
    return {"value": value, "low": value - below, "high": value + above}


def effective_groups(right, sizes):
    """Return how many independent images the answers of groups are worth.

    The number of rows divided by the design effect (Korn & Graubard 1998, Survey Methodology
    24, "Confidence intervals for proportions with small expected number of positive counts"),
    but at most the number of groups: the design effect of a few groups is no more than a guess.

    Args:
        right: int (g,), right answers of each group.
        sizes: int (g,), rows of each group.
    """
    g, share = len(sizes), right.sum() / sizes.sum()
    variance = ((right - share * sizes) ** 2).sum() / sizes.sum() ** 2 * g / max(g - 1, 1)
    return min(g, share * (1 - share) / variance) if variance else g


def gamma_interval(value, counts, weights, alpha=ALPHA):
    """Interval of a weighted sum of rare counts, such as the mean error rate of classes.

    Fay & Feuer 1997 (Statistics in Medicine 16, "Confidence intervals for directly standardized
    rates: a method based on the gamma distribution"). Without any count, its upper bound is
    what three or four more of the largest weight would give.

    Args:
        value: The sum found, `counts` @ `weights`, or one that is equal to first order.
        counts: float (k,).
        weights: float (k,).
        alpha: Error rate.

    Returns:
        (low, high), at most 1.
    """
    low, variance, most = 0, counts @ weights**2, weights.max()
    if value > 0:
        low = variance / (2 * value) * stats.chi2.ppf(alpha / 2, 2 * value**2 / variance)
    value, variance = value + most, variance + most**2
    high = variance / (2 * value) * stats.chi2.isf(alpha / 2, 2 * value**2 / variance)
    return float(low), min(1.0, float(high))


def paired(differences, groups, *, resamples, seed, family=1):
    """Compare pairs of runs on the same rows.

    Bounds are at the level 1 - `ALPHA` / `family`, so that all intervals of a family hold
    together with probability 0.95 (Bonferroni; Dunn 1961, JASA 56). They are percentiles of
    resampled groups or, where fewer than `FEW` groups differ, `tango`. There are at least 200
    resamples per comparison of the family, because bounds lie further out than usual.

    Args:
        differences: int (n, r): for each row and pair 1 if only the first run is right, -1 if
            only the second one is, 0 otherwise.
        groups: int (n,).
        resamples: Number of resamples.
        seed: Seed of the draws.
        family: Number of comparisons that are made to answer one question.

    Returns:
        A list of r {"value": first minus second accuracy, "low", "high", "p": of
        `sign_flip_test`}, all but p from -1 to 1.
    """
    differences = np.asarray(differences, np.int64)
    n, r = differences.shape
    alpha = ALPHA / family
    rows = np.column_stack([differences, np.ones(n, np.int64)])
    resampled = np.concatenate(
        [
            sums[:, :r] / sums[:, r:]
            for sums in resampled_sums(
                rows, groups, resamples=max(resamples, 200 * family), seed=seed
            )
        ]
    )
    _, group = np.unique(groups, return_inverse=True)
    found = []
    for column, draws in zip(differences.T, resampled.T, strict=True):
        per_group = np.bincount(group, column).astype(np.int64)
        if np.count_nonzero(per_group) < FEW or np.ptp(draws) == 0:
            share = len(per_group) / n
            won, lost = (
                share * abs(per_group[of]).sum() for of in (per_group > 0, per_group < 0)
            )
            low, high = tango(won, lost, len(per_group), alpha)
        else:
            low, high = percentiles(draws, alpha)
        p = sign_flip_test(per_group)
        found.append({"value": float(column.mean()), "low": low, "high": high, "p": p})
    return found


def tango(won, lost, n, alpha=ALPHA):
    """Score interval of the difference between two paired proportions.

    Tango 1998 (Statistics in Medicine 17, "Equivalence test and confidence interval for the
    difference in proportions for the paired-sample design"). It is not a point where the pairs
    agree throughout: then it is +- z^2 / (n + z^2).

    Args:
        won: Pairs in which only the first is right; counts may have fractions.
        lost: Pairs in which only the second is right.
        n: Number of pairs.
        alpha: Error rate.

    Returns:
        (low, high) of (won - lost) / n.
    """
    z, value = stats.norm.isf(alpha / 2), (won - lost) / n

    def excess(difference):
        """Distance of the score statistic from z, positive beyond it."""
        b = (2 * n - won + lost) * difference - won - lost
        c = -lost * difference * (1 - difference)
        other = (math.sqrt(max(b * b - 8 * n * c, 0)) - b) / (4 * n)
        variance = n * (2 * other + difference * (1 - difference))
        return abs(won - lost - n * difference) - z * math.sqrt(max(variance, 0))

    step = 1e-9  # where all pairs agree, the variance is 0 at the difference found
    low = optimize.brentq(excess, -1, value - step) if value > step - 1 else -1.0
    high = optimize.brentq(excess, value + step, 1) if value < 1 - step else 1.0
    return low, high


def sign_flip_test(differences):
    """Exact two-sided p value of the sum of differences under random signs.

    Under the null hypothesis the two runs may be exchanged within each group, so its difference
    in right answers has either sign with probability 1/2 (Fisher 1935, The Design of
    Experiments, section 21). With one row per group this is the exact test of McNemar 1947
    (Psychometrika 12), which Dietterich 1998 (Neural Computation 10) recommends for two models
    that were trained once.

    Args:
        differences: int (g,), one per group.

    Returns:
        The p value; 1 if all differences are 0.
    """
    differences = np.asarray(differences)
    sizes, counts = np.unique(abs(differences[differences != 0]), return_counts=True)
    # Groups with a difference of `size` add size * Binomial(count, 1/2) to the sum of the
    # positive ones. There are few sizes, so convolving them one by one is exact and fast.
    positive = np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        spread = np.zeros(size * count + 1)
        spread[::size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        positive = np.convolve(positive, spread)
    total = len(positive) - 1
    sums = 2 * np.arange(total + 1) - total
    return min(1.0, float(positive[abs(sums) >= abs(differences.sum())].sum()))


def holm(p_values):
    """Correct p values for the number of tests in their family.

    Holm 1979 (Scandinavian Journal of Statistics 6, "A simple sequentially rejective multiple
    test procedure"). With probability 0.95, no true null hypothesis has a corrected p value of
    0.05 or less.

    Args:
        p_values: float (m,).

    Returns:
        float (m,), in the same order.
    """
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values)
    steps = (len(p_values) - np.arange(len(p_values))) * p_values[order]
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return corrected
