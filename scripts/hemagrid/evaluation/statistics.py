"""How good is a run? Its predictions become metrics with intervals."""

import numpy as np
from scipy import sparse, stats

_CONFIDENCE = 0.95


_CELLS_AT_ONCE = 2_000_000  # resampling weights held in memory: 16 MB of int64


def resampled_confusions(labels, predicted, groups, k, *, resamples, seed):
    """Bootstrap the confusion matrix over groups: counts (resamples, k, k).

    As many groups as there are, drawn with replacement; a group comes with all its
    rows (cluster bootstrap: Efron & Tibshirani 1993, chapter 8; Davison & Hinkley 1997,
    section 3.8). Counting per group first turns a resample into one matrix product.
    """
    _, group = np.unique(groups, return_inverse=True)
    n_groups = group.max() + 1
    per_group = sparse.csr_array(
        (np.ones(len(labels), np.int64), (group, labels * k + predicted)),
        shape=(n_groups, k * k),
    )
    rng = np.random.default_rng(seed)
    chunk = max(1, _CELLS_AT_ONCE // n_groups)
    confusions = np.empty((resamples, k * k), np.int64)
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = rng.integers(n_groups, size=(size, n_groups))
        drawn += np.arange(size)[:, None] * n_groups
        weights = np.bincount(drawn.ravel(), minlength=size * n_groups)
        confusions[start : start + size] = weights.reshape(size, -1) @ per_group
    return confusions.reshape(resamples, k, k)


def with_interval(value, resampled):
    """Return {"value", "low", "high"}: the bounds are the 95 % percentiles of `resampled`."""
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail])
    return {"value": float(value), "low": float(low), "high": float(high)}


def paired(labels, ours, theirs, groups, *, resamples, seed):
    """Compare the accuracies of two runs on the same rows: ours minus theirs.

    labels, ours, theirs: int (n,), true and predicted classes. groups: int (n,), the parent
    image of each row. Returns {"value", "low", "high", "p"}: the difference, -1 to 1, its
    95 % percentile interval of `resamples` paired resamples of parent images (rows of one
    image are drawn together, and so are both runs' answers to them), and the p value of
    `sign_flip_test` over parent images.
    """
    right, other = (np.asarray(classes) == labels for classes in (ours, theirs))
    # The table of McNemar, (we are right, they are right), resampled as confusions are.
    tables = resampled_confusions(
        right.astype(np.int64), other, groups, 2, resamples=resamples, seed=seed
    )
    resampled = (tables[:, 1, 0] - tables[:, 0, 1]) / tables.sum(axis=(1, 2))
    per_row = right.astype(np.int64) - other
    _, group = np.unique(groups, return_inverse=True)
    per_group = np.zeros(group.max() + 1, np.int64)
    np.add.at(per_group, group, per_row)
    return with_interval(per_row.mean(), resampled) | {"p": sign_flip_test(per_group)}


def sign_flip_test(differences):
    """Exact two-sided p value of the sum of `differences`, int (g,), under random signs.

    Under the null hypothesis the two runs may be exchanged within each image: its difference
    in right answers has either sign with probability 1/2 (Fisher 1935, The Design of
    Experiments, section 21). With one row per image this is the exact test of McNemar 1947
    (Psychometrika 12), which Dietterich 1998 (Neural Computation 10) recommends for two
    models that were trained once. All zero gives 1.
    """
    differences = np.asarray(differences)
    sizes, counts = np.unique(abs(differences[differences != 0]), return_counts=True)
    # Images with a difference of `size` add size * Binomial(count, 1/2) to the sum of the
    # positive ones; there are few sizes, so convolving them one by one is exact and fast.
    positive = np.ones(1)
    for size, count in zip(sizes, counts, strict=True):
        spread = np.zeros(size * count + 1)
        spread[::size] = stats.binom.pmf(np.arange(count + 1), count, 0.5)
        positive = np.convolve(positive, spread)
    total = len(positive) - 1
    sums = 2 * np.arange(total + 1) - total
    return min(1.0, float(positive[abs(sums) >= abs(differences.sum())].sum()))


def holm(p_values):
    """Correct p values for their number: float (m,), in the order given.

    Holm 1979 (Scandinavian Journal of Statistics 6, "A simple sequentially rejective
    multiple test procedure"): those at most 0.05 are all true with probability 0.95.
    """
    p_values = np.asarray(p_values, float)
    order = np.argsort(p_values)
    steps = (len(p_values) - np.arange(len(p_values))) * p_values[order]
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(steps))
    return corrected
