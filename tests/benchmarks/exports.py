"""Export networks of the study's backbones: how far their answers are from those of Keras.

    python tests/benchmarks/exports.py [--only vgg16] [--weights FILE] [--format tflite]

Each backbone of the config under its smallest head, as ONNX unless --format names another,
compared on drawn cells of the study's size. The backbone's weights are random, or those of a
file for it; the head is trained on the same cells for some steps. The spread is the standard
deviation of a class's probability over the images, the largest of the classes: a network that
tells nothing apart has 0, and then a small difference says nothing.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import numpy as np  # noqa: E402

from hemagrid.config.loading import load_config  # noqa: E402
from hemagrid.data import synthetic  # noqa: E402
from hemagrid.errors import InputError  # noqa: E402
from hemagrid.export import networks  # noqa: E402
from hemagrid.reporting.text import aligned  # noqa: E402
from hemagrid.training import jobs  # noqa: E402

CONFIG = load_config()
BACKBONES = CONFIG["backbones"]
HEAD = "cfg1"
SIZE = CONFIG["dataset"]["image_size"]
CLASSES = len(synthetic.CLASS_NAMES)
SEED, STEPS = 42, 100


def cells(count):
    """Draw cells, classes in turn: uint8 (count, SIZE, SIZE, 3), and their labels."""
    rng = np.random.default_rng(SEED)
    labels = np.arange(count) % CLASSES
    drawn = [synthetic.draw_cell(synthetic.CLASS_NAMES[label], SIZE, rng) for label in labels]
    return np.stack(drawn), labels


def network_of(name, weights, images, labels, folder):
    """Build the network of a run and read it from a file, as the command does."""
    import keras

    from hemagrid.evaluation.inference import load_network
    from hemagrid.models import backbones
    from hemagrid.training.transfer import TransferModel

    settings = BACKBONES[name]
    if weights:
        backbone = backbones.saved_backbone(settings["application"], SIZE, weights)
    else:
        backbone = backbones.random_backbone(settings["application"], images, SEED)
    model = TransferModel(backbone, settings["top"], CONFIG["heads"][HEAD], CLASSES)
    features = backbone.predict(images, verbose=0)
    optimizer = keras.optimizers.Adam(CONFIG["heads"][HEAD]["learning_rate"])
    model.from_embeddings.compile(optimizer, "sparse_categorical_crossentropy")
    model.from_embeddings.fit(features, labels, len(images), epochs=STEPS, verbose=0)
    model.from_images.save(folder / "model.keras")
    return load_network(folder / "model.keras")


def row(name, arguments, images, labels):
    """Export one backbone; return the cells of its row."""
    with tempfile.TemporaryDirectory() as folder:
        network = network_of(name, arguments.weights, images, labels, Path(folder))
        spread = network.predict(images, verbose=0).std(axis=0).max()
        begun = time.perf_counter()
        out = Path(folder, f"network{networks.SUFFIXES[arguments.format]}")
        try:
            said = f"{networks.export_network(network, arguments.format, images, out):.1e}"
        except InputError as error:
            said = f"refused: {error}"
        seconds = time.perf_counter() - begun
    million = f"{network.count_params() / 1e6:.1f}"
    return [f"{name}_{HEAD}", million, f"{spread:.3f}", f"{seconds:.0f}", said]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=BACKBONES)
    parser.add_argument("--weights", type=Path, help="with --only; default: random")
    parser.add_argument("--format", choices=networks.SUFFIXES, default="onnx")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    networks.check_packages(arguments.format)
    jobs.prepare(arguments.threads)
    images, labels = cells(arguments.images)
    names = [arguments.only] if arguments.only else BACKBONES
    rows = [row(name, arguments, images, labels) for name in names]
    print(
        f"{arguments.images} drawn cells of {SIZE} px, format {arguments.format}, "
        f"weights {arguments.weights or 'random'}"
    )
    header = ("network", "million weights", "spread", "seconds", "largest difference")
    print(aligned(header, rows))


if __name__ == "__main__":
    main()
