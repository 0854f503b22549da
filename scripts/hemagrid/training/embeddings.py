"""What a network makes of an array of images, batch by batch, and the caches of it.

A frozen network gives the same features for an image in every epoch, so they are computed
once: by the trunk, and from its activations by the top. Features are float32: half precision
would change what is learned from them.
"""

import logging

import numpy as np

from hemagrid import io
from hemagrid.models import backbones
from hemagrid.names import TRAIN, VAL
from hemagrid.training import backend

logger = logging.getLogger(__name__)


# Fixed, because features differ in the last bit between batch sizes.
BATCH = 64


def batches(model, array, batch_size=BATCH):
    """Yield (slice, outputs float32) of `model` over `array` (N, ...), in order.

    The last batch is padded to full size: another shape would be traced anew.
    """
    for start in range(0, len(array), batch_size):
        rows = io.take(array, slice(start, start + batch_size))
        padding = [(0, batch_size - len(rows))] + [(0, 0)] * (rows.ndim - 1)
        outputs = model.predict_on_batch(np.pad(rows, padding))
        yield slice(start, start + len(rows)), outputs[: len(rows)].astype("float32")


def predict(model, array, batch_size=BATCH):
    """Return the outputs of `model` over `array` as one float32 array in memory."""
    return np.concatenate([outputs for _, outputs in batches(model, array, batch_size)])


def write_features(trunk, top, images, activations, embeddings):
    """Write what `trunk` makes of images (N, S, S, 3), and `top` of that, as float32 arrays.

    `activations` and `embeddings` are the paths (`.npy`). The top gets each batch as the trunk
    leaves it: nothing is read back.
    """
    count = len(images)
    with (
        io.new_array(activations, (count, *trunk.output.shape[1:]), "float32") as below,
        io.new_array(embeddings, (count, *top.output.shape[1:]), "float32") as above,
    ):
        for rows, outputs in batches(trunk, images):
            below[rows] = outputs
            above[rows] = predict(top, outputs)
            io.release(below)
            io.release(above)


def cache_features(settings, precision, inputs, out):
    """Write what a frozen backbone makes of the images of each subset.

    `settings` holds `application` and `top`, `inputs` the paths of the images per subset and
    of the `weights`, `out` the paths `activations_{subset}`, of the trunk's (N, h, w, c), and
    `embeddings_{subset}`, of the top's (N, F).
    """
    backend.begin(0, precision)
    images = {subset: io.open_images(inputs[subset]) for subset in (TRAIN, VAL)}
    application, size = settings["application"], images[TRAIN].shape[1]
    backbone = backbones.load_backbone(application, size, inputs["weights"])
    trunk, top = backbones.cut_backbone(backbone, settings["top"])
    for subset, pixels in images.items():
        paths = (out[f"{kind}_{subset}"] for kind in ("activations", "embeddings"))
        write_features(trunk, top, pixels, *paths)
        logger.info(f"{application}: {subset}: {len(pixels)} images embedded")
