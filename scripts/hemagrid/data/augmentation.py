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
BLANK = 1.0
"""A copy whose pixel values (0-255) have a lower standard deviation holds no picture."""
DRAWS = 20
"""How often a blank copy is drawn at most, under `augmentation.blank: redraw`."""

logger = logging.getLogger(__name__)


def augment(images, splits, subset, settings, assignment, seed, threads, out, redraw=False):
    """Write the augmented copies of one subset.

    The bytes are the same for any number of threads. With `redraw` the table has a column more,
    `draws`, how often a copy was drawn.

    Args:
        images: Path of images.npy.
        splits: Path of splits.csv.
        subset: A key of `names.AUGMENTED`.
        settings: Dict with `copies`, `randaugment` (`n`, `m`) and `augmix` (`k`, `m`).
        assignment: "alternate", "random" or "sequence" (see `assign_policies`).
        seed: Integer, at least 0.
        threads: Number of images under way at once.
        out: Paths of the two files to write: `images` (.npy) and `table` (.csv).
        redraw: Whether a blank copy is drawn again, `DRAWS` times in all at most.
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
        draws = augment_rows(pixels, table, settings, seed, array, threads, redraw=redraw)
        table["sha256"] = _digests(array)
        blank = int((spreads(array) < BLANK).sum())
    if redraw:
        table["draws"] = draws
    io.write_table(out["table"], table)
    logger.info(
        f"{subset}: {len(table)} copies of {len(parents)} images; {blank} are blank"
        + f", {(draws > 1).sum()} were drawn again" * redraw
    )


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
        io.copy_rows(pixels, table["parent_id"].to_numpy(), array)
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


def spreads(images):
    """Return the standard deviation of all pixel values of each image.

    Args:
        images: uint8 (N, H, W, 3), memory-mapped or not.

    Returns:
        float32 (N,), 0 to 127.5.
    """
    found = np.empty(len(images), "float32")
    for start in range(0, len(images), CHUNK):
        rows = slice(start, start + CHUNK)
        found[rows] = io.take(images, rows).std(axis=(1, 2, 3), dtype="float32")
    return found


def augment_rows(images, plan, settings, seed, out, threads=1, *, redraw=False):
    """Compute the copies that the rows of a table describe.

    Args:
        images: uint8 (N, S, S, 3), memory-mapped or not.
        plan: Table with the columns parent_id (a row of `images`), copy and policy.
        settings: Dict with `randaugment` and `augmix`, as in `augment`.
        seed: Integer, at least 0.
        out: Array to fill, uint8 (n, S, S, 3), one image per row of `plan`.
        threads: Number of images under way at once.
        redraw: As in `augment`. The further draws go on in the copy's own stream.

    Returns:
        How often each copy was drawn, int (n,).
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

        def draw(draws, _):
            functions = (randaugment, augmix, both)
            copy = apply_one(functions, policy, tf.cast(image, tf.float32))
            return draws + 1, tf.clip_by_value(tf.round(copy), 0, 255)

        def again(draws, copy):
            return (draws < DRAWS) & (tf.math.reduce_std(copy) < BLANK)

        draws, copy = draw(0, None)
        if redraw:
            draws, copy = tf.while_loop(again, draw, (draws, copy))
        return tf.cast(copy, tf.uint8), draws

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
    draws, start = np.empty(len(plan), int), 0
    batches = copies.with_options(options).as_numpy_iterator()
    for chunk, drawn in logs.track(batches, "Augmenting", len(plan), step=CHUNK):
        rows = slice(start, start + len(chunk))
        out[rows], draws[rows] = chunk, drawn
        io.release(out)
        start += len(chunk)
    return draws


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
