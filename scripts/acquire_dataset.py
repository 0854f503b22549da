"""Read the images from whatever source the config names."""

from hemagrid.data.readers import acquire
from hemagrid.logs import job

with job(snakemake.log[0]):
    acquire(
        snakemake.params.settings,
        snakemake.input.source,
        dict(snakemake.output.items()),
    )
