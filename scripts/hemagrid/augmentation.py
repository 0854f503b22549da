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

import functools
import hashlib
import os

import numpy as np
import pandas as pd

from hemagrid import files
from hemagrid.logs import progress

POLICIES = ("randaugment", "augmix")
# Images read and written at once.
CHUNK = 64
# TensorFlow makes a variable of this name anew each time: its `ResourceHandle::ANONYMOUS_NAME`.
ANONYMOUS = "cd2c89b7-88b7-44c8-ad83-06c2a9158347"


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


def _generator():
    """Return a generator that draws, in a graph, from the state that `begin` made there."""
    import tensorflow as tf

    class ImageGenerator(tf.random.Generator):
        def begin(self, key):
            """Make the state, anew in each run of the graph: the stream of a key (int64)."""
            self.handle = tf.raw_ops.VarHandleOp(
                dtype=tf.int64, shape=(3,), shared_name=ANONYMOUS
            )
            counter = tf.zeros(2, tf.int64)
            tf.raw_ops.AssignVariableOp(
                resource=self.handle, value=tf.concat([counter, key[None]], axis=0)
            )

        def skip(self, delta):
            return tf.raw_ops.RngReadAndSkip(
                resource=self.handle,
                alg=tf.cast(self.algorithm, tf.int32),
                delta=tf.cast(delta, tf.uint64),
            )

    return ImageGenerator.from_seed(0, alg="philox")


def _layers(settings, generator):
    """Build the layers of POLICIES, in that order; all their draws are of `generator`."""
    import keras_cv
    import tensorflow as tf

    # keras-cv's layers take the global generator at construction.
    former = tf.random.get_global_generator()
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
        def _apply_op(self, image, op_index):
            # Upstream asks for each operation in turn whether it is the one.
            operations = (
                self._auto_contrast,
                self._equalize,
                self._posterize,
                self._rotate,
                self._solarize,
                self._shear_x,
                self._shear_y,
                self._translate_x,
            )
            return _apply_one(operations, op_index, image)

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
    tf.random.set_global_generator(former)
    return randaugment, augmix


def _apply_one(functions, index, image):
    """Return what `functions[index]`, an int32 tensor, makes of the image.

    Each stays a function of its own in the graph: TensorFlow would merge them and then walk
    through all the operations of those not chosen.
    """
    import tensorflow as tf

    apart = {"_noinline": True}
    functions = [tf.function(each, experimental_attributes=apart) for each in functions]
    return tf.switch_case(index, [functools.partial(each, image) for each in functions])


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
    generator = _generator()
    layers = _layers(settings, generator)

    def chunks():
        for start in range(0, len(plan), CHUNK):
            chunk = slice(start, start + CHUNK)
            yield files.take(images, parents[chunk]), keys[chunk], policies[chunk]

    def one(image, key, policy):
        generator.begin(key)
        image = tf.cast(image, tf.float32)
        copy = _apply_one(layers, policy, image)
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
        files.release(out)
        start += len(chunk)


def augment(images, splits, subset, settings, assignment, seed, threads, out):
    """Write the augmented copies of one subset: `out["images"]` and `out["table"]`.

    `images` and `splits` are paths (images.npy, splits.csv); the parents of
    `test_augmented` are the test images. The bytes are the same for any number of threads.
    """
    # keras-cv works on TensorFlow alone, whatever backend the networks run on, and a GPU
    # would give other pixels.
    os.environ |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
    split = {"test_augmented": "test"}.get(subset, subset)
    parents = _members(splits, split)
    table = _plan(parents, settings["copies"], seed, assignment)
    pixels = files.open_images(images)
    with files.new_array(out["images"], (len(table), *pixels.shape[1:]), "uint8") as array:
        augment_rows(pixels, table, settings, seed, array, threads)
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
