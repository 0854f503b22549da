"""Print what a search for a head costs against one epoch through the backbone.

    python tests/benchmarks/cost_of_a_search.py

From the measured speeds of `hemagrid plan`, for the published study: seconds of one CPU core.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from hemagrid.cli.estimate import Estimate, Job, count_images
from hemagrid.cli.speeds import read_speeds
from hemagrid.config.loading import load_config
from hemagrid.reporting.text import aligned


def main():
    config = load_config()
    estimate = Estimate(config, count_images(config, "."), read_speeds())
    rows = []
    for backbone in config["grid"]["backbones"]:
        search, once = (
            estimate.seconds(Job(rule, wildcards, "cpu", 0), "cpu")
            for rule, wildcards in (
                ("search", {"run": f"{backbone}_tuned"}),
                ("embed", {"backbone": backbone}),
            )
        )
        rows.append([backbone, f"{search:,.0f}", f"{once:,.0f}", f"{search / once:.2f}"])
    print(aligned(["backbone", "a search, s", "all images through it once, s", "ratio"], rows))


if __name__ == "__main__":
    main()
