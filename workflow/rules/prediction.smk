"""What every run says of every test set.

Needs: results/{run}/model.keras and the test sets. Makes: results/{run}/predictions/, a file
per test set, and results/{run}/corrupted/ for worse copies of the test images.
"""

PREDICTED = {
    test_set: fill(names.PREDICTIONS, test_set=test_set) for test_set in EVALUATED
}
# Worse copies of the test images are made when they are predicted; nothing without any.
CORRUPTED, CORRUPTIONS = {}, {}
if grid.corruptions(config):
    CORRUPTED = {"corrupted_test": names.CORRUPTED}
    CORRUPTIONS = {
        "sets": grid.corruptions(config),
        "seed": config["seed"],
        "revision": revision("corrupt"),
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
        **{name: update(path) for name, path in {**PREDICTED, **CORRUPTED}.items()},
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
        corruptions=CORRUPTIONS,
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
