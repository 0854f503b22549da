"""Write the starting weights of a backbone."""

from hemagrid import runtime
from hemagrid.logs import job

with job(snakemake.log[0]):
    runtime.prepare(snakemake.threads)
    from hemagrid.backbones import write_weights

    write_weights(
        snakemake.output.weights,
        snakemake.params.settings,
        snakemake.params.image_size,
        snakemake.params.seed,
        **dict(snakemake.input.items()),
    )
