"""Write the starting weights of a backbone."""

from hemagrid.logs import job
from hemagrid.training import jobs

with job(snakemake.log[0]):
    jobs.prepare(snakemake.threads, snakemake.resources)
    from hemagrid.models.backbones import write_weights

    write_weights(
        snakemake.output.weights,
        {key: snakemake.params[key] for key in ("application", "weights")},
        **snakemake.params.drawn,
        **dict(snakemake.input.items()),
    )
