"""What every run says of every test set, and rows that are made of runs.

Needs: results/{run}/model.keras and the test sets. Makes: results/{run}/predictions/, a file
per test set, and results/{run}/corrupted/ for worse copies of the test images; for ensembles and
runs with views also cost.json.
"""

PREDICTED = {
    test_set: fill(names.PREDICTIONS, test_set=test_set) for test_set in EVALUATED
}
NAMED_PREDICTIONS = {f"predictions_{name}": path for name, path in PREDICTED.items()}
# Worse copies of the test images are made when they are predicted; nothing without any.
CORRUPTED, CORRUPTIONS = {}, {}
if grid.corruptions(config):
    CORRUPTED = {"corrupted_test": names.CORRUPTED}
    CORRUPTIONS = {
        "sets": grid.corruptions(config),
        "seed": grid.split_seed(config),
        "revision": revision("corrupt"),
    }
# What a row of eight views needs of its run.
VIEWED = {
    f"{run}{names.WITH_VIEWS}": {
        "model": fill(names.MODEL, run=run),
        "cost": fill(names.COST, run=run),
    }
    for run in config["views"]
}


rule predict:
    # One job per run. Predictions that stand are kept: another test set costs itself alone.
    input:
        **per_subset(names.SUBSET_IMAGES, EVALUATED, "images_{subset}"),
        **per_subset(names.SUBSET_TABLE, [names.TRAIN, *EVALUATED], "table_{subset}"),
        model=names.MODEL,
    output:
        **{name: update(path) for name, path in {**PREDICTED, **CORRUPTED}.items()},
        # Beside the predictions, so that a study which lacks it does not predict again.
        latency=update(names.LATENCY),
    log:
        "logs/predict/{run}.log",
    benchmark:
        "benchmarks/predict/{run}.tsv"
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
        precision=config["training"]["precision"],
        revision=revision("predict"),
        corruptions=CORRUPTIONS,
    message:
        "Predicting the test sets by {wildcards.run}"
    script:
        "../../scripts/predict.py"


rule views:
    input:
        unpack(lookup("{run}", within=VIEWED)),
        **per_subset(names.SUBSET_IMAGES, EVALUATED, "images_{subset}"),
        **per_subset(names.SUBSET_TABLE, [names.TRAIN, *EVALUATED], "table_{subset}"),
    output:
        **{name: update(path) for name, path in NAMED_PREDICTIONS.items()},
        cost=names.COST,
    log:
        "logs/views/{run}.log",
    benchmark:
        "benchmarks/views/{run}.tsv"
    wildcard_constraints:
        run=either(VIEWED),
    conda:
        NETWORKS
    resources:
        **OF_NETWORK,
        study=STUDY,
    params:
        precision=config["training"]["precision"],
        revision=revision("predict"),
    message:
        "Predicting eight views of the test sets: {wildcards.run}"
    script:
        "../../scripts/views.py"


rule ensemble:
    # Of all runs, the job finds out which are the best.
    input:
        metrics=collect(names.METRICS, run=made_of),
        costs=collect(names.COST, run=made_of),
        predictions=collect(list(PREDICTED.values()), run=made_of),
    output:
        predictions=list(PREDICTED.values()),
        cost=names.COST,
    log:
        "logs/ensemble/{run}.log",
    benchmark:
        "benchmarks/ensemble/{run}.tsv"
    wildcard_constraints:
        run=either(config["ensembles"]),
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **asks(mem_mb=2000, runtime=10),
    params:
        settings=lookup("ensembles/{run}", within=config),
        code=CODE,
    message:
        "Averaging what runs predicted: {wildcards.run}"
    script:
        "../../scripts/ensemble.py"


rule control:
    input:
        **per_subset(names.SUBSET_TABLE, [names.TRAIN, *EVALUATED]),
    output:
        **PREDICTED,
    log:
        "logs/control/{run}.log",
    benchmark:
        "benchmarks/control/{run}.tsv"
    wildcard_constraints:
        run="|".join(names.CONTROLS),
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **LIGHT,
    params:
        seed=grid.split_seed(config),
        code=CODE,
    message:
        "Predicting without a network: {wildcards.run}"
    script:
        "../../scripts/control.py"
