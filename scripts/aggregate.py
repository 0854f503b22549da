"""Compare all runs: the tables and the headline."""

from hemagrid.logs import job
from hemagrid.reporting.tables import aggregate

with job(snakemake.log[0]):
    aggregate(
        snakemake.input.metrics,
        dict(snakemake.output.items()),
        snakemake.params.select_by,
        snakemake.params.published,
        heads=snakemake.params.heads,
        reported=snakemake.params.codabench,
        codabench=snakemake.input.get("codabench", ()),
        missing=snakemake.params.missing,
    )
