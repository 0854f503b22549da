"""What a network makes of an array of images, batch by batch, and the caches of it.

A frozen network gives the same features for an image in every epoch, so they are computed
once: by the trunk from images (`write_features(trunk, images)`), by the top from the trunk's
activations. Features are float32: half precision would change what is learned from them.
"""

import numpy as np

from hemagrid import backbones, files, runtime
from hemagrid.logs import progress

# Fixed, because features differ in the last bit between batch sizes.
BATCH = 64


def batches(model, array, batch_size=BATCH):
    """Yield (slice, outputs float32) of `model` over `array` (N, ...), in order.

    The last batch is padded to full size: another shape would be traced anew.
    """
    for start in range(0, len(array), batch_size):
        rows = np.asarray(array[start : start + batch_size])
        padding = [(0, batch_size - len(rows))] + [(0, 0)] * (rows.ndim - 1)
        outputs = model.predict_on_batch(np.pad(rows, padding))
        yield slice(start, start + len(rows)), outputs[: len(rows)].astype("float32")


def predict(model, array, batch_size=BATCH):
    """Return the outputs of `model` over `array` as one float32 array in memory."""
    return np.concatenate([outputs for _, outputs in batches(model, array, batch_size)])


def write_features(model, array, path):
    """Write the outputs of `model` over `array` to `path` (`.npy`, float32)."""
    shape = (len(array), *model.output.shape[1:])
    with files.new_array(path, shape, "float32") as features:
        for rows, outputs in batches(model, array):
            features[rows] = outputs


def cache_activations(settings, precision, inputs, out):
    """Write what a backbone's trunk makes of the images, per subset.

    `settings` holds `application` and `top`; `inputs` the paths of the images per subset
    and of the `weights`; `out` the paths of the activations (N, h, w, c) per subset.
    """
    runtime.begin(0, precision)
    images = {subset: files.open_images(inputs[subset]) for subset in out}
    size = next(iter(images.values())).shape[1]
    trunk, _ = _trunk_and_top(settings, size, inputs["weights"])
    for subset, path in out.items():
        write_features(trunk, images[subset], path)
        progress(f"{settings['application']}: trunk: {subset}: {len(images[subset])}")


def cache_embeddings(settings, image_size, precision, inputs, out):
    """Write what a backbone's frozen top makes of the trunk's activations, per subset.

    As `cache_activations`, from activations (N, h, w, c) to embeddings (N, F).
    """
    runtime.begin(0, precision)
    _, top = _trunk_and_top(settings, image_size, inputs["weights"])
    for subset, path in out.items():
        activations = np.load(inputs[subset], mmap_mode="r")
        write_features(top, activations, path)
        progress(f"{settings['application']}: top: {subset}: {len(activations)}")


def _trunk_and_top(settings, image_size, weights):
    backbone = backbones.load_backbone(settings["application"], image_size, weights)
    return backbones.cut_backbone(backbone, settings["top"])
