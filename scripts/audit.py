"""Write down what was found in the data set, how many, which and why."""

from hemagrid.data.audit import audit
from hemagrid.data.readers import read_samples, read_skipped
from hemagrid.data.test_sets import read_test_sets
from hemagrid.io import read_table, write_json
from hemagrid.logs import job

with job(snakemake.log[0], snakemake.output, snakemake.resources):
    write_json(
        snakemake.output.audit,
        audit(
            read_samples(snakemake.input.samples),
            read_skipped(snakemake.input.samples),
            read_table(snakemake.input.duplicates),
            read_table(snakemake.input.splits),
            snakemake.params.settings,
            read_test_sets(snakemake.input.test_sets, snakemake.input.left_out),
            read_table(snakemake.input.groups) if snakemake.input.groups else None,
        ),
    )
