"""Draw a study, and a second "lab" with another stain, from one folder of labelled pictures.

    python tests/benchmarks/second_lab.py FOLDER OUT [--study 200] [--lab 100] [--severity 3]

FOLDER holds a folder of pictures per class. OUT/study gets pictures of each class as they are.
OUT/lab gets other pictures of each class with `stain_shift` of data/corruptions.py. No picture
is in both, so OUT/lab serves as a test set of a study of OUT/study.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import numpy as np  # noqa: E402
from PIL import Image  # noqa: E402

from hemagrid.data.corruptions import corrupt  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder with a folder of pictures per class")
    parser.add_argument("out", type=Path, help="folder to write")
    parser.add_argument(
        "--study", type=int, default=200, help="pictures per class of the study"
    )
    parser.add_argument("--lab", type=int, default=100, help="pictures per class of the lab")
    parser.add_argument("--severity", type=int, default=3, help="of the stain's shift, 1 to 5")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    for folder in sorted(path for path in arguments.folder.iterdir() if path.is_dir()):
        files = sorted(folder.iterdir())
        wanted = arguments.study + arguments.lab
        if len(files) < wanted:
            sys.exit(f"{folder}: found {len(files)} pictures, expected at least {wanted}")
        chosen = rng.permutation(len(files))[:wanted]
        for place, number in enumerate(chosen):
            lab = place >= arguments.study
            image = np.asarray(Image.open(files[number]).convert("RGB"))
            if lab:
                (image,) = corrupt(
                    image[None],
                    [number],
                    "stain_shift",
                    arguments.severity,
                    arguments.seed,
                )
            to = arguments.out / ("lab" if lab else "study") / folder.name
            to.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(to / f"{files[number].stem}.png")
    print(f"{arguments.out}: study and lab written")


if __name__ == "__main__":
    main()
