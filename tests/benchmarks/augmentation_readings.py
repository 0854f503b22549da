"""Print which reading of the published augmentation comes nearest to the published accuracies.

    python tests/benchmarks/augmentation_readings.py STUDY_ALTERNATE STUDY_SEQUENCE

The study says that RandAugment and AugMix made its copies, and not how the two combine. Each
folder holds a finished study, one per value of `augmentation.assignment`, otherwise alike. The
table compares the best published head of each model with the same run of each study; a model
without its run in all of them is left out. Accuracies are in %, with 95 % intervals.
"""

import argparse
import sys
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import pandas as pd

from hemagrid import names
from hemagrid.evaluation.metrics import ALL, load_metrics
from hemagrid.names import TEST, TEST_AUGMENTED
from hemagrid.reporting import reference
from hemagrid.reporting.text import DASH, spell

INDENT = "\N{EN DASH} "


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("studies", nargs="+", type=Path, help="folders of finished studies")
    folders = parser.parse_args().studies
    configs = [yaml.safe_load((folder / names.CONFIG).read_text()) for folder in folders]
    readings = {}
    for folder, config in zip(folders, configs, strict=True):
        found = load_metrics(sorted(folder.glob(names.METRICS.format(run="*"))))
        readings[config["augmentation"]["assignment"]] = found
    if len(readings) < len(folders):
        sys.exit(f"found twice the same augmentation.assignment: {', '.join(readings)} only")
    settings = reference.settings(configs[0]) | {"shown": True}
    published = reference.part(reference.published(settings, audit=None), "heads", "run")
    published = published[
        [all(run in r for r in readings.values()) for run in published["run"]]
    ]
    rows = [row for each in published.itertuples() for row in of_model(each, readings)]
    sums = {
        name: sum(
            abs(off) for each in published.itertuples() for off in differences(each, found)
        )
        for name, found in readings.items()
    }
    last = {"images": f"sum of {2 * len(published)} differences, points"}
    rows.append(last | {name: f"{total:.1f}" for name, total in sums.items()})
    columns = ["model", "images", "published", *readings]
    table = pd.DataFrame(rows, columns=columns).fillna("")
    print(table.to_markdown(index=False, disable_numparse=True))
    print(f"\nNearest: {min(sums, key=sums.get)}")


def of_model(published, readings):
    """Return the rows of one model: its test images, their copies, and these by policy."""
    subsets = {name: found[published.run]["subsets"] for name, found in readings.items()}
    policies = {name: of[TEST_AUGMENTED]["policies"] for name, of in subsets.items()}
    kinds = dict.fromkeys(policy for of in policies.values() for policy in of if policy != ALL)

    def row(images, scores, theirs=""):
        shown = {name: score and spelled(score) for name, score in scores.items()}
        shown = {name: text or DASH for name, text in shown.items()}
        return {
            "model": published.published_model,
            "images": images,
            "published": theirs,
        } | shown

    whole = {name: next(iter(of.values())) for name, of in policies.items()}
    counts = {f"{name}: {of['blank']} of {of['n']}" for name, of in whole.items()}
    return (
        [
            row(
                names.subset_title(subset),
                {name: of[subset]["accuracy"] for name, of in subsets.items()},
                f"{getattr(published, f'published_{subset}_pct'):.1f}",
            )
            for subset in (TEST, TEST_AUGMENTED)
        ]
        + [
            row(
                INDENT + spell(kind, "policy"),
                {
                    name: of[kind]["accuracy"] if kind in of else None
                    for name, of in policies.items()
                },
            )
            for kind in kinds
        ]
        + [
            row(
                f"{INDENT}without blank copies ({', '.join(sorted(counts))})",
                {name: of["without_blank"] for name, of in whole.items()},
            )
        ]
    )


def differences(published, found):
    """Return ours minus published on the test images and on their copies, points."""
    subsets = found[published.run]["subsets"]
    return [
        100 * subsets[subset]["accuracy"]["value"]
        - getattr(published, f"published_{subset}_pct")
        for subset in (TEST, TEST_AUGMENTED)
    ]


def spelled(score):
    return "{:.1f} ({:.1f}–{:.1f})".format(*(100 * score[k] for k in ("value", "low", "high")))


if __name__ == "__main__":
    main()
