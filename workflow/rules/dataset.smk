"""From a source of images to splits.

Needs: what `dataset.source` names. Makes: results/dataset/images.npy, samples.csv,
phash.csv, duplicates.csv, splits.csv and audit.json.
"""

BLOODMNIST = "{path}/bloodmnist_{resolution}.npz".format(**config["dataset"])
# The sources that a rule makes; others are the user's.
MADE = {"bloodmnist": BLOODMNIST, "smears": names.SMEARS}
SOURCE = MADE.get(config["dataset"]["source"], config["dataset"]["path"])
# BloodMNIST brings another set of test images along.
HOLDOUT = {
    f"{names.HOLDOUT}_images": fill(names.SUBSET_IMAGES, subset=names.HOLDOUT),
    f"{names.HOLDOUT}_table": fill(names.SUBSET_TABLE, subset=names.HOLDOUT),
}


localrules:
    fetch_bloodmnist,
    smears,
    acquire_dataset,
    fingerprint,
    deduplicate,
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
        settings=config["dataset"]["smears"],
        image_size=config["dataset"]["image_size"],
        seed=config["seed"],
        revision=revision("smears"),
    message:
        "Drawing blood smears for the demonstration"
    script:
        "../../scripts/smears.py"


rule acquire_dataset:
    input:
        source=SOURCE,
    output:
        **(HOLDOUT if names.HOLDOUT in EVALUATED else {}),
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
        settings=part("dataset", "source", "image_size", "classes", "strict"),
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
        "Computing perceptual hashes"
    script:
        "../../scripts/fingerprint.py"


rule deduplicate:
    input:
        samples=names.SAMPLES,
        phash=names.PHASH,
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
        label_conflicts=config["dataset"]["label_conflicts"],
        near_duplicate_distance=config["dataset"]["near_duplicate_distance"],
        revision=revision("deduplicate"),
    message:
        "Finding duplicates and near duplicates"
    script:
        "../../scripts/deduplicate.py"


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
        seed=config["seed"],
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
        label_conflicts=config["dataset"]["label_conflicts"],
        near_duplicate_distance=config["dataset"]["near_duplicate_distance"],
        code=CODE,
    message:
        "Auditing the data set"
    script:
        "../../scripts/audit.py"
