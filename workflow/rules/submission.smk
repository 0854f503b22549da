"""A package for the Codabench leaderboard, scored here before it is uploaded.

Needs: results/{run}/model.keras, of an ensemble those of its members. Makes:
results/{run}/submission.zip and codabench.json.
"""

# Packages are scored on the test set that the user names, or on images nothing learned from.
HELD_BACK = names.HOLDOUT if names.HOLDOUT in EVALUATED else names.TEST
HIDDEN_SET = config["codabench"]["hidden_set"] or HELD_BACK


rule package_submission:
    input:
        unpack(
            branch(
                lookup("{run}", within=COMBINED, default=False),
                then={"cost": names.COST},
            )
        ),
        models=collect(names.MODEL, run=made_of),
    output:
        submission=names.SUBMISSION,
    log:
        "logs/package_submission/{run}.log",
    benchmark:
        "benchmarks/package_submission/{run}.tsv"
    wildcard_constraints:
        run=either([*KNOWN, *COMBINED]),
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **asks(mem_mb=2000, runtime=10),
    params:
        code=CODE,
    message:
        "Packaging {wildcards.run} for Codabench"
    script:
        "../../scripts/package_submission.py"


rule score_submission:
    input:
        images=fill(names.SUBSET_IMAGES, subset=HIDDEN_SET),
        table=fill(names.SUBSET_TABLE, subset=HIDDEN_SET),
        train=fill(names.SUBSET_TABLE, subset=names.TRAIN),
        submission=names.SUBMISSION,
    output:
        score=names.SCORE,
    log:
        "logs/score_submission/{run}.log",
    benchmark:
        "benchmarks/score_submission/{run}.tsv"
    wildcard_constraints:
        run=either([*KNOWN, *COMBINED]),
    localrule: True
    conda:
        NETWORKS
    threads: 2
    resources:
        **asks(mem_mb=6000, runtime=120),
        study=STUDY,
    params:
        settings={
            "set": HIDDEN_SET,
            "bootstrap": config["evaluation"]["bootstrap"],
            "seed": grid.split_seed(config),
        },
        code=CODE,
    message:
        "Scoring the package of {wildcards.run} from an empty folder"
    script:
        "../../scripts/score_submission.py"
