"""Draw the accuracy of every run, against what the run cost, and what it answers."""

from hemagrid.evaluation.metrics import load_metrics
from hemagrid.logs import job
from hemagrid.reporting.charts import accuracy_chart, cost_chart, risk_coverage_of_runs, save
from hemagrid.reporting.tables import grid_table

with job(snakemake.log[0]):
    out = snakemake.output
    metrics = load_metrics(snakemake.input.metrics)
    grid = grid_table(metrics)
    save(accuracy_chart(grid), out.accuracy, out.accuracy_pdf)
    save(cost_chart(grid), out.cost, out.cost_pdf)
    save(risk_coverage_of_runs(metrics), out.abstention, out.abstention_pdf)
