"""Cache what a frozen backbone makes of the images: its trunk, and its top."""

from hemagrid.logs import job
from hemagrid.training import jobs

with job(snakemake.log[0]):
    jobs.prepare(snakemake.threads, snakemake.resources, snakemake.config["require_gpu"])
    from hemagrid.training.embeddings import cache_features

    cache_features(
        snakemake.params.settings,
        snakemake.params.precision,
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
    )
