"""Remove what a finished study no longer needs: cached activations and embeddings."""

from pathlib import Path

from hemagrid import names
from hemagrid.cli import dag, options
from hemagrid.config.loading import nearby
from hemagrid.errors import InputError
from hemagrid.reporting.text import counted, size

TEXT = """
Remove the cached activations and embeddings of a finished study, often most of its size.
Nothing is removed as long as snakemake, called with the same options, would still have
something to do. Do it last: a head that is trained later needs the caches again, and then all
other runs of its backbone are trained again, too.
"""


def main(words):
    """Remove the caches, unless the study is unfinished."""
    arguments = options.read(words, options.parser("clean", TEXT))
    folder, _, config_name = options.study(arguments)
    if not Path(folder, names.IMAGES).exists():
        raise InputError(
            f"{folder.absolute()}: found no {names.IMAGES}, expected the folder of a finished "
            f"study; nothing was removed{nearby(folder)}"
        )
    arguments.configfile = dag.recorded(arguments)[1:] or arguments.configfile
    jobs, *_ = dag.planned(arguments)
    if jobs:
        raise InputError(
            f"this study is not finished: {counted(len(jobs), 'job')} to do, {jobs[0].rule} "
            f"first; nothing was removed. The config is {config_name}"
        )
    caches = [pattern.partition("/{")[0] for pattern in (names.ACTIVATIONS, names.EMBEDDINGS)]
    # Evaluation reads what embedding cost: made again, it would have all runs trained again.
    kept = Path(names.EMBEDDING_COST).name
    freed = 0
    for cache in caches:
        for path in Path(folder, cache).rglob("*"):
            if path.is_file() and path.name != kept:
                freed += path.stat().st_size
                path.unlink()
    print(f"Removed {' and '.join(caches)}: {size(freed)}")
