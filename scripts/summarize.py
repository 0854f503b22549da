"""Average the metrics of a run over its replicates."""

from hemagrid.evaluation.replicates import summarize_run
from hemagrid.logs import job

with job(snakemake.log[0]):
    summarize_run(
        dict(snakemake.input.items()),
        snakemake.output.summary,
        **snakemake.params.settings,
    )
