"""Write the augmented copies of one subset."""

from hemagrid.data.augmentation import augment
from hemagrid.logs import job
from hemagrid.training import jobs

with job(snakemake.log[0], snakemake.output, snakemake.resources):
    jobs.prepare(snakemake.threads, snakemake.resources)
    augment(
        snakemake.input.images,
        snakemake.input.splits,
        snakemake.wildcards.subset,
        snakemake.params.settings,
        snakemake.params.assignment,
        snakemake.params.seed,
        threads=snakemake.threads,
        out=dict(snakemake.output.items()),
        redraw=snakemake.params.get("redraw", False),
    )
