"""Measure forward pass and training step of the third phase: speed, roofline, memory.

    python tests/benchmarks/training_step.py [--only VGG16] [--batches 32 64] [--steps 3]

For every backbone of the config, each in a process of its own: the first training step in
seconds, images per second of the others and of forward passes, medians; which share that is of
the rate of a product of two matrices of 2,048 x 2,048 in the same framework, precision and
process, or, with --peak, of what the card's data sheet says; and the largest memory: of the
GPU, or else of the process. One thread of a CPU is timed by the processor's seconds, so that
other work on the machine counts little.

Of an image, a layer with a kernel takes 2 x positions x (numbers in the kernel) operations,
where positions are the height x width of its output; other layers count as nothing. Backward
they are twice as many as forward. With --layers, a second table says where the time goes, by
the kind of layer, beside the least that the layers need: their operations at the rate of the
matrix product or, where that takes longer, their inputs and outputs (and as much again twice,
backward) at the rate at which a large array is copied.

`precision`
is `training.precision` in the config; Keras switches XLA on by itself on a GPU. The last column
is what an image more takes, from the batch above: what is left of the card's memory, divided by
it, is how much larger `batch_size` may be in the config. The last line is what a step waits for
its images.
"""

import argparse
import collections
import itertools
import json
import re
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
SIDE, COPIED = 2048, 2**26  # of a matrix, and numbers in an array


def peak_mib():
    """Return the largest memory so far: of the GPU on TensorFlow, else of this process."""
    import keras

    if backend.device() == "gpu" and keras.backend.backend() == "tensorflow":
        import tensorflow

        return tensorflow.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def layers_of(model):
    """List the layers of a model, including those of nested models."""
    nested = (
        layers_of(layer) if hasattr(layer, "layers") else [layer] for layer in model.layers
    )
    return list(itertools.chain(*nested))


def operations(layer):
    """Return how many floating-point operations of an image a layer takes forward."""
    if not hasattr(layer, "kernel"):
        return 0
    positions = int(np.prod(layer.output.shape[1:-1]))
    return 2 * positions * int(np.prod(layer.kernel.shape))


def traffic(layer):
    """Return how many bytes of an image a layer reads and writes forward."""
    import keras

    tensors = keras.tree.flatten([layer.input, layer.output])
    numbers = sum(int(np.prod(each.shape[1:])) for each in tensors)
    return numbers * (2 if layer.compute_dtype == "bfloat16" else 4)


def seconds_of(work, times, clock):
    """Return the seconds that each of several calls takes."""
    taken = []
    for _ in range(times):
        begun = clock()
        work()
        taken.append(clock() - begun)
    return taken


def measured(application, precision, xla, batch, arguments):
    """Print what forward passes and training steps of one network take."""
    import keras

    from hemagrid.models import backbones
    from hemagrid.training import transfer
    from hemagrid.training.optimizers import build_optimizer
    from hemagrid.training.trainer import step_function

    backend.begin(0, precision)
    alone = arguments.threads == 1 and backend.device() == "cpu"
    clock = time.process_time if alone else time.perf_counter
    network = NETWORKS[application]
    backbone = backbones.build_backbone(application, SIZE)
    models = transfer.TransferModel(backbone, network["top"], HEAD, CLASSES)
    model = models.freeze_for("finetune_all")
    optimizer = build_optimizer(CONFIG["training"]["optimizer"], 1e-5)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (1, batch, SIZE, SIZE, 3), dtype="uint8")
    labels, weights = np.arange(batch)[None] % CLASSES, np.ones((1, batch), "float32")
    take_steps = step_function(model, optimizer, batch, images[0], xla)
    matrix = keras.ops.cast(
        random.random((SIDE, SIDE), "float32"), keras.config.dtype_policy().compute_dtype
    )

    def multiply():
        float(keras.ops.cast(keras.ops.matmul(matrix, matrix)[0, 0], "float32"))

    works = {
        "forward": lambda: model.predict_on_batch(images[0]),
        "training": lambda: take_steps(images, labels, weights),
    }
    flops = batch * sum(map(operations, layers_of(model)))
    found, products = {}, seconds_of(multiply, 4, clock)[1:]
    for name, work in works.items():
        first, *others = seconds_of(work, 1 + arguments.steps, clock)
        products += seconds_of(multiply, 3, clock)
        found[name] = {"first": first, "seconds": float(np.median(others))}
        found[name]["rate"] = batch / found[name]["seconds"]
        found[name]["flops"] = flops * (1 if name == "forward" else 3) / found[name]["seconds"]
    found |= {"product": 2 * SIDE**3 / float(np.median(products)), "mib": peak_mib()}
    if arguments.layers:
        source, target = np.ones(COPIED, "float32"), np.zeros(COPIED, "float32")
        copies = seconds_of(lambda: np.copyto(target, source), 4, clock)[1:]
        found["copied"] = 2 * source.nbytes / float(np.median(copies))
        for name, work in works.items():
            times = 1 if name == "forward" else 3
            found[name]["layers"] = by_layer(model, work, arguments.steps)
            least = collections.Counter()
            for layer in layers_of(model):
                computing = operations(layer) / found["product"]
                moving = traffic(layer) / found["copied"]
                least[type(layer).__name__] += times * batch * max(computing, moving)
            found[name]["least"] = least
    print(json.dumps(found))


def by_layer(model, work, times):
    """Return the share of the time that each kind of layer takes, by TensorFlow's profiler."""
    import tensorflow
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    kinds = {layer.name: type(layer).__name__ for layer in layers_of(model)}
    with tempfile.TemporaryDirectory() as folder:
        tensorflow.profiler.experimental.start(folder)
        for _ in range(times):
            work()
        tensorflow.profiler.experimental.stop()
        (written,) = Path(folder).rglob("*.xplane.pb")
        space = xplane_pb2.XSpace.FromString(written.read_bytes())
    taken = collections.Counter()
    for plane in space.planes:
        for event in itertools.chain(*(line.events for line in plane.lines)):
            # An operation by its path and kind, such as model/block1_conv1_1/Conv2D:Conv2D
            path, _, kind = plane.event_metadata[event.metadata_id].name.rpartition(":")
            if not re.fullmatch(r"_?[A-Z]\w+", kind) or path[-1:] in ("", ":"):
                continue
            parts = (re.sub(r"_\d+$", "", part) for part in path.split("/"))
            layer = next((kinds[part] for part in parts if part in kinds), None)
            taken[layer or ("optimizer" if "Apply" in kind else "others")] += event.duration_ps
    return {layer: each / sum(taken.values()) for layer, each in taken.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="networks whose name holds this")
    parser.add_argument("--batches", type=int, nargs="+", help="default: as in the config")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", nargs="+", default=["float32", "mixed_bfloat16"])
    parser.add_argument("--xla", nargs="+", default=["off", "on"], choices=["off", "on"])
    parser.add_argument("--peak", type=float, help="TFLOP/s of the device, for the share of it")
    parser.add_argument("--layers", action="store_true", help="where the time goes, as well")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--side", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        jobs.prepare(arguments.threads)
        application, precision, xla, batch = arguments.side
        measured(application, precision, xla == "on", int(batch), arguments)
        return
    rows, layers = [], []
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
                layers += layer_rows(setting, found) if found and arguments.layers else []
    header = ["network", "precision", "XLA", "batch", "forward, images/s", "share"]
    header += ["first step, s", "training, images/s", "share", "of TFLOP/s"]
    print(aligned([*header, "MiB", "MiB per image"], rows, left=3))
    if layers:
        header = ["network", "precision", "pass", "layers", "ms", "share", "least, ms"]
        print(aligned(header, layers, left=4))
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
        return ["failed", *[""] * 7]
    reference = peak * 1e12 if peak else found["product"]
    forward, training = found["forward"], found["training"]
    more = f"{(found['mib'] - former[1]) / (batch - former[0]):.1f}" if former else ""
    return [
        f"{forward['rate']:.3g}",
        f"{forward['flops'] / reference:.1%}",
        f"{training['first']:.1f}",
        f"{training['rate']:.3g}",
        f"{training['flops'] / reference:.1%}",
        f"{reference / 1e12:.3g}",
        f"{found['mib']:,.0f}",
        more,
    ]


def layer_rows(setting, found):
    """Return the rows of the second table: the kinds of layer that take a hundredth or more."""
    rows = []
    for name in ("forward", "training"):
        total, least = 1000 * found[name]["seconds"], found[name]["least"]
        shares = {kind: share for kind, share in found[name]["layers"].items() if share >= 0.01}
        for kind, share in sorted(shares.items(), key=lambda item: -item[1]):
            need = f"{1000 * least[kind]:.0f}" if kind in least else "-"
            rows.append(
                [*setting[:2], name, kind, f"{share * total:.0f}", f"{share:.0%}", need]
            )
        need = f"{1000 * sum(least.values()):.0f}"
        rows.append([*setting[:2], name, "all", f"{total:.0f}", "100%", need])
    return rows


if __name__ == "__main__":
    main()
