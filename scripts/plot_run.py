"""Draw the figures of one run, and write its card."""

from hemagrid.logs import job
from hemagrid.reporting.charts import save_run
from hemagrid.reporting.model_card import write_card

with job(snakemake.log[0]):
    save_run(dict(snakemake.input.items()), dict(snakemake.output.items()))
    write_card(snakemake.input.metrics, snakemake.params.card, snakemake.output.card)
