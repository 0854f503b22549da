"""Package a run for the challenge's leaderboard."""

from hemagrid.logs import job
from hemagrid.submission.package import package

with job(snakemake.log[0]):
    package(
        snakemake.wildcards.run,
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
    )
