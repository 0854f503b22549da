"""Draw what became of the images of each class."""

from hemagrid.io import read_json
from hemagrid.logs import job
from hemagrid.reporting.charts import class_balance, save

with job(snakemake.log[0]):
    chart = class_balance(read_json(snakemake.input.audit))
    save(chart, snakemake.output.figure, snakemake.output.pdf)
