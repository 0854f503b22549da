"""Measure augmentation against keras-cv's layers in a parallel map of tf.data.

    python tests/benchmarks/augmentation_speed.py [--images 4000] [--threads 2]

Copies per second on as many cores, half of them RandAugment and half AugMix, as the study has
them, start and tracing left out: of a short and a long run the difference counts. And whether
three runs, with the same seed, give the same bytes, ours on one core and on several. Every side
runs in a process of its own; ours writes the files of the rule as well, with a hash per copy.
"""

import argparse
import hashlib
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from processes import last_line  # noqa: E402

from hemagrid import io
from hemagrid.config.loading import load_config  # noqa: E402
from hemagrid.data import augmentation
from hemagrid.reporting.text import aligned  # noqa: E402
from hemagrid.training import jobs  # noqa: E402

FEW, BATCH, SEED = 256, 64, 42
REPEATS = 3
SETTINGS = load_config()["augmentation"]["train"]


def pictures(count):
    return np.random.default_rng(0).integers(0, 256, (count, 96, 96, 3), dtype="uint8")


def ours(count, threads):
    """Write one copy of each of `count` images as the rule does; return seconds and pixels."""
    with tempfile.TemporaryDirectory() as folder:
        images, splits = Path(folder, "images.npy"), Path(folder, "splits.csv")
        np.save(images, pictures(count))
        table = pd.DataFrame({"id": range(count), "label": 0, "class_name": "cell"})
        io.write_table(splits, table.assign(source="made up", split="train"))
        out = {"images": Path(folder, "train.npy"), "table": Path(folder, "train.csv")}
        settings = SETTINGS | {"copies": 1}
        begun = time.perf_counter()
        augmentation.augment(
            images, splits, "train", settings, "alternate", seed=SEED, threads=threads, out=out
        )
        return time.perf_counter() - begun, np.load(out["images"])


def keras_cv_in_tf_data(count, threads):
    import keras_cv
    import tensorflow as tf

    layers = [
        keras_cv.layers.RandAugment(
            value_range=(0, 255),
            augmentations_per_image=SETTINGS["randaugment"]["n"],
            magnitude=SETTINGS["randaugment"]["m"],
            seed=SEED,
        ),
        keras_cv.layers.AugMix(
            value_range=(0, 255),
            num_chains=SETTINGS["augmix"]["k"],
            severity=SETTINGS["augmix"]["m"],
            seed=SEED,
        ),
    ]
    tf.random.set_seed(SEED)
    images, out = pictures(count), np.empty((count, 96, 96, 3), "uint8")
    begun = time.perf_counter()
    for half, layer in enumerate(layers):

        def one(image, layer=layer):
            copy = tf.round(layer(tf.cast(image, tf.float32)))
            return tf.cast(tf.clip_by_value(copy, 0, 255), tf.uint8)

        copies = tf.data.Dataset.from_tensor_slices(images[half::2])
        copies = copies.map(one, num_parallel_calls=threads, deterministic=True).batch(BATCH)
        out[half::2] = np.concatenate(list(copies.as_numpy_iterator()))
    return time.perf_counter() - begun, out


SIDES = {"ours": ours, "keras-cv in tf.data": keras_cv_in_tf_data}


def measured(side, many, threads):
    """Print the rate of one side, and the digest of what a short run gives."""
    work = SIDES[side]
    work(FEW, threads)
    short, pixels = work(FEW, threads)
    long, _ = work(FEW + many, threads)
    digest = hashlib.sha256(pixels.tobytes()).hexdigest()
    print(json.dumps({"rate": many / (long - short), "digest": digest}))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        jobs.prepare(arguments.threads)
        measured(arguments.side, arguments.images, arguments.threads)
        return
    rows = []
    sides = dict.fromkeys([("ours", 1), *((side, arguments.threads) for side in SIDES)])
    said = {side: [] for side in sides}
    # In turns: the machine may be slower at one time than at another.
    for _ in range(REPEATS):
        for side, threads in sides:
            of_side = ["--side", side, "--threads", threads, "--images", arguments.images]
            said[side, threads].append(json.loads(last_line(__file__, *of_side)))
    for (side, threads), runs in said.items():
        rate = statistics.median(run["rate"] for run in runs)
        digests = {run["digest"] for key in said if key[0] == side for run in said[key]}
        rows.append([side, str(threads), f"{rate:.0f}", "yes" if len(digests) == 1 else "no"])
    print(aligned(["augmentation", "cores", "copies per second", "same bytes again"], rows))


if __name__ == "__main__":
    main()
