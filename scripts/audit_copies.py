"""List the augmented copies with what is left of their picture."""

from hemagrid.data.audit import audit_copies
from hemagrid.logs import job

with job(snakemake.log[0], snakemake.output):
    audit_copies(dict(snakemake.input.items()), snakemake.output.copies)
