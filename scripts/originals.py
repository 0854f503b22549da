"""Write the untouched test images."""

from hemagrid.data.augmentation import originals
from hemagrid.logs import job
from hemagrid.names import TEST

with job(snakemake.log[0], snakemake.output):
    originals(
        snakemake.input.images,
        snakemake.input.splits,
        TEST,
        dict(snakemake.output.items()),
    )
