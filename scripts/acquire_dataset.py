"""Read the images from whatever source the config names."""

from hemagrid.data import sources
from hemagrid.data.readers import acquire
from hemagrid.io import read_json, write_json
from hemagrid.logs import job

with job(snakemake.log[0], snakemake.output, snakemake.resources):
    source, out = snakemake.input.source, dict(snakemake.output.items())
    record = out.pop("source")
    # First: what changes while pictures are read, is seen to have changed.
    sources.write_record(source, snakemake.params.content, record)
    reading = acquire(snakemake.params.settings, source, out)
    write_json(record, read_json(record) | {"reading": reading})
