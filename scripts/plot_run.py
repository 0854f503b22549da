"""Draw the confusion matrices, learning curves, reliability and abstention of one run."""

from hemagrid.logs import job
from hemagrid.reporting.charts import save_run

with job(snakemake.log[0]):
    save_run(dict(snakemake.input.items()), dict(snakemake.output.items()))
