"""Find duplicates, near duplicates and label conflicts."""

import numpy as np

from hemagrid.data.duplicates import deduplicate
from hemagrid.data.readers import read_samples
from hemagrid.io import write_table
from hemagrid.logs import job

with job(snakemake.log[0], snakemake.output, snakemake.resources):
    write_table(
        snakemake.output.duplicates,
        deduplicate(
            read_samples(snakemake.input.samples),
            np.load(snakemake.input.fingerprints, mmap_mode="r"),
            snakemake.params.settings,
        ),
    )
