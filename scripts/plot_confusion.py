"""Draw the confusion matrices of one run."""

from hemagrid.charts import confusion_matrices, save
from hemagrid.files import read_table
from hemagrid.logs import job

with job(snakemake.log[0]):
    save(
        confusion_matrices(read_table(snakemake.input.confusion)),
        snakemake.output.figure,
    )
