"""What of a config counts as a change."""

import pytest

from hemagrid.revisions import digest

CONFIG = {"seed": 1, "cnns": {"small": {"dense": 8, "mem_mb": 1000}}, "require_gpu": True}


@pytest.mark.parametrize(
    "same",
    [
        dict(reversed(CONFIG.items())),
        CONFIG | {"require_gpu": False, "checkpoints": "/scratch/cells"},
        CONFIG | {"cnns": {"small": {"mem_mb": 2000, "runtime": 5, "dense": 8}}},
    ],
)
def test_order_and_what_jobs_ask_for_do_not_count(same):
    assert digest(same) == digest(CONFIG)


@pytest.mark.parametrize("other", [CONFIG | {"seed": 2}, CONFIG | {"cnns": {}}])
def test_other_values_count(other):
    assert digest(other) != digest(CONFIG)
