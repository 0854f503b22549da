"""Record what the runs were made with and the last command."""

from hemagrid.logs import job
from hemagrid.reporting.provenance import write_study, write_versions

with job(snakemake.log[0]):
    write_versions(snakemake.input.metrics, snakemake.output.versions)
    write_study(snakemake.output.study)
