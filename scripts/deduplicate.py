"""Find duplicates, near duplicates and label conflicts."""

from hemagrid.duplicates import deduplicate
from hemagrid.files import read_table, write_table
from hemagrid.logs import job
from hemagrid.sources import read_samples

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
