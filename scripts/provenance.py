"""Record the config that was used."""

from hemagrid.logs import job
from hemagrid.reporting.provenance import write_config

with job(snakemake.log[0]):
    write_config(snakemake.config, snakemake.output.config)
