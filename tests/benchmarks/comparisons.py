"""What the workflow computes, and other ways to the same result: the sides of each row.

`direct` passes the images through the network in every epoch; `notebook` passes them once and
fits heads on the features, as a good user does by hand. A side is a function of a `Setting`; it
gets everything ready, then yields, and what it does from there to its end is timed. What it
returns, a list of arrays, must be the same on all sides. Every side runs in a process of its
own, which has begun TensorFlow already.
"""

import tempfile
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import direct_way
import keras
import numpy as np
import pandas as pd

from hemagrid import io
from hemagrid.config.loading import load_config
from hemagrid.models import backbones
from hemagrid.models.heads import build_head
from hemagrid.names import PHASES
from hemagrid.training import backend, embeddings, transfer
from hemagrid.training.optimizers import build_optimizer
from hemagrid.training.trainer import (
    Examples,
    Phase,
    Trainer,
    class_weights,
    epoch_order,
    step_function,
)
from hemagrid.tuning import search

CONFIG = load_config()
HEADS = [CONFIG["heads"][name] for name in CONFIG["grid"]["heads"]]
NETWORKS = {entry["application"]: entry for entry in CONFIG["backbones"].values()}
CLASSES, SEED, BATCH, SIZE = 8, CONFIG["seed"], 32, 96
SHARE = 0.25  # validation images for each training image


@dataclass(frozen=True)
class Setting:
    """A network, how many training images, and for how many epochs; `folder` is scratch."""

    application: str
    images: int
    epochs: int
    folder: Path
    size: int = SIZE

    @property
    def weights(self):
        """The network's starting weights, in the layout in which Keras ships them."""
        return self.folder / f"{self.application}_{self.size}.weights.h5"

    @property
    def our_weights(self):
        """The same as the rule `backbone_weights` writes them."""
        return self.folder / f"{self.application}_{self.size}_ours.weights.h5"

    def scratch(self):
        """Make a folder in which no earlier run has left anything."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def subset(self, name):
        """Make up images uint8 (N, S, S, 3) of a hue per class, and their labels."""
        count = self.images if name == "train" else max(int(SHARE * self.images), CLASSES)
        random = np.random.default_rng([SEED, len(name)])
        labels = np.arange(count) % CLASSES
        hues = np.random.default_rng(SEED).integers(0, 128, (CLASSES, 1, 1, 3))
        noise = random.integers(0, 128, (count, self.size, self.size, 3), dtype="uint8")
        return noise + hues[labels].astype("uint8"), labels

    def write(self):
        """Write what jobs of the workflow read: images, tables; return their paths."""
        paths = {}
        for name in ("train", "val"):
            images, labels = self.subset(name)
            paths[f"images_{name}"] = self.folder / f"{name}.npy"
            paths[f"table_{name}"] = self.folder / f"{name}.csv"
            np.save(paths[f"images_{name}"], images)
            classes = [f"class_{label}" for label in labels]
            table = pd.DataFrame({"label": labels, "class_name": classes})
            io.write_table(paths[f"table_{name}"], table)
        return paths


def make_weights(setting):
    """Write random weights that let a signal pass, as a user's own file of Keras's network."""
    images, _ = setting.subset("train")
    ours = backbones.random_backbone(setting.application, images[:64], SEED)
    shipped = getattr(keras.applications, setting.application)(
        include_top=False, weights=None, pooling="avg", input_shape=images.shape[1:]
    )
    for kernel, variable in zip(ours.get_weights(), shipped.weights, strict=True):
        if kernel.shape != variable.shape:
            kernel = as_grouped(kernel)
        # ConvNeXt scales its blocks to almost nothing at first: nothing would be compared.
        is_scale = variable.path.endswith("gamma") and "layer_scale" in variable.path
        variable.assign(np.full(kernel.shape, 0.1) if is_scale else kernel)
    shipped.save_weights(setting.weights)
    weights = {"application": setting.application, "weights": str(setting.weights)}
    backbones.write_weights(
        setting.our_weights, weights, setting.size, SEED, weights=setting.weights
    )


# The workflow's side


def cached(setting, paths):
    """Pass the images through the network once, as the job does; return the caches."""
    backbone = our_network(setting)
    top = NETWORKS[setting.application]["top"]
    trunk, top = backbones.cut_backbone(backbone, top)
    for name in ("train", "val"):
        images = io.open_images(paths[f"images_{name}"])
        paths[f"activations_{name}"] = setting.folder / f"activations_{name}.npy"
        paths[f"embeddings_{name}"] = setting.folder / f"embeddings_{name}.npy"
        of = (paths[f"{kind}_{name}"] for kind in ("activations", "embeddings"))
        embeddings.write_features(trunk, top, images, *of)
    return backbone


def examples(paths, kind, name):
    labels = io.read_table(paths[f"table_{name}"])["label"].to_numpy()
    return Examples(np.load(paths[f"{kind}_{name}"], mmap_mode="r"), labels)


def trained(model, phase, setting, paths, kind, rate):
    """Train a model in one phase, as a job of the workflow does.

    Returns its trainable weights after the first epoch.
    """
    first = []

    def keep(line):
        first.append(trainable(model) if not first else None)

    trainer = Trainer("ours", CONFIG["training"], CLASSES, SEED, say=keep)
    sets = (examples(paths, kind, name) for name in ("train", "val"))
    trainer.fit(Phase(phase, model, *sets, BATCH, setting.epochs, setting.epochs, rate))
    return first[0]


def trainable(model):
    """Return the trainable weights, those of depthwise layers in one layout."""
    return [as_grouped(np.asarray(each)) for each in model.trainable_variables]


def as_grouped(kernel):
    """Return a weight as it is, a depthwise kernel as that of a grouped convolution."""
    is_depthwise = kernel.ndim == 4 and kernel.shape[-1] == 1
    return kernel.transpose(0, 1, 3, 2) if is_depthwise else kernel


def our_extraction(setting):
    paths = setting.write()
    yield
    features_count = cached(setting, paths).output_shape[-1]
    found = []
    for head in HEADS:
        keras.utils.set_random_seed(SEED)
        model = build_head(head, features_count, CLASSES)
        phase, rate = "feature_extraction", head["learning_rate"]
        found += trained(model, phase, setting, paths, "embeddings", rate)
    return found


def our_finetuning(setting):
    paths = setting.write()
    yield
    backbone = cached(setting, paths)
    start, found = backbone.get_weights(), []
    for head in HEADS:
        backbone.set_weights(start)
        keras.utils.set_random_seed(SEED)
        top = NETWORKS[setting.application]["top"]
        network = transfer.TransferModel(backbone, top, head, CLASSES)
        model = network.freeze_for("finetune_top")
        rate = CONFIG["training"]["finetune_top"]["learning_rate"]
        found += trained(model, "finetune_top", setting, paths, "activations", rate)
    return found


def our_grid(setting):
    paths = setting.write()
    yield
    cached(setting, paths)
    labels = tuple(examples(paths, "images", name).labels for name in ("train", "val"))
    arrays = {
        phase: tuple(
            np.load(paths[f"{kind}_{name}"], mmap_mode="r") for name in ("train", "val")
        )
        for phase, kind in zip(PHASES, ("embeddings", "activations", "images"), strict=True)
    }
    settings = {
        "training": CONFIG["training"] | phases(setting),
        "backbone": NETWORKS[setting.application] | {"batch_size": BATCH},
        "seed": SEED,
    }
    found = []
    for head in HEADS:
        model, _ = transfer.train_transfer(
            "ours",
            settings | {"head": head},
            setting.our_weights,
            arrays,
            labels,
            setting.size,
            CLASSES,
        )
        found.append(accuracy(model, io.open_images(paths["images_val"]), labels[1]))
    return found


def accuracy(model, images, labels):
    chosen = embeddings.predict(model, images).argmax(axis=1)
    return np.array([(chosen == labels).mean()])


def phases(setting):
    """Return the phases of the config: so many epochs of the first, half of each later one."""
    shares = zip(PHASES, (1, 2, 2), strict=True)
    epochs = {phase: max(1, setting.epochs // share) for phase, share in shares}
    return {
        phase: CONFIG["training"][phase] | {"epochs": count, "patience": count}
        for phase, count in epochs.items()
    }


def search_settings():
    tuning = CONFIG["tuning"]
    space = {key: value for key, value in tuning["space"].items() if key != "weight_decay"}
    return {
        "space": space,
        "hyperband": tuning["hyperband"],
        "batch_size": BATCH,
        "training": CONFIG["training"],
        "seed": SEED,
    }


def first_trials(trials):
    """Return the accuracies of the trials of one epoch: later ones amplify rounding."""
    return [trials.query("epochs == 1 and initial_epoch == 0")["val_accuracy"].to_numpy()]


def our_search(setting):
    paths = setting.write()
    scratch = setting.scratch()
    out = {"head": scratch / "head.json", "trials": scratch / "trials.csv"}
    yield
    cached(setting, paths)
    inputs = {name: path for name, path in paths.items() if "embed" in name or "table" in name}
    settings = search_settings()
    search.search_head("ours", settings, inputs, out, scratch)
    return first_trials(pd.read_csv(out["trials"]))


# The direct way's side


def head_on(setting, base, head):
    keras.utils.set_random_seed(SEED)
    head = build_head(head, base.output_shape[-1], CLASSES)
    return head, direct_way.classifier(setting.application, base, head)


def their_extraction(setting, cache=False):
    sets = setting.subset("train"), setting.subset("val")
    yield
    base = their_network(setting)
    base.trainable = False
    if cache:
        sets = [direct_way.features(setting.application, base, each) for each in sets]
    found = []
    for entry in HEADS:
        head, model = head_on(setting, base, entry)
        phase, rate = "feature_extraction", entry["learning_rate"]
        model = head if cache else model
        found += first_epoch(model, *sets, phase, setting.epochs, rate)
    return found


def first_epoch(model, *plan):
    """Fit a model; return its trainable weights after the first epoch."""
    first = []

    def keep(epoch, logs):
        first.append(trainable(model) if epoch == 0 else None)

    watch = keras.callbacks.LambdaCallback(on_epoch_end=keep)
    direct_way.fit(model, *plan, BATCH, SEED, callbacks=[watch])
    return first[0]


def direct_finetuning(setting):
    train, val = setting.subset("train"), setting.subset("val")
    yield
    base = direct_way.load_base(setting.application, setting.size, setting.weights)
    start, found = base.get_weights(), []
    rate = CONFIG["training"]["finetune_top"]["learning_rate"]
    for entry in HEADS:
        base.set_weights(start)
        direct_way.unfreeze(base, NETWORKS[setting.application]["top"])
        _, model = head_on(setting, base, entry)
        found += first_epoch(model, train, val, "finetune_top", setting.epochs, rate)
    return found


def their_grid(setting, cache=False):
    train, val = setting.subset("train"), setting.subset("val")
    yield
    base = their_network(setting)
    start, found = base.get_weights(), []
    cached = cache and [
        direct_way.features(setting.application, base, each) for each in (train, val)
    ]
    for entry in HEADS:
        base.set_weights(start)
        keras.utils.set_random_seed(SEED)
        head = build_head(entry, base.output_shape[-1], CLASSES)
        plan = {
            phase: (each["epochs"], each.get("learning_rate", entry["learning_rate"]))
            for phase, each in phases(setting).items()
        }
        top = NETWORKS[setting.application]["top"]
        network = (setting.application, base, head, top)
        model = direct_way.fit_phases(*network, plan, train, val, BATCH, SEED, cached)
        found.append(accuracy(model, *val))
    return found


def their_search(setting, cache=False):
    paths = setting.write()
    inputs = {f"table_{name}": paths[f"table_{name}"] for name in ("train", "val")}
    inputs |= {f"embeddings_{name}": paths[f"images_{name}"] for name in ("train", "val")}
    sets = {name: setting.subset(name) for name in ("train", "val")}
    yield
    base = their_network(setting)
    base.trainable = False
    network = partial(direct_way.classifier, setting.application, base)
    if cache:
        network = None
        for name, subset in sets.items():
            features, _ = direct_way.features(setting.application, base, subset)
            inputs[f"embeddings_{name}"] = setting.folder / f"features_{name}.npy"
            np.save(inputs[f"embeddings_{name}"], features)
    scratch = setting.scratch()
    out = {"head": scratch / "head.json", "trials": scratch / "trials.csv"}
    count, settings = base.output_shape[-1], search_settings()
    direct_way.search_head(count, network, "theirs", settings, inputs, out, scratch)
    return first_trials(pd.read_csv(out["trials"]))


# Steps alone: networks are built, and the first step is taken, before the clock starts


def forward(setting, network):
    """Time one pass of the images through a network that has passed some already."""
    images, _ = setting.subset("train")
    network.predict_on_batch(images[:BATCH])
    yield
    return [embeddings.predict(network, images, BATCH)]


def steps(setting, network):
    """Time one epoch of training steps of a network that has taken one already."""
    images, labels = setting.subset("train")
    keras.utils.set_random_seed(SEED)
    head = keras.layers.Dense(CLASSES, activation="softmax")
    model = keras.Model(network.input, head(network.output))
    model.compile(keras.optimizers.SGD(1e-3), "sparse_categorical_crossentropy")
    model.train_on_batch(images[:BATCH], labels[:BATCH])
    yield
    for start in range(0, len(labels), BATCH):
        model.train_on_batch(images[start : start + BATCH], labels[start : start + BATCH])
    return [np.asarray(head.kernel)]


def our_network(setting):
    network = NETWORKS[setting.application]
    return backbones.load_backbone(network, setting.size, setting.our_weights)[0]


def their_network(setting):
    return direct_way.load_base(setting.application, setting.size, setting.weights)


def our_forward(setting):
    return forward(setting, our_network(setting))


def direct_forward(setting):
    return forward(setting, their_network(setting))


def our_steps(setting):
    return steps(setting, our_network(setting))


def direct_steps(setting):
    return steps(setting, their_network(setting))


def our_first_step(setting):
    images, labels = setting.subset("train")
    backbone = our_network(setting)
    keras.utils.set_random_seed(SEED)
    top = NETWORKS[setting.application]["top"]
    model = transfer.TransferModel(backbone, top, HEADS[-1], CLASSES).freeze_for("finetune_all")
    rate = CONFIG["training"]["finetune_all"]["learning_rate"]
    weight_of = class_weights(labels, CLASSES)
    yield
    optimizer = build_optimizer(CONFIG["training"]["optimizer"], rate)
    take_steps = step_function(model, optimizer, BATCH, images)
    rows = epoch_order(len(labels), BATCH, SEED, "finetune_all", 1)[:1]
    take_steps(images[rows], labels[rows], weight_of[labels[rows]])
    return trainable(model)


def direct_first_step(setting):
    train = setting.subset("train")
    base = their_network(setting)
    direct_way.unfreeze(base)
    head, model = head_on(setting, base, HEADS[-1])
    direct_way.freeze_normalization(head)
    rate = CONFIG["training"]["finetune_all"]["learning_rate"]
    yield
    direct_way.compiled(model, rate).fit(
        direct_way.batches(*train, BATCH, SEED, "finetune_all"),
        steps_per_epoch=1,
        verbose=0,
    )
    return trainable(model)


SIDES = {
    "extraction": {
        "ours": our_extraction,
        "notebook": partial(their_extraction, cache=True),
        "direct": their_extraction,
    },
    "search": {
        "ours": our_search,
        "notebook": partial(their_search, cache=True),
        "direct": their_search,
    },
    "grid": {
        "ours": our_grid,
        "notebook": partial(their_grid, cache=True),
        "direct": their_grid,
    },
    "finetuning": {"ours": our_finetuning, "direct": direct_finetuning},
    "forward": {"ours": our_forward, "direct": direct_forward},
    "steps": {"ours": our_steps, "direct": direct_steps},
    "first_step": {"ours": our_first_step, "direct": direct_first_step},
}


def run_side(row, side, setting):
    """Return (seconds of the processor, results as a list of arrays) of one side of a row."""
    if side == "ours":
        backend.begin(SEED)
    else:
        keras.utils.set_random_seed(SEED)
    work = SIDES[row][side](setting)
    next(work)
    begun = time.process_time()
    try:
        next(work)
    except StopIteration as end:
        return time.process_time() - begun, end.value
    raise AssertionError(f"{row}, {side}: yields twice")
