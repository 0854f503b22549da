"""Measure the workflow against what a user would do instead, and how its cost grows.

    make bench                        # all rows, minutes on two cores
    make bench ARGS="--scale 0.1"     # a tenth of the images: whether it works
    make bench ARGS="--only search"   # rows whose name holds this

One table: what, ours, the direct way (`direct_way.py`, plain Keras), how many times ours goes
into it, what was to be reached, and by how much the results differ. The two sides of a row run
one after the other, each in a process of its own with as many threads; the clock starts when
TensorFlow is imported and the images are made. Numbers of one machine: compare ratios.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1] / "scripts"))

import numpy as np  # noqa: E402

from hemagrid import runtime  # noqa: E402
from hemagrid.terminal import aligned  # noqa: E402


@dataclass(frozen=True)
class Row:
    """A comparison; `goal` is the ratio to reach, `tolerance` of the largest difference."""

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
ROWS = [
    Row("extraction_mobilenetv3", "three heads, 10 epochs on embeddings", "extraction", MOBILENET, 1500, 10, 12, 1e-3),
    Row("extraction_vgg16", "three heads, 10 epochs on embeddings", "extraction", VGG, 96, 10, 20, 1e-3),
    Row("search_mobilenetv3", "Hyperband, 23 heads on embeddings", "search", MOBILENET, 1500, 9, 12, 1e-2),
    Row("finetuning_mobilenetv3", "three heads, 6 epochs on activations", "finetuning", MOBILENET, 480, 6, 2, 1e-3),
    Row("finetuning_vgg16", "three heads, 6 epochs on activations", "finetuning", VGG, 64, 6, 4, 1e-3),
    Row("finetuning_convnext", "three heads, 6 epochs on activations", "finetuning", CONVNEXT, 32, 6, 4, 1e-3),
    Row("forward_convnext", "images through the network", "forward", CONVNEXT, 64, 1, 5, 1e-4),
    Row("steps_convnext", "training steps, whole network", "steps", CONVNEXT, 64, 1, 5, 1e-4),
    Row("first_step_efficientnetv2m", "the first step of the third phase", "first_step", "EfficientNetV2M", 32, 1, 3, 1e-4, 48),
]


def setting_of(row, scale, folder):
    from comparisons import Setting

    # Whole batches of the validation pass on both sides.
    images = max(32, round(scale * row.images / 32) * 32)
    return Setting(row.application, images, row.epochs, folder, row.size)


def run_one_side(row, side, scale, folder, threads):
    """Run in a process of its own: prints seconds, writes what came out."""
    runtime.prepare(threads)
    import comparisons

    setting = setting_of(row, scale, folder)
    if side == "weights":
        return comparisons.make_weights(setting)
    seconds, results = comparisons.run_side(row.side, side, setting)
    np.savez(folder / f"{side}.npz", *results)
    print(json.dumps({"seconds": seconds}))


def compare(row, scale, threads):
    """Run both sides; return (seconds of ours, of the direct way, largest difference)."""
    with tempfile.TemporaryDirectory() as folder:
        said = {}
        for side in ("weights", "ours", "direct"):
            command = [sys.executable, __file__, "--side", side, "--only", row.name]
            command += ["--scale", str(scale), "--threads", str(threads), "--folder", folder]
            ended = subprocess.run(command, capture_output=True, text=True)
            if ended.returncode:
                sys.exit(f"{row.name}, {side}:\n{ended.stderr[-4000:]}")
            said[side] = ended.stdout.splitlines()[-1:] or None
        results = [np.load(Path(folder, f"{side}.npz")) for side in ("ours", "direct")]
        ours, direct = (list(arrays.values()) for arrays in results)
        off = max(abs(a - b).max() for a, b in zip(ours, direct, strict=True))
    seconds = [json.loads(said[side][0])["seconds"] for side in ("ours", "direct")]
    return *seconds, float(off)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="rows whose name holds this")
    parser.add_argument("--scale", type=float, default=1.0, help="of the number of images")
    parser.add_argument("--threads", type=int, default=2, help="of each side")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    rows = [row for row in ROWS if arguments.only in row.name]
    if arguments.side:
        (row,) = [row for row in rows if row.name == arguments.only]
        return run_one_side(
            row, arguments.side, arguments.scale, arguments.folder, arguments.threads
        )
    table = []
    for row in rows:
        ours, direct, off = compare(row, arguments.scale, arguments.threads)
        table.append(
            [
                f"{row.what} ({row.application}, {row.size} px, {row.images} images)",
                f"{ours:.1f} s",
                f"{direct:.1f} s",
                f"{direct / ours:.1f}",
                f"{row.goal}",
                f"{off:.1g}",
            ]
        )
        print(table[-1], flush=True)
    print(aligned(["what", "ours", "direct", "ratio", "goal", "difference"], table))


if __name__ == "__main__":
    main()
