"""Run the complete small study."""

import argparse
import os
from pathlib import Path

from hemagrid import names
from hemagrid.cli import dag, options
from hemagrid.config.loading import ROOT

TEXT = """
Run the complete study small, on drawn blood smears and networks with random weights: no
download, no GPU, some minutes. It is written into the folder demo. An interrupted
demonstration goes on when it is started again.
"""


def main(words):
    """Run the demonstration and print its headline; return the exit status of snakemake."""
    parser = argparse.ArgumentParser(
        prog="hemagrid demo",
        usage="hemagrid demo [options]",
        description=TEXT,
        epilog=options.EPILOG,
    )
    parser.add_argument(
        "--directory", metavar="DIR", help="folder to write into; default: demo"
    )
    parser.add_argument("--cores", metavar="N", help="number of cores to use; default: all")
    arguments = options.read(words, parser, new=True)
    # What jobs side by side may take: all but a tenth of this machine's memory.
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 9 // 10 // 2**20
    ours = ["--quiet", "reason", "host", "--directory", "demo"]
    ours += ["--configfile", ROOT / "config" / "demo.yaml", "--resources", f"mem_mb={memory}"]
    status = dag.run([*ours, *words])
    if status == 0:
        folder = Path(arguments.directory or "demo")
        print((folder / names.HEADLINE).read_text(encoding="utf-8"), end="")
        print(f"Report: {(folder / names.REPORT).absolute()}")
    return status
