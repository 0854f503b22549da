"""Compare all runs: the tables and the headline."""

from hemagrid.io import read_json
from hemagrid.logs import job
from hemagrid.reporting import reference
from hemagrid.reporting.tables import aggregate

with job(snakemake.log[0]):
    audit = read_json(snakemake.input.audit)
    aggregate(
        snakemake.input.metrics,
        dict(snakemake.output.items()),
        snakemake.params.select_by,
        reference.published(snakemake.params.published, audit),
        heads=snakemake.params.heads,
        reported=snakemake.params.codabench,
        codabench=snakemake.input.get("codabench", ()),
        watts=snakemake.params.watts,
    )
