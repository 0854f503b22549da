"""Split the kept images into train, val and test."""

from hemagrid.data.splits import split
from hemagrid.io import read_table, write_table
from hemagrid.logs import job

with job(snakemake.log[0], snakemake.output):
    write_table(
        snakemake.output.splits,
        split(
            read_table(snakemake.input.duplicates),
            snakemake.params.shares,
            snakemake.params.seed,
        ),
    )
