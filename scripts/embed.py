"""Cache what the frozen top of a backbone makes of the trunk's activations."""

from hemagrid import runtime
from hemagrid.logs import job

with job(snakemake.log[0]):
    runtime.prepare(snakemake.threads, snakemake.resources, snakemake.config["require_gpu"])
    from hemagrid.features import cache_embeddings

    cache_embeddings(
        snakemake.params.settings,
        snakemake.params.image_size,
        snakemake.params.precision,
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
    )
