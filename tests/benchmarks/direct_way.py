"""The direct way to do the study: plain Keras, written as its guide on transfer learning.

https://keras.io/guides/transfer_learning: a network of keras.applications without its top,
frozen and in inference mode, a head on it, `fit` on images; then layers are unfrozen, the
model is compiled again, and `fit` again. So does a notebook, head by head.

The guide's lighter variant is here, too: a notebook that passes the images through the network
once, with `predict`, and fits heads on what came out.

Both learn from the same batches as the workflow, from the same starting weights, for the same
epochs, so that all must end in the same weights. Nothing here is slower than it has to be: a
network is built once for all heads, and what Keras does on its own is left on.
"""

import itertools
import sys

import keras
import numpy as np

from hemagrid.models.heads import build_head
from hemagrid.training.trainer import class_weights, epoch_order
from hemagrid.tuning import search


def batches(images, labels, batch_size, seed, phase):
    """Yield images, labels and class weights without end, in the order of the workflow."""
    weight_of = class_weights(labels, int(labels.max()) + 1)
    for epoch in itertools.count(1):
        for rows in epoch_order(len(labels), batch_size, seed, phase, epoch):
            yield images[rows], labels[rows], weight_of[labels[rows]]


def load_base(application, size, weights=None):
    """Build the network as keras.applications ships it; `weights` is a file of its own."""
    constructor = getattr(keras.applications, application)
    base = constructor(
        include_top=False, weights=None, pooling="avg", input_shape=(size, size, 3)
    )
    if weights:
        base.load_weights(weights)
    for layer in base.layers:
        # The workflow's backbones run in inference mode; Keras 3.15 leaves this one on.
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return base


def classifier(application, base, head):
    """Put a head on the network."""
    module = sys.modules[getattr(keras.applications, application).__module__]
    inputs = keras.Input(base.input_shape[1:])
    x = base(module.preprocess_input(inputs), training=False)
    return keras.Model(inputs, head(x))


def features(application, base, subset):
    """Pass the images of a subset through the network once; return the features and labels."""
    images, labels = subset
    network = classifier(application, base, keras.layers.Identity())
    return network.predict(images, batch_size=64, verbose=0), labels


def unfreeze(base, boundary=None):
    """Let everything but BatchNormalization train, or what comes after the layer `boundary`."""
    base.trainable = True
    below = boundary is not None
    for layer in base.layers:
        layer.trainable = not (below or isinstance(layer, keras.layers.BatchNormalization))
        below = below and layer.name != boundary


def freeze_normalization(head):
    for layer in head.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = False


def fit_phases(application, base, head, top, phases, train, val, batch_size, seed, cached=None):
    """Fit a head on the frozen network, then layers from `top` on, then all; return the model.

    `phases` holds (epochs, learning rate) by the name of the phase. The first one fits the head
    on `cached`, the features of (train, val), if there are any.
    """
    base.trainable = False
    model = classifier(application, base, head)
    for phase, (epochs, rate) in phases.items():
        if phase == "feature_extraction" and cached:
            fit(head, *cached, phase, epochs, rate, batch_size, seed)
            continue
        if phase == "finetune_top":
            unfreeze(base, top)
        elif phase == "finetune_all":
            unfreeze(base)
            freeze_normalization(head)
        fit(model, train, val, phase, epochs, rate, batch_size, seed)
    return model


def compiled(model, rate):
    """Compile a model as the guide does; return it."""
    model.compile(
        optimizer=keras.optimizers.Adam(rate),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def fit(
    model,
    train,
    val,
    phase,
    epochs,
    rate,
    batch_size,
    seed,
    *,
    monitor="val_loss",
    callbacks=(),
):
    """Compile and fit a model, give it the weights of its best epoch, return the history."""
    best = keras.callbacks.EarlyStopping(monitor, patience=epochs, restore_best_weights=True)
    return (
        compiled(model, rate)
        .fit(
            batches(*train, batch_size, seed, phase),
            steps_per_epoch=len(train[1]) // batch_size,
            validation_data=val,
            validation_batch_size=64,
            epochs=epochs,
            callbacks=[best, *callbacks],
            verbose=0,
        )
        .history
    )


def search_head(features_count, network, run, settings, inputs, out, folder):
    """Search a head; each trial fits what `network` makes of it, or the head alone.

    The same oracle proposes the heads as in the workflow's own search, of which this process
    must run none afterwards: a trial is `fit`. `inputs` holds what the trial learns from as
    embeddings: images, where `network` puts the head on the base.
    """

    def run_trial(name, settings, row, start, train, val, classes):
        seed = np.random.SeedSequence([settings["seed"], row["trial"]]).generate_state(1)[0]
        keras.utils.set_random_seed(int(seed))
        chosen = row | {"batch_norm": settings["space"]["batch_norm"]}
        head = build_head(chosen, features_count, classes)
        if start is not None:
            head.set_weights(start)
        history = fit(
            network(head) if network else head,
            (train.inputs, train.labels),
            (val.inputs, val.labels),
            f"round_{row['round']}",
            row["epochs"] - row["initial_epoch"],
            row["learning_rate"],
            settings["batch_size"],
            settings["seed"],
            monitor="val_accuracy",
        )
        best = int(np.argmax(history["val_accuracy"]))
        row |= {name: history[name][best] for name in ("val_accuracy", "val_loss")}
        row["seconds"] = 0.0
        return head

    search._run_trial = run_trial
    search.search_head(run, settings, inputs, out, folder)
