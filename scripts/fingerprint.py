"""Compute the perceptual hash of every image."""

from hemagrid.duplicates import fingerprint
from hemagrid.files import open_images, write_table
from hemagrid.logs import job

with job(snakemake.log[0]):
    write_table(
        snakemake.output.phash,
        fingerprint(open_images(snakemake.input.images), snakemake.threads),
    )
