"""What single images show over all runs: which are hard, and whose label may be wrong.

Needs: the predictions of all runs on test sets of untouched images. Makes: three tables in
results/tables/.
"""

# An augmented copy may be hard because of what was done to it.
UNTOUCHED = [subset for subset in EVALUATED if subset not in names.AUGMENTED]
IMAGE_TABLES = {
    name: fill(names.TABLE, table=name, format="csv")
    for name in ["agreement", "hard_images", "label_noise"]
}


rule compare_answers:
    input:
        **per_subset(names.SUBSET_TABLE, UNTOUCHED, "table_{subset}"),
        predictions=collect(
            [PREDICTED[subset] for subset in UNTOUCHED], run=trained_replicates
        ),
    output:
        agreement=report(
            IMAGE_TABLES["agreement"],
            caption="../report/agreement.rst",
            category="Tables",
            labels={"table": "agreement between runs", "format": "CSV"},
        ),
        hard_images=report(
            IMAGE_TABLES["hard_images"],
            caption="../report/hard_images.rst",
            category="Data",
            subcategory="Images",
            labels={"table": "the hardest images", "format": "CSV"},
        ),
        label_noise=report(
            IMAGE_TABLES["label_noise"],
            caption="../report/label_noise.rst",
            category="Data",
            subcategory="Images",
            labels={"table": "labels that may be wrong", "format": "CSV"},
        ),
    log:
        "logs/compare_answers.log",
    benchmark:
        "benchmarks/compare_answers.tsv"
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **asks(mem_mb=2000, runtime=10),
    params:
        code=CODE,
    message:
        "Comparing the answers of all runs, image by image"
    script:
        "../../scripts/compare_answers.py"
