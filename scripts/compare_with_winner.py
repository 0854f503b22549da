"""Compare every run with the winner."""

from hemagrid.logs import job
from hemagrid.reporting.tables import compare_with_winner

with job(snakemake.log[0]):
    compare_with_winner(
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
        snakemake.params.settings,
    )
