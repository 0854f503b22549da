"""Remove what a finished study needs no more: trunk activations and embeddings.

    python scripts/remove_caches.py [--configfile my.yaml ...] [--directory DIR]

A program for people, no rule's script. It takes the arguments of snakemake, and removes
nothing as long as snakemake would still have something to do with them. Whatever is trained
later, a new head for example, makes the caches of its backbone anew, and with them all other
runs of that backbone: to Snakemake they are out of date then. So do it last.
"""

import shutil
import sys
from pathlib import Path

from hemagrid.reporting.text import size
from plan import planned, read_arguments

CACHES = ("results/trunks", "results/embeddings")
LATER = "Another head of a backbone would make its caches, and train its other heads, anew."


def main():
    arguments = read_arguments()
    jobs, _ = planned(arguments)
    if jobs:
        sys.exit(
            f"Error: this study is not finished: {len(jobs)} jobs to do, of which "
            f"{jobs[0].rule} is the first; nothing was removed. Finish it with the same "
            "arguments: snakemake"
        )
    freed = 0
    for cache in CACHES:
        folder = Path(arguments.directory or ".", cache)
        freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        shutil.rmtree(folder, ignore_errors=True)
    print(f"Removed {' and '.join(CACHES)}: {size(freed)}. {LATER}")


if __name__ == "__main__":
    main()
