"""The best backbones get a better head: finalists, a search each, and whether it helped.

Needs: the metrics of the grid, and the embeddings of the finalists. Makes: results/tuning/
finalists.json, {run}.json and {run}_trials.csv, whose head `train` reads, and the tables
that hold the tuned runs against the untuned ones.
"""


# A checkpoint: which runs the study goes on to is known once this is written.
checkpoint select_finalists:
    input:
        unpack(finalists_inputs),
    output:
        finalists=ensure("results/tuning/finalists.json", non_empty=True),
    log:
        "logs/select_finalists.log",
    benchmark:
        "benchmarks/select_finalists.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(500),
        runtime=per_attempt(10),
    params:
        settings=finalists_settings(),
    message:
        "Choosing the backbones to tune"
    script:
        "../../scripts/select_finalists.py"


rule search:
    input:
        unpack(search_inputs),
    output:
        head=ensure("results/tuning/{run}.json", non_empty=True),
        trials=ensure("results/tuning/{run}_trials.csv", non_empty=True),
    log:
        "logs/search/{run}.log",
    benchmark:
        "benchmarks/search/{run}.tsv"
    wildcard_constraints:
        run="|".join(TUNED),
    priority: 10
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=search_memory,
        runtime=per_attempt(240),
    params:
        settings=search_settings,
    message:
        "Searching a head: {wildcards.run}"
    script:
        "../../scripts/search.py"


rule plot_trials:
    input:
        trials="results/tuning/{run}_trials.csv",
    output:
        figure=report(
            "results/tuning/{run}_trials.svg",
            caption="../report/trials.rst",
            category="Tuning",
            subcategory="{run}",
            labels={"figure": "trials of the search", "run": "{run}"},
        ),
        pdf="results/tuning/{run}_trials.pdf",
    log:
        "logs/plot_trials/{run}.log",
    benchmark:
        "benchmarks/plot_trials/{run}.tsv"
    wildcard_constraints:
        run="|".join(TUNED),
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    message:
        "Drawing the trials of {wildcards.run}"
    script:
        "../../scripts/plot_trials.py"


rule compare_tuned:
    input:
        unpack(comparison_inputs),
    output:
        heads=report(
            "results/tables/tuned_heads.csv",
            caption="../report/tuned_heads.rst",
            category="Tuning",
            labels={"table": "heads that the searches found", "format": "CSV"},
        ),
        heads_md="results/tables/tuned_heads.md",
        heads_tex="results/tables/tuned_heads.tex",
        runs=report(
            "results/tables/tuned_runs.csv",
            caption="../report/tuned_runs.rst",
            category="Tuning",
            labels={"table": "tuned runs", "format": "CSV"},
        ),
        runs_md="results/tables/tuned_runs.md",
        runs_tex="results/tables/tuned_runs.tex",
        gain=report(
            "results/tables/tuning_gain.csv",
            caption="../report/tuning_gain.rst",
            category="Tuning",
            labels={"table": "what tuning gained", "format": "CSV"},
        ),
        gain_md="results/tables/tuning_gain.md",
        gain_tex="results/tables/tuning_gain.tex",
    log:
        "logs/compare_tuned.log",
    benchmark:
        "benchmarks/compare_tuned.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(10),
    params:
        settings=comparison_settings(),
    message:
        "Comparing tuned runs with untuned ones"
    script:
        "../../scripts/compare_tuned.py"
