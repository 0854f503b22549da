"""Compute the metrics of one run from its predictions."""

from hemagrid.evaluation.metrics import evaluate_run
from hemagrid.logs import job

with job(snakemake.log[0]):
    evaluate_run(
        snakemake.params.run,
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
        **snakemake.params.settings,
        seed=snakemake.params.seed,
    )
