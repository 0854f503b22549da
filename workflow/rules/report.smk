"""Tables over all runs, and the report.

Needs: the metrics of every run and control, their pictures, what tuning found and the data
set's audit.
Makes: results/tables/, results/figures/, results/provenance/ and results/report.html.
"""


rule aggregate:
    input:
        metrics=metrics_of_all,
        codabench=scores_of_all,
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
        heads=report(
            "results/tables/heads.csv",
            caption="../report/heads.rst",
            category="Tables",
            labels={"table": "heads of the grid", "format": "CSV"},
        ),
        heads_md="results/tables/heads.md",
        heads_tex="results/tables/heads.tex",
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
        heads=heads_of_grid(),
        missing=unfinished,
        codabench=config["codabench"]["scores"],
    message:
        "Comparing all runs"
    script:
        "../../scripts/aggregate.py"


rule compare_with_winner:
    input:
        metrics=metrics_of_all,
        predictions=predictions_of_trained,
    output:
        winner=report(
            "results/tables/winner.csv",
            caption="../report/winner.rst",
            category="Tables",
            labels={"table": "all runs against the winner", "format": "CSV"},
        ),
        winner_md="results/tables/winner.md",
        winner_tex="results/tables/winner.tex",
    log:
        "logs/compare_with_winner.log",
    benchmark:
        "benchmarks/compare_with_winner.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(10),
    params:
        settings=pairing_settings(),
    message:
        "Comparing all runs with the winner"
    script:
        "../../scripts/compare_with_winner.py"


rule plot_grid:
    input:
        metrics=metrics_of_all,
    output:
        accuracy=report(
            "results/figures/accuracy.svg",
            caption="../report/accuracy.rst",
            category="Figures",
            subcategory="All runs",
            labels={"figure": "accuracy of all runs"},
        ),
        accuracy_pdf="results/figures/accuracy.pdf",
        cost=report(
            "results/figures/cost.svg",
            caption="../report/cost.rst",
            category="Figures",
            subcategory="All runs",
            labels={"figure": "accuracy against cost"},
        ),
        cost_pdf="results/figures/cost.pdf",
    log:
        "logs/plot_grid.log",
    benchmark:
        "benchmarks/plot_grid.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        missing=unfinished,
    message:
        "Drawing accuracy and cost of all runs"
    script:
        "../../scripts/plot_grid.py"


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
        pdf="results/figures/class_balance.pdf",
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
        config=recorded_config(),
    message:
        "Recording config and versions"
    script:
        "../../scripts/provenance.py"


rule record_study:
    # Of the metrics nothing is read: the commit and command on record are to be those that
    # made the last result.
    input:
        files=study_files(),
        metrics=metrics_of_all,
    output:
        study=report(
            "results/provenance/study.json",
            caption="../report/provenance.rst",
            category="Provenance",
            labels={"file": "commit, command and machine"},
        ),
        checksums=report(
            "results/provenance/checksums.csv",
            caption="../report/checksums.rst",
            category="Provenance",
            labels={"file": "checksums of images and weights"},
        ),
    log:
        "logs/record_study.log",
    benchmark:
        "benchmarks/record_study.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(500),
        runtime=per_attempt(10),
    message:
        "Recording commit, command, machine and checksums"
    script:
        "../../scripts/record_study.py"


rule report:
    input:
        unpack(tuning_results),
        **evaluated_images(),
        metrics=metrics_of_all,
        predictions=predictions_of_trained,
        confusion=confusion_of_trained,
        history=history_of_trained,
        codabench=scores_of_all,
        heads="results/tables/heads.csv",
        winner="results/tables/winner.csv",
        explanation="results/explanation/pictures.csv",
        explained="results/explanation/pictures.npy",
        images="results/dataset/images.npy",
        audit="results/dataset/audit.json",
        contact_sheet="results/figures/contact_sheet_train.png",
        config="results/provenance/config.yaml",
        versions="results/provenance/versions.json",
        study="results/provenance/study.json",
        checksums="results/provenance/checksums.csv",
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
        missing=unfinished,
        # What jobs used is read from where it happens to lie. As inputs, a benchmark file
        # that is gone would have its run trained again.
        benchmarks="benchmarks",
    message:
        "Writing the report"
    script:
        "../../scripts/report.py"
