"""The subsets that networks see: augmented copies, and untouched originals.

The policies are keras-cv's RandAugment and AugMix. A copy depends on (seed, image id, copy)
alone (see `seeded_layers`).
"""

import hashlib
import logging
import os

import numpy as np
import pandas as pd

from hemagrid import io, logs
from hemagrid.data.seeded_layers import apply_one, image_generator, seeded_layers
from hemagrid.names import AUGMENTED

POLICIES = ("randaugment", "augmix")
SEQUENCE = "+".join(POLICIES)
CHUNK = 64  # images read and written at once

logger = logging.getLogger(__name__)


def augment(images, splits, subset, settings, assignment, seed, threads, out):
    """Write the augmented copies of one subset.

    The bytes are the same for any number of threads.

    Args:
        images: Path of images.npy.
        splits: Path of splits.csv.
        subset: A key of `names.AUGMENTED`.
        settings: Dict with `copies`, `randaugment` (`n`, `m`) and `augmix` (`k`, `m`).
        assignment: "alternate", "random" or "sequence" (see `assign_policies`).
        seed: Integer, at least 0.
        threads: Number of images under way at once.
        out: Paths of the two files to write: `images` (.npy) and `table` (.csv).
    """
    # keras-cv runs on TensorFlow only, and a GPU would compute other pixels.
    os.environ |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
    parents = _read_split(splits, AUGMENTED[subset])
    copies = settings["copies"]
    table = _table(parents.loc[parents.index.repeat(copies)])
    table["copy"] = np.tile(np.arange(copies), len(parents))
    table["policy"] = assign_policies(parents["id"], copies, seed, assignment).ravel()
    pixels = io.open_images(images)
    with io.new_array(out["images"], (len(table), *pixels.shape[1:]), "uint8") as array:
        augment_rows(pixels, table, settings, seed, array, threads)
        table["sha256"] = _digests(array)
    io.write_table(out["table"], table)
    logger.info("%s: %d copies of %d images", subset, len(table), len(parents))


def originals(images, splits, split, out):
    """Write the untouched images of one split.

    Args:
        images: Path of images.npy.
        splits: Path of splits.csv.
        split: Name of the split.
        out: Paths of the two files to write: `images` (.npy) and `table` (.csv).
    """
    table = _table(_read_split(splits, split)).assign(copy=0, policy="original")
    pixels = io.open_images(images)
    with io.new_array(out["images"], (len(table), *pixels.shape[1:]), "uint8") as array:
        for position, id_ in enumerate(table["parent_id"]):
            array[position] = pixels[id_]
        table["sha256"] = _digests(array)
    io.write_table(out["table"], table)


def assign_policies(ids, copies, seed, assignment):
    """Choose the policy of each copy of each image.

    Args:
        ids: Image ids, integers (n,).
        copies: Copies per image.
        seed: Integer, at least 0.
        assignment: "alternate": the copies of an image take turns, and (seed, id) decides
            which policy begins. "random": each copy draws its own. "sequence": each copy gets
            RandAugment, then AugMix.

    Returns:
        Names out of `POLICIES`, or `SEQUENCE` alone, str (n, copies).
    """
    if assignment == "sequence":
        return np.full((len(ids), copies), SEQUENCE)
    draws = np.array(
        [np.random.default_rng([seed, id_]).integers(2, size=copies) for id_ in ids]
    ).reshape(len(ids), copies)
    if assignment == "alternate":
        draws = (draws[:, :1] + np.arange(copies)) % 2
    return np.array(POLICIES)[draws]


def augment_rows(images, plan, settings, seed, out, threads=1):
    """Compute the copies that the rows of a table describe.

    Args:
        images: uint8 (N, S, S, 3), memory-mapped or not.
        plan: Table with the columns parent_id (a row of `images`), copy and policy.
        settings: Dict with `randaugment` and `augmix`, as in `augment`.
        seed: Integer, at least 0.
        out: Array to fill, uint8 (n, S, S, 3), one image per row of `plan`.
        threads: Number of images under way at once.
    """
    import tensorflow as tf

    parents = plan["parent_id"].to_numpy()
    keys = [
        np.random.SeedSequence([seed, *row]).generate_state(1, "uint64")[0] >> np.uint64(2)
        for row in zip(parents, plan["copy"], strict=True)
    ]
    keys = np.array(keys, dtype="int64")
    policies = plan["policy"].map((*POLICIES, SEQUENCE).index).to_numpy(dtype="int32")
    # The graph optimizer rounds differently, and other code in the process may switch it.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    generator = image_generator()
    randaugment, augmix = seeded_layers(settings, generator)

    def both(image):
        return augmix(randaugment(image))

    def chunks():
        for start in range(0, len(plan), CHUNK):
            chunk = slice(start, start + CHUNK)
            yield io.take(images, parents[chunk]), keys[chunk], policies[chunk]

    def one(image, key, policy):
        generator.begin(key)
        functions = (randaugment, augmix, both)
        copy = apply_one(functions, policy, tf.cast(image, tf.float32))
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
    # Two threads round the sum of an image's pixels differently from one.
    options.threading.max_intra_op_parallelism = 1
    start = 0
    batches = copies.with_options(options).as_numpy_iterator()
    for chunk in logs.track(batches, "Augmenting", len(plan), step=CHUNK):
        out[start : start + len(chunk)] = chunk
        io.release(out)
        start += len(chunk)


def _read_split(splits, split):
    table = io.read_table(splits)
    return table[table["split"] == split]


def _table(parents):
    """Make a subset's table, one row per row of `parents`; digests are still to come."""
    return pd.DataFrame(
        {
            "id": np.arange(len(parents)),
            "label": parents["label"].to_numpy(),
            "class_name": parents["class_name"].to_numpy(),
            "source": parents["source"].to_numpy(),
            "sha256": "",
            "parent_id": parents["id"].to_numpy(),
            "group": parents["near_group"].to_numpy(),
        }
    )


def _digests(array):
    """Return the SHA-256 of each image's bytes, as hex digits."""
    digests = []
    for start in range(0, len(array), CHUNK):
        chunk = io.take(array, slice(start, start + CHUNK))
        digests += [hashlib.sha256(image.tobytes()).hexdigest() for image in chunk]
    return digests
