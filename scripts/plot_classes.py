"""Draw how many images of each class every split has."""

from hemagrid.charts import class_balance, save
from hemagrid.files import read_json
from hemagrid.logs import job

with job(snakemake.log[0]):
    save(class_balance(read_json(snakemake.input.audit)), snakemake.output.figure)
