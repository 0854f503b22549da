"""Cache what a frozen backbone makes of the images: its trunk, and its top."""

from hemagrid import runtime
from hemagrid.logs import job

with job(snakemake.log[0]):
    runtime.prepare(snakemake.threads, snakemake.resources, snakemake.config["require_gpu"])
    from hemagrid.features import cache_features

    cache_features(
        snakemake.params.settings,
        snakemake.params.precision,
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
    )
