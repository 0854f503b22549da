"""Draw the demonstration's blood smears."""

from hemagrid.data.synthetic import write_smears
from hemagrid.logs import job

with job(snakemake.log[0], snakemake.output):
    write_smears(
        snakemake.output.folder,
        image_size=snakemake.params.image_size,
        **snakemake.params.settings,
    )
