"""Augmented copies with keras-cv's RandAugment and AugMix, as reproducible as a file copy.

What an image becomes depends on (seed, image id, copy) alone: not on the process, the
threads or the order. keras-cv's layers do not offer that as they are:

- They draw from TensorFlow's global generator when built without a seed. Here that is a
  generator whose state is of the image under way: as many images at once as there are
  threads, and none takes another's draws.
- Their factor samplers and AugMix's Dirichlet and Beta draws use stateful, unseeded
  operations. Here they draw from the same generator, from the same distributions.

Left as upstream has it, because the study used it: RandAugment's ten operations, each
applied at a rate of 10/11; AugMix's range of operations, which excludes translate_y.
"""

import hashlib
import logging
import os

import numpy as np
import pandas as pd

from hemagrid import io
from hemagrid.data.seeded_layers import apply_one, image_generator, seeded_layers
from hemagrid.names import TEST, TEST_AUGMENTED

logger = logging.getLogger(__name__)


POLICIES = ("randaugment", "augmix")


# Images read and written at once.
CHUNK = 64


def assign_policies(ids, copies, seed, assignment):
    """Return the policy of each copy of each image, str (len(ids), copies).

    "alternate": the copies of an image take turns, and (seed, id) decides which policy
    begins. "random": each copy draws its own.
    """
    draws = np.array(
        [np.random.default_rng([seed, id_]).integers(2, size=copies) for id_ in ids]
    ).reshape(len(ids), copies)
    if assignment == "alternate":
        draws = (draws[:, :1] + np.arange(copies)) % 2
    return np.array(POLICIES)[draws]


def _keys(seed, ids, copies):
    """Return one 62-bit key per (seed, id, copy), int64 (n,)."""
    return np.array(
        [
            np.random.SeedSequence([seed, id_, copy]).generate_state(1, "uint64")[0]
            >> np.uint64(2)
            for id_, copy in zip(ids, copies, strict=True)
        ],
        dtype="int64",
    )


def augment_rows(images, plan, settings, seed, out, threads=1):
    """Fill `out`, uint8 (n, S, S, 3), with the copies that the rows of `plan` describe.

    `plan` has columns parent_id, copy, policy; parent_id is a row of `images`. `threads`
    images are under way at once.
    """
    import tensorflow as tf

    parents = plan["parent_id"].to_numpy()
    keys = _keys(seed, parents, plan["copy"].to_numpy())
    policies = plan["policy"].map(POLICIES.index).to_numpy(dtype="int32")
    # Rounding differs with the graph optimizer, which other code of a process may switch.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    generator = image_generator()
    layers = seeded_layers(settings, generator)

    def chunks():
        for start in range(0, len(plan), CHUNK):
            chunk = slice(start, start + CHUNK)
            yield io.take(images, parents[chunk]), keys[chunk], policies[chunk]

    def one(image, key, policy):
        generator.begin(key)
        image = tf.cast(image, tf.float32)
        copy = apply_one(layers, policy, image)
        return tf.cast(tf.clip_by_value(tf.round(copy), 0, 255), tf.uint8)

    specifications = (
        tf.TensorSpec((None, *images.shape[1:]), tf.uint8),
        tf.TensorSpec((None,), tf.int64),
        tf.TensorSpec((None,), tf.int32),
    )
    copies = (
        tf.data.Dataset.from_generator(chunks, output_signature=specifications)
        .unbatch()
        .map(one, num_parallel_calls=threads, deterministic=True)
        .batch(CHUNK)
    )
    options = tf.data.Options()
    # A sum of pixels by two threads rounds otherwise than by one.
    options.threading.max_intra_op_parallelism = 1
    start = 0
    for chunk in copies.with_options(options).as_numpy_iterator():
        out[start : start + len(chunk)] = chunk
        io.release(out)
        start += len(chunk)


def augment(images, splits, subset, settings, assignment, seed, threads, out):
    """Write the augmented copies of one subset: `out["images"]` and `out["table"]`.

    `images` and `splits` are paths (images.npy, splits.csv); the parents of
    `test_augmented` are the test images. The bytes are the same for any number of threads.
    """
    # keras-cv works on TensorFlow alone, whatever backend the networks run on, and a GPU
    # would give other pixels.
    os.environ |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
    split = {TEST_AUGMENTED: TEST}.get(subset, subset)
    parents = _members(splits, split)
    table = _plan(parents, settings["copies"], seed, assignment)
    pixels = io.open_images(images)
    with io.new_array(out["images"], (len(table), *pixels.shape[1:]), "uint8") as array:
        augment_rows(pixels, table, settings, seed, array, threads)
        table["sha256"] = _digests(array)
    io.write_table(out["table"], table)
    logger.info(f"{subset}: {len(table)} copies of {len(parents)} images")


def _plan(parents, copies, seed, assignment):
    """Return one row per copy, in the order of the parents, with its policy."""
    ids = parents["id"].to_numpy()
    count = len(ids) * copies
    repeated = parents.loc[parents.index.repeat(copies)].reset_index(drop=True)
    return pd.DataFrame(
        {
            "id": np.arange(count),
            "label": repeated["label"],
            "class_name": repeated["class_name"],
            "source": repeated["source"],
            "sha256": "",
            "parent_id": repeated["id"],
            "copy": np.tile(np.arange(copies), len(ids)),
            "policy": assign_policies(ids, copies, seed, assignment).ravel(),
        }
    )


def _digests(array):
    """Return the SHA-256 of each image's bytes, as hex digits."""
    digests = []
    for start in range(0, len(array), CHUNK):
        chunk = io.take(array, slice(start, start + CHUNK))
        digests += [hashlib.sha256(image.tobytes()).hexdigest() for image in chunk]
    return digests


def _members(splits, split):
    """Read the rows of splits.csv that belong to `split`."""
    table = io.read_table(splits)
    return table[table["split"] == split]


def originals(images, splits, split, out):
    """Write the untouched images of a split: `out["images"]` and `out["table"]`."""
    rows = _members(splits, split)
    pixels = io.open_images(images)
    with io.new_array(out["images"], (len(rows), *pixels.shape[1:]), "uint8") as array:
        for position, id_ in enumerate(rows["id"]):
            array[position] = pixels[id_]
        digests = _digests(array)
    io.write_table(
        out["table"],
        pd.DataFrame(
            {
                "id": np.arange(len(rows)),
                "label": rows["label"].to_numpy(),
                "class_name": rows["class_name"].to_numpy(),
                "source": rows["source"].to_numpy(),
                "sha256": digests,
                "parent_id": rows["id"].to_numpy(),
                "copy": 0,
                "policy": "original",
            }
        ),
    )
