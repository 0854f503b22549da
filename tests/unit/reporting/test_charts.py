import functools
import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_study import some_trials

from hemagrid.io import write_table
from hemagrid.reporting import charts
from hemagrid.reporting.charts import pareto_front
from hemagrid.reporting.tables import grid_table
from hemagrid.reporting.text import TRAINING_TIME, shown
from hemagrid.tuning.trials import read_trials

HOSTILE = (
    "<script>alert(\"x\")</script> & 'co'",
    "a.b[0]\\['c']\"d\" {{e}} ${f}",
    "\N{MICROSCOPE} datum.x",
    "long " * 40,
)


def a_history(names=("feature_extraction", "finetune_top")):
    return pd.DataFrame(
        {
            "phase": [names[0]] * 2 + [names[1]],
            "epoch": [1, 2, 1],
            "loss": [1.0, 0.8, 0.7],
            "accuracy": [0.5, 0.6, 0.7],
            "val_loss": [1.1, 0.9, 0.8],
            "val_accuracy": [0.4, 0.5, 0.625],
            "best": [False, True, True],
        }
    )


def bins(*rows):
    names = ("low", "high", "n", "confidence", "accuracy")
    return [dict(zip(names, row, strict=True)) for row in rows]


def some_calibration():
    return {
        "val": bins((0.9, 1.0, 9, 0.93, 0.9)),
        "test": bins((0.4, 0.5, 1, 0.45, 0.0), (0.9, 1.0, 3, 0.95, 1.0)),
        "test_augmented": bins((0.5, 0.6, 4, 0.55, 0.25)),
    }


def some_answers(risk):
    return {
        "aurc": risk / 2,
        "risks": [risk * (place + 1) / 50 for place in range(50)],
        "coverage": 0.4,
        "accuracy": {"value": 0.98, "low": 0.9, "high": 1.0},
    }


def some_confusion(names=("ig", "platelet")):
    return pd.DataFrame(
        [
            (subset, true, predicted, 9 if true == predicted else 2)
            for subset in ("val", "test", "test_augmented")
            for true in names
            for predicted in names
        ],
        columns=["subset", "true", "predicted", "count"],
    )


def an_audit(names=("ig", "platelet")):
    return {
        "classes": [
            {"class": name, "found": 1300 + i, "kept": 1200, "train": 800, "val": 190 + i}
            | {"test": 210 - i}
            for i, name in enumerate(names)
        ]
    }


def some_corruptions(names=("ig", "platelet")):
    """Tables of two runs that fall by twice the severity in points, the second by more."""
    falls = pd.DataFrame(
        [
            (run, kind, severity, 90 - 2.0 * severity - place, 2.0 * severity + place)
            for place, run in enumerate(names)
            for kind in ("jpeg_compression", "bubble")
            for severity in (1, 3)
        ],
        columns=["run", "corruption", "severity", "accuracy_pct", "fall_points"],
    )
    return falls, pd.DataFrame({"run": names, "test_accuracy_pct": 90.0})


# run: kind, backbone, head, accuracy on test, on augmented test, parameters, seconds
RUNS = {
    "baseline_cnn": ("cnn", None, None, 0.6, 0.3, 300, 20.0),
    "vgg16_cfg1": ("transfer", "vgg16", "cfg1", 0.9, 0.7, 15_000, 200.0),
    "vgg16_cfg2": ("transfer", "vgg16", "cfg2", 0.91, 0.69, 15_500, 180.0),
    "convnext_cfg1": ("transfer", "convnext", "cfg1", 0.95, 0.8, 90_000, 600.0),
    "random_labels": ("control", None, None, 0.1, 0.1, None, None),
}


def metrics_of(kind, backbone, head, test, augmented, parameters, seconds):
    def scores(value):
        interval = {"value": value, "low": value - 0.05, "high": value + 0.05}
        names = ("accuracy", "balanced_accuracy", "macro_f1")
        return dict.fromkeys(names, interval) | {
            "auc": 0.9,
            "calibration_error": 0.1,
            "abstention": some_answers(1 - value),
        }

    cost = {
        "parameters": parameters,
        "peak_memory_mib": 300.0,
        "images_per_second": 50.0,
        "seconds": seconds,
    }
    return {
        "kind": kind,
        "backbone": backbone,
        "head": head,
        "subsets": {"test": scores(test), "test_augmented": scores(augmented)},
        "cost": cost if parameters else None,
    }


def a_grid(runs=RUNS, missing="vgg16_cfg3"):
    metrics = {run: metrics_of(*values) for run, values in runs.items()}
    return grid_table({"convnext_cfg0": None} | metrics | {missing: None})


def without_copies(grid):
    return grid[[name for name in grid if "augmented" not in name]]


@functools.cache
def every_chart(names=("ig", "platelet")):
    """Draw every chart, with `names` wherever a user or a config chooses them."""
    runs = {}
    for i, name in enumerate(names):
        shifted = RUNS["vgg16_cfg1"][3:5], RUNS["vgg16_cfg1"][5] + i, 200.0 + i
        runs[name] = ("transfer", name, name, *shifted[0], *shifted[1:])
    grid = a_grid(RUNS | runs, missing="gone " + names[0])
    return {
        "confusion": charts.confusion_matrices(some_confusion(names)),
        "curves": charts.learning_curves(a_history(names)),
        "reliability": charts.reliability(some_calibration(), some_calibration()),
        "abstention": charts.risk_coverage({"test": some_answers(0.2)}),
        "abstention of all": charts.risk_coverage_of_runs(
            {run: metrics_of(*values) for run, values in (RUNS | runs).items()}
        ),
        "trials": charts.parallel_coordinates(some_trials()),
        "balance": charts.class_balance(an_audit(names)),
        "accuracy": charts.accuracy_chart(grid),
        "cost": charts.cost_chart(grid),
        "corruptions": charts.corruption_heat_map(*some_corruptions(names)),
    }


CHARTS = list(every_chart())
ON_COLOURS = ("confusion", "corruptions")


def texts(chart):
    return list(ElementTree.fromstring(charts.svg(chart)).itertext())


def units(content):
    """List the single marks of a specification."""
    parts = [p for key in ("layer", "concat", "hconcat") for p in content.get(key, ())]
    return [unit for part in parts for unit in units(part)] if parts else [content]


def walk(content):
    """Yield every (key, value) of a specification, its data aside."""
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield key, value
        if isinstance(value, dict | list) and key not in ("datasets", "tooltip"):
            yield from walk(value)


def rows_of(chart, *fields):
    """Read the rows of a chart's data that have these fields, without repetition."""
    tables = charts.spec(chart)["datasets"].values()
    found = [row for table in tables for row in table if set(fields) <= row.keys()]
    return pd.DataFrame(found).drop_duplicates().reset_index(drop=True)


# All of them


@pytest.mark.parametrize("name", CHARTS)
def test_a_chart_is_written_as_svg_and_pdf(tmp_path, name):
    chart = every_chart()[name]
    charts.save(chart, tmp_path / "a.svg", tmp_path / "a.pdf")
    drawing = (tmp_path / "a.svg").read_text()
    assert ElementTree.fromstring(drawing).tag.endswith("svg")
    assert "currentColor" not in drawing
    assert (tmp_path / "a.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("name", CHARTS)
def test_a_specification_is_at_home_on_any_page(name):
    content = charts.spec(every_chart()[name])
    text = json.dumps(content, allow_nan=False)
    assert "http" not in text and "$schema" not in content
    assert content["config"]["background"] is None and "font" not in content["config"]
    assert content["config"]["text"] == {"color": "currentColor", "fontSize": 12}
    assert len(content["description"]) > 30
    # A colour of text is the page's, except on the known colours of cells.
    for unit in units(content):
        if unit["mark"]["type"] == "text" and name not in ON_COLOURS:
            assert "color" not in unit["mark"] and "color" not in unit["encoding"]
    assert (content.get("width") == "container") == (name in ("trials", "balance", "accuracy"))


@pytest.mark.parametrize("name", CHARTS)
def test_marks_answer_the_pointer(name):
    marks = [
        unit
        for unit in units(charts.spec(every_chart()[name]))
        if unit["mark"]["type"] in ("point", "bar", "rect")
    ]
    assert marks
    for unit in marks:
        tips = unit["encoding"]["tooltip"]
        assert tips and all(tip["title"] for tip in tips)


@pytest.mark.parametrize("name", CHARTS)
def test_hostile_names_are_text_and_break_no_layout(name):
    plain, hostile = (every_chart(names)[name] for names in (("ig", "platelet"), HOSTILE))
    drawing = charts.svg(hostile)
    root = ElementTree.fromstring(drawing)
    assert not [e for e in root.iter() if e.tag.endswith("script")]
    # In the pixels that the column's 85 mm stand for.
    roots = ElementTree.fromstring(charts.svg(plain)), root
    widths = [float(of.get("viewBox").split()[2]) for of in roots]
    assert widths[1] < widths[0] + 600
    content = charts.spec(hostile)
    for key, value in walk(content):
        if key in ("field", "calculate", "filter", "expr", "groupby", "as"):
            assert not [part for part in HOSTILE if part in json.dumps(value)]
    if name in ("confusion", "balance", "accuracy"):
        drawn = "".join(root.itertext())
        assert HOSTILE[0] in drawn and HOSTILE[1] in drawn


def contrast(colour, ground):
    """Return the contrast of two colours (WCAG 2.2, relative luminance)."""

    def luminance(code):
        parts = np.array([int(code[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
        return linear @ [0.2126, 0.7152, 0.0722]

    low, high = sorted((luminance(colour), luminance(ground)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("name", [name for name in CHARTS if name not in ON_COLOURS])
@pytest.mark.parametrize("ground", ["#ffffff", "#14181c"])
def test_colours_stand_out_on_white_and_on_dark(name, ground):
    text = json.dumps(charts.spec(every_chart(HOSTILE)[name]))
    colours = {part[:7] for part in text.split('"') if part.startswith("#")}
    assert colours
    assert all(contrast(colour, ground) >= 3 for colour in colours)


def test_drawing_starts_without_the_libraries_of_evaluation_and_training():
    found = subprocess.run(
        [sys.executable, "-c", "import sys, hemagrid.reporting.charts; print(*sys.modules)"],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout.split()
    assert "altair" in found
    assert not {"sklearn", "scipy", "keras", "tensorflow", "snakemake"} & set(found)


# Each of them


def test_the_forest_has_every_run_in_its_place():
    grid = a_grid()
    chart = charts.accuracy_chart(grid)
    drawn = texts(chart)
    assert [text for text in drawn if text in set(grid["run"])] == list(grid["run"])
    assert drawn.count("missing") == 2 and "augmented test" in drawn
    shown = rows_of(chart, "accuracy", "subset").set_index(["run", "subset"])
    assert len(shown) == 2 * len(RUNS)
    assert shown.loc[("vgg16_cfg1", "test"), "accuracy"] == pytest.approx(90)
    assert shown.loc[("vgg16_cfg1", "test"), "shown"] == "90.0 (85.0–95.0)"
    said = charts.spec(chart)["description"]
    assert "7 runs and controls" in said
    assert "best on test images: convnext_cfg1, 95.0 %" in said
    assert "augmented test" not in texts(charts.accuracy_chart(without_copies(grid)))


def test_a_study_without_results_is_drawn_too():
    grid = grid_table({"vgg16_cfg1": None})
    assert {"vgg16_cfg1", "missing"} <= set(texts(charts.accuracy_chart(grid)))
    assert f"{TRAINING_TIME}, s" in texts(charts.cost_chart(grid))


def test_training_time_has_the_same_name_in_table_chart_and_captions():
    assert TRAINING_TIME in shown(a_grid())
    assert f"{TRAINING_TIME}, s" in texts(charts.cost_chart(a_grid()))
    captions = Path(__file__).parents[3] / "workflow" / "report"
    for name in ("grid", "cost"):
        assert TRAINING_TIME in (captions / f"{name}.rst").read_text()


def test_cost_leaves_out_what_has_none_and_marks_the_front():
    grid = a_grid()
    chart = charts.cost_chart(grid)
    rows = rows_of(chart, "cost", "front")
    assert set(rows["run"]) == RUNS.keys() - {"random_labels"}
    for cost in ("parameters", "training_seconds"):
        panel = rows[rows["cost"] == rows[cost]].set_index("run")
        assert len(panel) == 4
        expected = pareto_front(panel[cost], panel["accuracy"])
        assert list(panel["front"]) == list(expected)
    # Cheaper in seconds than vgg16_cfg1, though not in parameters.
    fronts = rows[rows["run"] == "vgg16_cfg2"].set_index("cost")["front"]
    assert fronts.to_dict() == {15_500: False, 180.0: True}
    drawn = texts(chart)
    assert {"baseline_cnn", "cfg1", "cfg2", "vgg16", "convnext"} <= set(drawn)
    assert "accuracy, augmented test, %" in drawn and "random_labels" not in drawn
    said = charts.spec(chart)["description"]
    assert "Pareto front by parameters: baseline_cnn, vgg16_cfg1, convnext_cfg1" in said
    drawn = texts(charts.cost_chart(without_copies(grid)))
    assert "accuracy, test, %" in drawn and "accuracy, augmented test, %" not in drawn


def test_labels_of_equal_runs_do_not_lie_on_each_other():
    same = RUNS["vgg16_cfg1"]
    runs = {f"vgg16_h{i}": (*same[:2], f"h{i}", *same[3:]) for i in range(6)}
    rows = rows_of(charts.cost_chart(a_grid(runs)), "side", "dy")
    for _, panel in rows.groupby("cost"):
        assert len(panel) == 6
        places = set(zip(panel["side"], panel["dy"], strict=True))
        assert len(places) == 6 and (0, 0) not in places


def test_of_many_runs_only_those_on_the_front_are_named():
    runs = {
        f"vgg16_h{i}": ("transfer", "vgg16", f"h{i}", 0.9, 0.7, 1000 + i, 200.0 + i)
        for i in range(31)
    }
    assert {"h0", "h29"} <= set(texts(charts.cost_chart(a_grid(dict([*runs.items()][:30])))))
    chart = charts.cost_chart(a_grid(runs))
    assert "h0" in texts(chart) and not {"h1", "h30"} & set(texts(chart))
    assert set(rows_of(chart, "cost")["run"]) == set(runs)


def test_reliability_shows_the_bins_of_the_test_subsets():
    chart = charts.reliability(some_calibration())
    rows = rows_of(chart, "confidence")
    assert list(rows["subset"]) == ["test", "test", "augmented test"]
    assert list(rows["n"]) == [1, 3, 4] and list(rows["accuracy"]) == [0.0, 1.0, 0.25]
    assert "validation" not in texts(chart)
    said = charts.spec(chart)["description"]
    assert "test: 75.0 % right at a mean confidence of 82.5 %" in said
    only = {"val": some_calibration()["val"]}
    assert "validation" in texts(charts.reliability(only))
    scaled = {"n": 9, "calibration": only["val"], "scaled_calibration": only["val"]}
    metrics = {"temperature": 2.0, "subsets": {"val": scaled}}
    assert charts.calibration_of(metrics) == charts.scaled_calibration_of(metrics) == only
    assert charts.scaled_calibration_of(metrics | {"temperature": None}) is None
    drawn = texts(charts.reliability(only, only))
    assert "as predicted" in drawn and "after temperature scaling" in drawn
    assert "mean confidence" in texts(charts.reliability({}))


def test_a_bin_of_few_images_does_not_stretch_the_axes_of_reliability():
    bins = [
        {"low": c - 0.1, "high": c, "n": n, "confidence": c, "accuracy": a}
        for c, a, n in ((0.4, 0.0, 3), (0.8, 0.7, 10), (1.0, 1.0, 500))
    ]
    drawn = texts(charts.reliability({"test": bins}))
    assert "70%" in drawn and "60%" not in drawn
    assert "0%" in texts(charts.reliability({"test": bins[:1]}))


def test_risk_coverage_marks_what_the_threshold_answers():
    answers = {"val": some_answers(0.5), "test": some_answers(0.2)}
    silent = some_answers(0.4) | {"coverage": 0.0, "accuracy": None}
    chart = charts.risk_coverage(answers | {"test_augmented": silent})
    rows = rows_of(chart, "risk")
    assert list(rows["subset"].unique()) == ["test", "augmented test"]
    last = rows[rows["coverage"] == 1]
    assert list(last["risk"]) == pytest.approx([0.2, 0.4])
    said = charts.spec(chart)["description"]
    assert said.count(";") == 1
    assert "test: at the threshold chosen on validation images 40.0 % answered, 2.0 %" in said


def test_all_risk_coverage_curves_leave_out_controls():
    metrics = {run: metrics_of(*values) for run, values in RUNS.items()}
    chart = charts.risk_coverage_of_runs(metrics | {"vgg16_cfg3": None})
    rows = rows_of(chart, "risk")
    assert list(rows["run"].unique()) == [run for run in RUNS if run != "random_labels"]
    assert set(rows["model"]) == {"CNN", "vgg16", "convnext"}
    said = charts.spec(chart)["description"]
    assert "smallest area on augmented test images: convnext_cfg1, 10.0 %" in said


def test_learning_curves_name_their_phases_and_mark_what_was_kept():
    chart = charts.learning_curves(a_history())
    drawn = texts(chart)
    assert drawn.count("feature extraction") == drawn.count("finetune top") == 2
    said = charts.spec(chart)["description"]
    assert "3 epochs" in said and "62.5 % validation accuracy" in said
    root = ElementTree.fromstring(charts.svg(chart))
    kept = [
        mark
        for mark in root.iter()
        if mark.get("aria-roledescription") == "point" and mark.get("opacity") == "1"
    ]
    # Two epochs in each of two panels.
    assert len(kept) == 4
    diverged = a_history().assign(loss=[1.0, np.nan, np.nan], best=False)
    assert "loss" in texts(charts.learning_curves(diverged))


def test_the_matrices_of_the_test_subsets_count_images():
    chart = charts.confusion_matrices(some_confusion())
    drawn = texts(chart)
    assert drawn.count("9") == 4 and drawn.count("2") == 4
    assert {"test", "augmented test"} <= set(drawn) and "validation" not in drawn
    said = charts.spec(chart)["description"]
    assert "most frequent mistake on test: ig taken for platelet, 2 images" in said
    perfect = some_confusion().query("true == predicted")
    assert "mistake" not in charts.spec(charts.confusion_matrices(perfect))["description"]


def test_a_bar_is_what_was_found_and_says_what_was_kept():
    chart = charts.class_balance(an_audit())
    parts = rows_of(chart, "part").pivot(index="class", columns="part", values="images")
    assert list(parts.sum(axis=1)) == [1300, 1301]
    assert list(parts["removed"]) == [100, 101]
    assert {"1,200 of 1,300", "1,200 of 1,301", "removed"} <= set(texts(chart))
    assert "2,601 images of 2 classes found, 2,400 kept" in charts.spec(chart)["description"]


def test_trials_are_drawn_with_their_values(tmp_path):
    def drawn(trials):
        return texts(charts.parallel_coordinates(trials))

    write_table(tmp_path / "trials.csv", some_trials())
    trials = read_trials(tmp_path / "trials.csv")
    found = drawn(trials)
    assert "best: trial 3" in found and "decay" not in found
    # Names of axes, a word a line.
    assert {"Dense", "layers", "neurons", "in all", "dropout", "rate", "epochs"} <= set(found)
    # Layers and neurons from 0, both learning rates, epochs, the best accuracy.
    assert {"0", "2", "512", "0.2", "0.5", "0.001", "0.01", "6", "62.5"} <= set(found)
    decayed = some_trials().assign(weight_decay=[1e-4, 1e-2, 1e-2])
    assert {"decay", "0.0001"} <= set(drawn(decayed))
    assert "best: trial 1" in drawn(some_trials().iloc[:1])
    said = charts.spec(charts.parallel_coordinates(trials))["description"]
    assert "3 trials" in said and "trial 3, has 62.5 %" in said


def test_the_front_holds_the_best_score_for_its_cost():
    cost = [1, 2, 2, 3, 4, 5, np.nan, 0.5]
    score = [60, 70, 80, 80, 90, 89, 99, np.nan]
    assert list(pareto_front(cost, score)) == [True, False, True, False, True] + [False] * 3
    # Equal rows share it.
    assert list(pareto_front([2, 2, 2], [5, 5, 4])) == [True, True, False]
    missing = pd.Series([1, None], dtype="Int64")
    assert list(pareto_front(missing, pd.Series([5.0, 9.0]))) == [True, False]
    assert pareto_front([], []).shape == (0,) and pareto_front([], []).dtype == bool


numbers = st.one_of(st.integers(0, 4).map(float), st.just(float("nan")))


@given(st.lists(st.tuples(numbers, numbers), max_size=12))
def test_what_is_not_on_the_front_is_beaten_by_something_on_it(rows):
    cost, score = np.array(rows, float).reshape(-1, 2).T
    front = pareto_front(cost, score)
    finite = ~(np.isnan(cost) | np.isnan(score))
    assert not (front & ~finite).any()

    def beats(a, b):
        no_worse = cost[a] <= cost[b] and score[a] >= score[b]
        return no_worse and (cost[a] < cost[b] or score[a] > score[b])

    known = np.flatnonzero(finite)
    for b in known:
        assert front[b] == (not any(beats(a, b) for a in known))
        assert front[b] or any(beats(a, b) for a in np.flatnonzero(front))


# Corruptions


def test_a_heat_map_shows_accuracies_beside_those_of_clean_images():
    chart = charts.corruption_heat_map(*some_corruptions())
    cells = rows_of(chart, "accuracy").set_index(["run", "corruption"])
    assert cells.loc[("ig", "none"), "accuracy"] == 90
    assert cells.loc[("platelet", "bubble"), ["accuracy", "fall"]].tolist() == [85, 5]
    drawn = texts(chart)
    assert drawn.count("90.0") == 2 and drawn.count("86.0") == 2 and drawn.count("85.0") == 2
    assert drawn.index("none") < drawn.index("jpeg_compression") < drawn.index("bubble")
    assert "the largest fall: platelet by" in charts.spec(chart)["description"]
