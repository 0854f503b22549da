"""What frozen backbones make of the images, computed once for all heads.

Needs: results/dataset/{train,val}.npy. Makes: resources/weights/{backbone}.weights.h5, the
trunk's activations in results/trunks/{backbone}/ and what the frozen top makes of them in
results/embeddings/{backbone}/. They are no temporary files: later runs need them again.
"""


rule backbone_weights:
    input:
        unpack(weights_inputs),
    output:
        weights=ensure("resources/weights/{backbone}.weights.h5", non_empty=True),
    log:
        "logs/backbone_weights/{backbone}.log",
    benchmark:
        "benchmarks/backbone_weights/{backbone}.tsv"
    # First of all: what a network cannot give is said before anything is queued.
    priority: 100
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=per_attempt(4000),
        runtime=per_attempt(60),
    params:
        settings=weights_settings,
        image_size=config["dataset"]["image_size"],
        seed=config["seed"],
    message:
        "Getting {params.settings[weights]} weights of {params.settings[application]}"
    script:
        "../../scripts/backbone_weights.py"


rule embed:
    # Trunk and top in one job: the top is a tenth of the work, another start would cost more.
    input:
        **per_subset(images_of, CACHED),
        weights="resources/weights/{backbone}.weights.h5",
    output:
        activations_train=ensure("results/trunks/{backbone}/train.npy", non_empty=True),
        activations_val=ensure("results/trunks/{backbone}/val.npy", non_empty=True),
        embeddings_train=ensure(
            "results/embeddings/{backbone}/train.npy", non_empty=True
        ),
        embeddings_val=ensure("results/embeddings/{backbone}/val.npy", non_empty=True),
    log:
        "logs/embed/{backbone}.log",
    benchmark:
        "benchmarks/embed/{backbone}.tsv"
    # What others wait for goes before pictures, which fill the gaps.
    priority: 10
    conda:
        "../../envs/cpu.yaml"
    threads: 1
    resources:
        mem_mb=scaled_by_attempt("mem_mb"),
        runtime=scaled_by_attempt("runtime"),
    params:
        settings=boundary_settings,
        precision=config["training"]["precision"],
    message:
        "Passing images through the frozen {wildcards.backbone}"
    script:
        "../../scripts/embed.py"
