import itertools

import pytest

from hemagrid.config.hyperband import (
    bracket_sizes,
    distinct_heads,
    expected_trials,
    heads_in,
    trained_epochs,
)


def test_bracket_sizes_of_the_paper():
    # Li et al. 2018, table 1: its most aggressive bracket needs no rounding.
    assert bracket_sizes(81, 3)[4] == [81, 27, 9, 3, 1]
    assert bracket_sizes(9, 3) == {2: [9, 3, 1], 1: [5, 2], 0: [3]}
    assert list(bracket_sizes(9, 3)) == [2, 1, 0]


@pytest.mark.parametrize("iterations", [1, 2])
def test_totals_of_a_search(iterations):
    assert expected_trials(9, 3, iterations) == iterations * (13 + 7 + 3)
    assert distinct_heads(9, 3, iterations) == iterations * (9 + 5 + 3)
    # Bracket 2 trains to epochs 1, 3 and 9, bracket 1 to 3 and 9, bracket 0 to 9.
    bracket_epochs = (9 * 1 + 3 * 2 + 1 * 6) + (5 * 3 + 2 * 6) + 3 * 9
    assert trained_epochs(9, 3, iterations) == iterations * bracket_epochs


@pytest.mark.parametrize("layers", [(0, 0), (0, 2), (1, 2)])
@pytest.mark.parametrize("extra", [{}, {"weight_decay": [1e-4, 1e-2]}])
def test_heads_of_a_space(layers, extra):
    space = {
        "layers": dict(zip(("min", "max"), layers, strict=True)),
        "neurons": {"min": 8, "max": 20, "step": 8},
        "dropout": {"min": 0, "max": 0.3, "step": 0.1},
        "learning_rate": [1e-2, 1e-3, 1e-2],
        **extra,
    }
    heads = [
        (dense, dropout)
        for n in range(layers[0], layers[1] + 1)
        for dense in itertools.product([8, 16], repeat=n)
        for dropout in itertools.product([0, 0.1, 0.2, 0.3], repeat=max(n, 1))
    ]
    assert heads_in(space) == len(heads) * 2 * (2 if extra else 1)
