"""Measure how the cost of a study grows: with its images, with the runs of its grid.

    python tests/benchmarks/growth.py [--only NAME] [--scale 0.1]

A row for each stage and size: seconds, the largest memory, and what is to be kept. Every row is
measured in a process of its own. `make bench` runs this after `bench.py`. Minutes.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
sys.path[:0] = [str(ROOT / "scripts"), str(TESTS)]

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
import yaml  # noqa: E402
from processes import last_line  # noqa: E402

from hemagrid.reporting.text import aligned  # noqa: E402

PUBLISHED, MILLION = 13_759, 1_000_000
SAMPLE = 20_000  # of the million images of which the rules are measured
CORES = 2
DISTANCE = 4
CLASSES = [f"class_{k}" for k in range(8)]


def fingerprints(count, folder):
    from hemagrid.data.duplicates import fingerprint

    images = np.random.default_rng(0).integers(0, 256, (count, 96, 96, 3), dtype="uint8")
    begun = time.perf_counter()
    fingerprint(images, CORES)
    return {"seconds": time.perf_counter() - begun}


def near_pairs(count, folder):
    """Pair made-up hashes of eight views each; every tenth is near a view of another one."""
    from hemagrid.data.duplicates import VIEWS, near_pairs

    random = np.random.default_rng(0)
    hashes = random.integers(0, 2**64, (count, len(VIEWS)), dtype="uint64")
    copied = random.integers(count // 10, count, count // 10)
    views = random.integers(0, len(VIEWS), count // 10)
    hashes[copied, 0] = hashes[np.arange(len(copied)), views] ^ np.uint64(1 << 7)
    begun = time.perf_counter()
    found = sum(len(left) for left, _, _ in near_pairs(hashes, DISTANCE))
    seconds = time.perf_counter() - begun
    assert found >= 0.9 * len(np.unique(copied))
    return {"seconds": seconds, "note": f"{found:,} pairs"}


def small_cells(count, folder):
    """Find no duplicates among pictures of small cells, nearly all with near hashes."""
    from hemagrid.data.duplicates import deduplicate, fingerprint

    random = np.random.default_rng(0)
    images = np.full((count, 96, 96, 3), 230, "uint8")
    cells = random.integers(60, 200, (count, 6, 6, 1)).repeat(4, axis=1).repeat(4, axis=2)
    images[:, 36:60, 36:60] = cells.astype("uint8")
    names = np.arange(count).astype(str)
    samples = pd.DataFrame({"id": range(count), "label": 0, "class_name": "a"})
    samples = samples.assign(source=names, sha256=names)
    settings = {"duplicates": "pixels", "label_conflicts": "keep_first"}
    settings |= {"duplicate_difference": 0.06, "near_duplicate_difference": 0.15}
    settings |= {"near_duplicate_distance": DISTANCE}
    prints = fingerprint(images, CORES)
    begun = time.perf_counter()
    kept = deduplicate(samples, prints, settings)["kept"].sum()
    return {"seconds": time.perf_counter() - begun, "note": f"{kept:,} kept"}


def dry_run(runs, folder):
    """Plan a grid of 50 backbones and as many heads as make so many runs."""
    names = [f"net{place:02}" for place in range(50)]
    heads = {f"head{place:02}": {"dense": [64 + place]} for place in range(runs // 50)}
    common = {"dropout": [0.3], "batch_norm": True, "learning_rate": 1e-3}
    network = {"application": "MobileNetV3Large", "weights": "random"}
    network |= {"top": "expanded_conv_12_project_bn"}
    config = {
        "dataset": {"source": "smears", "path": None},
        "backbones": dict.fromkeys(names, network),
        "heads": {name: head | common for name, head in heads.items()},
        "grid": {"backbones": names, "heads": list(heads)},
        "tuning": {"adamw": []},
    }
    (folder / "grid.yaml").write_text(yaml.safe_dump(config))
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "--cores", "1"]
    command += ["--snakefile", ROOT / "workflow" / "Snakefile", "--directory", folder]
    begun = time.perf_counter()
    subprocess.run(
        [*command, "--configfile", folder / "grid.yaml"], check=True, capture_output=True
    )
    return {"seconds": time.perf_counter() - begun}


def report(runs, folder):
    """Write the tables and the report of made-up results of so many runs."""
    from made_study import make_study

    from hemagrid.reporting import tables
    from hemagrid.reporting.page import write_report

    skills = {f"cnn_{place:04}": 0.5 + 0.4 * place / runs for place in range(runs)}
    skills |= {"majority_class": 0.0, "random_labels": 0.0}
    inputs = make_study(folder, skills, CLASSES, per_class=30, size=48, bootstrap=20)
    out = folder / "tables"
    begun = time.perf_counter()
    tables.aggregate(
        inputs["metrics"],
        {
            **{
                name: out / f"{name}.csv"
                for name in (
                    "grid",
                    "best_heads",
                    "heads",
                    "abstention",
                    "policies",
                    "recall",
                    "speed",
                )
            },
            "headline": out / "headline.txt",
            "grid_short": out / "grid_short.tex",
        },
        select_by="test_augmented",
        published=False,
        heads={},
        reported={},
    )
    aggregated = time.perf_counter() - begun
    write_report(folder / "report.html", inputs, select_by="test_augmented")
    size = (folder / "report.html").stat().st_size / 1e6
    seconds = time.perf_counter() - begun
    return {"seconds": seconds, "note": f"tables {aggregated:.0f} s, page {size:.0f} MB"}


def dataset(count, folder):
    """Run the rules from images to splits on so many images; add up what they took."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, 96, 96, 3), dtype="uint8")
    labels = np.arange(count) % len(CLASSES)
    np.savez(folder / "set.npz", images=images, labels=labels)
    config = {"dataset": {"source": "npz", "path": str(folder / "set.npz"), "classes": CLASSES}}
    (folder / "set.yaml").write_text(yaml.safe_dump(config))
    targets = ["results/dataset/splits.csv", "results/dataset/test.npy"]
    command = [sys.executable, "-m", "snakemake", *targets, "--cores", str(CORES)]
    command += ["--snakefile", ROOT / "workflow" / "Snakefile", "--directory", folder]
    subprocess.run(
        [*command, "--configfile", folder / "set.yaml"], check=True, capture_output=True
    )
    used = {
        path.stem: pd.read_csv(path, sep="\t").iloc[0]
        for path in (folder / "benchmarks").glob("*.tsv")
    }
    seconds = sum(row["s"] for row in used.values())
    hours = seconds * MILLION / count / 3600
    return {
        "seconds": seconds,
        "mib": max(float(row["max_rss"]) for row in used.values()),
        "note": f"{hours:.1f} h for {MILLION:,}, if in proportion",
    }


ROWS = [
    (fingerprints, "fingerprints of images of 96 px", PUBLISHED // 8, ""),
    (fingerprints, "fingerprints of images of 96 px", PUBLISHED, "near linear"),
    (near_pairs, "near pairs among hashes of eight views", PUBLISHED, ""),
    (near_pairs, "near pairs among hashes of eight views", MILLION, "30 s, 2,048 MiB"),
    (small_cells, "duplicates among small cells, images", PUBLISHED // 8, ""),
    (small_cells, "duplicates among small cells, images", PUBLISHED, ""),
    (dataset, "rules from an npz to splits, images", SAMPLE // 4, ""),
    (dataset, "rules from an npz to splits, images", SAMPLE, "near linear"),
    (dry_run, "snakemake -n, runs", 100, ""),
    (dry_run, "snakemake -n, runs", 1000, "60 s"),
    (report, "tables and report, runs", 100, ""),
    (report, "tables and report, runs", 1000, ""),
]


def measured(work, count):
    """Run one row in this process; print what it took as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        found = work(count, Path(folder))
    # Of this program alone: what `resource` tells begins with the memory of its parent.
    status = Path("/proc/self/status").read_text()
    found.setdefault("mib", int(status.split("VmHWM:")[1].split()[0]) / 1024)
    print(json.dumps(found))


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", default="", help="rows whose function's name holds this")
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes")
    parser.add_argument("--row", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.row is not None:
        work, _, count, _ = ROWS[arguments.row]
        measured(work, int(count * arguments.scale))
        return
    table = []
    for place, (work, what, count, goal) in enumerate(ROWS):
        if arguments.only not in work.__name__:
            continue
        found = json.loads(last_line(__file__, "--row", place, "--scale", arguments.scale))
        cells = [what, f"{int(count * arguments.scale):,}", f"{found['seconds']:.1f}"]
        cells += [f"{found['mib']:,.0f}", goal, found.get("note", "")]
        table.append(cells)
        print("  ".join(cells), file=sys.stderr, flush=True)
    print(aligned(["what", "how many", "seconds", "MiB", "to keep", ""], table))


if __name__ == "__main__":
    main()
