"""Which runs there are: with a network, made of others, replicates. Rules name their files by it.

Functions stand here because tuned runs are known only after the checkpoint `select_finalists`.
"""

TUNED = [
    run.name
    for run in KNOWN.values()
    if run.head in names.TUNED_HEADS and run.replicate == 1
]
# The replicates of each run, itself first.
REPLICATES = {
    run.name: [replicate.name for replicate in grid.replicates(config, run)]
    for run in KNOWN.values()
    if not run.repeats
}
REPEATED = [run for run, replicates in REPLICATES.items() if len(replicates) > 1]


def tuned_runs(wildcards):
    """Name the tuned runs: after the checkpoint, unless the config names their backbones."""
    if not grid.tunes(config):
        return []
    chosen = config["tuning"]["backbones"]
    if chosen is None:
        finalists = checkpoints.select_finalists.get().output.finalists
        chosen = json.loads(Path(finalists).read_text())["finalists"]
    return list(grid.tuned_runs(config, chosen))


def trained_runs(wildcards):
    """Name the runs with a network: those of the grid, then the tuned ones."""
    return [*RUNS, *tuned_runs(wildcards)]


def predicting_runs(wildcards):
    """Name the runs with a network, then the rows that are made of them."""
    return [*trained_runs(wildcards), *COMBINED]


def evaluated_runs(wildcards):
    """Name all rows: runs with a network, what is made of them, then the controls."""
    return [*predicting_runs(wildcards), *names.CONTROLS]


def trained_replicates(wildcards):
    """Name all networks that are trained: each run of `trained_runs` with its replicates."""
    return [name for run in trained_runs(wildcards) for name in REPLICATES[run]]


def predicting_replicates(wildcards):
    """Name the networks of `trained_replicates`, then the rows that are made of them."""
    return [*trained_replicates(wildcards), *COMBINED]


def tuned_replicates(wildcards):
    """Name the tuned runs, each with its replicates."""
    return [name for run in tuned_runs(wildcards) for name in REPLICATES[run]]


def evaluated_replicates(wildcards):
    """Name all runs: those that are trained with their replicates, then the controls."""
    return [*trained_replicates(wildcards), *names.CONTROLS]


def metrics_of(*runs):
    """Name the metrics of runs: the summary of its replicates where a run has several."""
    return [
        fill(names.SUMMARY if run in REPEATED else names.METRICS, run=run)
        for run in runs
    ]


def all_metrics(wildcards):
    """Name the metrics of all runs and controls, as `metrics_of`."""
    return metrics_of(*evaluated_runs(wildcards))


def made_of(wildcards):
    """Name the runs that answer for a row; all of them until the best are known."""
    if wildcards.run not in config["ensembles"]:
        return [wildcards.run.removesuffix(names.WITH_VIEWS)]
    members = config["ensembles"][wildcards.run]["members"]
    return members or trained_replicates(wildcards)


def is_there(path):
    return Path(STUDY + path).exists()


def costs_no_training(backbone):
    """Say whether a backbone's map is there, or its embeddings are or are needed anyway.

    `hemagrid clean` removes the embeddings of finished runs. If they were made again, all
    runs of the backbone would be trained again, for a picture.
    """
    runs = [run.name for run in RUNS.values() if run.backbone == backbone]
    finished = runs and all(is_there(names.MODEL.format(run=run)) for run in runs)
    embeddings = names.EMBEDDINGS.format(backbone=backbone, subset=names.VAL)
    mapped = is_there(names.CELL_MAP.format(backbone=backbone))
    return mapped or is_there(embeddings) or not finished
