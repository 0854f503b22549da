"""Read the images of a test set that the config names."""

from hemagrid.data import sources
from hemagrid.data.readers import read_samples
from hemagrid.data.test_sets import acquire_test_set
from hemagrid.io import class_names
from hemagrid.logs import job

with job(snakemake.log[0], snakemake.output, snakemake.resources):
    source, out = snakemake.input.source, dict(snakemake.output.items())
    # First: what changes while pictures are read, is seen to have changed.
    sources.write_record(source, snakemake.params.content, out.pop("source"))
    acquire_test_set(
        snakemake.wildcards.test_set,
        source,
        snakemake.params.source,
        snakemake.params.classes,
        class_names(read_samples(snakemake.input.samples)),
        snakemake.params.settings,
        out,
    )
