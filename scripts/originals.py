"""Write the untouched test images."""

from hemagrid.data.augmentation import originals
from hemagrid.logs import job

with job(snakemake.log[0]):
    originals(
        snakemake.input.images,
        snakemake.input.splits,
        "test",
        dict(snakemake.output.items()),
    )
