"""Passing images through a network, batch by batch, and caching what a frozen backbone gives.

A frozen backbone gives the same features for an image in every epoch, so they are computed
once: activations by the trunk, and embeddings from them by the top. Both are float32, because
half precision would change what is learned from them.
"""

import numpy as np

from hemagrid import io, logs
from hemagrid.models import backbones
from hemagrid.names import LEARNED, TRAIN
from hemagrid.training import backend

BATCH = 64  # fixed, because features differ in the last bit between batch sizes


def batches(model, array, batch_size=BATCH):
    """Pass an array through a model, one batch at a time, in order.

    The last batch is padded to full size, because another shape would be traced anew.

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


def write_features(trunk, top, images, activations, embeddings, description="Embedding"):
    """Pass images through trunk and top, and write what comes out of each, as float32.

    Args:
        trunk: The model from images to activations.
        top: The model from activations to embeddings. It takes each batch directly from the
            trunk; nothing is read back.
        images: uint8 (N, S, S, 3).
        activations: Path of the trunk's outputs (N, h, w, c), `.npy`.
        embeddings: Path of the top's outputs (N, F), `.npy`.
        description: What the lines of progress say.
    """
    count = len(images)
    with (
        io.new_array(activations, (count, *trunk.output.shape[1:]), "float32") as below,
        io.new_array(embeddings, (count, *top.output.shape[1:]), "float32") as above,
    ):
        for rows, outputs in logs.track(
            batches(trunk, images), description, total=count, step=BATCH
        ):
            below[rows] = outputs
            above[rows] = predict(top, outputs)
            io.release(below)
            io.release(above)


def cache_features(settings, precision, inputs, out):
    """Write the activations and embeddings of the training and validation images.

    Args:
        settings: `application` and `top` of a backbone's config.
        precision: The config's `training.precision`.
        inputs: Paths of the images, {subset: path}, and of the backbone's `weights`.
        out: Paths `activations_{subset}` and `embeddings_{subset}`.
    """
    backend.begin(0, precision)
    images = {subset: io.open_images(inputs[subset]) for subset in LEARNED}
    application, size = settings["application"], images[TRAIN].shape[1]
    backbone = backbones.load_backbone(application, size, inputs["weights"])
    trunk, top = backbones.cut_backbone(backbone, settings["top"])
    for subset, pixels in images.items():
        write_features(
            trunk,
            top,
            pixels,
            out[f"activations_{subset}"],
            out[f"embeddings_{subset}"],
            f"Embedding {subset} by {application}",
        )
