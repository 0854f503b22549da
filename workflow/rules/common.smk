"""The validated config, the grid of runs, and what several rules share."""

import sys
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.basedir).parent / "scripts"))

from hemagrid.config import checks, grid as study, schema as schemas
from hemagrid.config.hyperband import expected_trials
from hemagrid.errors import InputError
from hemagrid.tuning import finalists


def validate_config():
    """Fill in the defaults; refuse a bad config before any job is planned."""
    schema = yaml.safe_load(
        (Path(workflow.basedir) / "schemas/config.schema.yaml").read_text()
    )
    try:
        config.update(schemas.validated(config, schema))
        checks.check_weights(config, built="resources/weights/{}.weights.h5")
        checks.check_hidden_set(config)
        checks.check_partial(config, evaluated="results/{}/metrics.json")
    except InputError as error:
        raise WorkflowError(str(error)) from None


validate_config()

RUNS = study.grid(config)
KNOWN = study.known_runs(config)
TUNED = [name for name in KNOWN if name not in RUNS]
CONTROLS = ["majority_class", "random_labels"]
EVALUATED = study.evaluated_subsets(config)
CACHED = ["train", "val"]
FORMATS = ["svg", "pdf"]
FIGURES = [
    *expand(
        "results/figures/{figure}.{format}",
        figure=["accuracy", "cost", "class_balance"],
        format=FORMATS,
    ),
    "results/figures/contact_sheet_test_augmented.png",
    "results/figures/explanation.png",
]


wildcard_constraints:
    run="|".join([*KNOWN, *CONTROLS]),
    backbone="|".join(config["backbones"]),
    subset="train|val|test_augmented",


def per_attempt(amount):
    """Return a resource function: `amount` on the first attempt, twice that on the second."""

    def scaled(wildcards, attempt):
        return amount * attempt

    return scaled


def scaled_by_attempt(key):
    """Return a resource function that reads `key` of the run's network in the config."""

    def scaled(wildcards, attempt):
        return network(wildcards)[key] * attempt

    return scaled


def network(wildcards):
    """The config entry of the CNN or backbone that a job computes with."""
    if "backbone" in wildcards.keys():
        return config["backbones"][wildcards.backbone]
    run = KNOWN[wildcards.run]
    if run.kind == "cnn":
        return config["cnns"][run.name]
    return config["backbones"][run.backbone]


def images_of(subset):
    return f"results/dataset/{subset}.npy"


def table_of(subset):
    return f"results/dataset/{subset}.csv"


def per_subset(pattern, subsets):
    """Named inputs, one per subset: {subset: path}."""
    return {subset: pattern(subset) for subset in subsets}


def bloodmnist_archive():
    settings = config["dataset"]
    return f"{settings['path']}/bloodmnist_{settings['resolution']}.npz"


def dataset_source():
    """What acquire_dataset reads: a file or folder, made by a rule or the user's."""
    settings = config["dataset"]
    if settings["source"] == "bloodmnist":
        return bloodmnist_archive()
    if settings["source"] == "smears":
        return "resources/smears"
    return settings["path"]


def dataset_settings():
    """The part of the config that the images and samples depend on."""
    keys = ["source", "image_size", "classes", "strict"]
    return {key: config["dataset"][key] for key in keys}


def acquired_files():
    """The outputs of acquire_dataset; BloodMNIST brings an holdout test set along."""
    files = {
        "images": "results/dataset/images.npy",
        "samples": "results/dataset/samples.csv",
    }
    if "holdout" in EVALUATED:
        files |= {
            "holdout_images": images_of("holdout"),
            "holdout_table": table_of("holdout"),
        }
    return files


def weights_inputs(wildcards):
    """Random weights need training images, weights of the user's their file, others nothing."""
    weights = config["backbones"][wildcards.backbone]["weights"]
    if weights == "random":
        return {
            "images": "results/dataset/images.npy",
            "splits": "results/dataset/splits.csv",
        }
    return {} if weights == "imagenet" else {"weights": weights}


def weights_settings(wildcards):
    settings = config["backbones"][wildcards.backbone]
    return {key: settings[key] for key in ("application", "weights")}


def boundary_settings(wildcards):
    settings = config["backbones"][wildcards.backbone]
    return {key: settings[key] for key in ("application", "top")}


def run_settings(wildcards):
    """Exactly what determines a run: another head's entry is not in it."""
    return study.run_settings(config, wildcards.run)


def training_inputs(wildcards):
    """Images and tables of every subset; a transfer run's weights, caches and found head."""
    subsets = [*CACHED, *EVALUATED[1:]]
    inputs = {f"images_{subset}": images_of(subset) for subset in subsets}
    inputs |= {f"table_{subset}": table_of(subset) for subset in subsets}
    run = KNOWN[wildcards.run]
    backbone = run.backbone
    if run.name in TUNED:
        inputs["head"] = f"results/tuning/{run.name}.json"
    if backbone:
        inputs["weights"] = f"resources/weights/{backbone}.weights.h5"
        for subset in CACHED:
            inputs[f"activations_{subset}"] = f"results/trunks/{backbone}/{subset}.npy"
            inputs[f"embeddings_{subset}"] = (
                f"results/embeddings/{backbone}/{subset}.npy"
            )
    return inputs


def evaluation_inputs(wildcards):
    """A control has no network and so no cost."""
    inputs = {"predictions": f"results/{wildcards.run}/predictions.npz"}
    if wildcards.run in KNOWN:
        inputs["cost"] = f"results/{wildcards.run}/cost.json"
    return inputs


def run_description(wildcards):
    """Name, kind, backbone and head of a run or control, as they stand in its metrics."""
    run = KNOWN.get(wildcards.run)
    return {
        "run": wildcards.run,
        "kind": run.kind if run else "control",
        "backbone": run.backbone if run else None,
        "head": run.head if run else None,
    }


def augmentation_settings(wildcards):
    return config["augmentation"][wildcards.subset]


def tuned_runs():
    """The tuned runs of this study: after the checkpoint, unless the config names them."""
    if not study.tunes(config):
        return []
    chosen = config["tuning"]["backbones"]
    if chosen is None and config["partial"]:
        made = Path("results/tuning/finalists.json")
        chosen = finalists.read(made) if made.exists() else []
    elif chosen is None:
        chosen = finalists.read(checkpoints.select_finalists.get().output.finalists)
    return list(study.tuned_runs(config, chosen))


def finished(runs):
    """These runs; of a partial report those that have been evaluated by now."""
    if not config["partial"]:
        return list(runs)
    return [run for run in runs if Path(f"results/{run}/metrics.json").exists()]


def trained_runs():
    return finished([*RUNS, *tuned_runs()])


def unfinished(wildcards):
    """What a partial report lacks; nothing otherwise."""
    if not config["partial"]:
        return []
    return [run for run in [*RUNS, *tuned_runs()] if run not in trained_runs()]


def tuning_tables():
    """The tables about tuning; none in a partial report before the first tuned run."""
    if not study.tunes(config) or config["partial"] and not finished(tuned_runs()):
        return []
    return ["tuned_heads", "tuned_runs", "tuning_gain"]


def files_of_grid():
    """What is known before the checkpoint, so that it is planned from the start."""
    runs = finished(RUNS)
    models = expand("results/{run}/model.keras", run=runs)
    controls = expand("results/{run}/metrics.json", run=CONTROLS)
    return [*models, *figures_of(runs), *controls]


def figures_of(runs):
    names = ["confusion_matrix", "learning_curves", "reliability"]
    pattern = "results/{run}/{figure}.{format}"
    return expand(pattern, run=runs, figure=names, format=FORMATS)


def figures_of_tuned(wildcards):
    runs = finished(tuned_runs())
    trials = expand("results/tuning/{run}_trials.{format}", run=runs, format=FORMATS)
    return figures_of(runs) + trials


def models_of_tuned(wildcards):
    return expand("results/{run}/model.keras", run=finished(tuned_runs()))


def metrics_of_all(wildcards):
    return expand("results/{run}/metrics.json", run=[*trained_runs(), *CONTROLS])


def scores_of_all(wildcards):
    runs = finished(config["codabench"]["runs"])
    return expand("results/{run}/codabench.json", run=runs)


def confusion_of_trained(wildcards):
    return expand("results/{run}/confusion_matrix.csv", run=trained_runs())


def history_of_trained(wildcards):
    return expand("results/{run}/history.csv", run=trained_runs())


def tables_of_study():
    tables = ["grid", "heads", "best_heads", "winner", *tuning_tables()]
    return expand("results/tables/{table}.csv", table=tables)


def evaluated_images():
    """Where the report takes its pictures from: the test sets."""
    return {f"images_{subset}": images_of(subset) for subset in EVALUATED[1:]}


def finalists_inputs(wildcards):
    """The metrics of the transfer runs, unless the config names the backbones to tune."""
    if config["tuning"]["backbones"] is not None:
        return {}
    runs = [run.name for run in RUNS.values() if run.backbone]
    return {"metrics": expand("results/{run}/metrics.json", run=runs)}


def finalists_settings():
    keys = ["finalists", "select_by", "backbones"]
    return {key: config["tuning"][key] for key in keys}


def search_settings(wildcards):
    return study.search_settings(config, wildcards.run)


def search_memory(wildcards, attempt):
    """Each trial leaves some 20 MB behind in its process."""
    return (1500 + 25 * expected_trials(**config["tuning"]["hyperband"])) * attempt


def search_inputs(wildcards):
    """Embeddings and tables of what a head learns from and is judged by."""
    embeddings = f"results/embeddings/{KNOWN[wildcards.run].backbone}"
    inputs = {f"embeddings_{subset}": f"{embeddings}/{subset}.npy" for subset in CACHED}
    return inputs | {f"table_{subset}": table_of(subset) for subset in CACHED}


def comparison_inputs(wildcards):
    """Metrics of all runs; predictions of the tuned ones and of those they are held against."""
    tuned = finished(tuned_runs())
    backbones = {KNOWN[name].backbone for name in tuned}
    rivals = [name for name in finished(RUNS) if RUNS[name].backbone in backbones]
    return {
        "metrics": metrics_of_all(wildcards),
        "predictions": expand("results/{run}/predictions.npz", run=[*rivals, *tuned]),
        "heads": expand("results/tuning/{run}.json", run=tuned),
        "codabench": scores_of_all(wildcards),
    }


def pairing_settings():
    """What a comparison of runs on the same images depends on, beside their files."""
    return {
        "select_by": config["tuning"]["select_by"],
        "bootstrap": config["evaluation"]["bootstrap"],
        "seed": config["seed"],
    }


def comparison_settings():
    return pairing_settings() | {
        "published": config["published"],
        "codabench": config["codabench"]["scores"],
    }


def predictions_of_trained(wildcards):
    return expand("results/{run}/predictions.npz", run=trained_runs())


def models_of_trained(wildcards):
    return expand("results/{run}/model.keras", run=trained_runs())


def explanation_settings():
    return {"subset": "test_augmented", "select_by": config["tuning"]["select_by"]}


def heads_of_grid():
    return {name: config["heads"][name] for name in config["grid"]["heads"]}


def study_files():
    """What every result rests on: the images, how they are split, and pretrained weights."""
    settings = config["dataset"]
    files = [dataset_source()] if settings["source"] in ("bloodmnist", "npz") else []
    files += ["results/dataset/images.npy", "results/dataset/samples.csv"]
    files += ["results/dataset/splits.csv"]
    backbones = study.tunable_backbones(config)
    weights = expand("resources/weights/{b}.weights.h5", b=backbones)
    # A partial report fetches none that no run has used yet.
    return files + [w for w in weights if not config["partial"] or Path(w).exists()]


def recorded_config():
    """The config without `partial`, on which no result rests."""
    return {key: value for key, value in config.items() if key != "partial"}


def tuning_results(wildcards):
    """What the report says about tuning; nothing where there is none."""
    if not tuning_tables():
        return {}
    runs = finished(tuned_runs())
    return {
        "finalists": "results/tuning/finalists.json",
        "trials": expand("results/tuning/{run}_trials.csv", run=runs),
        **{table: f"results/tables/{table}.csv" for table in tuning_tables()},
    }


def hidden_set():
    """What packages are scored on: the user's npz, or images that nothing learned from."""
    held_back = "holdout" if "holdout" in EVALUATED else "test"
    return config["codabench"]["hidden_set"] or held_back


def hidden_set_inputs():
    if hidden_set() in EVALUATED:
        return {"images": images_of(hidden_set()), "table": table_of(hidden_set())}
    return {"hidden_set": hidden_set()}


def scoring_settings():
    return {
        "set": hidden_set(),
        "classes": config["dataset"]["classes"],
        "image_size": config["dataset"]["image_size"],
        "bootstrap": config["evaluation"]["bootstrap"],
        "seed": config["seed"],
    }
