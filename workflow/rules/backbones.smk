"""What frozen backbones make of the images, computed once for all heads.

Needs: results/dataset/{train,val}.npy. Makes: resources/weights/{backbone}.weights.h5, the
trunk's activations in results/trunks/{backbone}/ and what the frozen top makes of them in
results/embeddings/{backbone}/. They are not temporary files: later runs need them again.
"""

STARTING_WEIGHTS = lookup("backbones/{backbone}/weights", within=config)
# The user's files that a backbone is made from. Their content decides, not their age.
STARTING_FILES = {
    name: {
        key: ancient(local(path))
        for key, path in grid.starting_files(config, name).items()
    }
    for name in config["backbones"]
}


rule backbone_weights:
    # Random weights are drawn by means of training images, weights of the user's are copied.
    # A network of the user's own is built here alone: what it becomes goes into the output.
    input:
        unpack(lookup("{backbone}", within=STARTING_FILES)),
        images=branch(STARTING_WEIGHTS, cases={"random": names.IMAGES}, otherwise=[]),
        splits=branch(
            STARTING_WEIGHTS, cases={"random": names.SPLIT_TABLE}, otherwise=[]
        ),
    output:
        weights=names.WEIGHTS,
    log:
        "logs/backbone_weights/{backbone}.log",
    benchmark:
        "benchmarks/backbone_weights/{backbone}.tsv"
    # First of all: what a network cannot give is said before anything is queued.
    priority: 100
    localrule: True
    conda:
        NETWORKS
    resources:
        **asks(mem_mb=4000, runtime=60),
        study=STUDY,
    params:
        application=lookup("backbones/{backbone}/application", within=config),
        weights=STARTING_WEIGHTS,
        content=content(lookup("{backbone}", within=STARTING_FILES)),
        drawn=lookup(
            "{backbone}",
            within={
                name: grid.starting_settings(config, name) for name in STARTING_FILES
            },
        ),
        revision=revision("backbone_weights"),
    message:
        "Getting {params.weights} weights of {wildcards.backbone}"
    script:
        "../../scripts/backbone_weights.py"


rule embed:
    # Trunk and top in one job: the top is a tenth of the work, another start would cost more.
    input:
        **per_subset(names.SUBSET_IMAGES, names.LEARNED),
        weights=names.WEIGHTS,
    output:
        **per_subset(names.ACTIVATIONS, names.LEARNED, "activations_{subset}"),
        **per_subset(names.EMBEDDINGS, names.LEARNED, "embeddings_{subset}"),
        cost=names.EMBEDDING_COST,
    log:
        "logs/embed/{backbone}.log",
    benchmark:
        "benchmarks/embed/{backbone}.tsv"
    # What others wait for goes before pictures, which fill the gaps.
    priority: 10
    conda:
        NETWORKS
    resources:
        **OF_NETWORK,
        study=STUDY,
        checkpoints=CHECKPOINTS,
    params:
        application=lookup("backbones/{backbone}/application", within=config),
        top=lookup("backbones/{backbone}/top", within=config),
        precision=config["training"]["precision"],
        revision=revision("embed"),
    message:
        "Passing images through the frozen {wildcards.backbone}"
    script:
        "../../scripts/embed.py"
