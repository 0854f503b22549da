"""hemagrid's library: plain Python that trains and compares classifiers for blood cells.

Only `cli` knows Snakemake. The packages, in the order in which they may import each
other: config, data, models; training; evaluation; tuning; reporting; submission; cli.
"""

__version__ = "0.2.0"
