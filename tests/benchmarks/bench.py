"""Measure the workflow against what a user would do instead.

    make bench                        # all rows, an hour; then the other speeds
    make bench ARGS="--scale 0.1"     # of these rows, with a tenth of the images
    make bench ARGS="--only search"   # rows whose name holds this
    make bench ARGS="--against notebook"   # without the direct way, which takes longest

One table: what, ours, the clever notebook and the direct way (both `direct_way.py`, plain
Keras), how many times ours goes into each, what was to be reached, and by how much the results
differ at most. The sides of a row run one after the other, each in a process of its own, with
as many threads and bound to as many cores. The seconds are the processor's, so that other work
on the machine counts little; they begin when TensorFlow is imported and the images are made.
Numbers of one machine: compare ratios.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "scripts"))

import numpy as np  # noqa: E402
from processes import last_line  # noqa: E402

from hemagrid.reporting.text import aligned  # noqa: E402
from hemagrid.training import jobs  # noqa: E402


@dataclass(frozen=True)
class Row:
    """A comparison: what is computed, of which network, and the ratio to reach."""

    name: str
    what: str
    side: str
    application: str
    images: int
    epochs: int
    goal: float
    tolerance: float
    size: int = 96


MOBILENET, VGG, CONVNEXT = "MobileNetV3Large", "VGG16", "ConvNeXtBase"
THREE_HEADS = "three heads, 10 epochs on embeddings"
ACTIVATIONS = "three heads, final layers, 6 epochs on activations"
OTHERS = ("notebook", "direct")
CACHED = ("extraction", "search", "grid")  # sides that a notebook speeds up, too
HEADER = ["what", "ours", "clever notebook", "ratio", "direct way", "ratio"]
HEADER += ["to reach", "difference"]
# Results are compared after one epoch of so many images: the mean difference of weights, of a
# search and a grid of accuracies, of outputs. Later on rounding grows: after thirty steps of a
# head with BatchNormalization it shows in the second digit, as between any two ways to compute.
CHECKED = 64
ROWS = [
    Row("extraction_mobilenetv3", THREE_HEADS, "extraction", MOBILENET, 1500, 10, 12, 1e-5),
    # Where a unit is active on the whole batch, BatchNormalization leaves the bias before it
    # no gradient but rounding, which Adam enlarges.
    Row("extraction_vgg16", THREE_HEADS, "extraction", VGG, 256, 10, 20, 1e-4),
    Row("search_mobilenetv3", "Hyperband, 23 trials", "search", MOBILENET, 1500, 0, 12, 0.01),
    Row("finetuning_mobilenetv3", ACTIVATIONS, "finetuning", MOBILENET, 480, 6, 2, 1e-5),
    Row("finetuning_vgg16", ACTIVATIONS, "finetuning", VGG, 64, 6, 4, 1e-5),
    Row("finetuning_convnext", ACTIVATIONS, "finetuning", CONVNEXT, 32, 6, 4, 1e-5),
    Row("grid_mobilenetv3", "three heads, all phases", "grid", MOBILENET, 480, 10, 0, 0.01),
    Row("forward_convnext", "forward pass", "forward", CONVNEXT, 128, 1, 5, 1e-6),
    Row("steps_convnext", "training steps", "steps", CONVNEXT, 64, 1, 5, 1e-8),
    Row(
        "first_step", "first step, third phase", "first_step", "EfficientNetV2M", 32, 1, 3, 1e-6
    ),
]


def images_of(row, arguments):
    """Return the number of images of a row, in whole batches: of a check, a few."""
    return (
        CHECKED if arguments.check else max(32, round(arguments.scale * row.images / 32) * 32)
    )


def setting_of(row, arguments):
    from comparisons import Setting

    epochs = 1 if arguments.check else row.epochs
    images = images_of(row, arguments)
    return Setting(row.application, images, epochs, arguments.folder, row.size)


def run_side(row, side, arguments):
    """Run one side in this process: write what came out, print the seconds."""
    # As a scheduler binds a job.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: arguments.threads])
    jobs.prepare(arguments.threads)
    import comparisons

    setting = setting_of(row, arguments)
    if side == "weights":
        comparisons.make_weights(setting)
        return
    seconds, results = comparisons.run_side(row.side, side, setting)
    np.savez(arguments.folder / f"{side}.npz", *results)
    print(json.dumps({"seconds": seconds}))


def side_in_a_process(row, side, folder, arguments, *options):
    """Return the seconds of one side; its results are in `folder`."""
    of_row = ["--side", side, "--only", row.name, "--folder", folder]
    same = ["--scale", arguments.scale, "--threads", arguments.threads]
    said = last_line(__file__, *of_row, *same, *options)
    return None if side == "weights" else json.loads(said)["seconds"]


def difference(ours, other):
    """Return the mean difference of two arrays; infinity where their shapes differ."""
    return float(abs(ours - other).mean()) if ours.shape == other.shape else np.inf


def sides_of(row, arguments):
    """List what ours is measured against: a notebook only where it can save anything."""
    return [side for side in arguments.against if row.side in CACHED or side != "notebook"]


def compare(row, arguments):
    """Run all sides; return the cells of a row, and whether the results are the same."""
    with tempfile.TemporaryDirectory() as folder:
        side_in_a_process(row, "weights", folder, arguments)
        sides = sides_of(row, arguments)
        for side in ("ours", *sides):
            side_in_a_process(row, side, folder, arguments, "--check")
        ours, *others = (np.load(Path(folder, f"{side}.npz")) for side in ("ours", *sides))
        pairs = [
            pair for other in others for pair in zip(ours.values(), other.values(), strict=True)
        ]
        off = float(np.max([difference(*pair) for pair in pairs]))
        taken = {
            side: side_in_a_process(row, side, folder, arguments) for side in ("ours", *sides)
        }
    cells = [
        f"{row.application}: {row.what}, {images_of(row, arguments):,} images",
        f"{taken['ours']:.1f} s",
    ]
    for side in OTHERS:
        if side in taken:
            cells += [f"{taken[side]:.1f} s", f"{taken[side] / taken['ours']:.1f}x"]
        else:
            cells += ["-", "-"]
    cells += [f"{row.goal}x" if row.goal else "as measured", f"{off:.0e}"]
    return cells, off <= row.tolerance


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--against", nargs="+", default=OTHERS, choices=OTHERS)
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of images")
    parser.add_argument("--threads", type=int, default=1, help="of each side, as of a job")
    parser.add_argument("--check", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    rows = [row for row in ROWS if arguments.only in row.name and sides_of(row, arguments)]
    if arguments.side:
        (row,) = [row for row in rows if row.name == arguments.only]
        run_side(row, arguments.side, arguments)
        return
    table, different = [], []
    for row in rows:
        print(f"{row.name} ...", file=sys.stderr, flush=True)
        cells, same = compare(row, arguments)
        table.append(cells)
        print("  ".join(cells), file=sys.stderr, flush=True)
        different += [] if same else [row.name]
    print(aligned(HEADER, table))
    if different:
        sys.exit(f"Not the same results, so no comparison: {', '.join(different)}")


if __name__ == "__main__":
    main()
