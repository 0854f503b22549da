"""The one place for names that packages share: subsets, phases, heads, controls and paths.

Paths are relative to the study's folder, with the wildcards of the rules in braces.
"""

import hashlib
from pathlib import Path

# Subsets of the images. `TRAIN` and `VAL` hold augmented copies only, `TEST` the untouched
# originals, `TEST_AUGMENTED` their copies, `HOLDOUT` BloodMNIST's own test split.
TRAIN = "train"
VAL = "val"
TEST = "test"
TEST_AUGMENTED = "test_augmented"
HOLDOUT = "holdout"

SPLITS = (TRAIN, VAL, TEST)
OWN = (*SPLITS, TEST_AUGMENTED)
"""The subsets of the study's own images; all others are test sets of other images."""
LEARNED = (TRAIN, VAL)
"""The subsets that a run learns from and is selected on; frozen features of them are cached."""
AUGMENTED = {TRAIN: TRAIN, VAL: VAL, TEST_AUGMENTED: TEST}
"""The augmented subsets, each with the split that its originals belong to."""
SUBSET_TITLES = {
    VAL: "validation",
    TEST: "test",
    TEST_AUGMENTED: "augmented test",
    HOLDOUT: "holdout",
}
"""The built-in subsets that runs are evaluated on, in order, as people read them."""

CORRUPTIONS = (
    *("jpeg_compression", "pixelate", "defocus_blur", "motion_blur"),
    *("brightness_up", "brightness_down", "contrast_up", "contrast_down"),
    *("saturate", "stain_shift", "stain_deposit", "bubble"),
)
"""What may be done to the test images, in the order of tables; each has severities 1 to 5."""

FEATURE_EXTRACTION = "feature_extraction"
FINETUNE_TOP = "finetune_top"
FINETUNE_ALL = "finetune_all"
PHASES = (FEATURE_EXTRACTION, FINETUNE_TOP, FINETUNE_ALL)

CNN = "cnn"
TRANSFER = "transfer"
TRAINED = (CNN, TRANSFER)
"""Kinds of runs that are trained."""
ENSEMBLE = "ensemble"
VIEWS = "views"
WITH_VIEWS = "+views"
"""What the name of a run ends in that predicts on eight views of each image."""

TUNED = "tuned"
TUNED_ADAMW = "tuned_adamw"
TUNED_HEADS = (TUNED, TUNED_ADAMW)
"""Heads that a search finds; the search of the second one has weight decay in its space."""

MAJORITY_CLASS = "majority_class"
RANDOM_LABELS = "random_labels"
CONTROLS = (MAJORITY_CLASS, RANDOM_LABELS)
"""Runs without a network that bracket every metric."""

# The data set
IMAGES = "results/dataset/images.npy"
SAMPLES = "results/dataset/samples.csv"
SOURCE = "results/dataset/source.json"
PHASH = "results/dataset/phash.csv"
FINGERPRINTS = "results/dataset/fingerprints.npy"
DUPLICATES = "results/dataset/duplicates.csv"
GROUPS = "results/dataset/groups.csv"
SPLIT_TABLE = "results/dataset/splits.csv"
AUDIT = "results/dataset/audit.json"
FOUND_IMAGES = "results/dataset/{test_set}_found.npy"
FOUND_TABLE = "results/dataset/{test_set}_found.csv"
FOUND_SOURCE = "results/dataset/{test_set}_source.json"
LEFT_OUT = "results/dataset/{test_set}_left_out.csv"
SUBSET_IMAGES = "results/dataset/{subset}.npy"
SUBSET_TABLE = "results/dataset/{subset}.csv"
COPIES = "results/dataset/augmented_copies.csv"
DRAWN = "resources/{drawn}"
SMEARS = DRAWN.format(drawn="smears")
SECOND_LAB = DRAWN.format(drawn="second_lab")

# Backbones
WEIGHTS = "resources/weights/{backbone}.weights.h5"
ACTIVATIONS = "results/trunks/{backbone}/{subset}.npy"
EMBEDDINGS = "results/embeddings/{backbone}/{subset}.npy"
EMBEDDING_COST = "results/embeddings/{backbone}/cost.json"
CELL_MAP = "results/tables/map_{backbone}.csv"
KERAS_HOME = "resources/keras"

# Runs
MODEL = "results/{run}/model.keras"
HISTORY = "results/{run}/history.csv"
PREDICTIONS = "results/{run}/predictions/{test_set}.npz"
FORMER_PREDICTIONS = "results/{run}/predictions.npz"  # as training made them once
CORRUPTED = "results/{run}/corrupted/test.npz"
COST = "results/{run}/cost.json"
LATENCY = "results/{run}/latency.json"
METRICS = "results/{run}/metrics.json"
SUMMARY = "results/{run}/replicates.json"
CARD = "results/{run}/README.md"
CONFUSION = "results/{run}/confusion_matrix.csv"
RUN_FIGURE = "results/{run}/{figure}.{format}"
ANSWER_FIGURES = ("confusion_matrix", "reliability", "risk_coverage")
RUN_FIGURES = (*ANSWER_FIGURES, "learning_curves")
SUBMISSION = "results/{run}/submission.zip"
SCORE = "results/{run}/codabench.json"
CHECKPOINTS = "checkpoints"
EXPORTED = "exports/{name}"
LOG = "logs/{rule}/{name}.log"
BENCHMARKS = "benchmarks"

# Tuning
FINALISTS = "results/tuning/finalists.json"
FOUND_HEAD = "results/tuning/{run}.json"
TRIALS = "results/tuning/{run}_trials.csv"
TRIALS_FIGURE = "results/tuning/{run}_trials.{format}"

# Tables, figures and the report
TABLE = "results/tables/{table}.{format}"
FIGURE = "results/figures/{figure}.{format}"
HEADLINE = "results/tables/headline.txt"
CONTACT_SHEET = "results/figures/contact_sheet_{subset}.png"
EXPLANATION = "results/figures/explanation.png"
EXPLAINED_PICTURES = "results/explanation/pictures.npy"
EXPLAINED_TABLE = "results/explanation/pictures.csv"
CONFIG = "results/provenance/config.yaml"
VERSIONS = "results/provenance/versions.json"
STUDY = "results/provenance/study.json"
CHECKSUMS = "results/provenance/checksums.csv"
REPORT = "results/report.html"


def checkpoints_of(folder, study="", storage=None):
    """Return where a study keeps its checkpoints and locks, which is no other study's place.

    Outside its own folder, a study has a folder that is named by where the study lies. If it is
    moved, it does not find its checkpoints there.

    Args:
        folder: The config's `checkpoints`.
        study: Folder of the study.
        storage: The prefix under which a storage keeps the study's files, or None.

    Returns:
        Path of a folder, which may be missing.
    """
    home = Path(study).resolve()
    place = Path(home, folder).resolve()
    if place.is_relative_to(home):
        return Path(study, folder)
    lies = hashlib.sha256(f"{storage or ''} {home}".encode()).hexdigest()[:8]
    return place / f"{home.name}-{lies}"


def subset_title(subset):
    """Return the name of a subset as people read it."""
    return SUBSET_TITLES.get(subset, subset)


RESERVED = (
    *("dataset", "trunks", "embeddings", "tables", "figures", "tuning"),
    *("explanation", "provenance", "logs", "benchmarks", *CONTROLS),
)
"""Folders of results/ whose names no run may have."""
RESERVED_SETS = (
    *(*OWN, HOLDOUT, "study"),
    *("images", "samples", "phash", "fingerprints", "duplicates", "splits"),
)
"""Subsets, and files of results/dataset/, whose names no test set may have."""
