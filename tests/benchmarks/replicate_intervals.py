"""Measure how often intervals of several replicates hold the true difference of two models.

    python tests/benchmarks/replicate_intervals.py [--studies 20000]

Per number of replicates, the lowest and the highest share of the intervals of 95 % that hold
the truth, over studies in which seeds, images, and seeds with images bring parts of every size:
ours, Student's t with Satterthwaite's degrees of freedom, and a bootstrap over replicates and
images.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import numpy as np  # noqa: E402
from scipy import special  # noqa: E402

from hemagrid.evaluation.replicates import standard_error  # noqa: E402
from hemagrid.reporting.text import aligned  # noqa: E402

# Variances of the difference: by seeds of each model, by images, by both together per model.
CASES = {
    "seeds alone": (1, 1, 0, 0, 0),
    "seeds of one model": (1, 0, 0, 0, 0),
    "seeds and images": (1, 1, 2, 0, 0),
    "seeds of one, images": (1, 0, 1, 0, 0),
    "seeds of one, few images": (1, 0, 0.25, 0.1, 0.1),
    "mostly images": (1, 1, 18, 0, 0),
    "all three": (1, 1, 1, 0.5, 0.5),
    "both together": (0, 0, 0, 1, 1),
    "both together, images": (0, 0, 1, 0.5, 0.5),
}


def coverage(replicates, variances, studies):
    """Return the shares of studies whose interval holds the truth: ours and the two others.

    There are so many images that what they and both together bring is known.
    """
    first, second, images, *both = variances
    rng, freedom = np.random.default_rng(0), replicates - 1
    spread = rng.chisquare(freedom, (studies, 2)) / freedom
    found = spread * np.add([first, second], both)
    off = abs(rng.normal(size=studies)) * np.sqrt(sum(variances))
    ours = [standard_error([(a, freedom), (b, freedom)], images, np.inf)[:2] for a, b in found]
    error, degrees = np.transpose(ours)
    total = found.sum(axis=1) + images
    satterthwaite = total**2 / (found**2).sum(axis=1) * freedom
    resampled = found.sum(axis=1) * freedom / replicates + images
    return (
        np.mean(off <= -error * special.stdtrit(degrees, 0.025)),
        np.mean(off <= -np.sqrt(total) * special.stdtrit(satterthwaite, 0.025)),
        np.mean(off <= -np.sqrt(resampled) * special.ndtri(0.025)),
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--studies", type=int, default=20_000, help="per case; default: 20000")
    studies = parser.parse_args().studies
    rows = []
    for replicates in (2, 3, 5, 10):
        found = np.array([coverage(replicates, case, studies) for case in CASES.values()])
        spans = zip(*(100 * found.min(axis=0), 100 * found.max(axis=0)), strict=True)
        rows.append([str(replicates), *(f"{low:.1f}–{high:.1f}" for low, high in spans)])
    print(aligned(["replicates", "ours, %", "Satterthwaite, %", "bootstrap, %"], rows))


if __name__ == "__main__":
    main()
