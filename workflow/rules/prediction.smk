"""What every run says of every test set.

Needs: results/{run}/model.keras and the test sets. Makes: results/{run}/predictions/, a file
per test set.
"""

PREDICTED = {
    test_set: fill(names.PREDICTIONS, test_set=test_set) for test_set in EVALUATED
}


localrules:
    control,


rule predict:
    # One job per run. Predictions that stand are kept: another test set costs itself alone.
    input:
        **per_subset(names.SUBSET_IMAGES, EVALUATED, "images_{subset}"),
        **per_subset(names.SUBSET_TABLE, [names.TRAIN, *EVALUATED], "table_{subset}"),
        model=names.MODEL,
    output:
        **{test_set: update(path) for test_set, path in PREDICTED.items()},
    log:
        "logs/predict/{run}.log",
    benchmark:
        "benchmarks/predict/{run}.tsv"
    wildcard_constraints:
        run="|".join(KNOWN),
    priority: 10
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=of_network("mem_mb"),
        runtime=of_network("runtime"),
    params:
        precision=config["training"]["precision"],
        revision=revision("predict"),
    message:
        "Predicting the test sets by {wildcards.run}"
    script:
        "../../scripts/predict.py"


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
    conda:
        "../../envs/cpu.yaml"
    resources:
        **LIGHT,
    params:
        seed=grid.split_seed(config),
        code=CODE,
    message:
        "Predicting without a network: {wildcards.run}"
    script:
        "../../scripts/control.py"
