"""The tables of a study as data frames and files: values here, their spelling in `text`."""

import textwrap
from pathlib import Path

import pandas as pd

from hemagrid.evaluation import corruptions
from hemagrid.evaluation.comparisons import control_table, tuning_gain_table, winner_table
from hemagrid.evaluation.metrics import (
    SHARED,
    best_run,
    load_metrics,
    put,
    whole_seconds,
    with_bounds,
)
from hemagrid.evaluation.predictions import by_run
from hemagrid.io import read_json, read_sparse, write_table, write_text
from hemagrid.names import (
    HOLDOUT,
    OWN,
    TEST,
    TEST_AUGMENTED,
    TRAINED,
    TUNED_HEADS,
    VAL,
    subset_title,
)
from hemagrid.reporting.reference import part
from hemagrid.reporting.text import (
    DASH,
    MINUS,
    SCORES,
    aligned,
    covered,
    listed,
    shorten,
    shown,
    spell,
    subsets_of,
)

_COST = ("parameters", "peak_memory_mib", "images_per_second")


def codabench_scores(reported, scored):
    """Gather what packages of runs scored on the leaderboard and here.

    Args:
        reported: {run: %}, as the leaderboard gave them.
        scored: Paths of codabench.json files; those that do not exist are ignored.

    Returns:
        {run: {column: value}} with the columns `codabench_pct` of a reported score, and
        `local_score_pct` and `local_score_set` (name of the images) of one that was made here.
    """
    scores = {run: {"codabench_pct": pct} for run, pct in reported.items()}
    for path in map(Path, scored):
        if path.exists():
            score = read_json(path)
            scores.setdefault(path.parent.name, {}).update(
                local_score_pct=100 * score["accuracy"]["value"], local_score_set=score["set"]
            )
    return scores


def with_codabench(table, scores):
    """Add the columns of `codabench_scores` to a table with a column `run`.

    A column is left out if no run of the table has a value.
    """
    scores = scores or {}
    for column in ("codabench_pct", "local_score_pct", "local_score_set"):
        values = [scores.get(run, {}).get(column) for run in table["run"]]
        if any(value is not None for value in values):
            table = table.assign(**{column: values})
    return table


def grid_table(metrics, codabench=None):
    """Build the table of all runs.

    Args:
        metrics: {run: content of metrics.json, or None if the run is missing}.
        codabench: What `codabench_scores` returns, or None.

    Returns:
        A data frame with one row per run, in the order given; a missing run has a row without
        numbers. Columns that end in `_pct` are in %. `{subset}_auc` is the macro one-vs-rest
        area under the ROC curve, 0 to 1. `gap_points` (test minus augmented test accuracy) and
        `{test set}_drop_points` (test accuracy minus that on other images) are in percentage
        points. `_low` and `_high` bound 95 % intervals. Where runs have several replicates,
        scores are means over them, `_least` and `_most` the range, `replicates` the number, and
        `seed_share_pct` the part of the variance of an accuracy that more replicates would
        reduce.
    """
    known = [m for m in metrics.values() if m]
    subsets = list(dict.fromkeys(subset for m in known for subset in m["subsets"]))
    columns = ["run", "kind", "backbone", "head"]
    repeated = any("replicates" in m for m in known)
    columns += ["replicates"] * repeated
    for subset in subsets:
        for score in SCORES:
            column = f"{subset}_{score}_pct"
            columns += [column] if score == "calibration_error" else with_bounds(column)
            if repeated and score == "accuracy":
                columns += [f"{column}_least", f"{column}_most", f"{subset}_seed_share_pct"]
        columns.append(f"{subset}_auc")
        if any("drop" in m["subsets"].get(subset, ()) for m in known):
            columns += with_bounds(f"{subset}_drop_points")
    columns += ["gap_points", "parameters", "training_seconds", "peak_memory_mib"]
    columns += ["images_per_second"]
    costs = [m["cost"] for m in known if m["cost"]]
    columns += [name for name in SHARED if any(name in cost for cost in costs)]
    rows = []
    for run, m in metrics.items():
        if m is None:
            rows.append({"run": run, "kind": "missing"})
            continue
        row = {"run": run} | {key: m[key] for key in ("kind", "backbone", "head")}
        row["replicates"] = len(m["replicates"]) if "replicates" in m else None
        for subset, scores in m["subsets"].items():
            for score in SCORES:
                put(row, f"{subset}_{score}_pct", scores[score])
            row[f"{subset}_auc"] = scores["auc"]
            if "replicates" in m:
                accuracy = scores["accuracy"]
                for bound in ("least", "most"):
                    row[f"{subset}_accuracy_pct_{bound}"] = 100 * accuracy[bound]
                row[f"{subset}_seed_share_pct"] = 100 * accuracy["seed_share"]
            if "drop" in scores:
                put(row, f"{subset}_drop_points", scores["drop"])
        if {TEST, TEST_AUGMENTED} <= m["subsets"].keys():
            clean, augmented = (m["subsets"][s]["accuracy"] for s in (TEST, TEST_AUGMENTED))
            row["gap_points"] = 100 * (clean["value"] - augmented["value"])
        if cost := m["cost"]:
            row |= {key: cost[key] for key in _COST}
            row["training_seconds"] = cost["seconds"]
            row |= {name: cost[name] for name in SHARED if name in cost}
        rows.append(row)
    table = pd.DataFrame(rows, columns=columns).astype({"parameters": "Int64"})
    if repeated:
        table = table.astype({"replicates": "Int64"})
    return with_codabench(table, codabench)


def replicates_table(metrics, seeds):
    """Build the table of all replicates, one row for each.

    Args:
        metrics: {run: content of metrics.json or None}, the replicates of a run together.
        seeds: {run: (name of the run that it is a replicate of, number, train seed)}.

    Returns:
        A data frame with the columns of `grid_table` after replicate_of, replicate, train_seed.
    """
    table = grid_table(metrics)
    for place, name in enumerate(("replicate_of", "replicate", "train_seed")):
        table.insert(place + 1, name, [seeds[run][place] for run in table["run"]])
    return table


def heads_table(heads, published=None):
    """Build table 1 of the published study, the heads of the grid.

    Args:
        heads: {name: entry of the config}.
        published: What `reference.published` returns, to put the published heads of the same
            names beside ours, or None.

    Returns:
        A data frame with one row per head. There is a column for weight decay if any head has
        some.
    """
    rows = [
        {
            "head": name,
            "dense": listed(head["dense"]),
            "batch_norm": ("yes" if head["batch_norm"] else "no") if head["dense"] else None,
            "dropout": listed(head["dropout"]),
            "learning_rate": head["learning_rate"],
            "weight_decay": head["weight_decay"],
        }
        for name, head in heads.items()
    ]
    columns = ["head", "dense", "published_dense", "batch_norm", "published_batch_norm"]
    columns += ["dropout", "published_dropout", "learning_rate", "published_learning_rate"]
    columns += ["weight_decay"] if any(row["weight_decay"] for row in rows) else []
    own = [name for name in columns if not name.startswith("published_")]
    return _beside(pd.DataFrame(rows, columns=own), published, "configurations", columns)


def _beside(table, published, name, columns):
    """Join one of the published tables to ours by its first column; put columns in order."""
    if published is not None:
        key = table.columns[0]
        table = table.merge(part(published, name, key), on=key, how="left")
    return table[[column for column in columns if column in table]]


def best_heads_table(metrics, select_by, published=None, codabench=None):
    """Build table 2 of the published study: each CNN, and each backbone with its best head.

    Tuned heads are not part of the grid and do not compete.

    Args:
        metrics: {run: content of metrics.json or None}, in grid order.
        select_by: Subset on which the best head has the highest accuracy; ties go to the
            first.
        published: What `reference.published` returns, to put its accuracies (%) beside ours
            whatever head was the best there, or None.
        codabench: What `codabench_scores` returns, or None.

    Returns:
        A data frame with one row per model.
    """
    models = {}
    for run, m in metrics.items():
        if m and m["kind"] in TRAINED and m["head"] not in TUNED_HEADS:
            models.setdefault(m["backbone"] or run, {})[run] = m
    rows = []
    for model, runs in models.items():
        best = best_run(runs, select_by)
        if best is None:
            continue
        row = {"model": model, "run": best, "head": runs[best]["head"]}
        if "replicates" in runs[best]:
            row["replicates"] = len(runs[best]["replicates"])
        for subset in (TEST, TEST_AUGMENTED):
            if subset in runs[best]["subsets"]:
                accuracy = runs[best]["subsets"][subset]["accuracy"]
                put(row, f"{subset}_accuracy_pct", accuracy)
        rows.append(row)
    scores = [c for s in (TEST, TEST_AUGMENTED) for c in with_bounds(f"{s}_accuracy_pct")]
    counts = ["replicates"] * any("replicates" in row for row in rows)
    table = pd.DataFrame(rows, columns=["model", "run", "head", *counts, *scores])
    if published is not None:
        models = published["backbone"].fillna(published["run"])
        published = published.assign(model=models)
    columns = ["model", "run", "head", *counts, "published_head", *scores[:3]]
    columns += [f"published_{TEST}_pct"]
    columns += [*scores[3:], f"published_{TEST_AUGMENTED}_pct", "codabench_pct"]
    columns += ["published_codabench", "local_score_pct", "local_score_set"]
    return _beside(with_codabench(table, codabench), published, "heads", columns)


def abstention_table(metrics):
    """Build the table of calibration and of what runs answer that may abstain.

    Args:
        metrics: {run: content of metrics.json or None}. Controls, which are equally sure of
            every answer, have no row.

    Returns:
        A data frame with a row per run and test subset: the temperature fitted on validation
        images; the calibration error before and after it; the threshold on confidence chosen
        on validation images, the share of images that reaches it (`coverage_pct`) and their
        accuracy; the area under the risk-coverage curve; and the coverage with the threshold
        that would be chosen on these very images (`oracle_coverage_pct`). All but the
        temperature are in %.
    """
    rows = []
    for run, m in metrics.items():
        if not m or m["kind"] == "control":
            continue
        for subset, scores in m["subsets"].items():
            if subset == VAL:
                continue
            answers = scores["abstention"]
            row = {"run": run, "subset": subset, "temperature": m["temperature"]}
            shares = {
                "calibration_error": scores["calibration_error"],
                "scaled_calibration_error": scores["scaled_calibration_error"],
                "threshold": m["threshold"],
                "coverage": answers["coverage"],
                "answered_accuracy": answers["accuracy"],
                "aurc": answers["aurc"],
                "oracle_coverage": answers["oracle_coverage"],
            }
            for name, share in shares.items():
                if share is not None:
                    put(row, f"{name}_pct", share)
            rows.append(row)
    columns = ["run", "subset", "temperature", "calibration_error_pct"]
    columns += ["scaled_calibration_error_pct", "threshold_pct", "coverage_pct"]
    columns += [*with_bounds("answered_accuracy_pct"), "aurc_pct", "oracle_coverage_pct"]
    return pd.DataFrame(rows, columns=columns)


def speed_table(metrics, watts=None):
    """Build the table of how fast runs answer, and of the energy that their training took.

    Args:
        metrics: {run: content of metrics.json or None}. Controls have no row.
        watts: Mean power of the machine that trains, or None.

    Returns:
        A data frame with a row per run: the latency of one image that comes alone (median and
        95th percentile, ms), images per second in full batches, and the device, threads and
        precision that the latency was measured with. With `watts` also the `energy_kwh` of
        training: hours times watts, without embedding and search.
    """
    rows = []
    for run, m in metrics.items():
        if not m or m["kind"] == "control":
            continue
        row = {"run": run}
        if latency := m.get("latency"):
            made = latency["environment"]
            row |= {"latency_ms": latency["median_ms"], "latency_p95_ms": latency["p95_ms"]}
            row |= {"device": made["gpu"] or made["cpu"]}
            row |= {name: made[name] for name in ("threads", "precision")}
        row["images_per_second"] = m["cost"]["images_per_second"]
        if watts is not None:
            row["energy_kwh"] = m["cost"]["seconds"] / 3600 * watts / 1000
        rows.append(row)
    columns = ["run", "latency_ms", "latency_p95_ms", "images_per_second", "device", "threads"]
    columns += ["precision", *["energy_kwh"] * (watts is not None)]
    return pd.DataFrame(rows, columns=columns)


def recall_table(metrics):
    """Build the table of the recall of each class.

    Args:
        metrics: {run: content of metrics.json or None}.

    Returns:
        A data frame with a row per run, test subset and class that it has: the number of
        images, and the recall (%) with its interval.
    """
    rows = []
    for run, m in metrics.items():
        for subset, scores in m["subsets"].items() if m else ():
            for name, of in scores["per_class"].items() if subset != VAL else ():
                if of["support"]:
                    row = {"run": run, "subset": subset, "class": name, "images": of["support"]}
                    score = {"value": of["recall"]}
                    score |= {bound: of[f"recall_{bound}"] for bound in ("low", "high")}
                    put(row, "recall_pct", score)
                    rows.append(row)
    columns = ["run", "subset", "class", "images", *with_bounds("recall_pct")]
    return pd.DataFrame(rows, columns=columns)


def policies_table(metrics):
    """Build the table of accuracy by augmentation policy.

    Args:
        metrics: {run: content of metrics.json or None}.

    Returns:
        A data frame with a row per run, augmented subset and policy, that of all copies first:
        how many copies there are and how many of them are blank, and the accuracies (%) with
        and without those.
    """
    columns = ["run", "subset", "policy", "copies", "blank"]
    columns += [*with_bounds("with_blank_pct"), *with_bounds("without_blank_pct")]
    rows = []
    for run, m in metrics.items():
        for subset, scores in m["subsets"].items() if m else ():
            for policy, found in scores.get("policies", {}).items():
                row = {"run": run, "subset": subset, "policy": policy}
                row |= {"copies": found["n"], "blank": found["blank"]}
                put(row, "with_blank_pct", found["accuracy"])
                if found["without_blank"]:
                    put(row, "without_blank_pct", found["without_blank"])
                rows.append(row)
    return pd.DataFrame(rows, columns=columns)


def write(table, path):
    """Write a table as CSV with plain numbers, and beside it as Markdown and LaTeX for people.

    The LaTeX needs the package booktabs. Markup in names is escaped in both.

    Args:
        table: Data frame.
        path: Path of the CSV; the others have the suffixes `.md` and `.tex`.
    """
    path = Path(path)
    write_table(path, table)
    spelled = shown(table)
    escaped = spelled.map(
        lambda cell: cell.replace("&", "&amp;").replace("<", "&lt;").replace("|", "\\|")
    )
    markdown = escaped.to_markdown(index=False, disable_numparse=True)
    write_text(path.with_suffix(".md"), markdown + "\n")
    write_text(path.with_suffix(".tex"), latex(spelled))


def latex(spelled):
    """Lay out a table of `text.shown` for LaTeX with booktabs.

    Columns of numbers are aligned to the right.
    """
    numbers = [
        spelled[name].astype(str).str.match(rf"[+\d{MINUS}{DASH}]").all() for name in spelled
    ]
    styler = spelled.style.hide(axis="index").format(_typeset, escape="latex")
    styler = styler.format_index(axis="columns", escape="latex")
    places = "".join("r" if of_numbers else "l" for of_numbers in numbers)
    return styler.to_latex(hrules=True, column_format=places)


def _typeset(cell):
    """Write minus signs and en dashes as LaTeX does."""
    return cell.replace(MINUS, "$-$").replace(DASH, "--")


def short_table(metrics):
    """Build the table of all runs for a column of a paper: run, accuracies and cost.

    Args:
        metrics: {run: content of metrics.json or None}. Missing runs have no row.

    Returns:
        A data frame of strings. Cost is the time of training with the embedding of the backbone
        and the search of the head, if those are on record.
    """
    known = {run: m for run, m in metrics.items() if m}
    grid = grid_table(known)
    subsets = [subset for subset in (TEST, TEST_AUGMENTED) if subset in subsets_of(grid)]
    columns = [name for s in subsets for name in with_bounds(f"{s}_accuracy_pct")]
    table = shown(grid[["run", *columns]])
    titles = {TEST: "test, %", TEST_AUGMENTED: "augmented, %"}
    table.columns = ["run", *(titles[subset] for subset in subsets)]
    cost = [m["cost"] and whole_seconds(m["cost"]) for m in known.values()]
    return table.assign(cost=[spell(seconds, "seconds") for seconds in cost])


def headline(table):
    """Lay out a grid table for a terminal, at most 100 columns wide.

    As many test sets of the user's are shown as there is room for, without their intervals.
    """
    columns = {"run": [shorten(run, 24) for run in table["run"]]}
    subsets = subsets_of(table)
    for subset in (TEST, TEST_AUGMENTED):
        if subset in subsets:
            spelled = shown(table[with_bounds(f"{subset}_accuracy_pct")])
            columns[f"{subset_title(subset)} %"] = list(spelled.iloc[:, 0])
    for title, name in (("params", "parameters"), ("train time", "training_seconds")):
        columns[title] = [spell(value, name) for value in table[name]]
    if "replicates" in table:
        columns["replicates"] = [spell(value, "replicates") for value in table["replicates"]]
    lines = aligned(columns, zip(*columns.values(), strict=True))
    for subset in subsets:
        if subset in (*OWN, HOLDOUT):
            continue
        name = f"{subset}_accuracy_pct"
        wider = columns | {f"{subset} %": [spell(value, name) for value in table[name]]}
        laid_out = aligned(wider, zip(*wider.values(), strict=True))
        if max(map(len, laid_out.splitlines())) <= 100:
            columns, lines = wider, laid_out
    return lines


def aggregate(metrics, out, select_by, published, *, heads, reported, codabench=(), watts=None):
    """Write the tables over all runs.

    Args:
        metrics: Paths of metrics.json, as in `load_metrics`.
        out: Paths `grid`, `heads`, `best_heads`, `abstention`, `policies` and `speed` of tables
            (as in `write`), `recall` of a CSV, `grid_short` of `short_table` in LaTeX, and
            `headline`.
        select_by: Subset on which the best heads are chosen.
        published: What `reference.published` returns.
        heads: {name: entry of the config}, the heads of the grid.
        reported: Codabench scores {run: %}, as the leaderboard gave them.
        codabench: Paths of codabench.json files.
        watts: As in `speed_table`.
    """
    loaded = load_metrics(metrics)
    scores = codabench_scores(reported, codabench)
    grid = grid_table(loaded, scores)
    write(grid, out["grid"])
    write_text(out["grid_short"], latex(short_table(loaded)))
    write(heads_table(heads, published), out["heads"])
    write(best_heads_table(loaded, select_by, published, scores), out["best_heads"])
    write(abstention_table(loaded), out["abstention"])
    write(policies_table(loaded), out["policies"])
    write_table(out["recall"], recall_table(loaded))
    write(speed_table(loaded, watts), out["speed"])
    write_text(out["headline"], f"{headline(grid)}\n\n{textwrap.fill(covered(loaded), 100)}\n")


def list_replicates(metrics, seeds, out):
    """Write the table of all replicates.

    Args:
        metrics: Paths of their metrics.json, as in `load_metrics`.
        seeds: As in `replicates_table`.
        out: Path of the table (as in `write`).
    """
    write(replicates_table(load_metrics(metrics), seeds), out)


def compare_with_winner(inputs, out, settings):
    """Write the comparisons of each run with the winner and with the controls.

    Args:
        inputs: Lists of paths: `metrics` of every run in grid order, `predictions` of all but
            controls, `control_predictions`. Runs whose files do not exist are missing.
        out: Paths `winner` and `controls` of the tables (as in `write`).
        settings: `select_by`, `bootstrap` and `seed`, as in `comparisons.winner_table`.

    Raises:
        InputError: A run did not predict on the same images as another one.
    """
    metrics = load_metrics(inputs["metrics"])
    predictions = by_run([*inputs["predictions"], *inputs["control_predictions"]])
    write(winner_table(metrics, predictions, **settings), out["winner"])
    write(control_table(metrics, predictions), out["controls"])


def read_comparison(path):
    """Read a table that `compare_with_winner` wrote."""
    return read_sparse(path, "run", "compared_with", "subset", "verdict")


def compare_corruptions(inputs, out, settings):
    """Write what corruptions cost each run.

    Args:
        inputs: Lists of paths over runs: `test`, the predictions of the test images, and
            `corrupted`, those of their corrupted copies. Runs without both are left out.
        out: Paths `corruptions` and `corruption_summary` of the tables (as in `write`).
        settings: `bootstrap` and `seed`, as in `corruptions.accuracy_table`.

    Returns:
        Both tables, data frames.

    Raises:
        InputError: A run's predictions are not of the same images.
    """
    test, corrupted = (by_run(inputs[kind]) for kind in ("test", "corrupted"))
    answers = {
        run: corruptions.read_answers(test[run][0], corrupted[run][0])
        for run in corrupted
        if run in test
    }
    made = (
        corruptions.accuracy_table(answers, **settings),
        corruptions.summary_table(answers, **settings),
    )
    for name, table in zip(("corruptions", "corruption_summary"), made, strict=True):
        write(table, out[name])
    return made


def read_corruptions(path):
    """Read a table that `compare_corruptions` wrote."""
    return read_sparse(path, "run", "corruption", "worst_corruption")


def compare_tuned(inputs, out, settings, published):
    """Write the three tables about tuning.

    Args:
        inputs: Lists of paths: `metrics` of every run in grid order, `predictions` of the tuned
            runs and of the grid's runs of the same backbones, `heads`
            (results/tuning/{run}.json) of the tuned runs, and optionally `codabench`.
        out: Paths `heads`, `runs` and `gain` of the tables (as in `write`).
        settings: `select_by`, `bootstrap` and `seed`, as in `comparisons.tuning_gain_table`;
            `codabench`, the scores {run: %} as the leaderboard gave them.
        published: What `reference.published` returns.

    Raises:
        InputError: Two runs to be compared did not predict on the same images.
    """
    metrics = load_metrics(inputs["metrics"])
    heads = {Path(path).stem: read_json(path) for path in inputs["heads"]}
    predictions = by_run(inputs["predictions"])
    scores = codabench_scores(settings["codabench"], inputs.get("codabench", ()))
    written = {
        "heads": tuned_heads_table(heads, published),
        "runs": tuned_runs_table(metrics, published, scores),
        "gain": tuning_gain_table(
            metrics,
            predictions,
            select_by=settings["select_by"],
            bootstrap=settings["bootstrap"],
            seed=settings["seed"],
        ),
    }
    for name, table in written.items():
        write(table, out[name])


def tuned_heads_table(heads, published=None):
    """Build table 3 of the published study, the heads that the searches found.

    Args:
        heads: {run: content of results/tuning/{run}.json}.
        published: What `reference.published` returns, to put its heads beside ours, or None.
    """
    rows = [
        {
            "run": run,
            "dense": listed(found["head"]["dense"]),
            "dropout": listed(found["head"]["dropout"]),
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
    return _beside(pd.DataFrame(rows, columns=own), published, "tuned", columns)


def tuned_runs_table(metrics, published=None, codabench=None):
    """Build table 4 of the published study, the tuned runs.

    Args:
        metrics: {run: content of metrics.json or None}.
        published: As in `tuned_heads_table`.
        codabench: What `codabench_scores` returns, or None.
    """
    columns = ["run", "replicates"]
    columns += [*with_bounds(f"{VAL}_accuracy_pct"), f"published_{VAL}_pct"]
    columns += with_bounds(f"{TEST}_accuracy_pct")
    columns += with_bounds(f"{TEST_AUGMENTED}_accuracy_pct")
    columns += [f"published_{TEST_AUGMENTED}_pct"]
    columns += ["codabench_pct", "published_codabench", "local_score_pct", "local_score_set"]
    tuned = {run: m for run, m in metrics.items() if m and m["head"] in TUNED_HEADS}
    return _beside(grid_table(tuned, codabench), published, "tuned", columns)


def read_tuned(path):
    """Read a table that `compare_tuned` wrote."""
    return read_sparse(path, "run", "dense", "dropout", "published_dense", "published_dropout")


def trials_table(trials):
    """Choose the columns of a search's trials that people read, in their order."""
    names = ["trial", "bracket", "round", "parent", "epochs", "dense", "dropout"]
    names += ["learning_rate", "weight_decay", "val_accuracy_pct", "val_loss", "seconds"]
    shares = 100 * trials["val_accuracy"]
    return trials.assign(dense=trials["dense"].fillna("none"), val_accuracy_pct=shares)[names]
