"""Train one run of the grid."""

from hemagrid.logs import job
from hemagrid.training import jobs

with job(snakemake.log[0], resources=snakemake.resources):
    jobs.prepare(snakemake.threads, snakemake.resources, snakemake.config["require_gpu"])
    from hemagrid.training.run import train_run

    train_run(
        snakemake.wildcards.run,
        snakemake.params.settings,
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
        folder=snakemake.resources.checkpoints,
    )
