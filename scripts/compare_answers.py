"""Compare what all runs answer, image by image."""

from hemagrid.evaluation.agreement import compare_answers
from hemagrid.logs import job

with job(snakemake.log[0]):
    compare_answers(dict(snakemake.input.items()), dict(snakemake.output.items()))
