"""Print where the seconds of a finished study went, and what starting TensorFlow took of them.

    python tests/benchmarks/where_time_goes.py [demo]

From the study's `benchmarks/`, one row for each rule, and the start of Keras as measured now.
"""

import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from hemagrid.reporting.resources import usage_table  # noqa: E402
from hemagrid.reporting.text import aligned  # noqa: E402

TENSORFLOW = ["augment", "backbone_weights", "embed", "train", "predict", "search", "explain"]
TENSORFLOW += ["score_submission"]
LEAST = 0.01  # share of rules that get a row of their own


def seconds_to_start():
    """Return the seconds of the fastest of three starts of Keras with TensorFlow."""
    taken = []
    for _ in range(3):
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import keras"], check=True, capture_output=True)
        taken.append(time.perf_counter() - begun)
    return min(taken)


def main():
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "demo")
    jobs = usage_table(folder / "benchmarks")
    jobs["seconds"] = 60 * jobs["used_minutes"]
    jobs["starts"] = jobs["rule"].isin(TENSORFLOW)
    total, start = jobs["seconds"].sum(), seconds_to_start()
    rows, rest = [], []
    by_rule = jobs.groupby("rule")["seconds"].agg(["size", "sum", "mean"])
    for rule, (count, seconds, mean) in by_rule.sort_values("sum", ascending=False).iterrows():
        if seconds < LEAST * total:
            rest.append((count, seconds))
            continue
        share = f"{seconds / total:.0%}"
        rows.append([rule, f"{count:.0f}", f"{seconds:.0f}", f"{mean:.1f}", share])
    others = [sum(column) for column in zip(*rest, strict=True)] if rest else [0, 0]
    rows.append(
        ["others", f"{others[0]:.0f}", f"{others[1]:.0f}", "", f"{others[1] / total:.0%}"]
    )
    rows.append(["all", str(len(jobs)), f"{total:.0f}", f"{total / len(jobs):.1f}", "100%"])
    print(aligned(["rule", "jobs", "seconds", "each", "share"], rows))
    starting = jobs["starts"].sum()
    training = jobs.query("rule == 'train'")
    outside = (starting - len(training)) * start
    print(
        f"\nStarting Keras on TensorFlow: {start:.1f} s, in {starting} jobs: "
        f"{starting * start / total:.0%} of all, {outside / total:.0%} in others"
        f"\nAll jobs but those of training: {1 - training['seconds'].sum() / total:.0%}."
    )


if __name__ == "__main__":
    main()
