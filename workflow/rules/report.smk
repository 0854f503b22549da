"""Tables over all runs, and the report.

Needs: the metrics of every run and control, their pictures, what tuning found and the data
set's audit.
Makes: results/tables/, results/figures/, results/provenance/ and results/report.html.
"""


rule aggregate:
    input:
        metrics=metrics_of_all,
        codabench=SCORED,
    output:
        grid=report(
            "results/tables/grid.csv",
            caption="../report/grid.rst",
            category="Tables",
            labels={"table": "all runs", "format": "CSV"},
        ),
        grid_md="results/tables/grid.md",
        grid_tex="results/tables/grid.tex",
        best_heads=report(
            "results/tables/best_heads.csv",
            caption="../report/best_heads.rst",
            category="Tables",
            labels={"table": "best head per backbone", "format": "CSV"},
        ),
        best_heads_md="results/tables/best_heads.md",
        best_heads_tex="results/tables/best_heads.tex",
        headline="results/tables/headline.txt",
    log:
        "logs/aggregate.log",
    benchmark:
        "benchmarks/aggregate.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        select_by=config["tuning"]["select_by"],
        published=config["published"],
        codabench=config["codabench"]["scores"],
    message:
        "Comparing all runs"
    script:
        "../../scripts/aggregate.py"


rule plot_accuracy:
    input:
        metrics=metrics_of_all,
    output:
        figure=report(
            "results/figures/accuracy.svg",
            caption="../report/accuracy.rst",
            category="Figures",
            labels={"figure": "accuracy of all runs"},
        ),
    log:
        "logs/plot_accuracy.log",
    benchmark:
        "benchmarks/plot_accuracy.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    message:
        "Drawing the accuracy of all runs"
    script:
        "../../scripts/plot_accuracy.py"


rule plot_classes:
    input:
        audit="results/dataset/audit.json",
    output:
        figure=report(
            "results/figures/class_balance.svg",
            caption="../report/class_balance.rst",
            category="Data",
            subcategory="Classes",
            labels={"figure": "images per class"},
        ),
    log:
        "logs/plot_classes.log",
    benchmark:
        "benchmarks/plot_classes.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    message:
        "Drawing the class balance"
    script:
        "../../scripts/plot_classes.py"


rule provenance:
    output:
        config=report(
            "results/provenance/config.yaml",
            caption="../report/config.rst",
            category="Provenance",
            labels={"file": "config"},
        ),
        versions=report(
            "results/provenance/versions.json",
            caption="../report/versions.rst",
            category="Provenance",
            labels={"file": "versions of all packages"},
        ),
    log:
        "logs/provenance.log",
    benchmark:
        "benchmarks/provenance.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(500),
        runtime=per_attempt(10),
    params:
        config=config,
    message:
        "Recording config and versions"
    script:
        "../../scripts/provenance.py"


rule report:
    input:
        unpack(tuning_results),
        metrics=metrics_of_all,
        codabench=SCORED,
        confusion=confusion_of_all,
        curves=curves_of_all,
        audit="results/dataset/audit.json",
        contact_sheet="results/figures/contact_sheet_train.png",
        config="results/provenance/config.yaml",
        versions="results/provenance/versions.json",
    output:
        report=report(
            "results/report.html",
            caption="../report/report.rst",
            category="Report",
            labels={"file": "the whole comparison on one page"},
        ),
        resources=report(
            "results/tables/resources.csv",
            caption="../report/resources.rst",
            category="Tables",
            labels={"table": "requested and used resources", "format": "CSV"},
        ),
    log:
        "logs/report.log",
    benchmark:
        "benchmarks/report.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(10),
    params:
        select_by=config["tuning"]["select_by"],
        # What jobs used is read from where it happens to lie. As inputs, a benchmark file
        # that is gone would have its run trained again.
        benchmarks="benchmarks",
    message:
        "Writing the report"
    script:
        "../../scripts/report.py"
