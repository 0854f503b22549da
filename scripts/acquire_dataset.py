"""Read the images from whatever source the config names."""

from hemagrid.data import sources
from hemagrid.data.readers import acquire
from hemagrid.logs import job

with job(snakemake.log[0], snakemake.output):
    source, out = snakemake.input.source, dict(snakemake.output.items())
    # First: what changes while pictures are read, is seen to have changed.
    sources.write_record(source, snakemake.params.content, out.pop("source"))
    acquire(snakemake.params.settings, source, out)
