"""Where the network looked: Grad-CAM of the best run.

Needs: the metrics, models and predictions of all runs, and the augmented test images.
Makes: results/explanation/ and results/figures/explanation.png.
"""


rule explain:
    # The models of all runs: which one is the best, the job finds out.
    input:
        metrics=all_metrics,
        models=collect(names.MODEL, run=trained_runs),
        predictions=collect(
            fill(names.PREDICTIONS, test_set=names.TEST_AUGMENTED), run=trained_runs
        ),
        images=fill(names.SUBSET_IMAGES, subset=names.TEST_AUGMENTED),
        copies=names.COPIES,
    output:
        pictures=names.EXPLAINED_PICTURES,
        table=names.EXPLAINED_TABLE,
        figure=report(
            names.EXPLANATION,
            caption="../report/explanation.rst",
            category="Explanation",
            labels={"figure": "where the best run looked"},
        ),
    log:
        "logs/explain.log",
    benchmark:
        "benchmarks/explain.tsv"
    conda:
        NETWORKS
    resources:
        **asks(mem_mb=4000, runtime=30),
        study=STUDY,
    params:
        settings={
            "subset": names.TEST_AUGMENTED,
            "select_by": config["tuning"]["select_by"],
        },
        code=CODE,
    message:
        "Showing where the best run looked"
    script:
        "../../scripts/explain.py"
