"""Cache the activations and embeddings of a frozen backbone."""

from hemagrid.logs import job
from hemagrid.training import jobs

with job(snakemake.log[0], resources=snakemake.resources):
    jobs.prepare(snakemake.threads, snakemake.resources, snakemake.config["require_gpu"])
    from hemagrid.training.embeddings import cache_features

    cache_features(
        snakemake.wildcards.backbone,
        {key: snakemake.params[key] for key in ("application", "top")},
        snakemake.params.precision,
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
        folder=snakemake.resources.checkpoints,
    )
