"""What single images show: which are hard for all runs, whose label may be wrong, which are alike.

Needs: the predictions of all runs on test sets of untouched images, and the embeddings of the
validation copies. Makes: three tables in results/tables/, and map_{backbone}.csv for each backbone.
"""

# An augmented copy may be hard because of what was done to it.
UNTOUCHED = [subset for subset in EVALUATED if subset not in names.AUGMENTED]
IMAGE_TABLES = {
    name: fill(names.TABLE, table=name, format="csv")
    for name in ["agreement", "hard_images", "label_noise"]
}
CELL_MAPS = {
    f"map_{backbone}": fill(names.CELL_MAP, backbone=backbone)
    for backbone in grid.tunable_backbones(config)
    if costs_no_training(backbone)
}


rule compare_answers:
    input:
        **per_subset(names.SUBSET_TABLE, UNTOUCHED, "table_{subset}"),
        predictions=collect(
            [PREDICTED[subset] for subset in UNTOUCHED], run=trained_replicates
        ),
    output:
        agreement=report(
            IMAGE_TABLES["agreement"],
            caption="../report/agreement.rst",
            category="Tables",
            labels={"table": "agreement between runs", "format": "CSV"},
        ),
        hard_images=report(
            IMAGE_TABLES["hard_images"],
            caption="../report/hard_images.rst",
            category="Data",
            subcategory="Images",
            labels={"table": "the hardest images", "format": "CSV"},
        ),
        label_noise=report(
            IMAGE_TABLES["label_noise"],
            caption="../report/label_noise.rst",
            category="Data",
            subcategory="Images",
            labels={"table": "labels that may be wrong", "format": "CSV"},
        ),
    log:
        "logs/compare_answers.log",
    benchmark:
        "benchmarks/compare_answers.tsv"
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **asks(mem_mb=2000, runtime=10),
    params:
        code=CODE,
    message:
        "Comparing the answers of all runs, image by image"
    script:
        "../../scripts/compare_answers.py"


rule map_cells:
    input:
        embeddings=fill(names.EMBEDDINGS, subset=names.VAL),
        table=fill(names.SUBSET_TABLE, subset=names.VAL),
    output:
        map=report(
            names.CELL_MAP,
            caption="../report/cell_map.rst",
            category="Data",
            subcategory="Images",
            labels={"table": "map of the cells by {backbone}", "format": "CSV"},
        ),
    log:
        "logs/map_cells/{backbone}.log",
    benchmark:
        "benchmarks/map_cells/{backbone}.tsv"
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **asks(mem_mb=2000, runtime=10),
    params:
        seed=grid.split_seed(config),
        revision=revision("map_cells"),
    message:
        "Mapping the cells by the features of {wildcards.backbone}"
    script:
        "../../scripts/map_cells.py"
