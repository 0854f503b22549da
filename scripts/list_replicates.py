"""List all replicates: a table with a row for each."""

from hemagrid.logs import job
from hemagrid.reporting.tables import list_replicates

with job(snakemake.log[0]):
    list_replicates(snakemake.input.metrics, snakemake.params.seeds, snakemake.output.table)
