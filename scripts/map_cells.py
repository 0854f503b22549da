"""Map the validation copies by the features of a frozen backbone."""

from hemagrid.evaluation.cell_map import write_map
from hemagrid.logs import job

with job(snakemake.log[0]):
    write_map(
        snakemake.output.map,
        snakemake.input.embeddings,
        snakemake.input.table,
        seed=snakemake.params.seed,
    )
