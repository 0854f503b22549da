"""From a source of images to splits.

Needs: what `dataset.source` names. Makes: results/dataset/images.npy, samples.csv,
phash.csv, fingerprints.npy, duplicates.csv, splits.csv and audit.json; for BloodMNIST also
holdout.npy, holdout.csv and holdout_duplicates.csv.
"""

BLOODMNIST = "{path}/bloodmnist_{resolution}.npz".format(**config["dataset"])
SOURCE = {"bloodmnist": BLOODMNIST, "smears": names.SMEARS}.get(
    config["dataset"]["source"], config["dataset"]["path"]
)
MADE_BY_RULE = SOURCE in (BLOODMNIST, names.SMEARS)
# BloodMNIST brings another set of test images along.
HOLDOUT = {
    f"{names.HOLDOUT}_images": names.FOUND_HOLDOUT_IMAGES,
    f"{names.HOLDOUT}_table": names.FOUND_HOLDOUT_TABLE,
}
DUPLICATES = part(
    "dataset",
    "duplicates",
    "duplicate_difference",
    "near_duplicate_difference",
    "near_duplicate_distance",
    "label_conflicts",
)


localrules:
    fetch_bloodmnist,
    smears,
    acquire_dataset,
    fingerprint,
    deduplicate,
    holdout,
    split,
    audit,


rule fetch_bloodmnist:
    output:
        archive=BLOODMNIST,
    log:
        "logs/fetch_bloodmnist.log",
    benchmark:
        "benchmarks/fetch_bloodmnist.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(60),
    params:
        resolution=config["dataset"]["resolution"],
    message:
        "Fetching BloodMNIST at {params.resolution} pixels"
    script:
        "../../scripts/fetch_bloodmnist.py"


rule smears:
    output:
        folder=directory(names.SMEARS),
    log:
        "logs/smears.log",
    benchmark:
        "benchmarks/smears.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        **LIGHT,
    params:
        settings={
            **config["dataset"]["smears"],
            "image_size": config["dataset"]["image_size"],
            "seed": grid.split_seed(config),
        },
        revision=revision("smears"),
    message:
        "Drawing blood smears for the demonstration"
    script:
        "../../scripts/smears.py"


rule acquire_dataset:
    # Of the user's files the content decides, in params, and not their time.
    input:
        source=SOURCE if MADE_BY_RULE else ancient(SOURCE),
    output:
        **(HOLDOUT if names.HOLDOUT in EVALUATED else {}),
        source=names.SOURCE,
        images=names.IMAGES,
        samples=names.SAMPLES,
    log:
        "logs/acquire_dataset.log",
    benchmark:
        "benchmarks/acquire_dataset.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(60),
    params:
        settings=part(
            "dataset", "source", "image_size", "fit", "bit_depth", "classes", "strict"
        ),
        content="" if MADE_BY_RULE else content(SOURCE, record=names.SOURCE),
        revision=revision("acquire_dataset"),
    message:
        "Reading images from {input.source}"
    script:
        "../../scripts/acquire_dataset.py"


rule fingerprint:
    input:
        images=names.IMAGES,
    output:
        phash=names.PHASH,
        fingerprints=names.FINGERPRINTS,
    log:
        "logs/fingerprint.log",
    benchmark:
        "benchmarks/fingerprint.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 2
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(30),
    params:
        revision=revision("fingerprint"),
    message:
        "Computing perceptual hashes and digests of pixels"
    script:
        "../../scripts/fingerprint.py"


rule deduplicate:
    input:
        samples=names.SAMPLES,
        fingerprints=names.FINGERPRINTS,
    output:
        duplicates=names.DUPLICATES,
    log:
        "logs/deduplicate.log",
    benchmark:
        "benchmarks/deduplicate.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(20),
    params:
        settings=DUPLICATES,
        revision=revision("deduplicate"),
    message:
        "Finding duplicates and near duplicates"
    script:
        "../../scripts/deduplicate.py"


rule holdout:
    input:
        images=names.FOUND_HOLDOUT_IMAGES,
        table=names.FOUND_HOLDOUT_TABLE,
        study=names.FINGERPRINTS,
    output:
        images=fill(names.SUBSET_IMAGES, subset=names.HOLDOUT),
        table=fill(names.SUBSET_TABLE, subset=names.HOLDOUT),
        duplicates=names.HOLDOUT_DUPLICATES,
    log:
        "logs/holdout.log",
    benchmark:
        "benchmarks/holdout.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 2
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(20),
    params:
        settings=DUPLICATES,
        revision=revision("holdout"),
    message:
        "Removing the study's pictures from the holdout"
    script:
        "../../scripts/holdout.py"


rule split:
    input:
        duplicates=names.DUPLICATES,
    output:
        splits=names.SPLIT_TABLE,
    log:
        "logs/split.log",
    benchmark:
        "benchmarks/split.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        **LIGHT,
    params:
        shares=config["splits"],
        seed=grid.split_seed(config),
        revision=revision("split"),
    message:
        "Splitting into train, val and test"
    script:
        "../../scripts/split.py"


rule audit:
    input:
        samples=names.SAMPLES,
        duplicates=names.DUPLICATES,
        splits=names.SPLIT_TABLE,
        holdout=(
            [
                fill(names.SUBSET_TABLE, subset=names.HOLDOUT),
                names.HOLDOUT_DUPLICATES,
            ]
            if names.HOLDOUT in EVALUATED
            else []
        ),
    output:
        audit=names.AUDIT,
    log:
        "logs/audit.log",
    benchmark:
        "benchmarks/audit.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        **LIGHT,
    params:
        settings=DUPLICATES,
        code=CODE,
    message:
        "Auditing the data set"
    script:
        "../../scripts/audit.py"
