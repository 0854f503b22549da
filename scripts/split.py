"""Split the kept images into train, val and test."""

from hemagrid.data.splits import write_splits
from hemagrid.logs import job

with job(snakemake.log[0], snakemake.output, snakemake.resources):
    write_splits(
        dict(snakemake.input.items()),
        snakemake.output.splits,
        snakemake.params.shares,
        snakemake.params.seed,
        snakemake.params.get("tolerance"),
    )
