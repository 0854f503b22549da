"""Write the report: the whole comparison on one page."""

from hemagrid.logs import job
from hemagrid.report import write_report

with job(snakemake.log[0]):
    write_report(
        snakemake.output.report,
        select_by=snakemake.params.select_by,
        **dict(snakemake.input.items()),
    )
