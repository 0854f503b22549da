"""The arithmetic of Hyperband (Li et al. 2018, JMLR 18(185)): trials, epochs and heads."""

import math


def bracket_sizes(max_epochs, factor):
    """Return how many trials each round of each bracket has.

    This is algorithm 1 of Li et al. with the sizes of Keras Tuner, which rounds up. Bracket s
    has s + 1 rounds. The last one has ceil(1 + log_factor(max_epochs)) / (s + 1) trials, and
    each round before it `factor` times as many.

    Args:
        max_epochs: Epochs of the longest trials.
        factor: One in `factor` trials of a round is promoted to the next.

    Returns:
        {bracket: trials in each of its rounds}, in the order in which brackets run.
    """
    brackets = 1
    while factor**brackets <= max_epochs:
        brackets += 1
    last = math.ceil(1 + math.log(max_epochs, factor))
    return {
        # In floating point, as Keras Tuner does: exact arithmetic sometimes rounds differently.
        s: [math.ceil(last / (s + 1) * factor**more) for more in range(s, -1, -1)]
        for s in reversed(range(brackets))
    }


def expected_trials(max_epochs, factor, iterations):
    """Return the number of trials of a whole search."""
    return iterations * sum(sum(sizes) for sizes in bracket_sizes(max_epochs, factor).values())


def distinct_heads(max_epochs, factor, iterations):
    """Return how many different heads a whole search draws: one per trial of a first round."""
    return iterations * sum(sizes[0] for sizes in bracket_sizes(max_epochs, factor).values())


def trained_epochs(max_epochs, factor, iterations):
    """Return the number of epochs that the trials of a whole search train in all.

    A trial of round i of bracket s trains until epoch ceil(max_epochs / factor^(s - i)).
    """
    total = 0
    for bracket, sizes in bracket_sizes(max_epochs, factor).items():
        until = [math.ceil(max_epochs / factor ** (bracket - i)) for i in range(bracket + 1)]
        lengths = [last - first for first, last in zip([0, *until], until, strict=False)]
        total += sum(size * length for size, length in zip(sizes, lengths, strict=True))
    return iterations * total


def rates(min, max, step):
    """List the rates from min to max as decimals; Keras Tuner's steps may miss the last."""
    count = math.floor((max - min) / step + 1e-6) + 1
    return [round(float(min + place * step), 6) for place in range(count)]


def heads_in(space):
    """Return how many different heads the config's `tuning.space` holds."""
    neurons = space["neurons"]
    widths = len(range(neurons["min"], neurons["max"] + 1, neurons["step"]))
    dropouts = len(rates(**space["dropout"]))
    layers = range(space["layers"]["min"], space["layers"]["max"] + 1)
    trained = [
        len(set(space[name])) for name in ("learning_rate", "weight_decay") if name in space
    ]
    return math.prod(trained) * sum(widths**n * dropouts ** max(n, 1) for n in layers)
