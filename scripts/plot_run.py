"""Draw the confusion matrices, the learning curves and the reliability diagram of one run."""

from hemagrid.io import read_json, read_sparse, read_table
from hemagrid.logs import job
from hemagrid.reporting.charts import (
    calibration_of,
    confusion_matrices,
    learning_curves,
    reliability,
    save,
)

with job(snakemake.log[0]):
    made_of, out = snakemake.input, snakemake.output
    confusion = confusion_matrices(read_table(made_of.confusion))
    save(confusion, out.confusion, out.confusion_pdf)
    save(learning_curves(read_sparse(made_of.history, "phase")), out.curves, out.curves_pdf)
    calibration = calibration_of(read_json(made_of.metrics))
    save(reliability(calibration), out.reliability, out.reliability_pdf)
