"""One training job per run. It knows no test set.

Needs: the images to learn from, for transfer runs the backbone's weights and caches, for
tuned ones the head that their search found. Makes: results/{run}/model.keras, history.csv and
cost.json.
"""

# What a run needs of its backbone and of its search.
PREPARED = {
    run.name: {
        "weights": fill(names.WEIGHTS, backbone=run.backbone),
        **per_subset(
            names.ACTIVATIONS,
            names.LEARNED,
            "activations_{subset}",
            backbone=run.backbone,
        ),
        **per_subset(
            names.EMBEDDINGS,
            names.LEARNED,
            "embeddings_{subset}",
            backbone=run.backbone,
        ),
        **({"head": fill(names.FOUND_HEAD, run=run.base)} if run.base in TUNED else {}),
    }
    for run in KNOWN.values()
    if run.backbone
}


rule train:
    input:
        unpack(lookup("{run}", within=PREPARED, default={})),
        **per_subset(names.SUBSET_IMAGES, names.LEARNED, "images_{subset}"),
        **per_subset(names.SUBSET_TABLE, names.LEARNED, "table_{subset}"),
    output:
        model=names.MODEL,
        history=names.HISTORY,
        cost=names.COST,
    log:
        "logs/train/{run}.log",
    benchmark:
        "benchmarks/train/{run}.tsv"
    wildcard_constraints:
        run="|".join(KNOWN),
    priority: 10
    conda:
        NETWORKS
    resources:
        **OF_NETWORK,
        study=STUDY,
        checkpoints=CHECKPOINTS,
    params:
        settings=lookup(
            "{run}", within={run: grid.run_settings(config, run) for run in KNOWN}
        ),
        revision=revision("train"),
    message:
        "Training {wildcards.run}"
    script:
        "../../scripts/train.py"
