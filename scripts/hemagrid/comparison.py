"""Is the difference between two runs larger than chance? Paired, on the same images."""

import numpy as np
from scipy import stats

from hemagrid.errors import InputError
from hemagrid.evaluation import resampled_confusions, with_interval
from hemagrid.predictions import SUBSET_NAMES, read_predictions

_LEVEL = 0.05


def compare_on_tests(run, other, predictions, *, resamples, seed):
    """Yield (subset, result of `paired`) for each test subset that both runs predicted on.

    The difference is `run` minus `other`; predictions is {run: path of predictions.npz}.
    Raises InputError when the two did not predict on the same images.
    """
    ours, theirs = (read_predictions(predictions[name]) for name in (run, other))
    for subset in SUBSET_NAMES:
        if subset == "val" or not (subset in ours[1] and subset in theirs[1]):
            continue
        labels, groups = _same_images(run, ours, other, theirs, subset)
        answers = (of[1][subset][1].argmax(axis=1) for of in (ours, theirs))
        yield subset, paired(labels, *answers, groups, resamples=resamples, seed=seed)


def _same_images(run, ours, other, theirs, subset):
    """Return the labels and groups that both runs share; raise InputError if they do not."""
    (labels, _, groups), (labels_of, _, groups_of) = ours[1][subset], theirs[1][subset]
    if (
        ours[0] != theirs[0]
        or not np.array_equal(labels, labels_of)
        or not np.array_equal(groups, groups_of)
    ):
        raise InputError(
            f"{run} and {other} did not predict on the same {SUBSET_NAMES[subset]} images: "
            f"found {len(labels)} and {len(labels_of)} rows whose labels or parents differ, "
            "expected the same ones; remove the older predictions.npz and run again"
        )
    return labels, groups


def in_points(name, difference):
    """Name a result of `paired` and its bounds as columns, in percentage points."""
    parts = {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
    return {column: 100 * difference[part] for column, part in parts.items()}


def verdicts(differences, p_holm):
    """Say of each difference, of any unit, whether it is one: an array of text.

    "better" above zero, "worse" below it; "no difference beyond chance" where the corrected
    p value is above 0.05.
    """
    direction = np.where(np.asarray(differences) > 0, "better", "worse")
    chance = np.asarray(p_holm) > _LEVEL
    return np.where(chance, "no difference beyond chance", direction)


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
