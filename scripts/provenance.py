"""Record the config that was used and the versions of all packages."""

from hemagrid.logs import job
from hemagrid.reporting.provenance import write_config, write_versions

with job(snakemake.log[0]):
    write_config(snakemake.params.config, snakemake.output.config)
    write_versions(snakemake.output.versions)
