"""Search the head of one tuned run."""

from hemagrid.logs import job
from hemagrid.training import jobs

with job(snakemake.log[0], resources=snakemake.resources):
    jobs.prepare(snakemake.threads, snakemake.resources, snakemake.config["require_gpu"])
    from hemagrid.tuning.search import search_head

    search_head(
        snakemake.wildcards.run,
        snakemake.params.settings,
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
        folder=snakemake.resources.checkpoints,
    )
