"""The sets of images that networks see.

Needs: results/dataset/images.npy and splits.csv. Makes: results/dataset/{subset}.npy and
{subset}.csv, augmented once and for all, and the untouched test set.
"""


rule augment:
    input:
        images="results/dataset/images.npy",
        splits="results/dataset/splits.csv",
    output:
        images=ensure("results/dataset/{subset}.npy", non_empty=True),
        table=ensure("results/dataset/{subset}.csv", non_empty=True),
    log:
        "logs/augment/{subset}.log",
    benchmark:
        "benchmarks/augment/{subset}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(60),
    params:
        settings=augmentation_settings,
        assignment=config["augmentation"]["assignment"],
        seed=config["seed"],
    message:
        "Augmenting {wildcards.subset}: RandAugment and AugMix"
    script:
        "../../scripts/augment.py"


rule originals:
    input:
        images="results/dataset/images.npy",
        splits="results/dataset/splits.csv",
    output:
        images=ensure("results/dataset/test.npy", non_empty=True),
        table=ensure("results/dataset/test.csv", non_empty=True),
    log:
        "logs/originals.log",
    benchmark:
        "benchmarks/originals.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    message:
        "Copying the untouched test images"
    script:
        "../../scripts/originals.py"


rule contact_sheet:
    input:
        images="results/dataset/images.npy",
        augmented="results/dataset/{subset}.npy",
        table="results/dataset/{subset}.csv",
    output:
        sheet=report(
            "results/figures/contact_sheet_{subset}.png",
            caption="../report/contact_sheet.rst",
            category="Data",
            subcategory="Augmentation",
            labels={"figure": "originals and their copies", "subset": "{subset}"},
        ),
    log:
        "logs/contact_sheet/{subset}.log",
    benchmark:
        "benchmarks/contact_sheet/{subset}.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(1000),
        runtime=per_attempt(10),
    message:
        "Drawing originals beside their copies: {wildcards.subset}"
    script:
        "../../scripts/contact_sheet.py"
