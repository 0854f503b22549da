"""Measure how surely duplicates are told from different pictures: the ground of two defaults.

    python tests/benchmarks/duplicates.py FOLDER [--per-class 40] [--frames 1 2 3.3 5]

Takes the first pictures of each class folder in FOLDER, 96 px wide, as they are and in the
middle of an even frame so many times as wide, shrunk to 96 px. For each frame it says how far
apart different pictures with equal and with near hashes are at least, and how many copies of
each kind are found.
"""

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from hemagrid.data.duplicates import SHIFT, differences, fingerprint, near_pairs  # noqa: E402

EDGE, DISTANCE, DUPLICATE, NEAR = 96, 4, 0.06, 0.15


def framed(picture, frame):
    """Put a picture, its rim faded, into an even frame `frame` times as wide; shrink that."""
    pixels = np.asarray(picture, float)
    y, x = np.mgrid[:EDGE, :EDGE] - (EDGE - 1) / 2
    inside = np.clip((44 - np.hypot(y, x)) / 8, 0, 1)[..., None]
    ground = np.percentile(pixels.reshape(-1, 3), 90, axis=0)
    width = round(EDGE * frame)
    whole = np.full((width, width, 3), ground)
    begin = (width - EDGE) // 2
    cell = pixels * inside + ground * (1 - inside)
    whole[begin : begin + EDGE, begin : begin + EDGE] = cell
    return Image.fromarray(whole.astype("uint8"))


def jpeg(picture, quality):
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def rescaled(picture):
    smaller = picture.resize((picture.width * 3 // 4,) * 2, Image.Resampling.LANCZOS)
    return smaller.resize(picture.size, Image.Resampling.LANCZOS)


def lighter(picture, factor):
    return Image.fromarray(np.clip(np.asarray(picture) * factor, 0, 255).astype("uint8"))


COPIES = {
    "JPEG 95": lambda picture: jpeg(picture, 95),
    "JPEG 75": lambda picture: jpeg(picture, 75),
    "JPEG 60": lambda picture: jpeg(picture, 60),
    "3/4 and back": rescaled,
    "10 % brighter": lambda picture: lighter(picture, 1.1),
    "10 % darker": lambda picture: lighter(picture, 0.9),
}


def prints(pictures):
    size = (EDGE, EDGE)
    shrunk = [picture.resize(size, Image.Resampling.LANCZOS) for picture in pictures]
    return fingerprint(np.stack([np.asarray(picture) for picture in shrunk]))


def measure(pictures):
    found = prints(pictures)
    pairs = [np.stack(block) for block in near_pairs(found["hashes"], DISTANCE)]
    left, right, view = np.concatenate([np.empty((3, 0), int), *pairs], axis=1)
    own = found["hashes"][:, 0]
    equal = (view == 0) & (own[left] == own[right])
    apart = differences(found, left, right, view)[equal].min(initial=np.inf)
    near = differences(found, left, right, view, SHIFT)[view == 0].min(initial=np.inf)
    print(f"  {equal.sum()} different pairs with equal hashes, at least {apart:.3f} apart")
    print(f"  {(view == 0).sum()} different pairs with near hashes, at least {near:.3f} apart")
    images = np.arange(len(pictures))
    same = np.zeros(len(images), int)
    for name, copy in COPIES.items():
        both = np.concatenate([found, prints([copy(picture) for picture in pictures])])
        bits = np.bitwise_count(own ^ both["hashes"][len(images) :, 0])
        apart = differences(both, images, images + len(images), same)
        shifted = differences(both, images, images + len(images), same, SHIFT)
        dropped = ((bits == 0) & (apart <= DUPLICATE)).mean()
        near = ((bits <= DISTANCE) & (shifted <= NEAR)).mean()
        found_as = f"dropped {dropped:6.1%}, found {near:6.1%}"
        print(f"  {name:13}  {found_as}, at most {apart.max():.3f} apart")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per-class", type=int, default=40)
    parser.add_argument("--frames", type=float, nargs="+", default=[1, 2, 3.3, 5])
    arguments = parser.parse_args()
    paths = []
    for folder in sorted(path for path in arguments.folder.iterdir() if path.is_dir()):
        paths += sorted(folder.glob("*.*"))[: arguments.per_class]
    pictures = [Image.open(path).convert("RGB").resize((EDGE, EDGE)) for path in paths]
    for frame in arguments.frames:
        print(f"{len(pictures)} pictures, frame {frame:g} times as wide")
        measure(pictures if frame == 1 else [framed(picture, frame) for picture in pictures])


if __name__ == "__main__":
    main()
