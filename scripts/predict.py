"""Predict the test sets of a study with one run."""

from hemagrid.logs import job
from hemagrid.training import jobs

with job(snakemake.log[0], resources=snakemake.resources):
    jobs.prepare(snakemake.threads, snakemake.resources, snakemake.config["require_gpu"])
    from hemagrid.evaluation.inference import predict_run

    predict_run(
        snakemake.wildcards.run,
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
        snakemake.params.precision,
        snakemake.params.corruptions,
        folder=snakemake.resources.checkpoints,
    )
