"""Draw the accuracy of every run with its interval."""

from hemagrid.charts import accuracy_chart, save
from hemagrid.logs import job
from hemagrid.tables import grid_table, load_metrics

with job(snakemake.log[0]):
    save(
        accuracy_chart(grid_table(load_metrics(snakemake.input.metrics))),
        snakemake.output.figure,
    )
