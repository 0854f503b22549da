"""Print what the choices that the published study is silent about cost or gain.

    python tests/benchmarks/silent_choices.py FOLDER RUN [--finetune-top] [--tops LAYER ...]

In the folder of a study whose features are cached, the head of a transfer run is trained again
under other choices: class weights, the metric that early stopping watches, patience, and the
scale of the features before the head. With `--finetune-top` the second phase follows, and each
of `--tops` is another layer behind which the trained part of the backbone starts (one above the
config's, whose activations are cached). The study itself is only read.

One row per choice: accuracies with intervals, and how far they are from the first row, the
config's own choices. Intervals of the differences are paired on the same images and hold
together for all rows of a column; those without 0 are bold. The row with another seed shows
what a difference is worth that no choice has made.
"""

import argparse
import logging
import sys
import tempfile
from pathlib import Path

import keras
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from hemagrid import io, names  # noqa: E402
from hemagrid.config.grid import known_runs, run_settings  # noqa: E402
from hemagrid.config.loading import study_config  # noqa: E402
from hemagrid.evaluation.metrics import scores_with_intervals  # noqa: E402
from hemagrid.evaluation.statistics import paired  # noqa: E402
from hemagrid.models import backbones  # noqa: E402
from hemagrid.reporting.text import number  # noqa: E402
from hemagrid.training import backend, embeddings  # noqa: E402
from hemagrid.training.trainer import Examples, Phase, Trainer  # noqa: E402
from hemagrid.training.transfer import TransferModel  # noqa: E402

OTHER_PATIENCE = (1, 2, 10)


def standardised(train):
    """Return a function to features of mean 0 and standard deviation 1 in each column."""
    mean, spread = train.mean(axis=0), train.std(axis=0)
    return lambda features: (features - mean) / np.where(spread > 0, spread, 1)


def scaled(train):
    """Return a function to features with a root mean square of 1, all by one factor."""
    size = np.sqrt(np.square(train, dtype="float64").mean())
    return lambda features: (features / size).astype("float32")


class Study:
    """The cached features of one backbone in the folder of a study.

    Args:
        folder: Path of the study.
        config: Its validated config.
        run: Name of a transfer run of the grid.
        subsets: Test sets besides the validation images.
        workspace: Path of a folder for the features of their images, which no stage caches.
    """

    def __init__(self, folder, config, run, subsets, workspace):
        self.run, self.workspace = run, workspace
        self.settings = run_settings(config, run)
        self.subsets = (names.VAL, *subsets)
        place = {"backbone": known_runs(config)[run].backbone}
        self.weights = folder / names.WEIGHTS.format(**place)
        read = (names.TRAIN, *self.subsets)
        tables = {
            name: io.read_table(folder / names.SUBSET_TABLE.format(subset=name))
            for name in read
        }
        self.labels = {name: table["label"].to_numpy() for name, table in tables.items()}
        self.groups = {name: table["group"].to_numpy() for name, table in tables.items()}
        self.classes = len(io.class_names(tables[names.TRAIN]))
        images = {
            name: io.open_images(folder / names.SUBSET_IMAGES.format(subset=name))
            for name in self.subsets
        }
        self.size = images[names.VAL].shape[1]
        self.embeddings, self.activations = (
            {
                name: np.load(folder / path.format(subset=name, **place), mmap_mode="r")
                for name in names.LEARNED
            }
            for path in (names.EMBEDDINGS, names.ACTIVATIONS)
        )
        trunk, top = backbones.cut_backbone(*self.backbone(self.settings))
        for name in subsets:
            paths = [workspace / f"{kind}_{name}.npy" for kind in ("activations", "embeddings")]
            embeddings.write_features(trunk, top, images[name], *paths, f"Embedding {name}")
            self.activations[name], self.embeddings[name] = (
                np.load(path, mmap_mode="r") for path in paths
            )

    def backbone(self, settings):
        """Return a new backbone, and the name of the last layer of its trunk."""
        backend.begin(settings["seed"], settings["training"]["precision"])
        return backbones.load_backbone(settings["backbone"], self.size, self.weights)

    def train(self, settings, scale=None, top=None, finetune=False):
        """Train the run as far as its caches reach.

        Args:
            settings: As of `run_settings`.
            scale: None, or a function that makes a function of features of the training ones.
            top: None, or the name of another layer behind which the top starts.
            finetune: Whether the second phase follows.

        Returns:
            Number of epochs, and the predicted classes {subset: int (n,)}.
        """
        backbone, boundary = self.backbone(settings)
        activations = self.activations
        if top:
            activations = self._activations_at(backbone, boundary, top)
        features = {name: np.asarray(array) for name, array in self.embeddings.items()}
        if scale:
            change = scale(features[names.TRAIN])
            features = {name: change(array) for name, array in features.items()}
        # As in `train_transfer`, so that the first row is the study's own run.
        keras.utils.set_random_seed(settings["seed"])
        model = TransferModel(backbone, top or boundary, settings["head"], self.classes)
        training = settings["training"]
        trainer = Trainer(
            self.run,
            training,
            self.classes,
            settings["seed"],
            weight_decay=settings["head"]["weight_decay"],
        )
        phases = {names.FEATURE_EXTRACTION: (features, settings["head"])}
        if finetune:
            phases[names.FINETUNE_TOP] = (activations, training[names.FINETUNE_TOP])
        for phase, (inputs, source) in phases.items():
            network = model.freeze_for(phase)
            trainer.fit(
                Phase(
                    phase,
                    network,
                    *(Examples(inputs[name], self.labels[name]) for name in names.LEARNED),
                    settings["backbone"]["batch_size"],
                    training[phase]["epochs"],
                    training[phase]["patience"],
                    source["learning_rate"],
                )
            )
        found = {
            name: embeddings.predict(network, inputs[name]).argmax(axis=1)
            for name in self.subsets
        }
        return len(trainer.history), found

    def _activations_at(self, backbone, boundary, layer):
        """Pass the cached activations on to a layer of the top."""
        ends = (backbone.get_layer(name).output for name in (boundary, layer))
        lower = keras.Model(*ends)
        further = {}
        for name, array in self.activations.items():
            path = self.workspace / f"further_{name}.npy"
            shape = (len(array), *lower.output.shape[1:])
            with io.new_array(path, shape, "float32") as out:
                for rows, outputs in embeddings.batches(lower, array):
                    out[rows] = outputs
                    io.release(out)
            further[name] = np.load(path, mmap_mode="r")
        return further


def choices(settings, finetune, tops):
    """Return {choice: keyword arguments of `Study.train`}, the config's own choices first."""
    training = settings["training"]
    phases = [names.FEATURE_EXTRACTION, *[names.FINETUNE_TOP] * finetune]

    def changed(**changes):
        return {"settings": settings | {"training": training | changes}}

    other = {"val_loss": "val_accuracy", "val_accuracy": "val_loss"}[training["monitor"]]
    weighted = training["class_weights"]
    found = {
        "as in the config": {"settings": settings},
        f"seed {settings['seed'] + 1}": {"settings": settings | {"seed": settings["seed"] + 1}},
        f"{'no' if weighted else 'with'} class weights": changed(class_weights=not weighted),
        f"monitor {other}": changed(monitor=other),
    }
    for patience in OTHER_PATIENCE:
        if any(training[phase]["patience"] != patience for phase in phases):
            plans = {phase: training[phase] | {"patience": patience} for phase in phases}
            found[f"patience {patience}"] = changed(**plans)
    if finetune:
        for top in tops:
            found[f"top starts behind {top}"] = {"settings": settings, "top": top}
    else:
        found["features standardised"] = {"settings": settings, "scale": standardised}
        found["features by one factor"] = {"settings": settings, "scale": scaled}
    return {choice: options | {"finetune": finetune} for choice, options in found.items()}


def rows_of(study, predicted, epochs, resamples, seed):
    """Yield the cells of the table, one row per choice."""
    cells = {choice: [choice, str(epochs[choice])] for choice in predicted}
    first, *others = predicted
    for subset in study.subsets:
        labels, groups = study.labels[subset], study.groups[subset]
        for choice, classes in predicted.items():
            score = scores_with_intervals(
                labels, classes[subset], groups, study.classes, resamples=resamples, seed=seed
            )["accuracy"]
            value, low, high = (100 * score[part] for part in ("value", "low", "high"))
            cells[choice].append(f"{value:.1f} ({low:.1f}–{high:.1f})")
    for subset in study.subsets:
        labels, groups = study.labels[subset], study.groups[subset]
        right = {
            choice: (classes[subset] == labels).astype(int)
            for choice, classes in predicted.items()
        }
        differences = np.column_stack([right[choice] - right[first] for choice in others])
        compared = paired(
            differences, groups, resamples=resamples, seed=seed, family=len(others)
        )
        cells[first].append("")
        for choice, found in zip(others, compared, strict=True):
            value, low, high = (100 * found[part] for part in ("value", "low", "high"))
            text = "{} ({} to {})".format(
                *(number(each, "+.1f") for each in (value, low, high))
            )
            cells[choice].append(f"**{text}**" if low > 0 or high < 0 else text)
    yield from cells.values()


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("run")
    parser.add_argument("--configfile", nargs="*", default=[], help="of an unfinished study")
    parser.add_argument("--finetune-top", action="store_true")
    parser.add_argument("--tops", nargs="*", default=[], metavar="LAYER")
    parser.add_argument("--only", nargs="*", metavar="CHOICE", help="rows besides the first")
    parser.add_argument("--subsets", nargs="*", default=[names.TEST])
    options = parser.parse_args()
    if options.tops and not options.finetune_top:
        parser.error("--tops are of the second phase: add --finetune-top")
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)

    config = study_config(options.folder, options.configfile)
    with tempfile.TemporaryDirectory() as workspace:
        study = Study(options.folder, config, options.run, options.subsets, Path(workspace))
        predicted, epochs = {}, {}
        variants = choices(study.settings, options.finetune_top, options.tops)
        if options.only is not None:
            kept = [next(iter(variants)), *options.only]
            variants = {choice: variants[choice] for choice in kept}
        for choice, arguments in variants.items():
            logging.info(choice)
            epochs[choice], predicted[choice] = study.train(**arguments)
        titles = [names.subset_title(subset) for subset in study.subsets]
        heading = ["choice", "epochs", *(f"{title}, %" for title in titles)]
        heading += [f"{title}, difference" for title in titles]
        resamples = config["evaluation"]["bootstrap"]
        print(" | ".join(["", *heading, ""]).strip())
        print("|---" * len(heading) + "|")
        for cells in rows_of(study, predicted, epochs, resamples, study.settings["seed"]):
            print(" | ".join(["", *cells, ""]).strip())


if __name__ == "__main__":
    main()
