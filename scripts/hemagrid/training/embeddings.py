"""Passing images through a network, batch by batch, and caching what a frozen backbone gives.

A frozen backbone gives the same features for an image in every epoch, so they are computed
once: activations by the trunk, and embeddings from them by the top. Both are float32, because
half precision would change what is learned from them.
"""

import functools
import time

import numpy as np

from hemagrid import io, logs
from hemagrid.errors import InputError
from hemagrid.models import backbones
from hemagrid.names import LEARNED, TRAIN
from hemagrid.training import backend, checkpoints
from hemagrid.training.environment import environment

TIMED = 15  # batches whose median time makes the speed of a network
BATCH = 64  # fixed, because features differ in the last bit between batch sizes


def batches(model, array, batch_size=BATCH):
    """Pass an array through a model, one batch at a time, in order.

    The last batch is padded to full size, because another shape would be traced again.

    Args:
        model: A Keras model.
        array: Inputs (N, ...), memory-mapped or not.
        batch_size: Rows per batch.

    Yields:
        The slice of rows, and the model's outputs for them, float32.
    """
    for start in range(0, len(array), batch_size):
        rows = io.take(array, slice(start, start + batch_size))
        padding = [(0, batch_size - len(rows))] + [(0, 0)] * (rows.ndim - 1)
        outputs = model.predict_on_batch(np.pad(rows, padding))
        yield slice(start, start + len(rows)), outputs[: len(rows)].astype("float32")


def predict(model, array, batch_size=BATCH):
    """Return a model's outputs for a whole array, float32, in memory."""
    return np.concatenate([outputs for _, outputs in batches(model, array, batch_size)])


def throughput(model, images):
    """Measure how many images per second pass through a model in full batches.

    Args:
        model: The model from images on.
        images: uint8 (N, S, S, 3). At most `TIMED` batches of them are used.
    """
    seconds, started = [], time.perf_counter()
    for _ in batches(model, images[: TIMED * BATCH]):
        seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
    # Of the median batch, because the first one may include tracing.
    return BATCH / float(np.median(seconds))


def write_features(
    trunk, top, images, activations, embeddings, description="Embedding", report=None
):
    """Pass images through trunk and top, and write what comes out of each, as float32.

    Args:
        trunk: The model from images to activations.
        top: The model from activations to embeddings. It takes each batch directly from the
            trunk; nothing is read back.
        images: uint8 (N, S, S, 3).
        activations: Path of the trunk's outputs (N, h, w, c), `.npy`.
        embeddings: Path of the top's outputs (N, F), `.npy`.
        description: What the lines of progress say.
        report: Called every ten seconds with the number of images done, or None.

    Raises:
        InputError: if an embedding is not finite.
    """
    count, reported = len(images), time.monotonic()
    with (
        io.new_array(activations, (count, *trunk.output.shape[1:]), "float32") as below,
        io.new_array(embeddings, (count, *top.output.shape[1:]), "float32") as above,
    ):
        steps = logs.track(batches(trunk, images), description, total=count, step=BATCH)
        for rows, outputs in steps:
            below[rows] = outputs
            above[rows] = predict(top, outputs)
            if not np.isfinite(above[rows]).all():
                raise InputError(
                    f"{description}: found embeddings of NaN or infinity among images "
                    f"{rows.start} to {rows.stop - 1}, expected finite numbers; check the "
                    "backbone's weights, and use training.precision: float32"
                )
            io.release(below)
            io.release(above)
            if report and time.monotonic() - reported >= logs.INTERVAL:
                report(rows.stop)
                reported = time.monotonic()


def cache_features(backbone, settings, precision, inputs, out, folder=checkpoints.FOLDER):
    """Write the activations and embeddings of the training and validation images.

    A second process for the same backbone waits, and has nothing to do once the first has
    finished. What a killed process left is removed.

    Args:
        backbone: Its name in the config.
        settings: `application` and `top` of the backbone's config, as `load_backbone` takes
            them.
        precision: The config's `training.precision`.
        inputs: Paths of the images, {subset: path}, and of the backbone's `weights`.
        out: Paths `activations_{subset}` and `embeddings_{subset}`, and `cost`, a JSON that is
            written last: the `key` of it all, `environment`, `images`, and `seconds`,
            `cpu_seconds` and `peak_memory_mib` of all processes that worked on it.
        folder: Where the lock and the progress record lie.
    """
    key = checkpoints.key_of("embed", settings | {"precision": precision}, inputs)
    compute = functools.partial(_embed, settings, precision, inputs, out)
    checkpoints.compute_once(f"embed_{backbone}", key, out, "cost", compute, folder)


def _embed(settings, precision, inputs, out, checkpoint):
    backend.begin(0, precision)
    made_with = environment("embed")
    images = {subset: io.open_images(inputs[subset]) for subset in LEARNED}
    total = sum(map(len, images.values()))
    size = images[TRAIN].shape[1]
    backbone, boundary = backbones.load_backbone(settings, size, inputs["weights"])
    trunk, top = backbones.cut_backbone(backbone, boundary)
    before = 0
    for subset, pixels in images.items():

        def report(done, before=before):
            facts = {"phase": "embed", "images": before + done, "of": total}
            checkpoint.report(facts)

        write_features(
            trunk,
            top,
            pixels,
            out[f"activations_{subset}"],
            out[f"embeddings_{subset}"],
            f"Embedding {subset} by {settings['application'] or backbone.name}",
            report,
        )
        before += len(pixels)
    cost = {"key": checkpoint.key, "environment": made_with, "images": total}
    io.write_json(out["cost"], cost | checkpoint.spent())
