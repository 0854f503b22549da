"""The report: one HTML file that holds everything and loads nothing."""

import base64
import gzip
import hashlib
import json
from pathlib import Path, PurePosixPath

import jinja2
import numpy as np
import pandas as pd
import vl_convert
import yaml
from markupsafe import Markup, escape

from hemagrid import io
from hemagrid.config.grid import train_seed, tunable_backbones
from hemagrid.data.audit import blank_copies, count_copies
from hemagrid.data.corruptions import corrupt
from hemagrid.evaluation.abstention import TARGET
from hemagrid.evaluation.comparisons import (
    BETTER,
    NOT_SHOWN,
    WORSE,
    beats_controls,
    frugal_run,
)
from hemagrid.evaluation.corruptions import REFERENCE
from hemagrid.evaluation.metrics import (
    ALL,
    SHARED,
    best_run,
    load_metrics,
    most_accurate,
    put,
    whole_seconds,
    with_bounds,
)
from hemagrid.evaluation.predictions import by_run, read_predictions
from hemagrid.names import (
    CARD,
    CONTROLS,
    ENSEMBLE,
    HOLDOUT,
    METRICS,
    OWN,
    REPORT,
    RUN_FIGURE,
    TEST,
    TEST_AUGMENTED,
    TRAINED,
    TRANSFER,
    TUNED_ADAMW,
    TUNED_HEADS,
    VAL,
    VIEWS,
    subset_title,
)
from hemagrid.reporting import (
    cell_map,
    charts,
    label_noise,
    model_card,
    pictures,
    reference,
    resources,
    side_by_side,
    tables,
    text,
)
from hemagrid.reporting.provenance import made_with
from hemagrid.tuning.trials import best_trial, read_trials

GROUPS = 10  # examples of each finding about the data
MISTAKES = 12  # pictures of a run's mistakes
NAMED = 3  # runs of a majority that are named where runs were not made alike
LISTED = 100  # runs in a table, the most accurate ones; that of all runs has every one
DETAILED = 30  # runs in a chart; if there are too many to list, also those with all about them
JOBS = 200  # jobs in their table
PAIRED = 20  # runs of which every pair is drawn
FEW = 6  # runs whose recalls share a chart
PER_CELL = 6  # pictures of one cell of a confusion matrix
PICTURES = 2500  # in the album; with all other pictures, the page stays below some 12 MB

_TEMPLATES = Path(__file__).with_name("templates")
_FINDINGS = {
    "label_conflicts": "Pictures with several labels",
    "group_conflicts": "Pictures in several groups, which count as one",
    "near_label_conflicts": "Near duplicates with several labels, all kept",
    "exact_groups": "Groups of duplicates",
    "near_groups": "Groups of near duplicates, kept within one split",
}
_VERDICTS = {
    BETTER: "helped",
    WORSE: "made it worse",
    NOT_SHOWN: "is not shown to make a difference",
}


def write_report(out, inputs, *, select_by):
    """Write the report of a study as one self-contained HTML page.

    Args:
        out: Path of the page.
        inputs: {name: path or list of paths}. Required are
            - metrics: metrics.json of each run in grid order; a path without a file is a run
              that is missing, which the page says;
            - predictions, confusion, history: predictions of each subset,
              confusion_matrix.csv and history.csv; the folder of a file names its run;
            - images: the originals, uint8 (N, H, W, 3), and audit: audit.json;
            - heads: a table of `tables.aggregate`;
            - winner, controls: the tables of `tables.compare_with_winner`;
            - config: config.yaml, and resources: what `resources.write_usage` wrote.

            Optional, each with its part of the page, are
            - images_{subset}: the images of a subset, uint8 (N, H, W, 3);
            - codabench: codabench.json files; those that do not exist are ignored;
            - finalists, trials, tuned_heads, tuned_runs, tuning_gain: finalists.json,
              {run}_trials.csv of each search, and the tables of `tables.compare_tuned`;
            - corruptions, corruption_summary: tables of `tables.compare_corruptions`; with them
              table_test: the table of the test images;
            - explanation, explained: the table and the pictures of `gradcam.explain`;
            - contact_sheet: a PNG;
            - replicates: the table of `tables.list_replicates`;
            - copies: the table of `audit.audit_copies`;
            - map_{backbone}: what `evaluation.cell_map.write_map` wrote for it;
            - agreement, hard_images, label_noise: what `agreement.compare_answers` wrote;
            - study, checksums: what `provenance` wrote.
        select_by: Subset on whose accuracy the best run and the best heads are chosen.
    """
    study = _Study(inputs, select_by)
    page = {
        "best": study.answer(),
        "select_by": subset_title(select_by),
        "selected_on_test": select_by != VAL,
        "missing": [run for run, m in study.metrics.items() if m is None],
        "evaluated": sum(m is not None for m in study.metrics.values()),
        "total": len(study.metrics),
        "random_backbones": [
            name
            for name in tunable_backbones(study.config)
            if study.config["backbones"][name]["weights"] == "random"
        ],
        "subset_title": subset_title,
        "published": study.published is not None,
        "different": _named(study.made_with[study.made_with["differs"]]),
        "holdout": any(m and HOLDOUT in m["subsets"] for m in study.metrics.values()),
        "training_time": text.TRAINING_TIME,
        "groups": study.audit["groups"],
        "drawn": study.config["dataset"]["source"] == "smears",
        "beyond": study.beyond(),
        "source": study.config["dataset"]["source"],
        "bootstrap": study.config["evaluation"]["bootstrap"],
        "seed": train_seed(study.config),
        "covered": text.covered(study.metrics),
        "repeated": any(m and "replicates" in m for m in study.metrics.values()),
        "grid": study.all_runs(),
        "test_sets": study.test_sets(),
        "paper": study.paper(),
        "tuning": study.tuning(),
        "policies": study.policies(),
        "abstention": study.abstention(),
        "corruptions": study.corruptions(),
        "images": label_noise.images(inputs, study.images),
        "cell_map": study.cell_map(),
        "side_by_side": study.side_by_side(),
        "speed": study.speed(),
        "card": study.best and model_card.facts(study.metrics[study.best], study.config),
        "agreement": study.agreement(),
        "runs": study.runs(),
        "others": study.others(),
        "listed": LISTED if study.too_many else None,
        "drawn_runs": len(study.shown_runs(DETAILED)),
        "blank": {
            subset_title(subset): (int(blank.sum()), len(blank))
            for subset, blank in study.blank.items()
            if blank.any()
        },
        "explanation": study.explanation(),
        "data": study.data(),
        "resources": study.resources(),
        "provenance": study.provenance(),
    }
    album = {
        "pictures": study.album.pictures,
        "cells": {run["name"]: run.pop("cells") for run in page["runs"]},
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False}
    environment.filters["counted"] = text.counted
    environment.filters["duration"] = text.duration
    environment.filters["few"] = text.few
    environment.filters["number"] = text.number
    # A narrow column breaks a name after an underscore.
    environment.filters["breakable"] = lambda name: escape(name).replace("_", Markup("_<wbr>"))
    environment.filters["percent"] = lambda share: f"{100 * share:.1f}"
    script = (_TEMPLATES / "report.js").read_text(encoding="utf-8")
    vega = vl_convert.javascript_bundle()
    # The page's Content Security Policy admits these scripts alone, by their digests.
    digests = [hashlib.sha256(text.encode()).digest() for text in (script, vega)]
    rendered = environment.get_template("report.html.j2").render(
        page,
        album=album,
        packed={
            "charts": _packed(json.dumps(study.drawn, allow_nan=False)),
            "vega": _packed(vega),
        },
        style=Markup((_TEMPLATES / "report.css").read_text(encoding="utf-8")),
        script=Markup(script),
        hashes=[f"sha256-{base64.b64encode(digest).decode()}" for digest in digests],
    )
    io.write_text(out, rendered)


class _Study:
    """The files of a study, and the sections of its page in their order."""

    def __init__(self, inputs, select_by):
        self.inputs, self.select_by = inputs, select_by
        self.config = yaml.safe_load(Path(inputs["config"]).read_text(encoding="utf-8"))
        self.audit = io.read_json(inputs["audit"])
        self.metrics = load_metrics(inputs["metrics"])
        self.best = best_run(self.metrics, select_by)
        self.published = reference.published(reference.settings(self.config), self.audit)
        scores = tables.codabench_scores(
            self.config["codabench"]["scores"], inputs.get("codabench", ())
        )
        self.grid = tables.grid_table(self.metrics, scores)
        self.best_heads = tables.best_heads_table(
            self.metrics, select_by, self.published, scores
        )
        self.made_with = made_with(self.metrics)
        self.originals = io.open_images(inputs["images"])
        self.images = {
            name.removeprefix("images_"): io.open_images(path)
            for name, path in inputs.items()
            if name.startswith("images_")
        }
        self.files = {
            name: {Path(path).parent.name: path for path in inputs[name]}
            for name in ("confusion", "history")
        } | {"predictions": by_run(inputs["predictions"])}
        self.copies, blank = None, {}
        if "copies" in inputs:
            listed = io.read_table(inputs["copies"])
            self.copies = count_copies(listed)
            blank = {subset: blank_copies(listed, subset) for subset in set(listed["subset"])}
        self.blank = {
            subset: blank[subset]
            for subset, images in self.images.items()
            if subset in blank and len(blank[subset]) == len(images)
        }
        self.album = pictures.Album(self.images, PICTURES, self.blank)
        self.drawn = []
        self.too_many = sum(m is not None for m in self.metrics.values()) > LISTED

    def answer(self):
        """The best run beside its rivals and the published numbers; None without any run."""
        if self.best is None:
            return None
        theirs = {}
        if self.published is not None:
            tuned = reference.part(self.published, "tuned", "run")
            for table in (self.best_heads, tuned.drop(columns="published_head")):
                if self.best in set(table["run"]):
                    theirs = table.set_index("run").loc[self.best]
        subsets = self.metrics[self.best]["subsets"]
        winner = tables.read_comparison(self.inputs["winner"])
        controls = tables.read_comparison(self.inputs["controls"])
        trained = [run for run, m in self.metrics.items() if m and m["kind"] in TRAINED]
        single = winner["run"].isin(trained)
        better = beats_controls(controls)
        # Without controls, nobody knows what guessing would reach.
        good = trained if controls.empty else better.get(TEST, [])
        return {
            "run": self.best,
            "ties": most_accurate(self.metrics, self.select_by)[1:],
            "scores": [
                {
                    "name": subset_title(subset),
                    "n": subsets[subset]["n"],
                    "accuracy": subsets[subset]["accuracy"],
                    "published": _number(theirs.get(f"published_{subset}_pct")),
                }
                for subset in subsets
                if subset != VAL
            ],
            "replicates": len(self.metrics[self.best].get("replicates", [self.best])),
            "published_head": theirs.get("published_head"),
            "images": subsets[TEST]["n"] if TEST in subsets else 0,
            "compared": winner["run"].nunique(),
            "others": winner.loc[single, "run"].nunique(),
            "combined": [
                self._beside_best(run, rows)
                for run, rows in winner[~single].groupby("run", sort=False)
            ],
            "crowned": self.best in good,
            "guessing": self._against_guessing(controls, better),
            "rivals": [
                {"images": subset_title(subset), "runs": len(rows)}
                | {
                    name: list(rows.loc[rows["verdict"] == verdict, "run"])
                    for name, verdict in (
                        ("same", NOT_SHOWN),
                        ("better", BETTER),
                        ("worse", WORSE),
                    )
                }
                for subset, rows in winner[single].groupby("subset", sort=False)
            ],
            "frugal": self._frugal(winner, good),
            # The words above these tables say what the p values are corrected for.
            "differences": text.shown(
                self._few(winner.drop(columns=["compared_with", "family"]))
            ),
            "controls": text.shown(self._few(controls.drop(columns="family"))),
        }

    def beyond(self):
        """List where the study cannot say how accurate a run is, to end a phrase with."""
        known = [m for m in self.metrics.values() if m]
        source, sets = (
            self.config["dataset"]["source"],
            {s for m in known for s in m["subsets"]},
        )
        once = any(m["kind"] in TRAINED and "replicates" not in m for m in known)
        found = {
            "on real cells": source == "smears",
            "in another laboratory": source != "smears" and sets <= {*OWN, HOLDOUT},
            "on a new patient": source != "smears" and self.audit["groups"] is None,
            "trained from another seed": once,
        }
        return [where for where, unknown in found.items() if unknown]

    def _against_guessing(self, controls, better):
        """Say per test set by how much the best run beats the control that comes closest."""
        found = []
        ours = controls[controls["run"] == self.best]
        for subset, rows in ours.groupby("subset", sort=False):
            row = rows.loc[rows["gain_points"].idxmin()]
            found.append(
                {
                    "images": subset_title(subset),
                    "control": row["compared_with"],
                    "gain": text.points(*row[with_bounds("gain_points")]),
                    "shown": self.best in better[subset],
                }
            )
        return found

    def _frugal(self, winner, better):
        """Describe the cheapest run that is not shown to be worse; None if none is known."""
        run = frugal_run(self.metrics, winner, better)
        if run is None:
            return None
        costs = {name: self.metrics[name]["cost"] for name in (run, self.best)}
        return {
            "run": run,
            "seconds": {name: whole_seconds(cost) for name, cost in costs.items()},
            "parameters": {name: cost["parameters"] for name, cost in costs.items()},
            "whole": all(
                cost.keys() >= {SHARED[0]} or self.metrics[name]["backbone"] is None
                for name, cost in costs.items()
            ),
            "differences": [
                {
                    "images": subset_title(row.subset),
                    "points": _run_minus_winner(row),
                    "least": -row.difference_points_high,
                }
                for row in winner[winner["run"] == run].itertuples()
            ],
        }

    def _beside_best(self, run, rows):
        """Spell what an ensemble, or a run with views, gains over the best run."""
        gains = []
        for row in rows.itertuples():
            gains.append(
                {
                    "images": subset_title(row.subset),
                    "accuracy": self.metrics[run]["subsets"][row.subset]["accuracy"],
                    "gain": _run_minus_winner(row),
                    "verdict": row.verdict,
                }
            )
        return {"run": run, "cost": self.metrics[run]["cost"], "gains": gains}

    def all_runs(self):
        """The grid with the published rows in place, the same in full, and its charts.

        A cell is {text, value, best}: the text for people, the number to sort by or None, and
        whether it is the best of our runs.
        """
        names = [f"{subset}_accuracy_pct" for subset in text.subsets_of(self.grid)]
        bounds = [f"{name}_{bound}" for name in names for bound in ("low", "high")]
        names += ["replicates", "gap_points", "test_balanced_accuracy_pct", "test_macro_f1_pct"]
        names += ["test_auc"]
        names += [
            "test_calibration_error_pct",
            "codabench_pct",
            "local_score_pct",
            "parameters",
        ]
        names += ["training_seconds", "peak_memory_mib", "images_per_second"]
        table = self.grid
        if self.published is not None:
            table = _with_published(self.grid, self.published)
        names = [name for name in names if name in table]
        kept = ["run", "kind", *names, *bounds, "local_score_set"]
        table = table[[name for name in table if name in kept]]
        ours = table["kind"].isin([*TRAINED, ENSEMBLE, VIEWS])
        spelled = text.shown(table)
        columns = []
        for name in names:
            column, values = table[name], [_number(value) for value in table[name]]
            best = None
            # A run that knows nothing has a small gap, and few runs have a package's score.
            if not name.startswith(("replicates", "gap_", "codabench_", "local_")):
                low = ("calibration_error_pct", "parameters", "_seconds", "_mib")
                best = column[ours].min() if name.endswith(low) else column[ours].max()
            columns.append(
                [
                    {
                        "text": shown,
                        "value": value,
                        "best": bool(is_ours) and value is not None and value == _number(best),
                    }
                    for shown, value, is_ours in zip(
                        spelled[text.heading(name)], values, ours, strict=True
                    )
                ]
            )
        costs = [m["cost"] for m in self.metrics.values() if m and m["cost"]]
        machines = [cost["environment"] for cost in costs if "environment" in cost]
        return {
            "headings": ["run", *(text.heading(name) for name in names)],
            "rows": [
                {"run": run, "kind": kind, "cells": cells}
                for run, kind, *cells in zip(table["run"], table["kind"], *columns, strict=True)
            ],
            "full": text.shown(self._few(self.grid)),
            "replicates": self._replicates(),
            "devices": sorted({machine["gpu"] or machine["cpu"] for machine in machines}),
            "accuracy": self._draw(
                self.best and charts.accuracy_chart(self._few(self.grid, DETAILED))
            ),
            "cost": self._draw(self.best and charts.cost_chart(self.grid)),
        }

    def _replicates(self):
        """The table of all replicates, spelled; None if every run has one."""
        if "replicates" not in self.inputs:
            return None
        texts = ("run", "replicate_of", "kind", "backbone", "head")
        return text.shown(self._few(io.read_sparse(self.inputs["replicates"], *texts)))

    def test_sets(self):
        """Each test set of other images: its runs there and on the study's test images."""
        found = []
        for subset in text.subsets_of(self.grid):
            if subset in OWN:
                continue
            scores = ("balanced_accuracy", "macro_f1")
            columns = [
                f"{TEST}_accuracy_pct",
                f"{subset}_accuracy_pct",
                f"{subset}_drop_points",
            ]
            columns += [f"{subset}_{score}_pct" for score in scores]
            columns = [name for column in columns for name in with_bounds(column)]
            columns.append(f"{subset}_auc")
            rows = self.grid[self.grid[f"{subset}_accuracy_pct"].notna()]
            known = self.metrics[rows["run"].iloc[0]]["subsets"][subset]
            per_class = known["per_class"].items()
            found.append(
                {
                    "name": subset_title(subset),
                    "holdout": subset == HOLDOUT,
                    "n": known["n"],
                    "lacking": [name for name, of in per_class if not of["support"]],
                    "drops": text.shown(self._few(rows).reindex(columns=["run", *columns])),
                }
            )
        return found

    def paper(self):
        """The published tables 1 and 2 and figure 1, each beside ours."""
        texts = ("head", "dense", "dropout", "published_dense", "published_dropout")
        # Figure 1 is of the best EfficientNetV2M of the grid on augmented test images.
        candidates = {
            run: m
            for run, m in self.metrics.items()
            if m
            and m["backbone"]
            and m["head"] not in TUNED_HEADS
            and self.config["backbones"][m["backbone"]]["application"] == "EfficientNetV2M"
        }
        run = best_run(candidates, TEST_AUGMENTED)
        return {
            "heads": text.shown(io.read_sparse(self.inputs["heads"], *texts)),
            "best_heads": text.shown(self.best_heads.drop(columns="run")),
            "figure": run and {"run": run, "matrix": self._matrix(run, TEST_AUGMENTED)},
        }

    def tuning(self):
        """What the searches found and whether it helped; None if nothing was tuned."""
        if "finalists" not in self.inputs:
            return None
        finalists = io.read_json(self.inputs["finalists"])
        chosen_by, ranking = finalists["chosen_by"], []
        for row in finalists["ranking"]:
            chosen = "yes" if row["backbone"] in finalists["finalists"] else None
            ranking.append({"backbone": row["backbone"], "run": row["run"]})
            put(ranking[-1], f"{chosen_by}_accuracy_pct", row["accuracy"])
            ranking[-1]["finalist"] = chosen
        gain = tables.read_tuned(self.inputs["tuning_gain"])
        verdicts = []
        for row in gain.itertuples():
            run, other = self.metrics[row.run], self.metrics[row.compared_with]
            subject = f"Tuning {run['backbone']}"
            if other["head"] in TUNED_HEADS:
                subject = f"Weight decay in the search for {run['backbone']}"
            elif run["head"] == TUNED_ADAMW:
                subject += " with weight decay"
            p = text.p_text(row.p_holm)
            verdicts.append(
                {
                    "verdict": f"{subject} {_VERDICTS[row.verdict]}",
                    "images": subset_title(row.subset),
                    "other": row.compared_with,
                    "gain": text.points(
                        row.gain_points, row.gain_points_low, row.gain_points_high
                    ),
                    "p": p if p.startswith("below") else f"= {p}",
                }
            )
        searches = []
        for path in self.inputs["trials"]:
            trials = read_trials(path)
            searches.append(
                {
                    "run": Path(path).stem.removesuffix("_trials"),
                    "chart": self._draw(charts.parallel_coordinates(trials)),
                    "trials": text.shown(tables.trials_table(trials)),
                    "best": f"{best_trial(trials)['trial']:.0f}",
                    "epochs": int((trials["epochs"] - trials["initial_epoch"]).sum()),
                    "seconds": float(trials["seconds"].sum()),
                }
            )
        heads = tables.read_tuned(self.inputs["tuned_heads"])
        return {
            "verdicts": verdicts,
            "gain": text.shown(gain.drop(columns="verdict")),
            "chosen_by": ranking and subset_title(chosen_by),
            "on_test": chosen_by != VAL,
            "finalists": finalists["finalists"],
            "ranking": text.shown(pd.DataFrame(ranking)),
            "missing": finalists["missing"],
            "heads": text.shown(heads),
            "weight_decay": heads["weight_decay"].notna().any(),
            "runs": text.shown(tables.read_tuned(self.inputs["tuned_runs"])),
            "searches": searches,
        }

    def policies(self):
        """Accuracy by augmentation policy, a table per augmented subset, in columns; None if no
        run has it."""
        table = self._few(tables.policies_table(self.metrics))
        shown = text.shown(table)
        if shown.empty:
            return None
        subsets = {}
        for images, rows in shown.groupby("images", sort=False):
            policies = rows.drop_duplicates("policy")
            wide = rows.pivot(index="run", columns="policy", values="accuracy, %")
            wide = wide.loc[rows["run"].unique(), policies["policy"]].add_suffix(", %")
            of_all = rows.drop_duplicates("run").set_index("run")
            wide["without blank copies, %"] = of_all["without blank copies, %"]
            parts = policies[policies["policy"] != text.spell(ALL, "policy")]
            counts = parts[["policy", "copies", "blank copies"]].to_dict("split")["data"]
            subsets[images] = {"table": wide.reset_index(), "counts": counts, "chart": None}
        table = table[table["run"].isin(self.shown_runs(DETAILED)) & (table["policy"] != ALL)]
        for subset, rows in table.groupby("subset", sort=False):
            if rows["policy"].nunique() > 1:
                chart = self._draw(charts.accuracy_by_policy(rows))
                subsets[subset_title(subset)]["chart"] = chart
        return subsets

    def shown_runs(self, count):
        """Name the most accurate runs that are no controls, at most `count`, in their order."""
        known = {
            run: m["subsets"][TEST]["accuracy"]["value"]
            for run, m in self.metrics.items()
            if m and m["kind"] != "control" and TEST in m["subsets"]
        }
        best = sorted(known, key=known.get, reverse=True)[:count]
        return [run for run in known if run in best]

    def _few(self, table, most=None):
        """Keep the most accurate runs and the controls of a table, if there are too many."""
        if not self.too_many:
            return table
        kept = {self.best, *self.shown_runs(most or LISTED), *CONTROLS}
        return table[table["run"].isin(kept)]

    def side_by_side(self):
        """Learning curves of runs in one chart, and the recall of each class by each run."""
        runs = self.shown_runs(DETAILED)
        if not runs:
            return None
        curves = {
            run: io.read_sparse(self.files["history"][run], "phase")
            for run in runs
            if run in self.files["history"]
        }
        model_of = {r: self.metrics[r]["backbone"] or r for r in curves}
        recall = tables.recall_table({run: self.metrics[run] for run in runs})
        few = recall[(recall["subset"] == TEST) & recall["run"].isin(self.shown_runs(FEW))]
        return {
            "curves": curves and self._draw(charts.learning_curves_of_runs(curves, model_of)),
            "runs": len(runs),
            "all": sum(m is not None and m["kind"] != "control" for m in self.metrics.values()),
            "drawn": few["run"].nunique(),
            "recall": self._draw(charts.recall_by_class(few)),
            "recalls": side_by_side.recalls(recall),
        }

    def speed(self):
        """How fast runs answer, and the energy of their training; None without any run."""
        watts = self.config.get("cost", {}).get("watts")
        table = tables.speed_table(self.metrics, watts)
        if table.empty:
            return None
        shown = self._few(table).dropna(axis="columns", how="all")
        return {"table": text.shown(shown), "watts": watts}

    def agreement(self):
        """How far runs agree, and what confusion matrices of two runs differ in."""
        runs = self.shown_runs(PAIRED)
        pairs = side_by_side.pairs(self.inputs, runs)
        if pairs is None:
            return None
        runs = [run for run in runs if run in {*pairs["run"], *pairs["compared_with"]}]
        paths = {
            run: self.files["confusion"][run] for run in runs if run in self.files["confusion"]
        }
        return {
            "chart": self._draw(charts.agreement_heat_map(pairs, runs)),
            "table": text.shown(pairs),
            "runs": len(runs),
            "differences": side_by_side.differences(paths, self.best, self.metrics),
        }

    def cell_map(self):
        """The validation copies as the backbone of the best transfer run sees them, and what
        the run answers; None without such a run, its predictions or its map."""
        transfer = {r: m for r, m in self.metrics.items() if m and m["kind"] == TRANSFER}
        run = best_run(transfer, self.select_by)
        backbone = run and transfer[run]["backbone"]
        predictions = {Path(path).stem: path for path in self.files["predictions"].get(run, ())}
        if VAL not in predictions or f"map_{backbone}" not in self.inputs:
            return None
        path = self.inputs[f"map_{backbone}"]
        places, classes, images = cell_map.places(path, predictions[VAL])
        if places is not None and places.empty:
            return None
        return {
            "run": run,
            "backbone": backbone,
            "chart": None if places is None else self._draw(charts.cell_map(places, classes)),
            "shown": 0 if places is None else len(places),
            "images": images,
        }

    def abstention(self):
        """What runs answer that may abstain, and how well their confidence is calibrated."""
        if self.best is None:
            return None
        drawn = {run: self.metrics[run] for run in self.shown_runs(DETAILED)}
        return {
            "target": TARGET,
            "chart": self._draw(charts.risk_coverage_of_runs(drawn or self.metrics)),
            "table": text.shown(self._few(tables.abstention_table(self.metrics))),
        }

    def corruptions(self):
        """What worse pictures cost; None if no run predicted any."""
        if "corruptions" not in self.inputs:
            return None
        table = tables.read_corruptions(self.inputs["corruptions"])
        summary = tables.read_corruptions(self.inputs["corruption_summary"])
        if table.empty:
            return None
        of_kinds = table.groupby("corruption", sort=False)["fall_points"].mean()
        falls = summary.sort_values("mean_fall_points", kind="stable", ascending=False)
        few = self.shown_runs(DETAILED)
        drawn = [of[of["run"].isin(few)] for of in (table, summary)]
        return {
            "chart": self._draw(charts.corruption_heat_map(*drawn)),
            "severities": sorted(map(int, table["severity"].unique())),
            "kinds": len(of_kinds),
            "most": falls.iloc[0],
            "least": falls.iloc[-1] if len(falls) > 1 else None,
            "worst_kind": of_kinds.idxmax(),
            "worst_kind_fall": of_kinds.max(),
            "largest": table.loc[table["fall_points"].idxmax()],
            "reference": REFERENCE,
            "has_reference": "mce_pct" in summary,
            "summary": text.shown(self._few(summary)),
            "table": text.shown(table[table["run"].isin(few)]),
            "examples": self._examples(list(of_kinds.index)),
        }

    def _examples(self, kinds):
        """Corrupt the first test image: {kind: a picture per severity}, "none" first."""
        if TEST not in self.images or "table_test" not in self.inputs:
            return None
        image, seed = self.images[TEST][:1], self.config["seed"]
        ids = io.read_table(self.inputs["table_test"])["parent_id"][:1]
        return {"none": [pictures.picture(image[0])]} | {
            kind: [
                pictures.picture(corrupt(image, ids, kind, severity, seed)[0])
                for severity in range(1, 6)
            ]
            for kind in kinds
        }

    def runs(self):
        """All about each run, or the most accurate ones if there are too many.

        The best one comes first and chooses its pictures first. `cells` holds the pictures of
        confusion matrices: {subset: {"true,predicted": [[number in the album, confidence in
        %]]}}.
        """
        entries = []
        for run in sorted(self._detailed(), key=lambda run: run != self.best):
            metrics = self.metrics[run]
            entry = {"name": run, "metrics": metrics, "cells": {}, "mistakes": None}
            entry |= {"matrices": [], "curves": None, "reliability": None, "stale": []}
            entry["abstention"] = None
            tests = [subset for subset in metrics["subsets"] if subset != VAL]
            if run in self.files["confusion"]:
                entry["matrices"] = [self._matrix(run, subset) for subset in tests]
            if run in self.files["history"]:
                history = io.read_sparse(self.files["history"][run], "phase")
                entry["curves"] = self._draw(charts.learning_curves(history))
            if metrics["kind"] != "control":
                bins = charts.calibration_of(metrics), charts.scaled_calibration_of(metrics)
                entry["reliability"] = self._draw(charts.reliability(*bins))
                answers = charts.abstention_of(metrics)
                entry["abstention"] = self._draw(charts.risk_coverage(answers))
            if run in self.files["predictions"]:
                names, answers = read_predictions(self.files["predictions"][run])
                for subset in tests:
                    if subset not in self.images:
                        continue
                    labels, probabilities, _ = answers[subset]
                    if len(labels) != len(self.images[subset]):
                        entry["stale"].append(subset_title(subset))
                        continue
                    chosen = self.album.cells(subset, labels, probabilities, PER_CELL)
                    entry["cells"][subset] = {
                        f"{true},{predicted}": [
                            [number, round(100 * confidence, 1)] for number, confidence in cell
                        ]
                        for (true, predicted), cell in chosen.items()
                    }
                if TEST in entry["cells"]:
                    labels, probabilities, _ = answers[TEST]
                    entry["mistakes"] = [
                        {
                            "picture": pictures.picture(self.images[TEST][row]),
                            "true": names[labels[row]],
                            "predicted": names[probabilities[row].argmax()],
                            "confidence": float(probabilities[row].max()),
                        }
                        for row in pictures.mistakes(labels, probabilities, MISTAKES)
                    ]
            entries.append(entry)
        return entries

    def _detailed(self):
        """Name the runs with all about them in the page."""
        evaluated = [run for run, m in self.metrics.items() if m]
        few = {self.best, *self.shown_runs(DETAILED)}
        return [run for run in evaluated if run in few or not self.too_many]

    def others(self):
        """The other runs, with the files about each: {run: {what: path beside the page}}."""
        detailed = self._detailed()
        found = {}
        for run, metrics in self.metrics.items():
            if not metrics or run in detailed:
                continue
            files = {"metrics": METRICS}
            if metrics["kind"] != "control":
                files["confusion matrix"] = RUN_FIGURE
            if metrics["kind"] in TRAINED:
                files |= {"learning curves": RUN_FIGURE, "model card": CARD}
            found[run] = {}
            for what, path in files.items():
                path = path.format(run=run, figure=what.replace(" ", "_"), format="svg")
                found[run][what] = PurePosixPath(path).relative_to(Path(REPORT).parent)
        return found

    def explanation(self):
        """Where the network looked: pictures beside their spotlights, by true class."""
        if "explanation" not in self.inputs:
            return None
        table = io.read_sparse(self.inputs["explanation"], "true", "predicted", "run")
        if table.empty:
            return None
        spotlights = np.load(self.inputs["explained"], mmap_mode="r")
        classes = {}
        for place, row in enumerate(table.itertuples()):
            classes.setdefault(row.true, []).append(
                {
                    "picture": pictures.picture(self.images[row.subset][row.row]),
                    "spotlight": pictures.picture(spotlights[place]),
                    "predicted": row.predicted,
                    "right": row.right,
                    "confidence": row.confidence,
                }
            )
        return {
            "run": table["run"].iloc[0],
            "images": subset_title(table["subset"].iloc[0]),
            "classes": classes,
        }

    def data(self):
        """What was found in the images and what was done about it."""
        findings, groups = [], self.audit["groups"]
        for key, title in _FINDINGS.items():
            examples = []
            for group in self.audit[key]["examples"][:GROUPS]:
                images = [
                    {
                        "picture": pictures.picture(self.originals[id_]),
                        "id": id_,
                        "class": class_name,
                        "difference": difference,
                    }
                    for id_, class_name, difference in zip(
                        group["ids"], group["classes"], group["differences"], strict=True
                    )
                ]
                more = group["size"] - len(images)
                examples.append(
                    {"images": images, "more": more, "outcome": group.get("outcome")}
                )
            if examples:
                count = self.audit[key]["count"]
                findings.append({"title": title, "count": count, "groups": examples})
        files = []
        for row in self.audit["files"]:
            files.append({"class": row["class"] or "outside the classes", "read": row["read"]})
            files[-1] |= row["changed"]
            files[-1] |= {f"skipped: {why}": count for why, count in row["skipped"].items()}
        files = pd.DataFrame(files)
        sheet = self.inputs.get("contact_sheet")
        return {
            "counts": self.audit["counts"],
            "settings": self.audit["settings"],
            "class_names": [row["class"] for row in self.audit["classes"]],
            "classes": text.shown(pd.DataFrame(self.audit["classes"])),
            "chart": self._draw(charts.class_balance(self.audit)),
            "findings": findings,
            "files": text.shown(files) if len(files.columns) > 2 else None,
            "skipped": self.audit["skipped"],
            "test_sets": self.audit["test_sets"],
            "largest_groups": groups
            and text.shown(pd.DataFrame(groups["largest"]["examples"])),
            "copies": None if self.copies is None else text.shown(self.copies),
            "contact_sheet": sheet and pictures.sheet(sheet),
        }

    def resources(self):
        """What jobs asked for and what they used."""
        jobs = resources.read_usage(self.inputs["resources"])
        return {
            "rules": resources.summary(jobs),
            "jobs": resources.shown(
                jobs if len(jobs) <= JOBS else jobs.nlargest(JOBS, "used_minutes")
            ),
            "all": len(jobs),
            "totals": resources.totals(jobs),
        }

    def provenance(self):
        """What the results rest on."""
        study, checksums = (self.inputs.get(name) for name in ("study", "checksums"))
        return {
            "made_with": _named(self.made_with),
            "study": study and io.read_json(study),
            "checksums": pd.read_csv(checksums, dtype=str).fillna("") if checksums else None,
            "config": Path(self.inputs["config"]).read_text(encoding="utf-8"),
        }

    def _draw(self, chart):
        """Add a chart to those of the page; return its number and its text alternative."""
        if chart is None:
            return None
        self.drawn.append(spec := charts.spec(chart))
        height = charts.height(spec)
        return {"number": len(self.drawn) - 1, "text": spec["description"], "height": height}

    def _matrix(self, run, subset):
        """Lay out a confusion matrix: per true class a row of (count, share of the class)."""
        table = io.read_table(self.files["confusion"][run])
        table = table[table["subset"] == subset]
        names = list(dict.fromkeys(table["true"]))
        counts = table["count"].to_numpy().reshape(len(names), len(names)).tolist()
        rows = [
            {
                "name": name,
                "total": sum(row),
                "cells": [(count, count / max(sum(row), 1)) for count in row],
            }
            for name, row in zip(names, counts, strict=True)
        ]
        total = sum(row["total"] for row in rows)
        return {"subset": subset, "n": total, "names": names, "rows": rows}


def _run_minus_winner(row):
    """Spell the difference of a row of `comparisons.winner_table`, seen from the run."""
    bounds = row.difference_points_high, row.difference_points_low
    return text.points(*(-points for points in (row.difference_points, *bounds)))


def _packed(text):
    """Compress a text for the page, which unpacks it when it is needed."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _named(made_with):
    """Spell a table of `made_with` for people; a large majority of runs is only counted."""
    rows = []
    for what, same in made_with.groupby("what", sort=False):
        total = sum(map(len, same["runs"]))
        for value, runs in zip(same["value"], same["runs"], strict=True):
            said = text.few(runs)
            if len(runs) == total > 1:
                said = f"all {total} runs"
            elif len(runs) > max(NAMED - 1, total / 2):
                said = f"the other {len(runs)} runs"
            rows.append({"what": what, "value": value, "runs": said})
    return pd.DataFrame(rows, columns=["what", "value", "runs"])


def _with_published(grid, published):
    """Put each published row after ours of the same model, or at the end."""
    percent = {name: f"{name}_accuracy_pct" for name in (VAL, TEST, TEST_AUGMENTED)}
    theirs = published[published["table"] != "configurations"]
    theirs = theirs.rename(columns=percent | {"codabench": "codabench_pct"})
    place = {run: number for number, run in enumerate(grid["run"])}
    theirs = theirs.assign(
        order=[place.get(run, len(grid)) + 0.5 for run in theirs["run"]],
        run=theirs["model"] + (" " + theirs["head"]).fillna(""),
        kind="published",
        gap_points=theirs[percent[TEST]] - theirs[percent[TEST_AUGMENTED]],
    )
    # A model that is here under several names has its row behind each, or once at the end.
    theirs = theirs.drop_duplicates(["run", "order"])
    both = pd.concat([grid.assign(order=range(len(grid))), theirs])
    columns = dict.fromkeys([*grid, "codabench_pct"])
    return both.sort_values("order", kind="stable")[[*columns]].reset_index(drop=True)


def _number(value):
    return None if value is None or pd.isna(value) else float(value)
