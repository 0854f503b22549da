"""hemagrid's library: plain Python that trains and compares classifiers for blood cells.

Only `cli` knows Snakemake. The packages, in the order in which they may import each
other: config, data, models; training; evaluation; tuning; reporting; submission; cli.
"""

import os

__version__ = "0.2.0"

# Before h5py is imported, by whomever: where locks do not work, as on NFS without lockd, HDF5
# would refuse every file. Ours are complete or absent, and have one writer.
os.environ.setdefault("HDF5_USE_FILE_LOCKING", "FALSE")
