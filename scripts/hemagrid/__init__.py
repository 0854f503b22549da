"""hemagrid's library: plain Python that trains and compares classifiers of blood cells.

Nothing here knows Snakemake but `cli`. Its rooms, in the order in which they may import each
other: config, data, models; training; evaluation; tuning; reporting; submission; cli.
"""

__version__ = "0.1.0"
