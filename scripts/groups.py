"""Write down which group each image belongs to."""

from hemagrid.data.groups import name_groups
from hemagrid.data.readers import read_samples
from hemagrid.io import write_table
from hemagrid.logs import job

with job(snakemake.log[0], snakemake.output, snakemake.resources):
    samples = read_samples(snakemake.input.samples)
    names = name_groups(
        snakemake.params.settings, samples["source"], snakemake.input.get("npz")
    )
    write_table(snakemake.output.groups, samples[["id", "source"]].assign(group_name=names))
