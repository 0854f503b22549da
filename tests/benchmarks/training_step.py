"""Measure a step of the third phase: what XLA and half precision gain, and how much memory.

    python tests/benchmarks/training_step.py [--only VGG16] [--batch 32] [--steps 3]

For every backbone of the config, each in a process of its own: the first step in seconds,
images per second of the others, and the largest memory: of the GPU, or else of the process.
`precision` is `training.precision` in the config; Keras switches XLA on by itself on a GPU.
What two batch sizes differ in memory gives that of an image, and so the largest batch.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import numpy as np  # noqa: E402

from hemagrid import runtime  # noqa: E402
from hemagrid.config_files import load_config  # noqa: E402
from hemagrid.terminal import aligned  # noqa: E402

CONFIG = load_config()
NETWORKS = {entry["application"]: entry for entry in CONFIG["backbones"].values()}
HEAD = CONFIG["heads"]["cfg2"]
SIZE, CLASSES = CONFIG["dataset"]["image_size"], 8


def peak_mib():
    """Return the largest memory so far: of the GPU on TensorFlow, else of this process."""
    if runtime.device() == "gpu":
        import tensorflow

        return tensorflow.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def measured(application, precision, xla, batch, steps):
    """Print what one step of one network takes."""
    import keras

    from hemagrid import backbones, training
    from hemagrid.optimizers import build_optimizer

    runtime.begin(0, precision)
    network = NETWORKS[application]
    backbone = backbones.build_backbone(application, SIZE)
    models = training.TransferModel(backbone, network["top"], HEAD, CLASSES)
    model = models.freeze_for("finetune_all")
    optimizer = build_optimizer(CONFIG["training"]["optimizer"], 1e-5)
    optimizer.build(model.trainable_variables)
    model.compile(
        optimizer, keras.losses.SparseCategoricalCrossentropy(), jit_compile=xla or False
    )
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (batch, SIZE, SIZE, 3), dtype="uint8")
    labels, before = np.arange(batch) % CLASSES, peak_mib()
    seconds = []
    for _ in range(1 + steps):
        begun = time.perf_counter()
        model.train_on_batch(images, labels)
        seconds.append(time.perf_counter() - begun)
    steady = float(np.median(seconds[1:]))
    found = {"first": seconds[0], "rate": batch / steady, "before": before, "mib": peak_mib()}
    print(json.dumps(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="networks whose name holds this")
    parser.add_argument("--batch", type=int, help="default: batch_size of the config")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        runtime.prepare(arguments.threads)
        application, precision, xla = arguments.side
        batch = arguments.batch or NETWORKS[application]["batch_size"]
        measured(application, precision, xla == "on", batch, arguments.steps)
        return
    rows = []
    for application in NETWORKS:
        if arguments.only not in application:
            continue
        for precision in ("float32", "mixed_bfloat16"):
            for xla in ("off", "on"):
                command = [sys.executable, *sys.argv, "--side", application, precision, xla]
                ended = subprocess.run(command, capture_output=True, text=True)
                if ended.returncode:
                    rows.append([application, precision, xla, "failed", "", ""])
                    print(ended.stderr[-1500:], file=sys.stderr)
                    continue
                found = json.loads(ended.stdout.splitlines()[-1])
                numbers = [
                    f"{found['first']:.1f}",
                    f"{found['rate']:.3g}",
                    f"{found['mib']:,.0f}",
                ]
                rows.append([application, precision, xla, *numbers])
                print("  ".join(rows[-1]), file=sys.stderr, flush=True)
    header = ["network", "precision", "XLA", "first step, s", "images per second", "MiB"]
    print(aligned(header, rows, left=3))


if __name__ == "__main__":
    main()
