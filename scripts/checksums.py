"""Compute the checksums of images, splits and pretrained weights."""

from hemagrid.logs import job
from hemagrid.reporting.provenance import write_checksums

with job(snakemake.log[0]):
    write_checksums(snakemake.input.files, snakemake.output.checksums, snakemake.input.sources)
