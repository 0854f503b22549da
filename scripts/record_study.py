"""Record how the study was run, and the checksums of what it rests on."""

from hemagrid.logs import job
from hemagrid.reporting.provenance import write_checksums, write_study

with job(snakemake.log[0]):
    write_study(snakemake.output.study)
    write_checksums(snakemake.input.files, snakemake.output.checksums)
