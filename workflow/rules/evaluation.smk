"""From predictions to metrics and figures, without a deep-learning library.

Needs: results/{run}/predictions.npz, cost.json, history.csv. Makes: results/{run}/
metrics.json, confusion_matrix.csv, and of these the figures, as SVG and PDF.
"""


rule evaluate:
    input:
        unpack(evaluation_inputs),
    output:
        metrics=ensure("results/{run}/metrics.json", non_empty=True),
        confusion=ensure("results/{run}/confusion_matrix.csv", non_empty=True),
    log:
        "logs/evaluate/{run}.log",
    benchmark:
        "benchmarks/evaluate/{run}.tsv"
    # Seconds, as every rule here: a cluster job of its own would cost more.
    priority: 10
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(10),
    params:
        run=run_description,
        settings=config["evaluation"],
        seed=config["seed"],
    message:
        "Evaluating {wildcards.run}"
    script:
        "../../scripts/evaluate.py"


rule plot_run:
    input:
        metrics="results/{run}/metrics.json",
        confusion="results/{run}/confusion_matrix.csv",
        history="results/{run}/history.csv",
    output:
        confusion=report(
            "results/{run}/confusion_matrix.svg",
            caption="../report/confusion_matrix.rst",
            category="Runs",
            subcategory="{run}",
            labels={"figure": "confusion matrix", "run": "{run}"},
        ),
        confusion_pdf="results/{run}/confusion_matrix.pdf",
        curves=report(
            "results/{run}/learning_curves.svg",
            caption="../report/learning_curves.rst",
            category="Runs",
            subcategory="{run}",
            labels={"figure": "learning curves", "run": "{run}"},
        ),
        curves_pdf="results/{run}/learning_curves.pdf",
        reliability=report(
            "results/{run}/reliability.svg",
            caption="../report/reliability.rst",
            category="Runs",
            subcategory="{run}",
            labels={"figure": "reliability diagram", "run": "{run}"},
        ),
        reliability_pdf="results/{run}/reliability.pdf",
    log:
        "logs/plot_run/{run}.log",
    benchmark:
        "benchmarks/plot_run/{run}.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    message:
        "Drawing the figures of {wildcards.run}"
    script:
        "../../scripts/plot_run.py"
