"""Show where the best run looked."""

from hemagrid.logs import job
from hemagrid.training import jobs

with job(snakemake.log[0], resources=snakemake.resources):
    jobs.prepare(snakemake.threads, snakemake.resources, snakemake.config["require_gpu"])
    from hemagrid.evaluation.gradcam import explain
    from hemagrid.reporting.pictures import draw_sheet

    explained = explain(
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
        snakemake.params.settings,
    )
    draw_sheet(*explained, snakemake.output.figure)
