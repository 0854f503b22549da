"""Average what several runs predicted."""

from hemagrid.evaluation.ensembles import write_ensemble
from hemagrid.logs import job

with job(snakemake.log[0]):
    write_ensemble(
        snakemake.wildcards.run,
        snakemake.params.settings,
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
    )
