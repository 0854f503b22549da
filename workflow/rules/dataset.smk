"""From a source of images to splits.

Needs: what `dataset.source` names. Makes: results/dataset/images.npy, samples.csv,
phash.csv, fingerprints.npy, duplicates.csv, splits.csv and audit.json; with `dataset.groups` also
groups.csv; for each test set of another source also {test_set}.npy, {test_set}.csv and
{test_set}_left_out.csv.
"""

# The user's files are local: they stay where they are, under a module's prefix as well.
BLOODMNIST = local("{path}/bloodmnist_{resolution}.npz".format(**config["dataset"]))
SOURCE = {"bloodmnist": BLOODMNIST, "smears": names.SMEARS}.get(
    config["dataset"]["source"]
) or local(config["dataset"]["path"])
MADE_BY_RULE = SOURCE in (BLOODMNIST, names.SMEARS)
# BloodMNIST brings another set of test images along.
HOLDOUT = {
    f"{names.HOLDOUT}_images": fill(names.FOUND_IMAGES, test_set=names.HOLDOUT),
    f"{names.HOLDOUT}_table": fill(names.FOUND_TABLE, test_set=names.HOLDOUT),
}
TEST_SETS = grid.test_sets(config)
THEIR_KIND = lookup("{test_set}/source", within=config["test_sets"])
THEIR_SOURCE = lookup(
    "{test_set}",
    within={
        name: names.SECOND_LAB if of["source"] == "smears" else local(of["path"])
        for name, of in config["test_sets"].items()
    },
)
DUPLICATES = part(
    "dataset",
    "duplicates",
    "duplicate_difference",
    "near_duplicate_difference",
    "near_duplicate_distance",
    "label_conflicts",
)
# What is drawn for the demonstration: its data set, and a test set of other cells.
DRAWN = {
    "smears": config["dataset"]["smears"] | {"seed": grid.split_seed(config)},
    "second_lab": {
        "per_class": checks.SECOND_LAB_CELLS,
        "stain_shift": 3,
        "seed": grid.split_seed(config) + 1,
    },
}
GROUPING = config["dataset"]["groups"] or {}


rule fetch_bloodmnist:
    output:
        archive=BLOODMNIST,
    log:
        "logs/fetch_bloodmnist.log",
    benchmark:
        "benchmarks/fetch_bloodmnist.tsv"
    localrule: True
    conda:
        "../../envs/light.yaml"
    resources:
        **asks(mem_mb=1000, runtime=60),
    params:
        resolution=config["dataset"]["resolution"],
    message:
        "Fetching BloodMNIST at {params.resolution} pixels"
    script:
        "../../scripts/fetch_bloodmnist.py"


rule smears:
    output:
        folder=directory(names.DRAWN),
    log:
        "logs/smears/{drawn}.log",
    benchmark:
        "benchmarks/smears/{drawn}.tsv"
    wildcard_constraints:
        drawn=either(DRAWN),
    localrule: LOCAL
    conda:
        "../../envs/light.yaml"
    resources:
        **of_images(mem_mb=1000, runtime=10),
    params:
        settings=lookup("{drawn}", within=DRAWN),
        image_size=config["dataset"]["image_size"],
        revision=revision("smears"),
    message:
        "Drawing blood smears for the demonstration: {wildcards.drawn}"
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
    localrule: LOCAL
    conda:
        "../../envs/light.yaml"
    resources:
        **of_images(mem_mb=2000, runtime=60),
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
    localrule: LOCAL
    conda:
        "../../envs/light.yaml"
    threads: 2
    resources:
        **of_images(mem_mb=2000, runtime=30),
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
    localrule: LOCAL
    conda:
        "../../envs/light.yaml"
    resources:
        **of_images(mem_mb=2000, runtime=20),
    params:
        settings=DUPLICATES,
        revision=revision("deduplicate"),
    message:
        "Finding duplicates and near duplicates"
    script:
        "../../scripts/deduplicate.py"


rule groups:
    input:
        samples=names.SAMPLES,
        npz=ancient(SOURCE) if GROUPING.get("key") else [],
    output:
        groups=names.GROUPS,
    log:
        "logs/groups.log",
    benchmark:
        "benchmarks/groups.tsv"
    localrule: LOCAL
    conda:
        "../../envs/light.yaml"
    resources:
        **of_images(mem_mb=1000, runtime=10),
    params:
        settings={key: GROUPING.get(key) for key in ("pattern", "csv", "key")},
        content=content(GROUPING["csv"]) if GROUPING.get("csv") else "",
        revision=revision("groups"),
    message:
        "Finding the groups of the images"
    script:
        "../../scripts/groups.py"


rule acquire_test_set:
    input:
        source=ancient(THEIR_SOURCE),
        samples=names.SAMPLES,
    output:
        source=names.FOUND_SOURCE,
        images=names.FOUND_IMAGES,
        table=names.FOUND_TABLE,
    log:
        "logs/acquire_test_set/{test_set}.log",
    benchmark:
        "benchmarks/acquire_test_set/{test_set}.tsv"
    wildcard_constraints:
        test_set="|".join(config["test_sets"]) or "(?!)",
    # What is wrong with a set is said before runs are trained.
    priority: 100
    localrule: LOCAL
    conda:
        "../../envs/light.yaml"
    resources:
        **of_images(mem_mb=2000, runtime=60),
    params:
        source=THEIR_KIND,
        classes=lookup("{test_set}/classes", within=config["test_sets"]),
        settings=part("dataset", "image_size", "fit", "bit_depth", "strict"),
        content=branch(
            THEIR_KIND,
            cases={"smears": ""},
            otherwise=content(THEIR_SOURCE, record=names.FOUND_SOURCE),
        ),
        revision=revision("acquire_test_set"),
    message:
        "Reading the test set {wildcards.test_set} from {input.source}"
    script:
        "../../scripts/acquire_test_set.py"


rule test_set:
    input:
        images=names.FOUND_IMAGES,
        table=names.FOUND_TABLE,
        study=names.FINGERPRINTS,
    output:
        images=fill(names.SUBSET_IMAGES, subset="{test_set}"),
        table=fill(names.SUBSET_TABLE, subset="{test_set}"),
        left_out=names.LEFT_OUT,
    log:
        "logs/test_set/{test_set}.log",
    benchmark:
        "benchmarks/test_set/{test_set}.tsv"
    wildcard_constraints:
        test_set="|".join(TEST_SETS) or "(?!)",
    priority: 100
    localrule: LOCAL
    conda:
        "../../envs/light.yaml"
    threads: 2
    resources:
        **of_images(mem_mb=2000, runtime=20),
    params:
        settings=DUPLICATES,
        revision=revision("test_set"),
    message:
        "Removing the study's pictures from {wildcards.test_set}"
    script:
        "../../scripts/test_set.py"


rule split:
    input:
        duplicates=names.DUPLICATES,
        groups=names.GROUPS if GROUPING else [],
    output:
        splits=names.SPLIT_TABLE,
    log:
        "logs/split.log",
    benchmark:
        "benchmarks/split.tsv"
    localrule: LOCAL
    conda:
        "../../envs/light.yaml"
    resources:
        **of_images(mem_mb=1000, runtime=10),
    params:
        **({"tolerance": GROUPING["tolerance"]} if GROUPING else {}),
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
        test_sets=expand(names.SUBSET_TABLE, subset=TEST_SETS),
        left_out=expand(names.LEFT_OUT, test_set=TEST_SETS),
        groups=names.GROUPS if GROUPING else [],
    output:
        audit=names.AUDIT,
    log:
        "logs/audit.log",
    benchmark:
        "benchmarks/audit.tsv"
    localrule: LOCAL
    conda:
        "../../envs/light.yaml"
    resources:
        **of_images(mem_mb=1000, runtime=10),
    params:
        settings=DUPLICATES,
        code=CODE,
    message:
        "Auditing the data set"
    script:
        "../../scripts/audit.py"
