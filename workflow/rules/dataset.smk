"""From a source of images to splits.

Needs: what `dataset.source` names. Makes: results/dataset/images.npy, samples.csv,
phash.csv, duplicates.csv, splits.csv and audit.json.
"""


rule fetch_bloodmnist:
    output:
        archive=ensure(bloodmnist_archive(), non_empty=True),
    log:
        "logs/fetch_bloodmnist.log",
    benchmark:
        "benchmarks/fetch_bloodmnist.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
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
        folder=directory("resources/smears"),
    log:
        "logs/smears.log",
    benchmark:
        "benchmarks/smears.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        settings=config["dataset"]["smears"],
        image_size=config["dataset"]["image_size"],
        seed=config["seed"],
    message:
        "Drawing blood smears for the demonstration"
    script:
        "../../scripts/smears.py"


rule acquire_dataset:
    input:
        source=dataset_source(),
    output:
        **acquired_files(),
    log:
        "logs/acquire_dataset.log",
    benchmark:
        "benchmarks/acquire_dataset.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(60),
    params:
        settings=dataset_settings(),
    message:
        "Reading images from {input.source}"
    script:
        "../../scripts/acquire_dataset.py"


rule fingerprint:
    input:
        images="results/dataset/images.npy",
    output:
        phash="results/dataset/phash.csv",
    log:
        "logs/fingerprint.log",
    benchmark:
        "benchmarks/fingerprint.tsv"
    # Ten seconds for the published set, less than a cluster job of its own would cost.
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 2
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(30),
    message:
        "Computing perceptual hashes"
    script:
        "../../scripts/fingerprint.py"


rule deduplicate:
    input:
        samples="results/dataset/samples.csv",
        phash="results/dataset/phash.csv",
    output:
        duplicates="results/dataset/duplicates.csv",
    log:
        "logs/deduplicate.log",
    benchmark:
        "benchmarks/deduplicate.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(2000),
        runtime=per_attempt(20),
    params:
        label_conflicts=config["dataset"]["label_conflicts"],
        near_duplicate_distance=config["dataset"]["near_duplicate_distance"],
    message:
        "Finding duplicates and near duplicates"
    script:
        "../../scripts/deduplicate.py"


rule split:
    input:
        duplicates="results/dataset/duplicates.csv",
    output:
        splits="results/dataset/splits.csv",
    log:
        "logs/split.log",
    benchmark:
        "benchmarks/split.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        shares=config["splits"],
        seed=config["seed"],
    message:
        "Splitting into train, val and test"
    script:
        "../../scripts/split.py"


rule audit:
    input:
        samples="results/dataset/samples.csv",
        duplicates="results/dataset/duplicates.csv",
        splits="results/dataset/splits.csv",
    output:
        audit="results/dataset/audit.json",
    log:
        "logs/audit.log",
    benchmark:
        "benchmarks/audit.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    params:
        label_conflicts=config["dataset"]["label_conflicts"],
        near_duplicate_distance=config["dataset"]["near_duplicate_distance"],
    message:
        "Auditing the data set"
    script:
        "../../scripts/audit.py"
