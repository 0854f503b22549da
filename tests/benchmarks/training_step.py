"""Measure a step of the third phase: what XLA and half precision gain, and how much memory.

    python tests/benchmarks/training_step.py [--only VGG16] [--batches 32 64] [--steps 3]

For every backbone of the config, each in a process of its own: the first step in seconds,
images per second of the others, the TFLOP/s that makes, with --peak as a share of what the
card's data sheet says, and the largest memory: of the GPU, or else of the process. `precision`
is `training.precision` in the config; Keras switches XLA on by itself on a GPU. The last column
is what an image more takes, from the batch above: what is left of the card's memory, divided by
it, is how much larger `batch_size` may be in the config. The last line is what a step waits for
its images.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import numpy as np  # noqa: E402

from hemagrid import io  # noqa: E402
from hemagrid.config.loading import load_config  # noqa: E402
from hemagrid.reporting.text import aligned  # noqa: E402
from hemagrid.training import backend, jobs  # noqa: E402

CONFIG = load_config()
NETWORKS = {entry["application"]: entry for entry in CONFIG["backbones"].values()}
HEAD = CONFIG["heads"]["cfg2"]
SIZE, CLASSES, READ = CONFIG["dataset"]["image_size"], 8, 32


def peak_mib():
    """Return the largest memory so far: of the GPU on TensorFlow, else of this process."""
    import keras

    if backend.device() == "gpu" and keras.backend.backend() == "tensorflow":
        import tensorflow

        return tensorflow.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def multiplications(model):
    """Return how many of an image a network takes in its convolutions and Dense layers."""
    count = 0
    for layer in model.layers:
        if hasattr(layer, "layers"):
            count += multiplications(layer)
        elif hasattr(layer, "kernel"):
            positions = int(np.prod(layer.output.shape[1:-1]))
            count += positions * int(np.prod(layer.kernel.shape))
    return count


def measured(application, precision, xla, batch, steps):
    """Print what one step of one network takes."""
    from hemagrid.models import backbones
    from hemagrid.training import transfer
    from hemagrid.training.optimizers import build_optimizer
    from hemagrid.training.trainer import step_function

    backend.begin(0, precision)
    network = NETWORKS[application]
    backbone = backbones.build_backbone(application, SIZE)
    models = transfer.TransferModel(backbone, network["top"], HEAD, CLASSES)
    model = models.freeze_for("finetune_all")
    optimizer = build_optimizer(CONFIG["training"]["optimizer"], 1e-5)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (1, batch, SIZE, SIZE, 3), dtype="uint8")
    labels, weights = np.arange(batch)[None] % CLASSES, np.ones((1, batch), "float32")
    take_steps = step_function(model, optimizer, batch, images[0], xla)
    seconds = []
    for _ in range(1 + steps):
        begun = time.perf_counter()
        take_steps(images, labels, weights)
        seconds.append(time.perf_counter() - begun)
    rate = batch / float(np.median(seconds[1:]))
    # A multiplication and an addition each; backward they are two times as many as forward.
    flops = 6 * multiplications(model) * rate
    found = {"first": seconds[0], "rate": rate, "flops": flops, "mib": peak_mib()}
    print(json.dumps(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="networks whose name holds this")
    parser.add_argument("--batches", type=int, nargs="+", help="default: as in the config")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", nargs="+", default=["float32", "mixed_bfloat16"])
    parser.add_argument("--xla", nargs="+", default=["off", "on"], choices=["off", "on"])
    parser.add_argument("--peak", type=float, help="TFLOP/s of the device, for the share of it")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        jobs.prepare(arguments.threads)
        application, precision, xla, batch = arguments.side
        measured(application, precision, xla == "on", int(batch), arguments.steps)
        return
    rows = []
    for application, network in NETWORKS.items():
        if arguments.only not in application:
            continue
        for precision, xla in itertools.product(arguments.precision, arguments.xla):
            former = None
            for batch in arguments.batches or [network["batch_size"]]:
                setting = [application, precision, xla, str(batch)]
                found = in_a_process(setting)
                rows.append(setting + cells(found, batch, former, arguments.peak))
                print("  ".join(rows[-1]), file=sys.stderr, flush=True)
                former = found and (batch, found["mib"])
    speed = "share of peak" if arguments.peak else "TFLOP/s"
    header = ["network", "precision", "XLA", "batch", "first step, s", "images per second"]
    print(aligned([*header, speed, "MiB", "MiB per image"], rows, left=3))
    print(f"Before each step {READ} images are read from a file: {reading_seconds():.2g} s")


def reading_seconds():
    """Return the seconds in which a batch is read at random from a memory-mapped file."""
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "images.npy"), np.zeros((8192, SIZE, SIZE, 3), "uint8"))
        images = io.open_images(Path(folder, "images.npy"))
        order = np.random.default_rng(0).permutation(len(images)).reshape(-1, READ)
        begun = time.perf_counter()
        for rows in order:
            io.take(images, rows)
        return (time.perf_counter() - begun) / len(order)


def in_a_process(setting):
    """Return what `measured` finds; nothing, and the end of its log, where it fails."""
    command = [sys.executable, *sys.argv, "--side", *setting]
    ended = subprocess.run(command, capture_output=True, text=True)
    if ended.returncode:
        print(ended.stderr[-1500:], file=sys.stderr)
        return None
    return json.loads(ended.stdout.splitlines()[-1])


def cells(found, batch, former, peak):
    if found is None:
        return ["failed", *[""] * 4]
    tera = found["flops"] / 1e12
    speed = f"{tera / peak:.1%}" if peak else f"{tera:.2g}"
    more = f"{(found['mib'] - former[1]) / (batch - former[0]):.1f}" if former else ""
    return [
        f"{found['first']:.1f}",
        f"{found['rate']:.3g}",
        speed,
        f"{found['mib']:,.0f}",
        more,
    ]


if __name__ == "__main__":
    main()
