"""The report of the runs that are finished by now, written without running any job."""

import tempfile
from pathlib import Path

from hemagrid import names
from hemagrid.config import grid
from hemagrid.config.loading import nearby
from hemagrid.errors import InputError
from hemagrid.evaluation import agreement
from hemagrid.evaluation.metrics import SCORES, evaluate_run
from hemagrid.evaluation.replicates import summarize_run
from hemagrid.io import open_images, read_json, read_table, write_json
from hemagrid.reporting import page, pictures, provenance, reference, resources, tables
from hemagrid.tuning import finalists


def report_finished(config, out, recorded=None):
    """Write the report of the runs that are finished in the current folder.

    It reads what is there and writes `out` alone: nothing is trained, fetched or removed, and
    no table of the study is touched. Runs without metrics are named as missing. Those whose
    metrics an earlier release wrote are evaluated again, for this page alone.

    Args:
        config: The validated configuration.
        out: Path of the HTML page.
        recorded: That which the results are of, if it is another one: the page shows it.

    Returns:
        {"again": runs that are evaluated again, "older": runs of which this is not possible,
        "missing": runs of the config without metrics, "others": runs that are there and not in
        the config}, lists of names. All but those evaluated again are not in the report.

    Raises:
        InputError: The data set has not been split yet, or two runs did not predict on the
            same images.
    """
    if absent := [path for path in (names.IMAGES, names.AUDIT) if not Path(path).exists()]:
        raise InputError(
            f"{' and '.join(absent)}: not found in {Path.cwd()}, expected a study whose images "
            f"have been split; start it with snakemake, or change to its folder{nearby('.')}"
        )
    with tempfile.TemporaryDirectory() as folder:
        return _write(config, out, recorded, Path(folder))


def _write(config, out, recorded, folder):
    bases = grid.grid(config) | _tuned_runs(config)
    combined = grid.combinations(config)
    planned = [*bases, *combined]
    replicates = {run: grid.replicates(config, base) for run, base in bases.items()}
    replicates |= {run: [row] for run, row in combined.items()}
    known = [*(of.name for run in planned for of in replicates[run]), *names.CONTROLS]
    stored = sorted(
        Path(path).parent.name for path in Path().glob(names.METRICS.format(run="*"))
    )
    former = [run for run in known if run in stored and not _is_current(run)]
    again = [run for run in former if _evaluate_again(config, run, folder)]
    older = [run for run in former if run not in again]
    missing = [run for run in planned if run not in stored]
    current = {*stored} - {*older}
    runs = [run for run in planned if run in current]
    controls = [run for run in names.CONTROLS if run in current]
    trained = [replicate.name for run in runs for replicate in replicates[run]]

    def place(pattern, run):
        path = pattern.format(run=run)
        return str(folder / path) if run in again else path

    averaged = [run for run in runs if len(replicates[run]) > 1]
    averaged = [run for run in averaged if _exists(names.SUMMARY, run=run)]
    inputs = {
        "images": names.IMAGES,
        "audit": names.AUDIT,
        "metrics": [
            place(names.SUMMARY if run in averaged else names.METRICS, run)
            # What cannot be read counts as absent.
            + (".older" if run in older else "")
            for run in [*planned, *controls]
        ],
        "predictions": [
            path
            for subset in grid.evaluated_subsets(config)
            for path in _existing(names.PREDICTIONS, trained, test_set=subset)
        ],
        "control_predictions": [
            path
            for subset in grid.evaluated_subsets(config)
            for path in _existing(names.PREDICTIONS, controls, test_set=subset)
        ],
        "confusion": [
            path for run in runs if Path(path := place(names.CONFUSION, run)).exists()
        ],
        "history": _existing(names.HISTORY, runs),
        "codabench": _existing(names.SCORE, config["codabench"]["runs"]),
    }
    for run in averaged:
        if run in again:
            of = [replicate.name for replicate in replicates[run]]
            summarize_run(
                {
                    "metrics": [place(names.METRICS, name) for name in of],
                    "predictions": [p for p in inputs["predictions"] if Path(p).parts[1] in of],
                },
                place(names.SUMMARY, run),
                bootstrap=config["evaluation"]["bootstrap"],
                seed=grid.split_seed(config),
            )
    optional = {
        "explanation": names.EXPLAINED_TABLE,
        "explained": names.EXPLAINED_PICTURES,
        "copies": names.COPIES,
        "table_test": names.SUBSET_TABLE.format(subset=names.TEST),
        "study": names.STUDY,
        "checksums": names.CHECKSUMS,
    }
    for subset in grid.evaluated_subsets(config)[1:]:
        optional[f"images_{subset}"] = names.SUBSET_IMAGES.format(subset=subset)
    for backbone in grid.tunable_backbones(config):
        optional[f"map_{backbone}"] = names.CELL_MAP.format(backbone=backbone)
    inputs |= {name: path for name, path in optional.items() if Path(path).exists()}
    provenance.write_config(recorded or config, folder / "config.yaml")
    inputs |= _compare(config, inputs, runs, folder)
    networks = [of.name for run in runs if run in bases for of in replicates[run]]
    inputs |= _compare_answers(config, networks, folder)
    page.write_report(out, inputs, select_by=config["tuning"]["select_by"])
    others = [run for run in stored if run not in known]
    return {"again": again, "older": older, "missing": missing, "others": others}


def _is_current(run):
    """Say whether the metrics of a run hold all that this release writes."""
    path = names.METRICS.format(run=run)
    try:
        metrics = read_json(path)
    except ValueError as error:
        raise InputError(
            f"{path}: found a damaged file ({error}), expected JSON; remove it, and snakemake "
            "evaluates the run again, in seconds"
        ) from None
    subsets = metrics["subsets"].values()
    return "latency" in metrics and all(scores.keys() >= SCORES for scores in subsets)


def _evaluate_again(config, run, folder):
    """Evaluate a run into `folder`; return whether its files allow it."""
    metrics = read_json(names.METRICS.format(run=run))
    out = {
        "metrics": folder / names.METRICS.format(run=run),
        "confusion": folder / names.CONFUSION.format(run=run),
        "cost": folder / names.COST.format(run=run),
    }
    subsets = grid.evaluated_subsets(config)
    paths = [names.PREDICTIONS.format(run=run, test_set=subset) for subset in subsets]
    inputs = {"predictions": [path for path in paths if Path(path).exists()]}
    optional = {"copies": names.COPIES, "latency": names.LATENCY.format(run=run)}
    inputs |= {name: path for name, path in optional.items() if Path(path).exists()}
    if not inputs["predictions"]:
        return False
    try:
        of = {name: metrics[name] for name in ("run", "kind", "backbone", "head")}
        if metrics["cost"]:
            # With that of embedding and search, whose files may be gone.
            write_json(out["cost"], metrics["cost"])
            inputs["cost"] = out["cost"]
        evaluate_run(of, inputs, out, **config["evaluation"], seed=grid.split_seed(config))
    except (InputError, KeyError):
        return False
    return True


def _compare(config, inputs, runs, folder):
    """Compare the finished runs; write the tables into `folder` and return their paths."""
    made = {
        name: folder / f"{name}.csv"
        for name in (
            "grid",
            "heads",
            "best_heads",
            "abstention",
            "policies",
            "recall",
            "speed",
            "winner",
            "controls",
            "resources",
        )
    }
    tuning = config["tuning"]
    settings = {
        "select_by": tuning["select_by"],
        "bootstrap": config["evaluation"]["bootstrap"],
        "seed": grid.split_seed(config),
    }
    published = reference.published(reference.settings(config), read_json(names.AUDIT))
    tables.aggregate(
        inputs["metrics"],
        made | {"headline": folder / "headline.txt", "grid_short": folder / "grid_short.tex"},
        tuning["select_by"],
        published,
        heads={name: config["heads"][name] for name in config["grid"]["heads"]},
        reported=config["codabench"]["scores"],
        codabench=inputs["codabench"],
        watts=config["cost"]["watts"],
    )
    tables.compare_with_winner(inputs, made, settings)
    resources.write_usage(names.BENCHMARKS, made["resources"])
    made["config"] = folder / "config.yaml"
    copies = names.SUBSET_TABLE.format(subset=names.TRAIN)
    augmented = names.SUBSET_IMAGES.format(subset=names.TRAIN)
    if Path(copies).exists() and Path(augmented).exists():
        made["contact_sheet"] = folder / "contact_sheet.png"
        pictures.write_contact_sheet(
            open_images(names.IMAGES),
            open_images(augmented),
            read_table(copies),
            made["contact_sheet"],
        )
    worse = {
        "test": _existing(names.PREDICTIONS, runs, test_set=names.TEST),
        "corrupted": _existing(names.CORRUPTED, runs) if grid.corruptions(config) else [],
    }
    if worse["corrupted"]:
        out = {name: folder / f"{name}.csv" for name in ("corruptions", "corruption_summary")}
        tables.compare_corruptions(worse, out, {k: settings[k] for k in ("bootstrap", "seed")})
        made |= out
    tuned = [run for run in runs if run in _tuned_runs(config)]
    if tuned and Path(names.FINALISTS).exists():
        out = {part: folder / f"tuned_{part}.csv" for part in ("heads", "runs", "gain")}
        tables.compare_tuned(
            inputs | {"heads": _existing(names.FOUND_HEAD, tuned)},
            out,
            settings | {"codabench": config["codabench"]["scores"]},
            published,
        )
        made |= {
            "finalists": names.FINALISTS,
            "trials": _existing(names.TRIALS, tuned),
            "tuned_heads": out["heads"],
            "tuned_runs": out["runs"],
            "tuning_gain": out["gain"],
        }
    return made


def _compare_answers(config, networks, folder):
    """Compare what networks answer for single images, as `_compare` does for runs."""
    untouched = [s for s in grid.evaluated_subsets(config) if s not in names.AUGMENTED]
    tables_of = {s: names.SUBSET_TABLE.format(subset=s) for s in untouched}
    found = {f"table_{s}": path for s, path in tables_of.items() if Path(path).exists()}
    found["predictions"] = [
        path
        for subset in untouched
        if f"table_{subset}" in found
        for path in _existing(names.PREDICTIONS, networks, test_set=subset)
    ]
    made = {n: folder / f"{n}.csv" for n in ("agreement", "hard_images", "label_noise")}
    agreement.compare_answers(found, made)
    return made


def _tuned_runs(config):
    """Return the tuned runs of the study; none before its finalists are known."""
    chosen = config["tuning"]["backbones"]
    if chosen is None:
        known = Path(names.FINALISTS).exists()
        chosen = finalists.read(names.FINALISTS) if known else []
    return grid.tuned_runs(config, chosen)


def _exists(pattern, **wildcards):
    return Path(pattern.format(**wildcards)).exists()


def _existing(pattern, runs, **wildcards):
    paths = [pattern.format(run=run, **wildcards) for run in runs]
    return [path for path in paths if Path(path).exists()]
