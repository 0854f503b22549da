"""Draw what became of each class's images."""

from hemagrid.charts import class_balance, save
from hemagrid.files import read_json
from hemagrid.logs import job

with job(snakemake.log[0]):
    chart = class_balance(read_json(snakemake.input.audit))
    save(chart, snakemake.output.figure, snakemake.output.pdf)
