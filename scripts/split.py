"""Split the kept images into train, val and test."""

from hemagrid.data.splits import split, split_groups
from hemagrid.io import read_table, write_table
from hemagrid.logs import job

with job(snakemake.log[0], snakemake.output):
    duplicates, params = read_table(snakemake.input.duplicates), snakemake.params
    if snakemake.input.groups:
        groups = read_table(snakemake.input.groups)
        table = split_groups(duplicates, groups, params.shares, params.seed, params.tolerance)
    else:
        table = split(duplicates, params.shares, params.seed)
    write_table(snakemake.output.splits, table)
