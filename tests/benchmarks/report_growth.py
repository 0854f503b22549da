"""Print what the report costs, by the number of runs: seconds, memory, size of the page.

    python tests/benchmarks/report_growth.py            the published study's 17 runs, and 1,000
    python tests/benchmarks/report_growth.py --runs 17

The study of 17 runs is as large as the published one: 8 classes, 2,392 test images of 96 px and
4 augmented copies of each. Larger ones have 296 test images and one copy, so that making the
results up takes minutes. The report is written by a process of its own, which is what is
measured. Exits 1 where one exceeds a limit: 30 s (10 min for more runs), 2 GiB, 15 MB, or
TensorFlow imported.
"""

import argparse
import json
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1]
SCRIPTS = TESTS.parent / "scripts"
sys.path[:0] = [str(SCRIPTS), str(TESTS)]

import numpy as np  # noqa: E402
from made_study import make_study  # noqa: E402

from hemagrid.names import CONTROLS  # noqa: E402
from hemagrid.reporting.text import aligned  # noqa: E402

CLASSES = ["basophil", "eosinophil", "erythroblast", "ig"]
CLASSES += ["lymphocyte", "monocyte", "neutrophil", "platelet"]
BACKBONES = {"mobilenetv3": 0.9, "efficientnetv2m": 0.98, "convnext": 0.97, "vgg16": 0.95}
PUBLISHED = {"per_class": 299, "copies": 4}  # 2,392 test images: the published study has 2,391
LARGE = {"per_class": 37, "copies": 1}
LIMITS = {"seconds": 30, "MiB of memory": 2048, "MB of page": 15, "TensorFlow imported": 0}
PATIENCE = 600  # seconds for more runs than the published study has
REPORT = """
import json, pickle, pathlib, sys, time
begun = time.perf_counter()
from hemagrid.reporting.page import write_report
inputs = pickle.load(open(sys.argv[1], "rb"))
write_report(sys.argv[2], inputs, select_by="test_augmented")
seconds = time.perf_counter() - begun
# Of this program alone: what `resource` tells begins with the memory of its parent.
status = pathlib.Path("/proc/self/status").read_text()
peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
imported = "tensorflow" in sys.modules
print(json.dumps({"seconds": seconds, "mib": peak, "imported": imported}))
"""


def published_runs():
    """Return the runs of the published study with a made-up skill for each."""
    grid = {
        f"{b}_cfg{n}": skill - 0.01 * n for b, skill in BACKBONES.items() for n in (1, 2, 3)
    }
    tuned = {
        "efficientnetv2m_tuned": 0.96,
        "convnext_tuned": 0.96,
        "convnext_tuned_adamw": 0.96,
    }
    cnns = {"baseline_cnn": 0.5, "regularized_cnn": 0.75}
    return cnns | grid | tuned


def many_runs(count):
    """Return runs of a large grid: the backbones in turns, each with head after head."""
    skills = np.random.default_rng(1).uniform(0.5, 0.98, count)
    names = [f"{list(BACKBONES)[n % 4]}_cfg{n // 4 + 1}" for n in range(count)]
    return dict(zip(names, map(float, skills), strict=True))


def write(folder, count):
    """Make a study up, report it, and return what that took; the page is report.html."""
    published = published_runs()
    of_published = count == len(published)
    runs = published if of_published else many_runs(count)
    controls = dict.fromkeys(CONTROLS, 0.0)
    size = PUBLISHED if of_published else LARGE
    inputs = make_study(folder, runs | controls, CLASSES, size=96, bootstrap=20, **size)
    (folder / "inputs.pickle").write_bytes(pickle.dumps(inputs))
    page = folder / "results" / "report.html"
    said = subprocess.run(
        [sys.executable, "-c", REPORT, folder / "inputs.pickle", page],
        env={"PYTHONPATH": str(SCRIPTS)},
        check=True,
        stdout=subprocess.PIPE,
    )
    measured = json.loads(said.stdout)
    return {
        "seconds": measured["seconds"],
        "MiB of memory": measured["mib"],
        "MB of page": page.stat().st_size / 1e6,
        "TensorFlow imported": measured["imported"],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, nargs="+", default=[len(published_runs()), 1000])
    parser.add_argument("--keep", type=Path, help="folder to keep the studies in")
    arguments = parser.parse_args()
    rows, failed = [], False
    with tempfile.TemporaryDirectory() as temporary:
        for count in arguments.runs:
            folder = (arguments.keep or Path(temporary)) / f"{count}_runs"
            found = write(folder, count)
            limits = LIMITS
            if count > len(published_runs()):
                limits = LIMITS | {"seconds": PATIENCE}
            failed |= any(found[name] > limit for name, limit in limits.items())
            rows.append([count, *(f"{value:,.1f}" for value in found.values())])
    print(aligned(["runs", *LIMITS], rows))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
