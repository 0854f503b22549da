"""Tables over all runs, and the report.

Needs: the metrics of every run and control, their pictures, what tuning found and the data
set's audit.
Makes: results/tables/, results/figures/, results/provenance/ and results/report.html.
"""

# What every result rests on: the images, how they are split, and pretrained weights.
FOUNDATION = [
    names.IMAGES,
    names.SAMPLES,
    names.SPLIT_TABLE,
    *expand(names.WEIGHTS, backbone=grid.tunable_backbones(config)),
]
FORMATS = ["svg", "pdf"]
# What the report says about tuning; nothing where there is none.
TUNING_TABLES = ["tuned_heads", "tuned_runs", "tuning_gain"] * grid.tunes(config)
TUNING = {name: fill(names.TABLE, table=name, format="csv") for name in TUNING_TABLES}
if TUNING_TABLES:
    TUNING["finalists"] = names.FINALISTS
    TUNING["trials"] = collect(names.TRIALS, run=tuned_runs)
# A row per replicate; nothing where every run has one.
REPLICATE_TABLE = (
    {"replicates": fill(names.TABLE, table="replicates", format="csv")}
    if REPEATED
    else {}
)
# The runs of the grid with their replicates.
TRAINED = [name for run in RUNS for name in REPLICATES[run]]
# What the study ends with, as far as it is known before its finalists are.
FINAL = {
    "report": names.REPORT,
    "tables": [
        fill(names.TABLE, table=name, format="csv")
        for name in [
            "grid",
            "heads",
            "best_heads",
            "abstention",
            "policies",
            "recall",
            "speed",
            "winner",
            "controls",
            *TUNING_TABLES,
            *REPLICATE_TABLE,
            *WORSE,
            *IMAGE_TABLES,
        ]
    ],
    "figures": [
        *expand(
            names.FIGURE,
            figure=["accuracy", "cost", "abstention", "class_balance", *WORSE_FIGURES],
            format=FORMATS,
        ),
        fill(names.CONTACT_SHEET, subset=names.TEST_AUGMENTED),
        names.EXPLANATION,
    ],
    "models": expand(names.MODEL, run=TRAINED),
    "cards": expand(names.CARD, run=[*TRAINED, *COMBINED]),
    "grid": expand(
        names.RUN_FIGURE, run=TRAINED, figure=names.RUN_FIGURES, format=FORMATS
    ),
    "combined": expand(
        names.RUN_FIGURE, run=COMBINED, figure=names.ANSWER_FIGURES, format=FORMATS
    ),
    "controls": expand(names.METRICS, run=names.CONTROLS),
}
# And for each of the tuned runs and their replicates.
TUNED_FILES = [
    names.MODEL,
    names.CARD,
    *expand(
        names.RUN_FIGURE, figure=names.RUN_FIGURES, format=FORMATS, allow_missing=True
    ),
]
TRIALS_FILES = expand(names.TRIALS_FIGURE, format=FORMATS, allow_missing=True)


rule aggregate:
    input:
        metrics=all_metrics,
        codabench=expand(names.SCORE, run=config["codabench"]["runs"]),
        audit=names.AUDIT,
    output:
        **in_text(
            grid="grid",
            best_heads="best_heads",
            heads="heads",
            abstention="abstention",
            policies="policies",
            speed="speed",
        ),
        grid=report(
            fill(names.TABLE, table="grid", format="csv"),
            caption="../report/grid.rst",
            category="Tables",
            labels={"table": "all runs", "format": "CSV"},
        ),
        best_heads=report(
            fill(names.TABLE, table="best_heads", format="csv"),
            caption="../report/best_heads.rst",
            category="Tables",
            labels={"table": "best head per backbone", "format": "CSV"},
        ),
        heads=report(
            fill(names.TABLE, table="heads", format="csv"),
            caption="../report/heads.rst",
            category="Tables",
            labels={"table": "heads of the grid", "format": "CSV"},
        ),
        abstention=report(
            fill(names.TABLE, table="abstention", format="csv"),
            caption="../report/abstention.rst",
            category="Tables",
            labels={"table": "calibration and abstention", "format": "CSV"},
        ),
        policies=report(
            fill(names.TABLE, table="policies", format="csv"),
            caption="../report/policies.rst",
            category="Tables",
            labels={"table": "accuracy by augmentation policy", "format": "CSV"},
        ),
        speed=report(
            fill(names.TABLE, table="speed", format="csv"),
            caption="../report/speed.rst",
            category="Tables",
            labels={"table": "latency and energy", "format": "CSV"},
        ),
        recall=report(
            fill(names.TABLE, table="recall", format="csv"),
            caption="../report/recall.rst",
            category="Tables",
            labels={"table": "recall of each class", "format": "CSV"},
        ),
        grid_short=fill(names.TABLE, table="grid_short", format="tex"),
        headline=names.HEADLINE,
    log:
        "logs/aggregate.log",
    benchmark:
        "benchmarks/aggregate.tsv"
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **LIGHT,
    params:
        select_by=config["tuning"]["select_by"],
        published=PUBLISHED,
        heads=part("heads", *config["grid"]["heads"]),
        codabench=config["codabench"]["scores"],
        watts=config["cost"]["watts"],
        code=CODE,
    message:
        "Comparing all runs"
    script:
        "../../scripts/aggregate.py"


rule list_replicates:
    input:
        metrics=collect(names.METRICS, run=trained_replicates),
    output:
        **in_text(table="replicates"),
        table=report(
            fill(names.TABLE, table="replicates", format="csv"),
            caption="../report/replicates.rst",
            category="Tables",
            labels={"table": "all replicates", "format": "CSV"},
        ),
    log:
        "logs/list_replicates.log",
    benchmark:
        "benchmarks/list_replicates.tsv"
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **LIGHT,
    params:
        seeds={
            run.name: (run.base, run.replicate, grid.train_seed(config, run.replicate))
            for run in KNOWN.values()
        },
        code=CODE,
    message:
        "Listing all replicates"
    script:
        "../../scripts/list_replicates.py"


rule compare_with_winner:
    input:
        metrics=all_metrics,
        predictions=collect(list(PREDICTED.values()), run=predicting_replicates),
        control_predictions=expand(list(PREDICTED.values()), run=names.CONTROLS),
    output:
        **in_text(winner="winner", controls="controls"),
        winner=report(
            fill(names.TABLE, table="winner", format="csv"),
            caption="../report/winner.rst",
            category="Tables",
            labels={"table": "all runs against the winner", "format": "CSV"},
        ),
        controls=report(
            fill(names.TABLE, table="controls", format="csv"),
            caption="../report/controls.rst",
            category="Tables",
            labels={"table": "all runs against the controls", "format": "CSV"},
        ),
    log:
        "logs/compare_with_winner.log",
    benchmark:
        "benchmarks/compare_with_winner.tsv"
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **asks(mem_mb=2000, runtime=10),
    params:
        settings=PAIRING,
        code=CODE,
    message:
        "Comparing all runs with the winner and the controls"
    script:
        "../../scripts/compare_with_winner.py"


rule plot_grid:
    input:
        metrics=all_metrics,
    output:
        accuracy=report(
            fill(names.FIGURE, figure="accuracy", format="svg"),
            caption="../report/accuracy.rst",
            category="Figures",
            subcategory="All runs",
            labels={"figure": "accuracy of all runs"},
        ),
        accuracy_pdf=fill(names.FIGURE, figure="accuracy", format="pdf"),
        cost=report(
            fill(names.FIGURE, figure="cost", format="svg"),
            caption="../report/cost.rst",
            category="Figures",
            subcategory="All runs",
            labels={"figure": "accuracy against cost"},
        ),
        cost_pdf=fill(names.FIGURE, figure="cost", format="pdf"),
        abstention=report(
            fill(names.FIGURE, figure="abstention", format="svg"),
            caption="../report/risk_coverage_of_runs.rst",
            category="Figures",
            subcategory="All runs",
            labels={"figure": "risk-coverage curves of all runs"},
        ),
        abstention_pdf=fill(names.FIGURE, figure="abstention", format="pdf"),
    log:
        "logs/plot_grid.log",
    benchmark:
        "benchmarks/plot_grid.tsv"
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **LIGHT,
    params:
        code=CODE,
    message:
        "Drawing accuracy, cost and abstention of all runs"
    script:
        "../../scripts/plot_grid.py"


rule plot_classes:
    input:
        audit=names.AUDIT,
    output:
        figure=report(
            fill(names.FIGURE, figure="class_balance", format="svg"),
            caption="../report/class_balance.rst",
            category="Data",
            subcategory="Classes",
            labels={"figure": "images per class"},
        ),
        pdf=fill(names.FIGURE, figure="class_balance", format="pdf"),
    log:
        "logs/plot_classes.log",
    benchmark:
        "benchmarks/plot_classes.tsv"
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **LIGHT,
    params:
        code=CODE,
    message:
        "Drawing the class balance"
    script:
        "../../scripts/plot_classes.py"


rule provenance:
    output:
        config=report(
            names.CONFIG,
            caption="../report/config.rst",
            category="Provenance",
            labels={"file": "config"},
        ),
    log:
        "logs/provenance.log",
    benchmark:
        "benchmarks/provenance.tsv"
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **LIGHT,
    params:
        # The config itself would fill the terminal whenever one of its keys changes.
        config=digest(config),
        code=CODE,
    message:
        "Recording the config"
    script:
        "../../scripts/provenance.py"


rule checksums:
    input:
        sources=[
            names.SOURCE,
            *expand(names.FOUND_SOURCE, test_set=config["test_sets"]),
        ],
        files=FOUNDATION,
    output:
        checksums=report(
            names.CHECKSUMS,
            caption="../report/checksums.rst",
            category="Provenance",
            labels={"file": "checksums of images and weights"},
        ),
    log:
        "logs/checksums.log",
    benchmark:
        "benchmarks/checksums.tsv"
    localrule: LOCAL
    conda:
        "../../envs/light.yaml"
    resources:
        **of_images(mem_mb=1000, runtime=10),
    params:
        code=CODE,
    message:
        "Computing checksums of images and weights"
    script:
        "../../scripts/checksums.py"


rule record_study:
    input:
        metrics=collect(names.METRICS, run=evaluated_replicates),
    output:
        versions=report(
            names.VERSIONS,
            caption="../report/versions.rst",
            category="Provenance",
            labels={"file": "what the runs were made with"},
        ),
        study=report(
            names.STUDY,
            caption="../report/provenance.rst",
            category="Provenance",
            labels={"file": "the last command"},
        ),
    log:
        "logs/record_study.log",
    benchmark:
        "benchmarks/record_study.tsv"
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **LIGHT,
    params:
        code=CODE,
    message:
        "Recording what the runs were made with"
    script:
        "../../scripts/record_study.py"


rule report:
    input:
        **TUNING,
        **REPLICATE_TABLE,
        **WORSE,
        **IMAGE_TABLES,
        **CELL_MAPS,
        **per_subset(names.SUBSET_IMAGES, EVALUATED[1:], "images_{subset}"),
        metrics=all_metrics,
        predictions=collect(list(PREDICTED.values()), run=predicting_runs),
        confusion=collect(names.CONFUSION, run=predicting_runs),
        history=collect(names.HISTORY, run=trained_runs),
        codabench=expand(names.SCORE, run=config["codabench"]["runs"]),
        heads=fill(names.TABLE, table="heads", format="csv"),
        winner=fill(names.TABLE, table="winner", format="csv"),
        controls=fill(names.TABLE, table="controls", format="csv"),
        explanation=names.EXPLAINED_TABLE,
        explained=names.EXPLAINED_PICTURES,
        images=names.IMAGES,
        table_test=fill(names.SUBSET_TABLE, subset=names.TEST),
        audit=names.AUDIT,
        copies=names.COPIES,
        contact_sheet=fill(names.CONTACT_SHEET, subset=names.TRAIN),
        config=names.CONFIG,
        versions=names.VERSIONS,
        study=names.STUDY,
        checksums=names.CHECKSUMS,
    output:
        report=report(
            names.REPORT,
            caption="../report/report.rst",
            category="Report",
            labels={"file": "the whole comparison on one page"},
        ),
        resources=report(
            fill(names.TABLE, table="resources", format="csv"),
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
        "../../envs/light.yaml"
    resources:
        **asks(mem_mb=2000, runtime=10),
    params:
        select_by=config["tuning"]["select_by"],
        # What jobs used is read from where it happens to lie. As inputs, a benchmark file
        # that is gone would have its run trained again.
        benchmarks=STUDY + names.BENCHMARKS,
        code=CODE,
    message:
        "Writing the report"
    script:
        "../../scripts/report.py"
