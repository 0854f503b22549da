"""Train one run of the grid."""

from hemagrid import runtime
from hemagrid.logs import job

with job(snakemake.log[0]):
    runtime.prepare(snakemake.threads, snakemake.resources, snakemake.config["require_gpu"])
    from hemagrid.training import train_run

    train_run(
        snakemake.wildcards.run,
        snakemake.params.settings,
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
    )
