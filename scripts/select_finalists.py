"""Choose the backbones to tune."""

from hemagrid.logs import job
from hemagrid.tuning.finalists import select_finalists

with job(snakemake.log[0]):
    select_finalists(
        snakemake.input.get("metrics", []),
        snakemake.output.finalists,
        **snakemake.params.settings,
    )
