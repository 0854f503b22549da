"""Measure how many images per second each corruption takes on one core.

    python tests/benchmarks/corruption_speed.py [--images 512] [--size 96]

In batches as a prediction takes them, at severity 3, CPU time, the best of three rounds.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import numpy as np  # noqa: E402

from hemagrid.data.corruptions import corrupt  # noqa: E402
from hemagrid.data.synthetic import CLASS_NAMES, draw_cell  # noqa: E402
from hemagrid.names import CORRUPTIONS  # noqa: E402
from hemagrid.reporting.text import aligned  # noqa: E402

BATCH, ROUNDS = 64, 3


def speed(images, kind):
    """Return images per second of CPU time."""
    seconds = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        for start in range(0, len(images), BATCH):
            rows = slice(start, start + BATCH)
            corrupt(images[rows], range(len(images))[rows], kind, 3, seed=0)
        seconds.append(time.process_time() - begun)
    return len(images) / min(seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--size", type=int, default=96)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    drawn = np.stack([draw_cell(name, options.size, rng) for name in CLASS_NAMES])
    images = drawn[np.arange(options.images) % len(drawn)]
    speeds = {kind: speed(images, kind) for kind in CORRUPTIONS}
    print(aligned(["kind", "images/s"], [[k, f"{v:,.0f}"] for k, v in speeds.items()]))
    mean = len(speeds) / sum(1 / v for v in speeds.values())
    print(f"all kinds: {mean:,.0f} images/s at {options.size} px")
