"""Score a package from an empty folder, as the leaderboard does."""

from hemagrid.logs import job
from hemagrid.training import jobs

with job(snakemake.log[0]):
    # For the package's process, which inherits these variables.
    jobs.prepare(snakemake.threads, snakemake.resources)
    from hemagrid.submission.score import score

    score(
        snakemake.wildcards.run,
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
        snakemake.params.settings,
    )
