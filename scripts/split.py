"""Split the kept images into train, val and test."""

from hemagrid.files import read_table, write_table
from hemagrid.logs import job
from hemagrid.splits import split

with job(snakemake.log[0]):
    write_table(
        snakemake.output.splits,
        split(
            read_table(snakemake.input.duplicates),
            snakemake.params.shares,
            snakemake.params.seed,
        ),
    )
