"""Read the images from whatever source the config names."""

from hemagrid.logs import job
from hemagrid.acquire import acquire

with job(snakemake.log[0]):
    acquire(snakemake.params.settings, snakemake.input.source, dict(snakemake.output.items()))
