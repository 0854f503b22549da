"""Draw the learning curves of one run."""

from hemagrid.charts import learning_curves, save
from hemagrid.files import read_table
from hemagrid.logs import job

with job(snakemake.log[0]):
    save(learning_curves(read_table(snakemake.input.history)), snakemake.output.figure)
