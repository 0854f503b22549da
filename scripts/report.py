"""Write the report: the whole comparison on one page."""

from hemagrid.logs import job
from hemagrid.reporting.page import write_report
from hemagrid.reporting.resources import write_usage

with job(snakemake.log[0]):
    write_usage(snakemake.params.benchmarks, snakemake.output.resources)
    write_report(
        snakemake.output.report,
        {"resources": snakemake.output.resources, **dict(snakemake.input.items())},
        select_by=snakemake.params.select_by,
    )
