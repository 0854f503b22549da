"""The sets of images that networks see.

Needs: results/dataset/images.npy and splits.csv. Makes: results/dataset/{subset}.npy and
{subset}.csv, augmented once and for all, augmented_copies.csv, which lists all copies, and the
untouched test set.
"""

# Absent where blank copies are kept, because they were before there was a choice: a study of
# that time stays as it is.
REDRAW = {"redraw": True} if config["augmentation"]["blank"] == "redraw" else {}


rule augment:
    input:
        images=names.IMAGES,
        splits=names.SPLIT_TABLE,
    output:
        images=names.SUBSET_IMAGES,
        table=names.SUBSET_TABLE,
    log:
        "logs/augment/{subset}.log",
    benchmark:
        "benchmarks/augment/{subset}.tsv"
    conda:
        NETWORKS
    resources:
        **of_images(mem_mb=4000, runtime=60),
        study=STUDY,
    params:
        **REDRAW,
        settings=lookup("augmentation/{subset}", within=config),
        assignment=config["augmentation"]["assignment"],
        seed=grid.split_seed(config),
        revision=revision("augment"),
    message:
        "Augmenting {wildcards.subset}: RandAugment and AugMix"
    script:
        "../../scripts/augment.py"


rule originals:
    input:
        images=names.IMAGES,
        splits=names.SPLIT_TABLE,
    output:
        images=fill(names.SUBSET_IMAGES, subset=names.TEST),
        table=fill(names.SUBSET_TABLE, subset=names.TEST),
    log:
        "logs/originals.log",
    benchmark:
        "benchmarks/originals.tsv"
    localrule: LOCAL
    conda:
        "../../envs/light.yaml"
    resources:
        **of_images(mem_mb=1000, runtime=10),
    params:
        revision=revision("originals"),
    message:
        "Copying the untouched test images"
    script:
        "../../scripts/originals.py"


rule audit_copies:
    input:
        **per_subset(names.SUBSET_IMAGES, names.AUGMENTED, "images_{subset}"),
        **per_subset(names.SUBSET_TABLE, names.AUGMENTED, "table_{subset}"),
    output:
        copies=names.COPIES,
    log:
        "logs/audit_copies.log",
    benchmark:
        "benchmarks/audit_copies.tsv"
    priority: 10
    localrule: LOCAL
    conda:
        "../../envs/light.yaml"
    resources:
        **of_images(mem_mb=1000, runtime=10),
    params:
        code=CODE,
    message:
        "Looking for copies that hold no picture any more"
    script:
        "../../scripts/audit_copies.py"


rule contact_sheet:
    input:
        images=names.IMAGES,
        augmented=names.SUBSET_IMAGES,
        table=names.SUBSET_TABLE,
    output:
        sheet=report(
            names.CONTACT_SHEET,
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
        "../../envs/light.yaml"
    resources:
        **LIGHT,
    params:
        code=CODE,
    message:
        "Drawing originals beside their copies: {wildcards.subset}"
    script:
        "../../scripts/contact_sheet.py"
