"""Grad-CAM of the best run, on images that it classified correctly and wrongly.

Grad-CAM is Selvaraju et al. 2017 (ICCV), section 3. It shows where a network looked, not why.
"""

import logging
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from PIL import Image

from hemagrid import io, logs
from hemagrid.data.audit import blank_copies
from hemagrid.errors import InputError
from hemagrid.evaluation import inference
from hemagrid.evaluation.metrics import best_run, load_metrics
from hemagrid.evaluation.predictions import by_run, read_predictions
from hemagrid.training import backend, embeddings

logger = logging.getLogger(__name__)

PER_CELL = 2  # right answers shown per class, and as many wrong ones
DIMMEST = 0.25  # brightness that is left where the network did not look
BATCH = 16  # pictures whose feature maps and gradients are in memory at once
# Least height and width of feature maps. At the paper's image size, 224, the last maps of all
# our networks are this large; at 48, ConvNeXt's have a single pixel, which shows nothing.
PLACES = 6

# Layers that only thin out, rescale or pad the feature maps before them.
_PASSED = (
    keras.layers.MaxPooling2D,
    keras.layers.AveragePooling2D,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.ZeroPadding2D,
    keras.layers.InputLayer,
)


def cut(model):
    """Cut a model at its last feature maps.

    These are the output of the last layer with at least `PLACES` rows and columns that no
    shortcut bypasses, such as a convolution or the sum at the end of a block. Pooling and the
    like do not count, and neither does what comes before the first weights, such as pictures
    that are only resized.

    Args:
        model: A network in one piece, or several models in sequence, of which the first, a
            backbone, has the feature maps.

    Returns:
        (below, above, output): a model from pixels (B, S, S, 3) to feature maps (B, h, w, K);
        the list of models from there to the input of the last layer; that layer, a Dense one.

    Raises:
        InputError: if no layer qualifies.
    """
    parts = [layer for layer in model.layers if isinstance(layer, keras.Model)] or [model]
    output = parts[-1].layers[-1]
    first, *rest = [*parts[:-1], keras.Model(parts[-1].input, output.input)]
    # Not only layers: the sum at the end of a block may be an operation between layers.
    for operation in reversed(first.operations):
        shape = operation.output.shape
        if len(shape) != 4 or min(shape[1:3]) < PLACES or isinstance(operation, _PASSED):
            continue
        try:
            top = keras.Model(operation.output, first.output)
        except ValueError:  # a shortcut bypasses it
            continue
        below = keras.Model(first.input, operation.output)
        if below.weights:
            return below, [top, *rest], output
    raise InputError(
        f"{model.name}: found no layer with feature maps of {PLACES} x {PLACES} pixels, "
        "expected a convolutional network; set a larger image_size"
    )


def class_maps(model, pictures, classes):
    """Compute where each picture raised the score of a class.

    Grad-CAM is ReLU(sum_k alpha_k A_k), divided by its maximum unless it is zero everywhere.
    A_k is a feature map of the layer at which `cut` cuts, and alpha_k the mean over its pixels
    of the gradient of the score with respect to it. The score is the logit that the softmax is
    computed from, because the gradients of a probability vanish where the network is certain.

    Args:
        model: A network as `cut` takes it, from pixels 0-255 to a Dense layer with softmax.
        pictures: uint8 (N, S, S, 3).
        classes: int (N,), one class per picture.

    Returns:
        float32 (N, h, w), 0 to 1.
    """
    below, above, output = cut(model)
    size = min(BATCH, len(pictures))
    batches = logs.track(
        embeddings.batches(below, pictures, size), "Explaining", len(pictures), step=size
    )
    maps = []
    for rows, activations in batches:
        chosen = np.eye(output.units, dtype="float32")[classes[rows]]

        def score(inputs, chosen=chosen):
            for part in above:
                inputs = part(inputs, training=False)
            inputs = keras.ops.cast(inputs, output.compute_dtype)
            # Without the softmax, which is the activation of the output layer.
            logits = keras.ops.matmul(inputs, output.kernel) + output.bias
            return keras.ops.sum(logits * chosen, axis=-1)

        _, gradients = backend.gradient(score, activations)
        alpha = gradients.mean(axis=(1, 2), keepdims=True)
        maps.append(np.maximum((alpha * activations).sum(axis=-1), 0))
    maps = np.concatenate(maps)
    largest = maps.max(axis=(1, 2), keepdims=True)
    return np.divide(maps, largest, out=np.zeros_like(maps), where=largest > 0)


def spotlights(pictures, maps):
    """Darken pictures where their maps are low.

    Brightness alone carries the map, so it can be read in grey and with every colour vision.

    Args:
        pictures: uint8 (N, S, S, 3).
        maps: float32 (N, h, w), 0 to 1. Each is resized bilinearly to its picture.

    Returns:
        uint8 (N, S, S, 3).
    """
    size = pictures.shape[2], pictures.shape[1]
    lit = np.empty_like(pictures)
    for place, (picture, found) in enumerate(zip(pictures, maps, strict=True)):
        found = Image.fromarray(found).resize(size, Image.Resampling.BILINEAR)
        light = DIMMEST + (1 - DIMMEST) * np.asarray(found)
        lit[place] = np.rint(picture * light[..., None])
    return lit


def choose(labels, probabilities, blank, count=PER_CELL):
    """Choose the pictures to show: of each class the most confident answers.

    Args:
        labels: int (n,), the true classes.
        probabilities: float (n, k).
        blank: bool (n,). These are not shown.
        count: Right answers per class at most, and wrong ones. Ties go to the first.

    Returns:
        Row numbers, int (m,): by class, right answers before wrong ones.
    """
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    order = order[~blank[order]]
    chosen = []
    for label in range(probabilities.shape[1]):
        members = order[labels[order] == label]
        right = predicted[members] == label
        chosen += [members[right][:count], members[~right][:count]]
    return np.concatenate(chosen)


def _explainable(metrics, models, select_by):
    """Return the best run whose network has feature maps, and the network, or (None, None).

    Args:
        metrics: {run: content of metrics.json or None}.
        models: {run: path}.
        select_by: The subset that ranks the runs.
    """
    while run := best_run(metrics, select_by):
        network = inference.load_network(models[run])
        try:
            cut(network)
            return run, network
        except InputError as reason:
            logger.info(f"{run} cannot be explained, so the next best run is: {reason}")
            metrics = {name: m for name, m in metrics.items() if name != run}
    logger.info("No network has feature maps: none is explained")
    return None, None


def explain(inputs, out, settings):
    """Compute where the best run with feature maps looked, from files to files.

    Where no run has any, nothing is shown.

    Args:
        inputs: Lists of paths over runs, `metrics`, `models` and `predictions` (of the subset),
            each file in the folder of its run; and the paths `images` of the images of the
            subset and `copies` of the table of `audit.audit_copies`.
        out: Paths `pictures` of the spotlights, uint8 (N, S, S, 3), and `table` of a CSV with
            a row for each: run, subset, row (of the images), true, predicted (class names),
            confidence (0-1), right ("true" or "false").
        settings: `subset` to explain, and `select_by`, the subset that ranks the runs.

    Returns:
        (pictures, spotlights, table), both arrays uint8 (N, S, S, 3).

    Raises:
        InputError: if no run is finished, or the images are not those of the predictions.
    """
    subset, select_by = settings["subset"], settings["select_by"]
    metrics = load_metrics(inputs["metrics"])
    best = best_run(metrics, select_by)
    if best is None:
        raise InputError(
            f"{', '.join(inputs['metrics'])}: found no network evaluated on "
            f"{select_by}, expected a finished run; train one first"
        )
    models = {Path(path).parent.name: path for path in inputs["models"]}
    run, network = _explainable(metrics, models, select_by)
    run = run or best
    names, answers = read_predictions(by_run(inputs["predictions"])[run])
    images = io.open_images(inputs["images"])
    labels, probabilities, _ = answers[subset]
    if len(labels) != len(images):
        raise InputError(
            f"{inputs['images']}: found {len(images)} images, expected {len(labels)}, as many "
            f"as {run} has predictions; delete the file that is out of date and run again"
        )
    blank = blank_copies(io.read_table(inputs["copies"]), subset)
    logger.info(f"{blank.sum()} of {len(blank)} copies are blank and not shown")
    rows = choose(labels, probabilities, blank) if network else np.empty(0, int)
    predicted = probabilities[rows].argmax(axis=1)
    pictures = images[rows]
    logger.info(f"Explaining {run} on {len(rows)} images of {subset}")
    lit = (
        spotlights(pictures, class_maps(network, pictures, predicted)) if network else pictures
    )
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
    return pictures, lit, table
