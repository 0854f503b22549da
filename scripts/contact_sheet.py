"""Draw originals beside their augmented copies."""

from hemagrid.io import open_images, read_table
from hemagrid.logs import job
from hemagrid.reporting.pictures import write_contact_sheet

with job(snakemake.log[0], snakemake.output):
    write_contact_sheet(
        open_images(snakemake.input.images),
        open_images(snakemake.input.augmented),
        read_table(snakemake.input.table),
        snakemake.output.sheet,
    )
