"""Predict without a network: the controls that bracket every metric."""

from hemagrid.evaluation.controls import write_control
from hemagrid.logs import job

with job(snakemake.log[0]):
    write_control(
        snakemake.wildcards.run,
        dict(snakemake.input.items()),
        snakemake.params.seed,
        dict(snakemake.output.items()),
    )
