"""From predictions to metrics and figures, without a deep-learning library.

Needs: results/{run}/predictions/, cost.json, history.csv. Makes: results/{run}/
metrics.json, confusion_matrix.csv, and of these the figures, as SVG and PDF; and
replicates.json, the mean metrics of a run with several replicates.
"""

# As runs stand in their metrics.
DESCRIPTIONS = {
    run.name: {
        "run": run.name,
        "kind": run.kind,
        "backbone": run.backbone,
        "head": run.head,
    }
    for run in [
        *KNOWN.values(),
        *COMBINED.values(),
        *(grid.Run(control, "control", None, None) for control in names.CONTROLS),
    ]
}

# What a run cost, and what it shares with others. A control has no network and so no cost.
COSTS = {
    **{name: {"cost": fill(names.COST, run=name)} for name in COMBINED},
    **{
        run.name: {
            "cost": fill(names.COST, run=run.name),
            "latency": fill(names.LATENCY, run=run.name),
            **(
                {"embedding": fill(names.EMBEDDING_COST, backbone=run.backbone)}
                if run.backbone
                else {}
            ),
            **(
                {"search": fill(names.FOUND_HEAD, run=run.base)}
                if run.base in TUNED
                else {}
            ),
        }
        for run in KNOWN.values()
    },
}

# The figures of what a run answers, of whatever kind it is.
ANSWER_FIGURES = {
    "confusion": report(
        fill(names.RUN_FIGURE, figure="confusion_matrix", format="svg"),
        caption="../report/confusion_matrix.rst",
        category="Runs",
        subcategory="{run}",
        labels={"figure": "confusion matrix", "run": "{run}"},
    ),
    "confusion_pdf": fill(names.RUN_FIGURE, figure="confusion_matrix", format="pdf"),
    "reliability": report(
        fill(names.RUN_FIGURE, figure="reliability", format="svg"),
        caption="../report/reliability.rst",
        category="Runs",
        subcategory="{run}",
        labels={"figure": "reliability diagram", "run": "{run}"},
    ),
    "reliability_pdf": fill(names.RUN_FIGURE, figure="reliability", format="pdf"),
    "abstention": report(
        fill(names.RUN_FIGURE, figure="risk_coverage", format="svg"),
        caption="../report/risk_coverage.rst",
        category="Runs",
        subcategory="{run}",
        labels={"figure": "risk-coverage curve", "run": "{run}"},
    ),
    "abstention_pdf": fill(names.RUN_FIGURE, figure="risk_coverage", format="pdf"),
}


# What a run's card depends on.
CARD = {
    "dataset": part("dataset", "source", "image_size"),
    "backbones": {
        name: {"application": of["application"], "weights": of["weights"]}
        for name, of in config["backbones"].items()
    },
    "card": config["card"],
}


# The metrics and predictions of a run's replicates.
OF_REPLICATES = {
    run: {
        "metrics": expand(names.METRICS, run=REPLICATES[run]),
        "predictions": expand(list(PREDICTED.values()), run=REPLICATES[run]),
    }
    for run in REPEATED
}


rule evaluate:
    input:
        unpack(lookup("{run}", within=COSTS, default={})),
        predictions=list(PREDICTED.values()),
        copies=names.COPIES,
    output:
        metrics=names.METRICS,
        confusion=names.CONFUSION,
    log:
        "logs/evaluate/{run}.log",
    benchmark:
        "benchmarks/evaluate/{run}.tsv"
    # Seconds, as every rule here: a cluster job of its own would cost more.
    priority: 10
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **asks(mem_mb=2000, runtime=10),
    params:
        run=lookup("{run}", within=DESCRIPTIONS),
        settings=config["evaluation"],
        seed=grid.split_seed(config),
        code=CODE,
    message:
        "Evaluating {wildcards.run}"
    script:
        "../../scripts/evaluate.py"


rule summarize:
    input:
        unpack(lookup("{run}", within=OF_REPLICATES)),
    output:
        summary=names.SUMMARY,
    log:
        "logs/summarize/{run}.log",
    benchmark:
        "benchmarks/summarize/{run}.tsv"
    wildcard_constraints:
        run=either(REPEATED),
    priority: 10
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **asks(mem_mb=2000, runtime=10),
    params:
        settings={
            "bootstrap": config["evaluation"]["bootstrap"],
            "seed": grid.split_seed(config),
        },
        code=CODE,
    message:
        "Averaging the replicates of {wildcards.run}"
    script:
        "../../scripts/summarize.py"


rule plot_run:
    input:
        metrics=names.METRICS,
        confusion=names.CONFUSION,
        history=names.HISTORY,
    output:
        **ANSWER_FIGURES,
        card=names.CARD,
        curves=report(
            fill(names.RUN_FIGURE, figure="learning_curves", format="svg"),
            caption="../report/learning_curves.rst",
            category="Runs",
            subcategory="{run}",
            labels={"figure": "learning curves", "run": "{run}"},
        ),
        curves_pdf=fill(names.RUN_FIGURE, figure="learning_curves", format="pdf"),
    log:
        "logs/plot_run/{run}.log",
    benchmark:
        "benchmarks/plot_run/{run}.tsv"
    wildcard_constraints:
        run=either(KNOWN),
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **LIGHT,
    params:
        card=CARD,
        code=CODE,
    message:
        "Drawing the figures and the card of {wildcards.run}"
    script:
        "../../scripts/plot_run.py"


rule plot_combined:
    # What is made of runs has no learning curves.
    input:
        metrics=names.METRICS,
        confusion=names.CONFUSION,
    output:
        **ANSWER_FIGURES,
        card=names.CARD,
    log:
        "logs/plot_combined/{run}.log",
    benchmark:
        "benchmarks/plot_combined/{run}.tsv"
    wildcard_constraints:
        run=either(COMBINED),
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **LIGHT,
    params:
        card=CARD,
        code=CODE,
    message:
        "Drawing the figures and the card of {wildcards.run}"
    script:
        "../../scripts/plot_run.py"
