"""Draw the confusion matrices and the learning curves of one run."""

from hemagrid.charts import confusion_matrices, learning_curves, save
from hemagrid.files import read_table
from hemagrid.logs import job

with job(snakemake.log[0]):
    save(
        confusion_matrices(read_table(snakemake.input.confusion)),
        snakemake.output.confusion,
    )
    save(learning_curves(read_table(snakemake.input.history)), snakemake.output.curves)
