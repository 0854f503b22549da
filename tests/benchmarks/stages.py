"""Stages of the workflow that train nothing: how fast they are, and how their cost grows."""

import sys
import time

import numpy as np
import pandas as pd

from hemagrid import augmentation, duplicates, files, runtime
from hemagrid.config_files import load_config

CONFIG = load_config()


def seconds_of(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def pictures(count, size=96):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype="uint8")


# Augmentation: images per second, start and tracing left out


def our_augmentation(folder, count, shards):
    """Augment `count` images, a copy each, as the rule does; return seconds and the pixels."""
    np.save(folder / "images.npy", pictures(count))
    table = pd.DataFrame({"id": range(count), "label": 0, "class_name": "cell"})
    table["source"], table["split"] = "made up", "train"
    files.write_table(folder / "splits.csv", table)
    out = {"images": folder / "train.npy", "table": folder / "train.csv"}
    settings = CONFIG["augmentation"]["train"] | {"copies": 1}
    begun = time.perf_counter()
    augmentation.augment(
        *(folder / "images.npy", folder / "splits.csv", "train", settings, "alternate", 42),
        shards=shards,
        out=out,
    )
    return time.perf_counter() - begun, np.load(out["images"])


def direct_augmentation(folder, count, threads):
    """The same with keras-cv's layers in a parallel map of tf.data, as its guide has it."""
    import keras_cv
    import tensorflow as tf

    settings = CONFIG["augmentation"]["train"]
    layers = [
        keras_cv.layers.RandAugment(
            value_range=(0, 255),
            augmentations_per_image=settings["randaugment"]["n"],
            magnitude=settings["randaugment"]["m"],
        ),
        keras_cv.layers.AugMix(
            value_range=(0, 255),
            num_chains=settings["augmix"]["k"],
            severity=settings["augmix"]["m"],
        ),
    ]
    images, out = pictures(count), np.empty((count, 96, 96, 3), "uint8")
    begun = time.perf_counter()
    for half, layer in enumerate(layers):
        dataset = tf.data.Dataset.from_tensor_slices(images[half::2])
        augmented = dataset.map(
            lambda image, layer=layer: layer(tf.cast(image, tf.float32)),
            num_parallel_calls=tf.data.AUTOTUNE,
        )
        for place, image in enumerate(augmented.as_numpy_iterator()):
            out[2 * place + half] = np.clip(np.rint(image), 0, 255)
    return time.perf_counter() - begun, out


def images_per_second(side, folder, few, many, threads):
    """Return (images per second beyond the first `few`, whether a second run repeats)."""
    short, first = side(folder, few, threads)
    _, again = side(folder, few, threads)
    long, _ = side(folder, many, threads)
    return (many - few) / (long - short), bool((first == again).all())


# Duplicates


def near_groups(count):
    """Group `count` made-up hashes, a tenth of them near others; return seconds."""
    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, count, dtype="uint64")
    near = random.integers(0, count, count // 10)
    hashes[: len(near)] = hashes[near] ^ (np.uint64(1) << np.uint64(7))
    distance = CONFIG["dataset"]["near_duplicate_distance"]
    return seconds_of(lambda: duplicates.near_groups(hashes, distance))


def fingerprints(count, threads):
    """Hash `count` pictures; return seconds."""
    images = pictures(count)
    return seconds_of(lambda: duplicates.fingerprint(images, threads))
