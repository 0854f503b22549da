"""Print what a finished study found, as the Markdown of docs/results.md.

    python tests/benchmarks/results_of_a_study.py FOLDER

Tables, all from the files of the study: each run beside the published one, what each phase of
training brought, the learning curves, and the minutes of each stage.
"""

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import pandas as pd  # noqa: E402
import yaml  # noqa: E402

from hemagrid import names  # noqa: E402
from hemagrid.evaluation.metrics import with_bounds  # noqa: E402
from hemagrid.io import read_json, read_sparse  # noqa: E402
from hemagrid.reporting import reference, resources  # noqa: E402
from hemagrid.reporting.text import shown  # noqa: E402

SUBSETS = (names.VAL, names.TEST, names.TEST_AUGMENTED)


def markdown(table):
    return shown(table).to_markdown(index=False, disable_numparse=True)


def runs(folder):
    """Each run beside the published run of the same network and head."""
    columns = ["run"]
    for subset in SUBSETS:
        columns += with_bounds(f"{subset}_accuracy_pct")
    columns += ["training_seconds"]
    grid = read_sparse(folder / names.TABLE.format(table="grid", format="csv"), "run")
    config = yaml.safe_load((folder / names.CONFIG).read_text())
    settings = reference.settings(config) | {"shown": True}
    published = reference.published(settings, read_json(folder / names.AUDIT))
    beside = pd.concat(
        [
            reference.part(published, "heads", "run"),
            reference.part(published, "tuned", "run"),
        ]
    )
    beside = beside.set_index("run")
    for subset in SUBSETS:
        column = f"published_{subset}_pct"
        if column in beside:
            grid[column] = grid["run"].map(beside[column].dropna().to_dict())
            columns.insert(columns.index(f"{subset}_accuracy_pct_high") + 1, column)
    return grid[[name for name in columns if name in grid]]


def phases(folder):
    """The best epoch of each phase of each run, by validation loss."""
    rows = []
    for path in sorted(folder.glob(names.HISTORY.format(run="*"))):
        history = read_sparse(path, "phase")
        costs = read_json(path.with_name(Path(names.COST).name))["phases"]
        for phase, epochs in history.groupby("phase", sort=False):
            best = epochs.loc[epochs["val_loss"].idxmin()]
            rows.append(
                {
                    "run": path.parent.name,
                    "phase": phase,
                    "epochs": len(epochs),
                    "best epoch": int(best["epoch"]),
                    "val_loss": best["val_loss"],
                    "val accuracy_pct": 100 * best["val_accuracy"],
                    "seconds": costs[phase]["seconds"],
                }
            )
    return pd.DataFrame(rows)


def curves(folder):
    """Validation accuracy in % after each epoch, phases in a row, a column per run."""
    columns = {}
    for path in sorted(folder.glob(names.HISTORY.format(run="*"))):
        history = read_sparse(path, "phase")
        places = history["phase"] + " " + history["epoch"].astype(str)
        columns[path.parent.name] = pd.Series(
            (100 * history["val_accuracy"]).map("{:.1f}".format).to_numpy(), index=places
        )
    table = pd.DataFrame(columns)
    table["epoch"] = table.index.str.split().str[1].astype(int)
    table["phase"] = (
        table.index.str.split()
        .str[0]
        .map({phase: place for place, phase in enumerate(("training", *names.PHASES))})
    )
    table = table.sort_values(["phase", "epoch"]).drop(columns=["phase", "epoch"])
    return table.fillna("").reset_index(names="epoch")


def stages(folder):
    """Jobs and minutes of each rule."""
    usage = resources.usage_table(folder / names.BENCHMARKS)
    sums = usage.groupby("rule")["used_minutes"].agg(["size", "sum", "max"])
    sums = sums[sums["sum"] >= 0.1].sort_values("sum", ascending=False).reset_index()
    sums.columns = ["stage", "jobs", "minutes in all", "minutes of the longest"]
    return sums.round(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of a finished study")
    folder = parser.parse_args().folder
    print(f"### Runs\n\n{markdown(runs(folder))}\n")
    print(f"### Phases\n\n{markdown(phases(folder))}\n")
    table = curves(folder).to_markdown(index=False, disable_numparse=True)
    print(f"### Validation accuracy after each epoch, %\n\n{table}\n")
    print(f"### Time\n\n{stages(folder).to_markdown(index=False)}")


if __name__ == "__main__":
    main()
