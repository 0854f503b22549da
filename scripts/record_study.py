"""Record what the runs were made with, the last command, and checksums of their inputs."""

from hemagrid.logs import job
from hemagrid.reporting.provenance import write_checksums, write_study, write_versions

with job(snakemake.log[0]):
    write_versions(snakemake.input.metrics, snakemake.output.versions)
    write_study(snakemake.output.study)
    write_checksums(snakemake.input.files, snakemake.output.checksums, snakemake.input.sources)
