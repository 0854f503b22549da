"""Compute what images are compared by: perceptual hashes, and a digest of their pixels."""

from hemagrid.data.duplicates import FINGERPRINT, fingerprint, hash_table
from hemagrid.io import new_array, open_images, write_table
from hemagrid.logs import job

with job(snakemake.log[0], snakemake.output, snakemake.resources):
    images = open_images(snakemake.input.images)
    with new_array(snakemake.output.fingerprints, (len(images),), FINGERPRINT) as found:
        fingerprint(images, snakemake.threads, found)
        write_table(snakemake.output.phash, hash_table(found))
