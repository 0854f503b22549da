"""Where the network looked: Grad-CAM of the best run, on images that it got right and wrong.

Grad-CAM is Selvaraju et al. 2017 (ICCV), section 3. It shows where, not why.
"""

import logging
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from PIL import Image

from hemagrid import io
from hemagrid.errors import InputError
from hemagrid.evaluation import inference
from hemagrid.evaluation.metrics import best_run, load_metrics
from hemagrid.training import backend, embeddings
from hemagrid.training.predictions import read_predictions

logger = logging.getLogger(__name__)


# Pictures of a class: so many right answers, and as many wrong ones.
PER_CELL = 2


DIMMEST = 0.25  # brightness that is left where the network did not look


BATCH = 16  # pictures whose feature maps and gradients are in memory at once


# Rows and columns of feature maps at least. At the paper's image size, 224, the last maps of
# all our networks have them; at 48 ConvNeXt's have a single place, which shows nothing.
PLACES = 6


# They only thin out, rescale or frame the feature maps before them.
_PASSED = (
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.ZeroPadding2D,
    keras.layers.InputLayer,
)


def cut(model):
    """Return (below, above, output): a model cut at its last feature maps, and its last layer.

    `below` is a model from pixels (B, S, S, 3) to feature maps A (B, h, w, K): the output of
    the last layer with at least PLACES rows and columns that everything passes, such as a
    convolution or the sum that ends a block; poolings and the like aside. `above` lists the
    models from there, one after another, to the input of `output`, the Dense layer of the
    probabilities. `model` is a network in one piece, or models one after another, of which
    the first, a backbone, holds the maps. Raises InputError where it has none.
    """
    parts = [layer for layer in model.layers if isinstance(layer, keras.Model)] or [model]
    output = parts[-1].layers[-1]
    first, *rest = [*parts[:-1], keras.Model(parts[-1].input, output.input)]
    # Not its layers alone: the sum that ends a block may be an operation between layers.
    for operation in reversed(first.operations):
        if _has_maps(operation):
            try:
                top = keras.Model(operation.output, first.output)
            except ValueError:  # a shortcut goes around it
                continue
            return keras.Model(first.input, operation.output), [top, *rest], output
    raise InputError(
        f"{model.name}: found no layer with feature maps of {PLACES} x {PLACES} places, "
        "expected a convolutional network; set a larger image_size"
    )


def _has_maps(operation):
    shape = operation.output.shape
    large = len(shape) == 4 and min(shape[1:3]) >= PLACES
    return large and not isinstance(operation, _PASSED)


def class_maps(model, pictures, classes):
    """Return what raised the score of a class in each picture: float32 (N, h, w), 0 to 1.

    model: from pixels 0-255 to probabilities, as `cut` takes it, its last layer Dense with
    softmax. pictures: uint8 (N, S, S, 3). classes: int (N,), one per picture.

    Grad-CAM: ReLU(sum_k alpha_k A_k), where A_k is a feature map of the layer at which `cut`
    cuts and alpha_k the mean, over its places, of the gradient of the score with respect to
    it; then divided by its largest value, unless it is zero everywhere. The score is the
    logit, what the softmax is computed from: the gradients of a probability and of its
    logarithm vanish where the network is sure.
    """
    below, above, output = cut(model)
    batches = embeddings.batches(below, pictures, min(BATCH, len(pictures)))
    maps = np.concatenate(
        [_maps(above, output, found, classes[rows]) for rows, found in batches]
    )
    largest = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0)


def _maps(above, output, activations, classes):
    """Weigh feature maps (B, h, w, K) by what they do to the scores of `classes` (B,)."""
    chosen = np.eye(output.units, dtype="float32")[classes]

    def score(inputs):
        for model in above:
            inputs = model(inputs, training=False)
        inputs = keras.ops.cast(inputs, output.compute_dtype)
        # Without the softmax, which is the output layer's activation.
        logits = keras.ops.matmul(inputs, output.kernel) + output.bias
        return keras.ops.sum(logits * chosen, axis=-1)

    _, slopes = backend.gradient(score, activations)
    alpha = slopes.mean(axis=(1, 2), keepdims=True)
    return np.maximum((alpha * activations).sum(axis=-1), 0)


def spotlights(pictures, maps):
    """Return pictures, uint8 (N, S, S, 3), bright where `maps` (N, h, w), 0 to 1, are high.

    Each map is resized bilinearly to its picture. Brightness alone carries the map, which
    can be read in grey and with every colour vision.
    """
    size = pictures.shape[2], pictures.shape[1]
    lit = np.empty_like(pictures)
    for place, (picture, found) in enumerate(zip(pictures, maps, strict=True)):
        found = Image.fromarray(found).resize(size, Image.Resampling.BILINEAR)
        light = DIMMEST + (1 - DIMMEST) * np.asarray(found)
        lit[place] = np.rint(picture * light[..., None])
    return lit


def choose(labels, probabilities, count=PER_CELL):
    """Return the rows to show, int (m,): per class up to `count` right and as many wrong ones.

    labels: int (n,), the true classes; probabilities: float (n, k). The most confident
    answers are shown, of equals the first. Classes come in their order, right answers first.
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    chosen = []
    for label in range(probabilities.shape[1]):
        members = order[labels[order] == label]
        right = predicted[members] == label
        chosen += [members[right][:count], members[~right][:count]]
    return np.concatenate(chosen)


def explain(inputs, out, settings):
    """Show where the best run looked, from files to files.

    `inputs` holds lists of paths over runs (`metrics`, `models`, `predictions`; each file in
    its run's folder) and the path `images`, those of `settings["subset"]`; the run that
    `settings["select_by"]` ranks first is explained, and no other loaded. `out` holds the
    paths `pictures`, spotlights uint8 (N, S, S, 3); `table`, a CSV with a row for each: run,
    subset, row (of the images), true, predicted (class names), confidence (0-1), right ("true"
    or "false"); and `figure`, a PNG as in `draw_sheet`. Raises InputError where no run has
    finished, and where images and predictions do not fit.
    """
    subset, select_by = settings["subset"], settings["select_by"]
    run = best_run(load_metrics(inputs["metrics"]), select_by)
    if run is None:
        raise InputError(
            f"{', '.join(inputs['metrics'])}: found no network that was evaluated on "
            f"{select_by}, expected a finished run; train one first"
        )
    names, answers = read_predictions(_of_run(run, inputs["predictions"]))
    images = io.open_images(inputs["images"])
    labels, probabilities, _ = answers[subset]
    if len(labels) != len(images):
        raise InputError(
            f"{inputs['images']}: found {len(images)} images, expected {len(labels)}, as many "
            f"as {run} has predictions; delete the file that is out of date and run again"
        )
    rows = choose(labels, probabilities)
    predicted = probabilities[rows].argmax(axis=1)
    pictures = images[rows]
    network = inference.load_network(_of_run(run, inputs["models"]))
    lit = spotlights(pictures, class_maps(network, pictures, predicted))
    table = pd.DataFrame(
        {
            "run": run,
            "subset": subset,
            "row": rows,
            "true": [names[label] for label in labels[rows]],
            "predicted": [names[label] for label in predicted],
            "confidence": probabilities[rows].max(axis=1),
            "right": np.where(predicted == labels[rows], "true", "false"),
        }
    )
    with io.new_array(out["pictures"], lit.shape, lit.dtype) as array:
        array[:] = lit
    io.write_table(out["table"], table)
    logger.info(f"{run}: {len(rows)} pictures of {subset}")
    return pictures, lit, table


def _of_run(run, paths):
    return next(path for path in paths if Path(path).parent.name == run)
