"""Write a test set without the pictures that the study has already."""

import numpy as np

from hemagrid.data.test_sets import write_test_set
from hemagrid.logs import job

with job(snakemake.log[0], snakemake.output, snakemake.resources):
    write_test_set(
        snakemake.wildcards.test_set,
        {"images": snakemake.input.images, "table": snakemake.input.table},
        np.load(snakemake.input.study),
        snakemake.params.settings,
        dict(snakemake.output.items()),
        snakemake.threads,
    )
