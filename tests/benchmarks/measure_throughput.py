"""Measure how fast this machine computes each stage of a study, for `hemagrid plan`.

    python tests/benchmarks/measure_throughput.py [--configfile my.yaml ...]

Minutes on one CPU core. Every backbone of the config's grid passes a few batches through its
trunk and top and takes a few training steps of each phase; weights are random, which speed
does not depend on. The rows are added to `resources/throughput.csv`, where the plan looks
first. On a node with a GPU they are the rows of the GPU.
"""

import argparse
import sys
import time
from pathlib import Path

_started = time.perf_counter()
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from hemagrid.training import backend, jobs  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--configfile", nargs="+", type=Path, default=[], help="over config.yaml")
parser.add_argument("--out", type=Path, default=Path("resources/throughput.csv"))
parser.add_argument("--threads", type=int, default=1, help="as many as the rules give a job")
parser.add_argument("--batches", type=int, default=3, help="timed batches per stage")
arguments = parser.parse_args()
jobs.prepare(arguments.threads)

import keras  # noqa: E402
import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from hemagrid.cli import estimate, speeds  # noqa: E402
from hemagrid.config.loading import load_config  # noqa: E402
from hemagrid.data import augmentation  # noqa: E402
from hemagrid.models import backbones, cnns, own_networks  # noqa: E402
from hemagrid.training import embeddings, transfer  # noqa: E402
from hemagrid.training.optimizers import build_optimizer  # noqa: E402
from hemagrid.training.trainer import step_function  # noqa: E402

config = load_config(arguments.configfile)
SIZE = config["dataset"]["image_size"]
CLASSES = len(config["dataset"]["classes"] or []) or 8
HEAD_STEPS = 32  # in a call: about as many as training comes to with a head
rng = np.random.default_rng(0)
rows = []


def pictures(count):
    return rng.integers(0, 256, (count, SIZE, SIZE, 3), dtype="uint8")


def timed(step):
    """Return (seconds of one step, seconds that the first one took longer)."""
    begun = time.perf_counter()
    step()
    first = time.perf_counter() - begun
    begun = time.perf_counter()
    for _ in range(arguments.batches):
        step()
    steady = (time.perf_counter() - begun) / arguments.batches
    return steady, max(first - steady, 0)


def record(network, stage, batch, seconds, startup, model=None, multiplications=None):
    row = {
        # The rule that augments uses no GPU.
        "device": "cpu" if network == speeds.AUGMENTATION else backend.device(),
        "application": network[0],
        "top": network[1],
        "stage": stage,
        "image_size": SIZE,
        "batch": batch,
        "threads": arguments.threads,
        "images_per_second": float(f"{batch / seconds:.3g}") if batch else None,
        "startup_seconds": round(startup, 1),
        "output": "x".join(map(str, model.output.shape[1:])) if model else None,
        "parameters": model.count_params() if model else None,
        "multiplications": multiplications,
    }
    rows.append(row)
    print(*(value for value in row.values() if value is not None), flush=True)


def forward(network, stage, model, inputs, **numbers):
    step = timed(lambda: embeddings.predict(model, inputs))
    record(network, stage, len(inputs), *step, model, **numbers)


def train(network, stage, model, inputs, steps=1, **numbers):
    """Time training as `Trainer` does it, with so many steps in a call."""
    optimizer = build_optimizer(config["training"]["optimizer"], 1e-4)
    take_steps = step_function(model, optimizer, len(inputs), inputs)
    labels = rng.integers(0, CLASSES, len(inputs))
    weights = np.ones(len(inputs), "float32")
    call = [np.repeat(each[None], steps, axis=0) for each in (inputs, labels, weights)]
    seconds, startup = timed(lambda: take_steps(*call))
    record(network, stage, len(inputs), seconds / steps, startup, **numbers)


def measure_augmentation():
    """Time copies of both policies: few, which is the start, and how much longer many take."""
    settings, seconds = config["augmentation"]["train"], []
    many = 512 * arguments.batches
    for count in (2, 2, many):
        table = pd.DataFrame({"parent_id": range(count), "copy": 0})
        table["policy"] = [augmentation.POLICIES[row % 2] for row in range(count)]
        begun = time.perf_counter()
        images = pictures(count)
        augmentation.augment_rows(images, table, settings, 0, np.empty_like(images))
        seconds.append(time.perf_counter() - begun)
    first, few, most = seconds
    record(speeds.AUGMENTATION, "start", 0, None, importing + first)
    record(speeds.AUGMENTATION, "augment", many, most - few, 0)


def measure_cnn(settings):
    """Time one CNN; the plan goes from it to others by their multiplications."""
    begun = time.perf_counter()
    model = cnns.build_cnn(settings, SIZE, CLASSES)
    record(speeds.CNN, "start", 0, None, importing + time.perf_counter() - begun)
    _, multiplications = estimate.cnn_numbers(settings, SIZE, CLASSES)
    numbers = {"multiplications": multiplications}
    forward(speeds.CNN, "forward", model, pictures(embeddings.BATCH), **numbers)
    train(speeds.CNN, "training", model, pictures(settings["batch_size"]), **numbers)


def measure_backbone(settings, head):
    network = speeds.network_of(settings)
    begun = time.perf_counter()
    if settings["module"]:
        own = (settings["module"], settings["function"], SIZE, settings["top"])
        backbone, boundary = own_networks.build(*own)
    else:
        backbone = backbones.build_backbone(settings["application"], SIZE)
        boundary = settings["top"]
    models = transfer.TransferModel(backbone, boundary, head, CLASSES)
    record(network, "start", 0, None, importing + time.perf_counter() - begun)
    batch = settings["batch_size"]
    activations = rng.random((embeddings.BATCH, *models.top.input.shape[1:]), "float32")
    forward(network, "trunk", models.trunk, pictures(embeddings.BATCH))
    forward(network, "top", models.top, activations)
    examples = {
        "feature_extraction": rng.random((batch, models.top.output.shape[-1]), "float32"),
        "finetune_top": rng.random((batch, *models.top.input.shape[1:]), "float32"),
        "finetune_all": pictures(batch),
    }
    for phase, inputs in examples.items():
        steps = HEAD_STEPS if phase == "feature_extraction" else 1
        train(network, phase, models.freeze_for(phase), inputs, steps)
    keras.backend.clear_session()


backend.begin(0, config["training"]["precision"])
importing = time.perf_counter() - _started
measure_augmentation()
if config["grid"]["cnns"]:
    measure_cnn(config["cnns"][config["grid"]["cnns"][0]])
# The largest head; what smaller ones save is little beside a backbone.
heads = [config["heads"][name] for name in config["grid"]["heads"]]
for name in config["grid"]["backbones"] if heads else []:
    measure_backbone(config["backbones"][name], max(heads, key=lambda head: sum(head["dense"])))
speeds.add_speeds(arguments.out, pd.DataFrame(rows))
print(f"Written to {arguments.out}")
