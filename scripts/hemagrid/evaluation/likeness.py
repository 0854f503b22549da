"""Whether new pictures look like those of a study: their size, range and colours.

A network answers any picture. What it says of one unlike all that it was trained on means
little, however sure it sounds.
"""

from pathlib import Path

import numpy as np
from PIL import Image

from hemagrid import io, names

SAMPLE = 1000  # images of the study that are looked at, evenly spaced
FILES = 50  # of its picture files whose size is read, where they still are
SLACK = 0.1  # of the span of a measure, on either side
MEASURES = {
    "darkest value": lambda pixels: pixels.min(axis=(1, 2, 3)),
    "brightest value": lambda pixels: pixels.max(axis=(1, 2, 3)),
    "mean red": lambda pixels: pixels[..., 0].mean(axis=(1, 2)),
    "mean green": lambda pixels: pixels[..., 1].mean(axis=(1, 2)),
    "mean blue": lambda pixels: pixels[..., 2].mean(axis=(1, 2)),
    "mean colourfulness": lambda pixels: np.ptp(pixels, axis=3).mean(axis=(1, 2)),
}
"""What is measured of images uint8 (n, S, S, 3), one number each from 0 to 255."""


class Likeness:
    """What the images of a study look like: originals, without augmentation.

    Args:
        folder: Folder of the study, with its images and the table of them.
    """

    def __init__(self, folder):
        table = io.read_table(Path(folder, names.SAMPLES))
        kept = table[table["skipped"] == ""]
        self.changes = {change for text in set(kept["changes"]) for change in text.split(", ")}
        images = io.open_images(Path(folder, names.IMAGES))
        pixels = io.take(images, _spread(len(images), SAMPLE))
        self.ranges = {}
        for name, measure in MEASURES.items():
            least, most = float(measure(pixels).min()), float(measure(pixels).max())
            slack = SLACK * (most - least)
            self.ranges[name] = (max(least - slack, 0.0), min(most + slack, 255.0))
        record = Path(folder, names.SOURCE)
        source = Path(folder, io.read_json(record)["path"] if record.is_file() else "")
        sources = kept["source"].iloc[_spread(len(kept), FILES)]
        edges = [edge for name in sources if (edge := longer_edge(source / name))]
        self.edges = (min(edges) / 2, max(edges) * 2) if edges else None

    def differences(self, path, pixels, changes):
        """List in what a picture is unlike those of the study.

        Args:
            path: Its file, a Path.
            pixels: uint8 (S, S, 3), as the network sees them.
            changes: List of what `read_picture` changed.

        Returns:
            A list of text, one entry per difference.
        """
        found = [
            f"{change}, as none of theirs was"
            for change in changes
            if change not in self.changes
        ]
        if self.edges and not self.edges[0] <= longer_edge(path) <= self.edges[1]:
            least, most = self.edges
            found.append(f"longer edge outside {least:.0f} to {most:.0f} pixels")
        for name, (least, most) in self.ranges.items():
            if not least <= float(MEASURES[name](pixels[np.newaxis])[0]) <= most:
                found.append(f"{name} outside {least:.0f} to {most:.0f}")
        return found


def longer_edge(path):
    """Return the longer edge of a picture file in pixels, or None if it is no such file."""
    try:
        with Image.open(path) as picture:
            return max(picture.size)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None


def _spread(count, most):
    """Return at most `most` row numbers, evenly spaced."""
    return np.unique(np.linspace(0, count - 1, most).astype(int))
