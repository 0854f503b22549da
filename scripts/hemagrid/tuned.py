"""What the search found, and whether it helped: the study's tables 3 and 4, and the verdict."""

from pathlib import Path

import pandas as pd

from hemagrid import tables
from hemagrid.comparison import compare_on_tests, holm, in_points, verdicts
from hemagrid.config import TUNED_HEADS
from hemagrid.files import read_json, read_sparse
from hemagrid.published import published_tuned


def compare_tuned(inputs, out, settings):
    """Write the three tables about tuning, each as CSV with Markdown and LaTeX beside it.

    inputs: lists of paths: `metrics` of every run in grid order, `predictions` of the tuned
        runs and of the grid's runs of their backbones, `heads` (results/tuning/{run}.json)
        of the tuned runs, and `codabench` (codabench.json files; may be left out).
    out: paths `heads`, `runs` and `gain` of the tables (CSV).
    settings: `select_by`, `published`, `bootstrap`, `seed` and `codabench`, the reported
        scores {run: %}.
    Raises InputError when two runs to be compared did not predict on the same images.
    """
    metrics = tables.load_metrics(inputs["metrics"])
    heads = {Path(path).stem: read_json(path) for path in inputs["heads"]}
    predictions = {Path(path).parent.name: path for path in inputs["predictions"]}
    scores = tables.codabench_scores(settings["codabench"], inputs.get("codabench", ()))
    theirs = published_tuned() if settings["published"] else None
    written = {
        "heads": tuned_heads_table(heads, theirs),
        "runs": tuned_runs_table(metrics, theirs, scores),
        "gain": tuning_gain_table(
            metrics,
            predictions,
            select_by=settings["select_by"],
            bootstrap=settings["bootstrap"],
            seed=settings["seed"],
        ),
    }
    for name, table in written.items():
        tables.write(table, Path(out[name]).with_suffix(""))


def tuned_heads_table(heads, published=None):
    """Build the study's table 3, the heads that were found, of {run: results/tuning/*.json}.

    `published` is `published.published_tuned()`, whose heads then stand beside ours.
    """
    rows = [
        {
            "run": run,
            "dense": tables.listed(found["head"]["dense"]),
            "dropout": tables.listed(found["head"]["dropout"]),
            "learning_rate": found["head"]["learning_rate"],
            "weight_decay": found["head"]["weight_decay"],
            "trial_val_accuracy_pct": 100 * found["val_accuracy"],
            "trials": found["trials"],
            "search_seconds": found["seconds"],
        }
        for run, found in heads.items()
    ]
    columns = ["run", "dense", "published_dense", "dropout", "published_dropout"]
    columns += ["learning_rate", "published_learning_rate", "weight_decay"]
    columns += ["trial_val_accuracy_pct", "trials", "search_seconds"]
    own = [name for name in columns if not name.startswith("published_")]
    return tables.beside(pd.DataFrame(rows, columns=own), published, "run", columns)


def tuned_runs_table(metrics, published=None, codabench=None):
    """Build the study's table 4, the tuned runs, of {run: metrics or None}.

    `published` is as in `tuned_heads_table`, `codabench` as in `tables.grid_table`.
    """
    columns = ["run"]
    for subset in ("val", "test", "test_augmented"):
        columns += [*tables.with_bounds(f"{subset}_accuracy_pct"), f"published_{subset}_pct"]
    columns += ["codabench_pct", "codabench_source", "published_codabench"]
    tuned = {run: m for run, m in metrics.items() if m and m["head"] in TUNED_HEADS}
    return tables.beside(tables.grid_table(tuned, codabench), published, "run", columns)


def tuning_gain_table(metrics, predictions, *, select_by, bootstrap, seed):
    """Build the verdict: each tuned run against an untuned one, on each test subset.

    metrics is {run: metrics or None}, predictions {run: path}. The untuned run is the best
    of the grid's of the same backbone on subset `select_by`; chosen there as the best of
    several, it is flattered on that subset and on the copies of its images. A run of the
    search with weight decay is compared with the backbone's other tuned run, too. Without
    such a run there is no row.

    `gain_points` is tuned minus other in percentage points with its 95 % interval,
    `p_value` that of `comparison.paired`, `p_holm` corrected over the rows of the table;
    `verdict` is "better" or "worse" where that is at most 0.05.
    """
    known = {run: m for run, m in metrics.items() if m and run in predictions}
    rows = []
    for run, other in _pairs(known, select_by):
        compared = compare_on_tests(run, other, predictions, resamples=bootstrap, seed=seed)
        for subset, gain in compared:
            rows.append(
                {
                    "run": run,
                    "compared_with": other,
                    "subset": subset,
                    "tuned_accuracy_pct": _accuracy_pct(known[run], subset),
                    "other_accuracy_pct": _accuracy_pct(known[other], subset),
                    **in_points("gain_points", gain),
                    "p_value": gain["p"],
                }
            )
    columns = ["run", "compared_with", "subset", "tuned_accuracy_pct", "other_accuracy_pct"]
    columns += [*tables.with_bounds("gain_points"), "p_value"]
    table = pd.DataFrame(rows, columns=columns)
    table["p_holm"] = holm(table["p_value"])
    table["verdict"] = verdicts(table["gain_points"], table["p_holm"])
    return table


def read_tuned(path):
    """Read a table that `compare_tuned` wrote; an empty cell is missing."""
    return read_sparse(path, "run", "dense", "dropout", "published_dense", "published_dropout")


def _pairs(metrics, select_by):
    """Yield (tuned run, run to compare it with), in the order of `metrics`."""
    tuned = {run: m for run, m in metrics.items() if m["head"] in TUNED_HEADS}
    for run, m in tuned.items():
        same = {o: n for o, n in metrics.items() if n["backbone"] == m["backbone"]}
        untuned = tables.best_run({o: n for o, n in same.items() if o not in tuned}, select_by)
        if untuned:
            yield run, untuned
        if m["head"] == "tuned_adamw":
            yield from ((run, o) for o, n in same.items() if n["head"] == "tuned")


def _accuracy_pct(metrics, subset):
    return 100 * metrics["subsets"][subset]["accuracy"]["value"]
