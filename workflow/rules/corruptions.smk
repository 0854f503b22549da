"""What worse pictures cost, if the config asks for corruptions.

Needs: the predictions of every run for test images and their corrupted copies. Makes: two
tables in results/tables/ and a heat map in results/figures/.
"""

# What the report says about it.
WORSE_FIGURES = ["corruptions"] * bool(CORRUPTIONS)
WORSE_TABLES = ["corruptions", "corruption_summary"] * bool(CORRUPTIONS)
WORSE = {name: fill(names.TABLE, table=name, format="csv") for name in WORSE_TABLES}


rule compare_corruptions:
    input:
        test=collect(PREDICTED[names.TEST], run=trained_runs),
        corrupted=collect(names.CORRUPTED, run=trained_runs),
    output:
        **in_text(corruptions="corruptions", corruption_summary="corruption_summary"),
        corruptions=report(
            fill(names.TABLE, table="corruptions", format="csv"),
            caption="../report/corruptions.rst",
            category="Tables",
            labels={"table": "corruptions by kind and severity", "format": "CSV"},
        ),
        corruption_summary=report(
            fill(names.TABLE, table="corruption_summary", format="csv"),
            caption="../report/corruption_summary.rst",
            category="Tables",
            labels={"table": "all runs on corrupted images", "format": "CSV"},
        ),
        figure=report(
            fill(names.FIGURE, figure="corruptions", format="svg"),
            caption="../report/corruptions.rst",
            category="Figures",
            subcategory="All runs",
            labels={"figure": "accuracy on corrupted images"},
        ),
        pdf=fill(names.FIGURE, figure="corruptions", format="pdf"),
    log:
        "logs/compare_corruptions.log",
    benchmark:
        "benchmarks/compare_corruptions.tsv"
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **asks(mem_mb=2000, runtime=10),
    params:
        settings={
            "bootstrap": config["evaluation"]["bootstrap"],
            "seed": config["seed"],
        },
        code=CODE,
    message:
        "Comparing all runs on corrupted images"
    script:
        "../../scripts/compare_corruptions.py"
