"""The arithmetic of Hyperband (Li et al. 2018, JMLR 18(185)): how many trials, how long."""

import math


def bracket_sizes(max_epochs, factor):
    """Return {bracket: trials in each of its rounds}, in the order in which brackets run.

    Algorithm 1 of Li et al. with the sizes of Keras Tuner, which rounds up: bracket s has
    s + 1 rounds, the last one of ceil(1 + log_factor(max_epochs)) / (s + 1) trials, each
    round before it of `factor` times as many.
    """
    brackets = 1
    while factor**brackets <= max_epochs:
        brackets += 1
    last = math.ceil(1 + math.log(max_epochs, factor))
    return {
        # In floating point as Keras Tuner: exact arithmetic rounds up to others now and then.
        s: [math.ceil(last / (s + 1) * factor**more) for more in range(s, -1, -1)]
        for s in reversed(range(brackets))
    }


def expected_trials(max_epochs, factor, iterations):
    """Return the number of trials that a whole search has."""
    return iterations * sum(sum(sizes) for sizes in bracket_sizes(max_epochs, factor).values())


def trained_epochs(max_epochs, factor, iterations):
    """Return the epochs that all trials of a whole search are trained for.

    A trial of round i of bracket s goes on to epoch ceil(max_epochs / factor^(s - i)).
    """
    total = 0
    for bracket, sizes in bracket_sizes(max_epochs, factor).items():
        until = [math.ceil(max_epochs / factor ** (bracket - i)) for i in range(bracket + 1)]
        lengths = [last - first for first, last in zip([0, *until], until, strict=False)]
        total += sum(size * length for size, length in zip(sizes, lengths, strict=True))
    return iterations * total
