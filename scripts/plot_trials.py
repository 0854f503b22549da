"""Draw the trials of one search as parallel coordinates."""

from hemagrid.logs import job
from hemagrid.reporting.charts import parallel_coordinates, save
from hemagrid.tuning.trials import read_trials

with job(snakemake.log[0]):
    chart = parallel_coordinates(read_trials(snakemake.input.trials))
    save(chart, snakemake.output.figure, snakemake.output.pdf)
