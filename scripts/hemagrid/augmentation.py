"""Augmented copies with keras-cv's RandAugment and AugMix, as reproducible as a file copy.

What an image becomes depends on (seed, image id, copy) alone: not on the process, the
shard or the order. keras-cv's layers do not offer that as they are:

- They draw from TensorFlow's global generator when built without a seed. Here that
  generator is one of our own, set to a key of (seed, id, copy) before each image.
- Their factor samplers and AugMix's Dirichlet and Beta draws use stateful, unseeded
  operations. Here they draw from the same generator, from the same distributions.
- In `tf.map_fn` with parallel iterations the draws of several images race. Here one image
  follows the other; processes, not threads, do the work in parallel.

Left as upstream has it, because the study used it: RandAugment's ten operations, each
applied at a rate of 10/11; AugMix's range of operations, which excludes translate_y.
"""

import hashlib
import os

import numpy as np
import pandas as pd
from joblib import Parallel, delayed

from hemagrid import files, runtime
from hemagrid.logs import progress

POLICIES = ("randaugment", "augmix")
# Images per call into TensorFlow.
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


def _policy_functions(settings, image_shape):
    """Build {policy: function(images float32 (n, S, S, 3), keys int64 (n,))}."""
    import keras_cv
    import tensorflow as tf

    # Rounding differs with the graph optimizer, which other code of a process may switch.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    generator = tf.random.Generator.from_seed(0, alg="philox")
    # keras-cv's layers take the global generator at construction.
    tf.random.set_global_generator(generator)

    class Normal(keras_cv.core.NormalFactorSampler):
        def __call__(self, shape=(), dtype="float32"):
            draw = generator.normal(shape, self.mean, self.stddev, dtype)
            return tf.clip_by_value(draw, self.min_value, self.max_value)

    class Uniform(keras_cv.core.UniformFactorSampler):
        def __call__(self, shape=(), dtype="float32"):
            return generator.uniform(shape, self.lower, self.upper, dtype)

    replacements = {
        keras_cv.core.NormalFactorSampler: Normal,
        keras_cv.core.UniformFactorSampler: Uniform,
    }

    class AugMix(keras_cv.layers.AugMix):
        def _gamma(self, alpha):
            return tf.random.stateless_gamma(
                tf.shape(alpha), generator.make_seeds()[:, 0], alpha
            )

        def _sample_from_dirichlet(self, alpha):
            sample = self._gamma(alpha)
            return sample / tf.reduce_sum(sample, axis=-1, keepdims=True)

        def _sample_from_beta(self, alpha, beta):
            first, second = (
                self._gamma(tf.constant(alpha)),
                self._gamma(tf.constant(beta)),
            )
            return first / (first + second)

    def draw_from_generator(layer):
        for name, sampler in list(vars(layer).items()):
            if type(sampler) in replacements:
                seeded = replacements[type(sampler)](**sampler.get_config())
                setattr(layer, name, seeded)

    randaugment = keras_cv.layers.RandAugment(
        value_range=(0, 255),
        augmentations_per_image=settings["randaugment"]["n"],
        magnitude=settings["randaugment"]["m"],
    )
    for layer in randaugment.layers:
        draw_from_generator(layer)
    augmix = AugMix(
        value_range=(0, 255),
        num_chains=settings["augmix"]["k"],
        severity=settings["augmix"]["m"],
    )
    draw_from_generator(augmix)

    def apply(layer):
        def one(arguments):
            image, key = arguments
            generator.reset_from_key_counter(key, tf.constant([0, 0], "int64"))
            return layer(image)

        @tf.function(
            input_signature=[
                tf.TensorSpec((None, *image_shape), tf.float32),
                tf.TensorSpec((None,), tf.int64),
            ]
        )
        def all_in_order(images, keys):
            return tf.map_fn(
                one,
                (images, keys),
                fn_output_signature=tf.float32,
                parallel_iterations=1,
            )

        return lambda images, keys: all_in_order(images, keys).numpy()

    return {"randaugment": apply(randaugment), "augmix": apply(augmix)}


def augment_rows(images, plan, settings, seed, out):
    """Fill `out`, uint8 (n, S, S, 3), with the copies that the rows of `plan` describe.

    `plan` has columns parent_id, copy, policy; parent_id is a row of `images`.
    """
    functions = _policy_functions(settings, images.shape[1:])
    for policy in POLICIES:
        rows = np.flatnonzero(plan["policy"] == policy)
        for start in range(0, len(rows), CHUNK):
            chunk = rows[start : start + CHUNK]
            parents = plan["parent_id"].to_numpy()[chunk]
            keys = _keys(seed, parents, plan["copy"].to_numpy()[chunk])
            pixels = files.take(images, parents).astype("float32")
            result = functions[policy](pixels, keys)
            out[chunk] = np.clip(np.rint(result), 0, 255).astype("uint8")
            files.release(out)


def _augment_shard(images, out, plan, rows, settings, seed):
    """Fill the rows `rows` (a slice) of the array at `out`, in a process of its own."""
    array = np.load(out, mmap_mode="r+")
    shard = plan.iloc[rows].reset_index(drop=True)
    augment_rows(files.open_images(images), shard, settings, seed, array[rows])
    array.flush()


def augment(images, splits, subset, settings, assignment, seed, shards, out):
    """Write the augmented copies of one subset: `out["images"]` and `out["table"]`.

    `images` and `splits` are paths (images.npy, splits.csv); the parents of
    `test_augmented` are the test images. `shards` processes share the work; the bytes are
    the same for any number of them.
    """
    # Inherited by the processes. keras-cv works on TensorFlow alone, whatever backend the
    # networks run on, and a GPU would give other pixels.
    os.environ |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
    split = {"test_augmented": "test"}.get(subset, subset)
    parents = _members(splits, split)
    table = _plan(parents, settings["copies"], seed, assignment)
    size = files.open_images(images).shape[1:]
    with files.new_array(out["images"], (len(table), *size), "uint8") as array:
        if shards == 1:
            augment_rows(files.open_images(images), table, settings, seed, array)
        else:
            array.flush()
            _in_processes(images, array.filename, table, settings, seed, shards)
        table["sha256"] = _digests(array)
    files.write_table(out["table"], table)
    progress(f"{subset}: {len(table)} copies of {len(parents)} images")


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


def _in_processes(images, out, plan, settings, seed, shards):
    runtime.prepare(threads=1)
    size = -(-len(plan) // shards)
    Parallel(n_jobs=shards)(
        delayed(_augment_shard)(images, out, plan, slice(start, start + size), settings, seed)
        for start in range(0, len(plan), size)
    )


def _digests(array):
    """Return the SHA-256 of each image's bytes, as hex digits."""
    digests = []
    for start in range(0, len(array), CHUNK):
        chunk = files.take(array, slice(start, start + CHUNK))
        digests += [hashlib.sha256(image.tobytes()).hexdigest() for image in chunk]
    return digests


def _members(splits, split):
    """Read the rows of splits.csv that belong to `split`."""
    table = files.read_table(splits)
    return table[table["split"] == split]


def originals(images, splits, split, out):
    """Write the untouched images of a split: `out["images"]` and `out["table"]`."""
    rows = _members(splits, split)
    pixels = files.open_images(images)
    with files.new_array(out["images"], (len(rows), *pixels.shape[1:]), "uint8") as array:
        for position, id_ in enumerate(rows["id"]):
            array[position] = pixels[id_]
        digests = _digests(array)
    files.write_table(
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
