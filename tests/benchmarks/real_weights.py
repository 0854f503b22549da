"""Read real pretrained weights of VGG16 in every form that `weights:` takes, and refuse others.

    python tests/benchmarks/real_weights.py VGG16.weights.h5

Not part of the tests, because the file has 59 MB and no part of it is in this repository. The
other forms are made from it, and each must give the same backbone to the bit. Then come files
that do not fit; what is printed is what a user reads. A minute on one core.
"""

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from hemagrid.training import jobs  # noqa: E402

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("weights", type=Path, help="of VGG16(include_top=False), .weights.h5")
given = parser.parse_args().weights.absolute()
jobs.prepare(threads=1)

import h5py  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402

from hemagrid.errors import InputError  # noqa: E402
from hemagrid.models import backbones  # noqa: E402

SIZE = 96
SETTINGS = {"application": "VGG16", "top": "block4_pool"}
MODULE = """
import keras

def build(image_size):
    network = keras.applications.VGG16(
        include_top=False, weights=None, input_shape=(image_size, image_size, 3)
    )
    return network, "block4_pool"
"""


def vgg(**settings):
    return keras.applications.VGG16(weights=None, **settings)


def without_model(whole, weights):
    """Leave the weights of Keras's older form, as in the `notop` files that Keras fetches."""
    with h5py.File(whole) as source, h5py.File(weights, "w") as target:
        for name in source["model_weights"]:
            source.copy(f"model_weights/{name}", target)
        target.attrs.update(source["model_weights"].attrs)


with tempfile.TemporaryDirectory() as folder:
    folder, out = Path(folder), Path(folder, "out.weights.h5")
    network = vgg(include_top=False, pooling="avg")
    network.load_weights(given)
    shutil.copy(given, folder / "vgg16.weights.h5")
    network.save(folder / "vgg16.keras")
    network.save(folder / "vgg16_model.h5")
    without_model(folder / "vgg16_model.h5", folder / "vgg16_notop.h5")
    (folder / "mine.py").write_text(MODULE)
    for name in ("vgg16.weights.h5", "vgg16.keras", "vgg16_notop.h5", "vgg16_model.h5"):
        path = folder / name
        for settings, own in (
            (SETTINGS, {}),
            ({"application": None}, {"module": folder / "mine.py", "function": "build"}),
        ):
            begun = time.perf_counter()
            start = {"application": settings["application"], "weights": name}
            backbones.write_weights(out, start, SIZE, 0, weights=path, **own)
            seconds = time.perf_counter() - begun
            backbone, boundary = backbones.load_backbone(settings, SIZE, out)
            pairs = zip(backbone.get_weights(), network.get_weights(), strict=True)
            same = all(np.array_equal(one, two) for one, two in pairs)
            who = "module" if own else "application"
            print(
                f"{name}, {path.stat().st_size:,} bytes, {who}: read in {seconds:.1f} s, "
                f"{'equal to the bit' if same else 'DIFFERENT'}, cut at {boundary}"
            )

    with_top = vgg(include_top=True, input_shape=(32, 32, 3), classes=8)
    with_top.save_weights(folder / "with_top.weights.h5")
    with_top.save(folder / "with_top.keras")
    with_top.save(folder / "with_top.h5")
    other = keras.applications.VGG19(weights=None, include_top=False)
    other.save_weights(folder / "vgg19.weights.h5")
    other.save(folder / "vgg19.keras")
    other.save(folder / "vgg19.h5")
    for name in ("vgg16.weights.h5", "vgg16.keras", "vgg16_notop.h5"):
        content = (folder / name).read_bytes()
        (folder / f"cut_{name}").write_bytes(content[: len(content) // 2])
    others = [*folder.glob("with_top*"), *folder.glob("vgg19*"), *folder.glob("cut_*")]
    for path in sorted(others):
        try:
            start = {"application": "VGG16", "weights": path.name}
            backbones.write_weights(out, start, SIZE, 0, weights=path)
            print(f"{path.name}: NOT REFUSED")
        except InputError as error:
            print(f"refused: {str(error).replace(f'{folder}/', '')}")
