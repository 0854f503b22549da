"""Print what the report of a full study costs: seconds, memory, and its size.

    python tests/benchmarks/report_of_a_full_study.py

As large as the published study: 14 runs, 3 tuned ones and the controls, 8 classes, 2,391 test
images of 96 px and 4 augmented copies of each. The results are made up, in a minute or two;
then the report is written by a process of its own, which is what is measured. Exits 1 where it
exceeds a limit: 30 s, 2 GiB, 15 MB, or TensorFlow imported.
"""

import json
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = Path(__file__).parents[1]
SCRIPTS = TESTS.parent / "scripts"
sys.path[:0] = [str(SCRIPTS), str(TESTS)]

from made_study import make_study  # noqa: E402

from hemagrid.reporting.text import aligned  # noqa: E402

CLASSES = ["basophil", "eosinophil", "erythroblast", "ig"]
CLASSES += ["lymphocyte", "monocyte", "neutrophil", "platelet"]
BACKBONES = {"mobilenetv3": 0.9, "efficientnetv2m": 0.98, "convnext": 0.97, "vgg16": 0.95}
PER_CLASS = 299  # 2,392 test images: the published study has 2,391
LIMITS = {"seconds": 30, "MiB of memory": 2048, "MB of page": 15, "TensorFlow imported": 0}
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


def runs():
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
    return cnns | grid | tuned | {"majority_class": 0.0, "random_labels": 0.0}


def main():
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        study = {"per_class": PER_CLASS, "copies": 4, "size": 96, "bootstrap": 20}
        inputs = make_study(folder, runs(), CLASSES, **study)
        (folder / "inputs.pickle").write_bytes(pickle.dumps(inputs))
        page = folder / "report.html"
        said = subprocess.run(
            [sys.executable, "-c", REPORT, folder / "inputs.pickle", page],
            env={"PYTHONPATH": str(SCRIPTS)},
            check=True,
            stdout=subprocess.PIPE,
        )
        measured = json.loads(said.stdout)
        found = {
            "seconds": measured["seconds"],
            "MiB of memory": measured["mib"],
            "MB of page": page.stat().st_size / 1e6,
            "TensorFlow imported": measured["imported"],
        }
    rows = [[name, f"{value:,.1f}", f"{LIMITS[name]:,}"] for name, value in found.items()]
    print(aligned(["", "found", "at most"], rows))
    return int(any(found[name] > limit for name, limit in LIMITS.items()))


if __name__ == "__main__":
    sys.exit(main())
