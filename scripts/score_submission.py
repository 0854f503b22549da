"""Score a package from an empty folder, as the leaderboard does."""

from hemagrid import runtime
from hemagrid.logs import job

with job(snakemake.log[0]):
    # For the package's process, which inherits these variables.
    runtime.prepare(snakemake.threads)
    from hemagrid.submission import score

    score(
        snakemake.wildcards.run,
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
        snakemake.params.settings,
    )
