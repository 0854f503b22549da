"""Search the head of one tuned run."""

from hemagrid import runtime
from hemagrid.logs import job

with job(snakemake.log[0]):
    runtime.prepare(snakemake.threads, snakemake.resources, snakemake.config["require_gpu"])
    from hemagrid.search import search_head

    search_head(
        snakemake.wildcards.run,
        snakemake.params.settings,
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
    )
