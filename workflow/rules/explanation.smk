"""Where the network looked: Grad-CAM of the best run.

Needs: the metrics, models and predictions of all runs, and the augmented test images.
Makes: results/explanation/ and results/figures/explanation.png.
"""


# Models of all runs: which one is the best, and read, is known in the job alone.
rule explain:
    input:
        metrics=metrics_of_all,
        models=models_of_trained,
        predictions=predictions_of_trained,
        images=images_of("test_augmented"),
    output:
        pictures=ensure("results/explanation/pictures.npy", non_empty=True),
        table=ensure("results/explanation/pictures.csv", non_empty=True),
        figure=report(
            "results/figures/explanation.png",
            caption="../report/explanation.rst",
            category="Explanation",
            labels={"figure": "where the best run looked"},
        ),
    log:
        "logs/explain.log",
    benchmark:
        "benchmarks/explain.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(30),
    params:
        settings=explanation_settings(),
    message:
        "Showing where the best run looked"
    script:
        "../../scripts/explain.py"
