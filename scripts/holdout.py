"""Write the holdout without the pictures that the study has already."""

import numpy as np

from hemagrid.data.holdout import write_holdout
from hemagrid.logs import job

with job(snakemake.log[0], snakemake.output):
    write_holdout(
        {"images": snakemake.input.images, "table": snakemake.input.table},
        np.load(snakemake.input.study),
        snakemake.params.settings,
        dict(snakemake.output.items()),
        snakemake.threads,
    )
