"""Compute the perceptual hash of every image."""

from hemagrid.data.duplicates import fingerprint
from hemagrid.io import open_images, write_table
from hemagrid.logs import job

with job(snakemake.log[0]):
    write_table(
        snakemake.output.phash,
        fingerprint(open_images(snakemake.input.images), snakemake.threads),
    )
