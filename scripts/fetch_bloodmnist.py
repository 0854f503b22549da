"""Fetch BloodMNIST under its published checksum."""

from pathlib import Path

from hemagrid.data.bloodmnist import fetch
from hemagrid.logs import job

with job(snakemake.log[0]):
    fetch(snakemake.params.resolution, Path(snakemake.output.archive).parent)
