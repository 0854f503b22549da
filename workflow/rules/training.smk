"""One training job per run, and the controls that bracket every metric.

Needs: the subsets, for transfer runs the backbone's weights and caches, for tuned ones the
head that their search found. Makes: results/{run}/model.keras, history.csv, predictions.npz
and cost.json.
"""


rule train:
    input:
        unpack(training_inputs),
    output:
        model=ensure("results/{run}/model.keras", non_empty=True),
        history=ensure("results/{run}/history.csv", non_empty=True),
        predictions=ensure("results/{run}/predictions.npz", non_empty=True),
        cost=ensure("results/{run}/cost.json", non_empty=True),
    log:
        "logs/train/{run}.log",
    benchmark:
        "benchmarks/train/{run}.tsv"
    wildcard_constraints:
        run="|".join(KNOWN),
    priority: 10
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=scaled_by_attempt("mem_mb"),
        runtime=scaled_by_attempt("runtime"),
    params:
        settings=run_settings,
    message:
        "Training {wildcards.run}"
    script:
        "../../scripts/train.py"


rule control:
    input:
        **per_subset(table_of, EVALUATED),
        train=table_of("train"),
    output:
        predictions=ensure("results/{run}/predictions.npz", non_empty=True),
    log:
        "logs/control/{run}.log",
    benchmark:
        "benchmarks/control/{run}.tsv"
    wildcard_constraints:
        run="|".join(CONTROLS),
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        seed=config["seed"],
    message:
        "Predicting without a network: {wildcards.run}"
    script:
        "../../scripts/control.py"
