"""Find duplicates, near duplicates and label conflicts."""

from hemagrid.data.duplicates import deduplicate
from hemagrid.data.readers import read_samples
from hemagrid.io import read_table, write_table
from hemagrid.logs import job

with job(snakemake.log[0]):
    write_table(
        snakemake.output.duplicates,
        deduplicate(
            read_samples(snakemake.input.samples),
            read_table(snakemake.input.phash),
            snakemake.params.label_conflicts,
            snakemake.params.near_duplicate_distance,
        ),
    )
