"""Draw the accuracy of every run with its interval, and against what the run cost."""

from hemagrid.evaluation.metrics import load_metrics
from hemagrid.logs import job
from hemagrid.reporting.charts import accuracy_chart, cost_chart, save
from hemagrid.reporting.tables import grid_table

with job(snakemake.log[0]):
    out = snakemake.output
    grid = grid_table(load_metrics(snakemake.input.metrics))
    save(accuracy_chart(grid), out.accuracy, out.accuracy_pdf)
    save(cost_chart(grid), out.cost, out.cost_pdf)
