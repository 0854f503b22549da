"""Compute what images are compared by: perceptual hashes, and a digest of their pixels."""

import numpy as np

from hemagrid.data.duplicates import fingerprint, hash_table
from hemagrid.io import open_images, replacing, write_table
from hemagrid.logs import job

with job(snakemake.log[0], snakemake.output):
    found = fingerprint(open_images(snakemake.input.images), snakemake.threads)
    with replacing(snakemake.output.fingerprints) as temporary:
        np.save(temporary, found)
    write_table(snakemake.output.phash, hash_table(found))
