"""Print what three replicates of all heads cost against one, without the third phase.

    python tests/benchmarks/cost_of_replicates.py [--replicates 3]

From the measured speeds of `hemagrid plan`, for the published study: CPU seconds of embedding,
which all replicates share, and of training all heads once; then the ratio of the replicates to
one, with the first phase alone and with the first two. It assumes that no phase stops early.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from hemagrid.cli.estimate import Estimate, Job, count_images
from hemagrid.cli.speeds import read_speeds
from hemagrid.config.loading import load_config
from hemagrid.names import FEATURE_EXTRACTION, FINETUNE_TOP, PHASES
from hemagrid.reporting.text import aligned


def seconds(config, rule, wildcards, phases=()):
    """Return the seconds of a job if runs are trained in these phases alone."""
    idle = {
        phase: config["training"][phase] | {"epochs": 0}
        for phase in PHASES
        if phase not in phases
    }
    config = config | {"training": config["training"] | idle}
    estimate = Estimate(config, count_images(config, "."), read_speeds())
    return estimate.seconds(Job(rule, wildcards, "cpu", 0), "cpu")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--replicates", type=int, default=3)
    arguments = parser.parse_args()
    config, rows = load_config(), []
    for backbone in config["grid"]["backbones"]:
        once = seconds(config, "embed", {"backbone": backbone})
        runs = [{"run": f"{backbone}_{head}"} for head in config["grid"]["heads"]]
        row = [backbone, f"{once:,.0f}"]
        for phases in ((FEATURE_EXTRACTION,), (FEATURE_EXTRACTION, FINETUNE_TOP)):
            heads = sum(seconds(config, "train", run, phases) for run in runs)
            ratio = (once + arguments.replicates * heads) / (once + heads)
            row += [f"{heads:,.0f}", f"{ratio:.2f}"]
        rows.append(row)
    header = ["backbone", "embedding, s", "phase 1, s", "ratio", "phases 1 and 2, s", "ratio"]
    print(aligned(header, rows))


if __name__ == "__main__":
    main()
