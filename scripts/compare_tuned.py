"""Write what tuning found beside the study's, and whether it helped."""

from hemagrid.logs import job
from hemagrid.reporting.tables import compare_tuned

with job(snakemake.log[0]):
    compare_tuned(
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
        snakemake.params.settings,
    )
