"""A package for the Codabench leaderboard, scored here before it is uploaded.

Needs: results/{run}/model.keras. Makes: results/{run}/submission.zip and codabench.json.
"""


rule package_submission:
    input:
        model="results/{run}/model.keras",
    output:
        submission=ensure("results/{run}/submission.zip", non_empty=True),
    log:
        "logs/package_submission/{run}.log",
    benchmark:
        "benchmarks/package_submission/{run}.tsv"
    wildcard_constraints:
        run="|".join(KNOWN),
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(10),
    message:
        "Packaging {wildcards.run} for Codabench"
    script:
        "../../scripts/package_submission.py"


rule score_submission:
    input:
        **hidden_set_inputs(),
        submission="results/{run}/submission.zip",
    output:
        score=ensure("results/{run}/codabench.json", non_empty=True),
    log:
        "logs/score_submission/{run}.log",
    benchmark:
        "benchmarks/score_submission/{run}.tsv"
    wildcard_constraints:
        run="|".join(KNOWN),
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 2
    resources:
        mem_mb=per_attempt(6000),
        runtime=per_attempt(120),
    params:
        settings=scoring_settings(),
    message:
        "Scoring the package of {wildcards.run} from an empty folder"
    script:
        "../../scripts/score_submission.py"
