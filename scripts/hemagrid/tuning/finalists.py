"""The choice of the backbones to tune."""

from hemagrid.errors import InputError
from hemagrid.evaluation.metrics import load_metrics
from hemagrid.io import read_json, write_json


def ranking(metrics, select_by):
    """Rank the backbones by the accuracy of their best run.

    Args:
        metrics: {run: content of metrics.json, or None if the run is missing}. Ties go to the
            first, which in grid order is the simpler head.
        select_by: Subset on which accuracy counts. Runs without it, and runs without a
            backbone, are left out.

    Returns:
        A list of {"backbone", "run", "accuracy"}, best first, one entry per backbone.
    """
    runs = [
        {"backbone": m["backbone"], "run": run, "accuracy": m["subsets"][select_by]["accuracy"]}
        for run, m in metrics.items()
        if m and m["backbone"] and select_by in m["subsets"]
    ]
    runs.sort(key=lambda row: -row["accuracy"]["value"])  # stable, so ties keep their order
    best = {}
    for row in runs:
        best.setdefault(row["backbone"], row)
    return list(best.values())


def select_finalists(metrics, out, finalists, select_by, backbones):
    """Write finalists.json: the backbones to tune, and why.

    Args:
        metrics: Paths of metrics.json in grid order.
        out: Path of finalists.json.
        finalists: Number of backbones to choose. All are taken if there are fewer.
        select_by: Subset that ranks them, as in `ranking`.
        backbones: Names that replace the choice, or None.

    Raises:
        InputError: if no transfer run was evaluated on `select_by`.
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
            f"{', '.join(loaded) or 'no runs at all'}, expected at least one; train one, or "
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
    """Read the names of the finalists from finalists.json."""
    return read_json(path)["finalists"]
