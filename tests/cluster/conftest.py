"""Where the cluster's tests run: on a cluster of their own, or on the one of a profile.

`HEMAGRID_PROFILE` names the profile of a real cluster. Then the study runs there, and what
only a cluster of one's own allows is skipped. Its nodes must see pytest's folders, so choose
a shared one: `--basetemp`.
"""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from yte import process_yaml

from .cluster import PROGRAMS, Cluster, Slurm

ROOT = Path(__file__).parents[2]
# Whether to run what waits for minutes: make faults.
SLOW = os.environ.get("HEMAGRID_SLOW_FAULTS") == "1"
slow = pytest.mark.skipif(not SLOW, reason="takes minutes of waiting for SLURM: make faults")
# A cluster of one's own can be asked often, and its nodes are this machine's few cores.
QUICK = ("--jobs", 3, "--slurm-init-seconds-before-status-checks", 5)


@pytest.fixture(scope="session")
def cluster(require_program, tmp_path_factory):
    """A cluster with a CPU node and a GPU node, for all tests of the session."""
    if os.environ.get("HEMAGRID_PROFILE"):
        pytest.skip("only on a cluster of one's own: unset HEMAGRID_PROFILE")
    for program, package in PROGRAMS.items():
        require_program(program, package)
    if os.geteuid() != 0:
        pytest.skip("a cluster of one's own needs root")
    with Cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def site(request):
    """The cluster to submit to, as `slurm`, and whether it is our `own`; its `profile` (a
    folder), `settings`, `options`.
    """
    chosen = os.environ.get("HEMAGRID_PROFILE")
    own = not chosen
    profile = Path(chosen or ROOT / "profiles" / "slurm").absolute()
    return SimpleNamespace(
        own=own,
        slurm=request.getfixturevalue("cluster") if own else Slurm(),
        profile=profile,
        settings=process_yaml((profile / "config.yaml").read_text()),
        options=QUICK if own else (),
    )
