"""Which backbones get a better head? Those whose best run ranks highest, or those named."""

from hemagrid.errors import InputError
from hemagrid.evaluation.metrics import load_metrics
from hemagrid.io import read_json, write_json


def ranking(metrics, select_by):
    """Rank the backbones by the accuracy of their best run on subset `select_by`.

    `metrics` is {run: content of metrics.json, or None where it is missing}. Returns
    [{"backbone", "run", "accuracy"}], best first: each backbone once, by its best head; of
    equals the one that comes first in `metrics`, as of equal heads the simpler one. Runs
    without a backbone or without that subset do not take part.
    """
    runs = [
        {"backbone": m["backbone"], "run": run, "accuracy": m["subsets"][select_by]["accuracy"]}
        for run, m in metrics.items()
        if m and m["backbone"] and select_by in m["subsets"]
    ]
    runs.sort(key=lambda row: -row["accuracy"]["value"])  # stable: equals keep their order
    best = {}
    for row in runs:
        best.setdefault(row["backbone"], row)
    return list(best.values())


def select_finalists(metrics, out, finalists, select_by, backbones):
    """Write finalists.json, the backbones to tune and why.

    `metrics` are paths of metrics.json in grid order; `finalists` is how many backbones,
    fewer where there are no more; `backbones`, unless None, are names that override the
    choice. Raises InputError when no run has been evaluated on `select_by`.
    """
    if backbones is not None:
        content = {"chosen_by": "config", "finalists": backbones, "ranking": [], "missing": []}
        write_json(out, content)
        return
    loaded = load_metrics(metrics)
    ranked = ranking(loaded, select_by)
    if not ranked:
        raise InputError(
            f"tuning: found no transfer run with an accuracy on {select_by} among "
            f"{', '.join(loaded) or 'no runs at all'}, expected one at least; train them, or "
            "name the backbones in tuning.backbones"
        )
    write_json(
        out,
        {
            "chosen_by": select_by,
            "finalists": [row["backbone"] for row in ranked[:finalists]],
            "ranking": ranked,
            "missing": [run for run, m in loaded.items() if m is None],
        },
    )


def read(path):
    """Return the names of the finalists in finalists.json."""
    return read_json(path)["finalists"]
