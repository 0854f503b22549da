"""Draw the confusion matrices, learning curves, reliability and abstention of one run."""

from hemagrid.io import read_json, read_sparse, read_table
from hemagrid.logs import job
from hemagrid.reporting.charts import (
    abstention_of,
    calibration_of,
    confusion_matrices,
    learning_curves,
    reliability,
    risk_coverage,
    save,
    scaled_calibration_of,
)

with job(snakemake.log[0]):
    made_of, out = snakemake.input, snakemake.output
    confusion = confusion_matrices(read_table(made_of.confusion))
    save(confusion, out.confusion, out.confusion_pdf)
    if "history" in made_of.keys():
        curves = learning_curves(read_sparse(made_of.history, "phase"))
        save(curves, out.curves, out.curves_pdf)
    metrics = read_json(made_of.metrics)
    calibration = reliability(calibration_of(metrics), scaled_calibration_of(metrics))
    save(calibration, out.reliability, out.reliability_pdf)
    save(risk_coverage(abstention_of(metrics)), out.abstention, out.abstention_pdf)
