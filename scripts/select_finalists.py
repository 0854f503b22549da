"""Choose the backbones to tune."""

from hemagrid.finalists import select_finalists
from hemagrid.logs import job

with job(snakemake.log[0]):
    select_finalists(
        snakemake.input.get("metrics", []),
        snakemake.output.finalists,
        **snakemake.params.settings,
    )
