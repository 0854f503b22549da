"""Cache what the trunk of a backbone makes of the images."""

from hemagrid import runtime
from hemagrid.logs import job

with job(snakemake.log[0]):
    runtime.prepare(snakemake.threads, snakemake.resources, snakemake.config["require_gpu"])
    from hemagrid.features import cache_activations

    cache_activations(
        snakemake.params.settings,
        snakemake.params.precision,
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
    )
