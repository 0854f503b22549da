"""Is the difference between two runs larger than chance? Paired, on the same images."""

import numpy as np
from scipy import stats

from hemagrid.evaluation import resampled_confusions, with_interval


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
