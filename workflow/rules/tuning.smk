"""The best backbones get a better head: finalists, a search each, and whether it helped.

Needs: the metrics of the grid, and the embeddings of the finalists. Makes: results/tuning/
finalists.json, {run}.json and {run}_trials.csv, whose head `train` reads, and the tables
that hold the tuned runs against the untuned ones.
"""

from hemagrid.config.hyperband import expected_trials

# A head learns from embeddings and is judged by them.
EMBEDDED = {
    name: per_subset(
        names.EMBEDDINGS,
        names.LEARNED,
        "embeddings_{subset}",
        backbone=KNOWN[name].backbone,
    )
    for name in TUNED
}
# Nobody competes where the config names the backbones to tune.
RIVALS = [run.name for run in RUNS.values() if run.backbone]
if config["tuning"]["backbones"] is not None:
    RIVALS = []


# A checkpoint: which runs the study goes on to is known once this is written.
checkpoint select_finalists:
    input:
        metrics=metrics_of(*RIVALS),
    output:
        finalists=names.FINALISTS,
    log:
        "logs/select_finalists.log",
    benchmark:
        "benchmarks/select_finalists.tsv"
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **LIGHT,
    params:
        settings=part("tuning", "finalists", "select_by", "backbones"),
        code=CODE,
    message:
        "Choosing the backbones to tune"
    script:
        "../../scripts/select_finalists.py"


rule search:
    input:
        unpack(lookup("{run}", within=EMBEDDED)),
        **per_subset(names.SUBSET_TABLE, names.LEARNED, "table_{subset}"),
    output:
        head=names.FOUND_HEAD,
        trials=names.TRIALS,
    log:
        "logs/search/{run}.log",
    benchmark:
        "benchmarks/search/{run}.tsv"
    wildcard_constraints:
        run="|".join(TUNED),
    priority: 10
    conda:
        NETWORKS
    resources:
        # Each trial leaves some 20 MB behind in its process.
        **asks(
            mem_mb=1500 + 25 * expected_trials(**config["tuning"]["hyperband"]),
            runtime=240,
        ),
        study=STUDY,
        checkpoints=CHECKPOINTS,
    params:
        settings=lookup(
            "{run}", within={run: grid.search_settings(config, run) for run in TUNED}
        ),
        revision=revision("search"),
    message:
        "Searching for a head: {wildcards.run}"
    script:
        "../../scripts/search.py"


rule plot_trials:
    input:
        trials=names.TRIALS,
    output:
        figure=report(
            fill(names.TRIALS_FIGURE, format="svg"),
            caption="../report/trials.rst",
            category="Tuning",
            subcategory="{run}",
            labels={"figure": "trials of the search", "run": "{run}"},
        ),
        pdf=fill(names.TRIALS_FIGURE, format="pdf"),
    log:
        "logs/plot_trials/{run}.log",
    benchmark:
        "benchmarks/plot_trials/{run}.tsv"
    wildcard_constraints:
        run="|".join(TUNED),
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **LIGHT,
    params:
        code=CODE,
    message:
        "Drawing the trials of {wildcards.run}"
    script:
        "../../scripts/plot_trials.py"


rule compare_tuned:
    input:
        metrics=all_metrics,
        predictions=collect(list(PREDICTED.values()), run=trained_replicates),
        heads=collect(names.FOUND_HEAD, run=tuned_runs),
        codabench=expand(names.SCORE, run=config["codabench"]["runs"]),
        audit=names.AUDIT,
    output:
        **in_text(heads="tuned_heads", runs="tuned_runs", gain="tuning_gain"),
        heads=report(
            fill(names.TABLE, table="tuned_heads", format="csv"),
            caption="../report/tuned_heads.rst",
            category="Tuning",
            labels={"table": "heads that the searches found", "format": "CSV"},
        ),
        runs=report(
            fill(names.TABLE, table="tuned_runs", format="csv"),
            caption="../report/tuned_runs.rst",
            category="Tuning",
            labels={"table": "tuned runs", "format": "CSV"},
        ),
        gain=report(
            fill(names.TABLE, table="tuning_gain", format="csv"),
            caption="../report/tuning_gain.rst",
            category="Tuning",
            labels={"table": "what tuning gained", "format": "CSV"},
        ),
    log:
        "logs/compare_tuned.log",
    benchmark:
        "benchmarks/compare_tuned.tsv"
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **asks(mem_mb=2000, runtime=10),
    params:
        settings={**PAIRING, "codabench": config["codabench"]["scores"]},
        published=PUBLISHED,
        code=CODE,
    message:
        "Comparing tuned runs with untuned ones"
    script:
        "../../scripts/compare_tuned.py"
