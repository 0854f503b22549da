"""The report: one HTML file that holds everything and asks the network for nothing."""

import base64
import hashlib
from pathlib import Path

import jinja2
import numpy as np
import pandas as pd
import vl_convert
import yaml
from markupsafe import Markup

from hemagrid import io
from hemagrid.config.grid import tunable_backbones
from hemagrid.evaluation.metrics import best_run, load_metrics, put
from hemagrid.names import SUBSET_TITLES, TEST, TEST_AUGMENTED, TUNED_ADAMW, TUNED_HEADS, VAL
from hemagrid.reporting import charts, resources, tables, text
from hemagrid.reporting.pictures import Album, mistakes, picture, picture_file
from hemagrid.reporting.reference import published, published_heads, published_tuned
from hemagrid.reporting.tables import read_winner, shown_trials
from hemagrid.training.predictions import read_predictions
from hemagrid.tuning.trials import best_trial, read_trials

_TEMPLATES = Path(__file__).with_name("templates")


_GROUPS = 10  # examples of each finding about the data


_MISTAKES = 12  # pictures of a run's mistakes


_PER_CELL = 6  # pictures of one cell of a confusion matrix


_PICTURES = 2500  # in the album: with the other pictures, at most some 12 MB


def write_report(out, inputs, *, select_by, missing=()):
    """Write the report of a study as one self-contained HTML page at `out`.

    `inputs` is {name: path or list of paths}:
    metrics: metrics.json, one per run in grid order; a path without a file is a run that is
        missing, which the report says.
    predictions, confusion, history: predictions.npz, confusion_matrix.csv and history.csv; a
        file belongs to the run that its folder names.
    images, images_{subset}: uint8 (N, H, W, 3), the originals and the evaluated subsets of
        which pictures are shown.
    audit: audit.json; contact_sheet: a PNG.
    heads, winner: what `tables.aggregate` and `winner.compare_with_winner` wrote.
    explanation, explained: the table and the pictures of `gradcam.explain`.
    config, versions, study, checksums: what `provenance` wrote.
    resources: what `usage.write_usage` wrote.
    codabench: codabench.json files; one that does not exist is left out.
    finalists, trials, tuned_heads, tuned_runs, tuning_gain: only where heads were tuned:
        finalists.json, {run}_trials.csv of each search, and what `tuned.compare_tuned` wrote.

    select_by is the subset on whose accuracy the best run and heads are chosen; `missing` names
    runs without a path in `inputs`.
    """
    study = _Study(inputs, select_by, missing)
    album = Album(study.images, _PICTURES)
    drawn = []
    runs = [study.run(run, album, drawn) for run in study.ranked()]
    page = {
        "best": study.best and study.answer(),
        "select_by": SUBSET_TITLES[select_by],
        "selected_on_test": select_by != VAL,
        "missing": [run for run, m in study.metrics.items() if m is None],
        "evaluated": len(study.metrics) - sum(m is None for m in study.metrics.values()),
        "total": len(study.metrics),
        "random_backbones": study.random_backbones(),
        "subset_names": SUBSET_TITLES,
        "grid": study.grid_rows(),
        "full_grid": text.shown(study.grid),
        "devices": study.devices(),
        "published": study.published,
        "paper": study.paper(),
        "tuning": study.tuning(drawn),
        "runs": runs,
        "explanation": study.explanation(),
        "data": study.data(),
        "resources": study.resources(),
        "provenance": study.provenance(),
        "bootstrap": study.config["evaluation"]["bootstrap"],
        "seed": study.config["seed"],
        "class_names": study.class_names,
        "charts": {
            name: _draw(drawn, chart)
            for name, chart in (
                ("accuracy", study.best and charts.accuracy_chart(study.grid)),
                ("cost", study.best and charts.cost_chart(study.grid)),
                ("classes", charts.class_balance(study.audit)),
            )
        },
    }
    live = {
        "charts": drawn,
        "pictures": album.pictures,
        "cells": {run["name"]: run.pop("cells") for run in runs},
    }
    io.write_text(out, _rendered(page, live))


def _rendered(page, live):
    """Render the page; only scripts of our own may run on it, and none may load anything."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    environment.filters["duration"] = text.duration
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    scripts = [
        vl_convert.javascript_bundle(),
        (_TEMPLATES / "report.js").read_text(encoding="utf-8"),
    ]
    return environment.get_template("report.html.j2").render(
        page,
        live=live,
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        scripts=[Markup(script) for script in scripts],
        hashes=[_hash(script) for script in scripts],
    )


def _hash(script):
    """Return what a Content Security Policy asks of an inline script that may run."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _draw(drawn, chart):
    """Add a chart to those of the page; return its number and its text alternative."""
    if chart is None:
        return None
    drawn.append(charts.spec(chart))
    return {"number": len(drawn) - 1, "text": drawn[-1]["description"]}


class _Study:
    """The files of a study, read once, and what the page says of them."""

    def __init__(self, inputs, select_by, missing):
        self.inputs, self.select_by = inputs, select_by
        self.config = yaml.safe_load(Path(inputs["config"]).read_text(encoding="utf-8"))
        self.audit = io.read_json(inputs["audit"])
        self.metrics = load_metrics(inputs["metrics"], missing)
        self.published = self.config["published"]
        self.scores = tables.codabench_scores(
            self.config["codabench"]["scores"], inputs.get("codabench", ())
        )
        self.grid = tables.grid_table(self.metrics, self.scores)
        self.best = best_run(self.metrics, select_by)
        theirs = published_heads() if self.published else None
        self.best_heads = tables.best_heads_table(self.metrics, select_by, theirs, self.scores)
        self.originals = io.open_images(inputs["images"])
        self.images = {
            subset: io.open_images(inputs[f"images_{subset}"])
            for subset in SUBSET_TITLES
            if f"images_{subset}" in inputs
        }
        self.files = {
            name: {Path(path).parent.name: path for path in inputs[name]}
            for name in ("predictions", "confusion", "history")
        }
        self.class_names = [row["class"] for row in self.audit["classes"]]

    def ranked(self):
        """Name the evaluated runs, the best one first, which pictures are chosen for first."""
        runs = [run for run, m in self.metrics.items() if m]
        return sorted(runs, key=lambda run: run != self.best)

    # The answer

    def answer(self):
        """Gather the headline: the best run, beside its rivals and the published number."""
        subsets = self.metrics[self.best]["subsets"]
        theirs = self._published_of(self.best)
        return {
            "run": self.best,
            "scores": [
                {
                    "name": SUBSET_TITLES[subset],
                    "n": subsets[subset]["n"],
                    "accuracy": subsets[subset]["accuracy"],
                    "published": _number(theirs.get(f"published_{subset}_pct")),
                }
                for subset in SUBSET_TITLES
                if subset != VAL and subset in subsets
            ],
            "published_head": theirs.get("published_head"),
            **self._rivals(),
        }

    def _published_of(self, run):
        """Return the study's numbers for the model of a run, empty where it gives none."""
        for table in (self.best_heads, published_tuned()) if self.published else ():
            if run in set(table["run"]):
                return table.set_index("run").loc[run]
        return {}

    def _rivals(self):
        """Say on each test subset which runs differ from the best one by chance at most."""
        table = read_winner(self.inputs["winner"])
        chance = table["verdict"] == "no difference beyond chance"
        return {
            "compared": table["run"].nunique(),
            "rivals": [
                {"images": SUBSET_TITLES[subset], "runs": list(rows["run"])}
                for subset, rows in table[chance].groupby("subset", sort=False)
            ],
            "subsets": [SUBSET_TITLES[subset] for subset in table["subset"].unique()],
            "differences": text.shown(table.drop(columns="compared_with")),
        }

    def random_backbones(self):
        """Name the backbones of the study that start from random weights."""
        return [
            name
            for name in tunable_backbones(self.config)
            if self.config["backbones"][name]["weights"] == "random"
        ]

    # The grid

    def devices(self):
        costs = [m["cost"] for m in self.metrics.values() if m and m["cost"]]
        return sorted({cost["device"] for cost in costs})

    def grid_rows(self):
        """Lay out all runs, the published ones in place: headings and rows of cells.

        A cell is {text, value, best}: the text for people, the number to sort by (None where
        there is none), and whether no other run of ours has a better one.
        """
        table = self.grid[_columns(self.grid)]
        if self.published:
            table = _with_published(table)
        spelled = text.shown(table.drop(columns="kind"))
        shown = [name for name in table if text.heading(name) in spelled and name != "kind"]
        ours = table["kind"].isin(["cnn", "transfer"])
        best = {name: _best_of(table.loc[ours, name]) for name in shown[1:]}
        rows = [
            {
                "run": table["run"].iloc[place],
                "kind": table["kind"].iloc[place],
                "cells": [
                    {
                        "text": spelled[text.heading(name)].iloc[place],
                        "value": _number(table[name].iloc[place]),
                        "best": bool(ours.iloc[place])
                        and _number(table[name].iloc[place]) == _number(best[name]) is not None,
                    }
                    for name in shown[1:]
                ],
            }
            for place in range(len(table))
        ]
        return {"headings": list(spelled.columns), "rows": rows}

    # The published study

    def paper(self):
        """Gather the published tables 1 and 2 and figure 1, each beside ours."""
        run = self._figure_run()
        return {
            "heads": text.shown(io.read_sparse(self.inputs["heads"], *_HEAD_TEXTS)),
            "best_heads": text.shown(self.best_heads.drop(columns="run")),
            "figure": run and {"run": run, "matrix": self._matrix(run, TEST_AUGMENTED)},
        }

    def _figure_run(self):
        """Name our best run of the grid on EfficientNetV2M, whose matrix is figure 1."""
        backbones = self.config["backbones"]
        return best_run(
            {
                run: m
                for run, m in self.metrics.items()
                if m
                and m["backbone"]
                and m["head"] not in TUNED_HEADS
                and backbones[m["backbone"]]["application"] == "EfficientNetV2M"
            },
            TEST_AUGMENTED,
        )

    # Tuning

    def tuning(self, drawn):
        """Gather what the searches found and whether it helped; None where none was made."""
        if "finalists" not in self.inputs:
            return None
        gain = tables.read_tuned(self.inputs["tuning_gain"])
        heads = tables.read_tuned(self.inputs["tuned_heads"])
        return {
            **_choice(io.read_json(self.inputs["finalists"])),
            "verdicts": _verdicts(gain, self.metrics),
            "gain": text.shown(gain.drop(columns="verdict")),
            "heads": text.shown(heads),
            "weight_decay": heads["weight_decay"].notna().any(),
            "runs": text.shown(tables.read_tuned(self.inputs["tuned_runs"])),
            "searches": [_search(path, drawn) for path in self.inputs["trials"]],
        }

    # Each run

    def run(self, run, album, drawn):
        """Gather all about one run; `cells` are its pictures, by subset and cell."""
        metrics = self.metrics[run]
        entry = {"name": run, "metrics": metrics, "cells": {}, "mistakes": None}
        entry |= {"matrices": [], "curves": None, "reliability": None}
        tests = [subset for subset in metrics["subsets"] if subset != VAL]
        if run in self.files["confusion"]:
            entry["matrices"] = [self._matrix(run, subset) for subset in tests]
        if run in self.files["history"]:
            history = io.read_sparse(self.files["history"][run], "phase")
            entry["curves"] = _draw(drawn, charts.learning_curves(history))
        calibration = {subset: metrics["subsets"][subset]["calibration"] for subset in tests}
        if metrics["kind"] != "control":
            entry["reliability"] = _draw(drawn, charts.reliability(calibration))
        if run in self.files["predictions"]:
            _, subsets = read_predictions(self.files["predictions"][run])
            for subset in tests:
                if subset in self.images:
                    labels, probabilities, _ = subsets[subset]
                    chosen = album.cells(subset, labels, probabilities, _PER_CELL)
                    entry["cells"][subset] = {
                        f"{true},{predicted}": [
                            [number, round(100 * confidence, 1)] for number, confidence in cell
                        ]
                        for (true, predicted), cell in chosen.items()
                    }
            entry["mistakes"] = self._mistakes(subsets)
        return entry

    def _matrix(self, run, subset):
        """Lay out a confusion matrix: per true class a row of (count, share of the class)."""
        table = io.read_table(self.files["confusion"][run])
        table = table[table["subset"] == subset]
        names = list(dict.fromkeys(table["true"]))
        counts = table["count"].to_numpy().reshape(len(names), len(names))
        return {
            "subset": subset,
            "n": int(counts.sum()),
            "names": names,
            "rows": [
                {
                    "name": name,
                    "total": sum(row),
                    "cells": [(count, count / max(sum(row), 1)) for count in row],
                }
                for name, row in zip(names, counts.tolist(), strict=True)
            ],
        }

    def _mistakes(self, subsets):
        """Gather the most confident wrong answers on the test images, as pictures."""
        if TEST not in subsets or TEST not in self.images:
            return None
        labels, probabilities, _ = subsets[TEST]
        names = self.class_names
        return [
            {
                "picture": picture(self.images[TEST][row]),
                "true": names[labels[row]],
                "predicted": names[probabilities[row].argmax()],
                "confidence": float(probabilities[row].max()),
            }
            for row in mistakes(labels, probabilities, _MISTAKES)
        ]

    def explanation(self):
        """Gather where the network looked: per true class pictures beside their spotlights."""
        table = pd.read_csv(
            self.inputs["explanation"],
            keep_default_na=False,
            dtype={"true": str, "predicted": str, "run": str},
        )
        if table.empty:
            return None
        spotlights = np.load(self.inputs["explained"], mmap_mode="r")
        rows = {}
        for place, row in enumerate(table.itertuples()):
            rows.setdefault(row.true, []).append(
                {
                    "picture": picture(self.images[row.subset][row.row]),
                    "spotlight": picture(spotlights[place]),
                    "predicted": row.predicted,
                    "right": row.right,
                    "confidence": row.confidence,
                }
            )
        return {
            "run": table["run"].iloc[0],
            "images": SUBSET_TITLES[table["subset"].iloc[0]],
            "classes": rows,
        }

    # The data, and what a result rests on

    def data(self):
        """Gather what was found in the images and what was done about it."""
        return {
            "counts": self.audit["counts"],
            "settings": self.audit["settings"],
            "classes": text.shown(pd.DataFrame(self.audit["classes"])),
            "findings": [
                {
                    "title": title,
                    "count": self.audit[key]["count"],
                    "groups": [self._group(g) for g in self.audit[key]["examples"][:_GROUPS]],
                }
                for key, title in _FINDINGS.items()
                if self.audit[key]["count"]
            ],
            "skipped": self.audit["skipped"],
            "contact_sheet": picture_file(self.inputs["contact_sheet"]),
        }

    def _group(self, group):
        images = [
            {"picture": picture(self.originals[id_]), "id": id_, "class": class_name}
            for id_, class_name in zip(group["ids"], group["classes"], strict=True)
        ]
        return {
            "images": images,
            "more": group["size"] - len(images),
            "outcome": group.get("outcome"),
        }

    def resources(self):
        jobs = resources.read_usage(self.inputs["resources"])
        return {
            "rules": resources.summary(jobs),
            "jobs": resources.shown(jobs),
            "totals": resources.totals(jobs),
        }

    def provenance(self):
        return {
            "config": Path(self.inputs["config"]).read_text(encoding="utf-8"),
            "versions": io.read_json(self.inputs["versions"]),
            "study": io.read_json(self.inputs["study"]),
            "checksums": pd.read_csv(self.inputs["checksums"], dtype=str).fillna(""),
        }


_HEAD_TEXTS = ("head", "dense", "dropout", "published_dense", "published_dropout")


_FINDINGS = {
    "label_conflicts": "Pictures under several labels",
    "exact_groups": "Groups of duplicates (equal perceptual hash)",
    "near_groups": "Groups of near duplicates, kept within one split",
}


def _columns(grid):
    """Choose the columns of the grid that fit a page: scores on test, gap and cost."""
    scores = [name for name in grid if name.split("_pct")[0].endswith("_accuracy")]
    scores = [name for name in scores if "balanced" not in name]
    others = ("test_balanced_accuracy_pct", "test_macro_f1_pct", "test_calibration_error_pct")
    scores += ["gap_points", *(name for name in others if name in grid)]
    codabench = [name for name in grid if name.startswith("codabench")]
    cost = ["parameters", "training_seconds", "peak_memory_mib", "images_per_second"]
    return ["run", "kind", *scores, *codabench, *cost]


def _best_of(column):
    """Return the best number of a column of the grid; None where there is no telling.

    A small gap may be that of a run which knows nothing, and Codabench scores may come from
    different images.
    """
    if column.name.startswith(("gap_", "codabench_")):
        return None
    low = ("calibration_error_pct", "parameters", "_seconds", "_mib")
    return column.min() if column.name.endswith(low) else column.max()


def _with_published(grid):
    """Put each published row behind ours of the same run, or at the end."""
    names = {name: f"{name}_accuracy_pct" for name in (VAL, TEST, TEST_AUGMENTED)}
    theirs = published().rename(columns=names | {"codabench": "codabench_pct"})
    theirs = theirs[theirs["table"].isin(["heads", "tuned"])]
    theirs = theirs.assign(
        kind="published",
        codabench_source="published",
        gap_points=theirs["test_accuracy_pct"] - theirs["test_augmented_accuracy_pct"],
    )
    place = {run: number for number, run in enumerate(grid["run"])}
    order = [*range(len(grid)), *(place.get(run, len(grid)) + 0.5 for run in theirs["run"])]
    columns = [*grid, "codabench_pct", "codabench_source"]
    both = pd.concat([grid, theirs]).assign(order=order).sort_values("order", kind="stable")
    return both[list(dict.fromkeys(columns))].reset_index(drop=True)


def _choice(finalists):
    """Gather how the finalists were chosen, of the content of finalists.json."""
    chosen_by = finalists["chosen_by"]
    ranking = []
    for row in finalists["ranking"]:
        ranking.append({"backbone": row["backbone"], "run": row["run"]})
        put(ranking[-1], f"{chosen_by}_accuracy_pct", row["accuracy"])
        ranking[-1]["finalist"] = "yes" if row["backbone"] in finalists["finalists"] else None
    return {
        "chosen_by": SUBSET_TITLES.get(chosen_by),
        "on_test": chosen_by.startswith(TEST),
        "finalists": finalists["finalists"],
        "ranking": text.shown(pd.DataFrame(ranking)),
        "missing": finalists["missing"],
    }


def _verdicts(gain, metrics):
    """Put each row of the table `tuning_gain` into words, {part of the sentence: text}."""
    verdicts = []
    for row in gain.itertuples():
        run, other = metrics[row.run], metrics[row.compared_with]
        backbone = run["backbone"]
        if other["head"] in TUNED_HEADS:
            subject = f"Weight decay in the search for {backbone}"
        elif run["head"] == TUNED_ADAMW:
            subject = f"Tuning {backbone} with weight decay"
        else:
            subject = f"Tuning {backbone}"
        p = text.p_text(row.p_holm)
        verdicts.append(
            {
                "verdict": f"{subject} {_WORDS[row.verdict]}",
                "images": SUBSET_TITLES[row.subset],
                "other": row.compared_with,
                "gain": f"{row.gain_points:+z.1f} points "
                f"({row.gain_points_low:+z.1f} to {row.gain_points_high:+z.1f})",
                "p": p if p.startswith("below") else f"= {p}",
            }
        )
    return verdicts


_WORDS = {
    "better": "helped",
    "worse": "made it worse",
    "no difference beyond chance": "made no difference beyond chance",
}


def _search(path, drawn):
    """Gather the trials and the chart of one search, of results/tuning/{run}_trials.csv."""
    table = read_trials(path)
    return {
        "run": Path(path).stem.removesuffix("_trials"),
        "chart": _draw(drawn, charts.parallel_coordinates(table)),
        "trials": shown_trials(table),
        "best": f"{best_trial(table)['trial']:.0f}",
        "epochs": int((table["epochs"] - table["initial_epoch"]).sum()),
        "seconds": float(table["seconds"].sum()),
    }


def _number(value):
    return None if value is None or pd.isna(value) else float(value)
