"""Write what tuning found beside the published study, and whether it helped."""

from hemagrid.io import read_json
from hemagrid.logs import job
from hemagrid.reporting import reference
from hemagrid.reporting.tables import compare_tuned

with job(snakemake.log[0]):
    audit = read_json(snakemake.input.audit)
    compare_tuned(
        dict(snakemake.input.items()),
        dict(snakemake.output.items()),
        snakemake.params.settings,
        reference.published(snakemake.params.published, audit),
    )
