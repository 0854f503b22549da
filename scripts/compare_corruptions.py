"""Compare all runs on corrupted test images: two tables and a heat map."""

from hemagrid.logs import job
from hemagrid.reporting.charts import corruption_heat_map, save
from hemagrid.reporting.tables import compare_corruptions

with job(snakemake.log[0]):
    out = dict(snakemake.output.items())
    tables = compare_corruptions(dict(snakemake.input.items()), out, snakemake.params.settings)
    save(corruption_heat_map(*tables), out["figure"], out["pdf"])
