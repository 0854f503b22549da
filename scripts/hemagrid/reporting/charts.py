"""The study's figures: SVG and PDF for a paper, Vega-Lite for the page of the report.

Each function draws a chart without a style; `save` and `spec` add one. Names that users choose
are values in a chart's data, never names of fields or parts of expressions.
"""

import itertools
import json
import re

import altair as alt
import numpy as np
import pandas as pd
import vl_convert

from hemagrid.io import read_json, read_sparse, read_table, replacing, write_text
from hemagrid.names import CNN, HOLDOUT, TEST, TEST_AUGMENTED, TRAIN, VAL, subset_title
from hemagrid.reporting import text
from hemagrid.tuning.trials import best_trial

# After the colour-blind safe palette of Okabe & Ito (Color Universal Design, 2008): the four of
# eight colours that have a contrast of 3:1 on white and on a dark background, the first two
# darker, so that all differ in grey. Marks also differ in shape, dash or position.
_BLUE, _ORANGE, _GREEN, _PURPLE = "#0069AD", "#C95400", "#009A70", "#CC79A7"
_GREY = "#808890"

# Colour, shape and dash of each subset; test sets of the user's take those of `_OTHER_MARKS`.
_SUBSET_MARKS = {
    VAL: (_PURPLE, "triangle-up", [2, 2]),
    TEST: (_BLUE, "circle", [1, 0]),
    TEST_AUGMENTED: (_ORANGE, "diamond", [6, 3]),
    HOLDOUT: (_GREEN, "square", [8, 2, 2, 2]),
}
_OTHER_MARKS = (
    (_PURPLE, "triangle-down", [2, 2]),
    (_GREEN, "cross", [12, 4]),
    (_BLUE, "triangle-right", [4, 4]),
    (_ORANGE, "triangle-left", [10, 2]),
)

_NAME_LIMIT = 190  # pixels for a name that a user chose
_TEXT = 12  # pixels: the size of all text
_FEW = 10  # images of a bin with fewer say little, and set no axis
_FULL = "full_scale"  # the parameter of charts that show the whole scale on demand


COLUMN_MM = 85
"""Width of a column of a paper."""
_COLUMN, _LETTERS = 410, 12
"""Width of a column and size of its letters, in pixels: 7 points at `COLUMN_MM`."""
_SYMBOL = 55  # pixels: the symbol of a legend's entry with the space around it


def svg(chart):
    """Return a chart for a column of a paper, as the text of an SVG document.

    It is 85 mm wide, with letters of at least 7 points. Panels side by side are stacked, and
    made narrower as far as the column needs.
    """
    content = _stacked(chart.to_dict())
    content["config"] = _config(ink="#222222", ground="white") | {
        "background": "white",
        "font": "Helvetica, Arial, sans-serif",
        "padding": 2,
    }
    for part in ("axis", "legend"):
        content["config"][part] |= {"labelFontSize": _LETTERS, "titleFontSize": _LETTERS}
    content["config"]["text"]["fontSize"] = _LETTERS
    for _ in range(4):  # ticks and labels may change with the width of a panel
        drawing = vl_convert.vegalite_to_svg(content)
        width, height = map(float, _SIZE.search(drawing).groups())
        if not _COLUMN < width < 1e300:
            break
        _narrow(content, width - _COLUMN)
    if not width < 1e300:  # NaN or without bounds, where there are no marks
        width, height = _COLUMN, _COLUMN / 2
    width = max(width, _COLUMN)
    size = f'width="{COLUMN_MM}mm" height="{COLUMN_MM * height / width:.2f}mm"'
    box = f'viewBox="0 0 {width:g} {height:g}"'
    drawing = re.sub(r'viewBox="[^"]*"', box, drawing, count=1)
    return _SIZE.sub(size, drawing, count=1)


_SIZE = re.compile(r'width="([^"]+)" height="([^"]+)"')


def _stacked(content):
    """Stack panels that stand side by side, with letters and legends of a paper's size."""
    if isinstance(content, list):
        return [_stacked(each) for each in content]
    if not isinstance(content, dict):
        return content
    stacked = {
        "vconcat" if name in ("hconcat", "concat") else name: _stacked(each)
        for name, each in content.items()
        if name not in ("data", "datasets", "columns")
    }
    if "columns" in content and "concat" not in content:  # a legend that may have many names
        stacked |= {"columns": 2, "labelLimit": _COLUMN / 2 - _SYMBOL}
    if isinstance(stacked.get("fontSize"), int):
        stacked["fontSize"] = max(stacked["fontSize"], _LETTERS)
    return stacked | {name: content[name] for name in ("data", "datasets") if name in content}


def _narrow(content, pixels):
    """Make all panels narrower by some pixels, or their columns where these have a width."""
    for panel in content.get("vconcat", [content]):
        width = panel.get("width")
        if isinstance(width, dict):
            width["step"] *= 1 - pixels / _COLUMN
        elif width is not None:
            panel["width"] = max(width - pixels, 60)
        elif "vconcat" in panel:
            _narrow(panel, pixels)


def save(chart, path_svg, path_pdf):
    """Write a chart in the style of a paper, as SVG and as PDF."""
    drawing = svg(chart)
    write_text(path_svg, drawing)
    with replacing(path_pdf) as temporary:
        # Here a unit of the drawing becomes a point, of which an inch has 72.
        points = re.sub(
            r'="([\d.]+)mm"', lambda mm: f'="{float(mm[1]) / 25.4 * 72:.2f}"', drawing
        )
        temporary.write_bytes(vl_convert.svg_to_pdf(points))


def save_run(inputs, out):
    """Draw the figures of one run.

    Args:
        inputs: Paths of its `metrics` and `confusion` and, if it was trained, `history`.
        out: Paths `confusion`, `reliability`, `abstention` and, with a history, `curves` of
            SVGs; with `_pdf` after the name those of PDFs.
    """
    metrics = read_json(inputs["metrics"])
    drawn = {
        "confusion": confusion_matrices(read_table(inputs["confusion"])),
        "reliability": reliability(calibration_of(metrics), scaled_calibration_of(metrics)),
        "abstention": risk_coverage(abstention_of(metrics)),
    }
    if "history" in inputs:
        drawn["curves"] = learning_curves(read_sparse(inputs["history"], "phase"))
    for name, chart in drawn.items():
        save(chart, out[name], out[f"{name}_pdf"])


def spec(chart):
    """Return a chart as a Vega-Lite specification for a web page.

    The chart takes the page's font and text colour (`currentColor`), has no background, and
    outlines text in the background of the page's `color-scheme`. A chart of one panel is as
    wide as its container, unless it is square.

    Args:
        chart: A chart of this module.

    Returns:
        The specification, a dict without NaN; its `description` is the text alternative.
    """
    # Validation takes half the time, and `save` validates the same charts.
    text = json.dumps(chart.to_dict(validate=False))
    content = json.loads(text, parse_constant=lambda constant: None)  # JSON has no NaN
    # The page may hold no address, and needs none: it comes with Vega-Lite.
    del content["$schema"]
    content["config"] = _config(ink="currentColor", ground="Canvas") | {"background": None}
    if isinstance(width := content.get("width"), int) and width != content["height"]:
        content["width"] = "container"
    return content


def height(spec):
    """Return about how high a chart will be on the page, in pixels, before it is drawn."""
    panels = spec.get("hconcat") or spec.get("concat") or [spec]
    heights = [panel.get("height") for panel in panels]
    return max((h for h in heights if isinstance(h, int)), default=300) + 80


def _config(ink, ground):
    """Return the style of all charts, with one colour for text and lines on a background."""
    return {
        "view": {"stroke": None},
        "axis": {
            **dict.fromkeys(("labelColor", "titleColor", "domainColor", "tickColor"), ink),
            **dict.fromkeys(("labelFontSize", "titleFontSize"), _TEXT),
            **{"gridColor": ink, "gridOpacity": 0.15, "domainOpacity": 0.6, "tickOpacity": 0.6},
        },
        "legend": {
            **{"labelColor": ink, "titleColor": ink, "labelLimit": _NAME_LIMIT},
            **dict.fromkeys(("labelFontSize", "titleFontSize"), _TEXT),
            "layout": {"bottom": {"margin": 24}},  # between two legends
        },
        "title": {"color": ink, "fontSize": _TEXT},
        "text": {"color": ink, "fontSize": _TEXT},
        "rule": {"color": ink},
        "style": {"halo": {"stroke": ground, "strokeWidth": 3, "strokeJoin": "round"}},
    }


def _haloed(text, **style):
    """Draw text with an outline, to be read across lines."""
    return text.mark_text(**style, style="halo") + text.mark_text(**style)


def _tips(**titles):
    """Make tooltips of fields: {field: title} or {field: (title, format)}."""
    tips = []
    for field, title in titles.items():
        title, style = title if isinstance(title, tuple) else (title, None)
        tip = alt.Tooltip(f"{field}:Q", format=style) if style else alt.Tooltip(f"{field}:N")
        tips.append(tip.title(title))
    return tips


def _subset_scales(subsets):
    """Return colour, shape and dash of a field `subset` that holds the subsets' titles."""
    names = [subset_title(subset) for subset in subsets]
    others = itertools.cycle(_OTHER_MARKS)
    marks = [_SUBSET_MARKS.get(subset) or next(others) for subset in subsets]
    return [
        channel("subset:N", title=None).scale(
            domain=names, range=[mark[place] for mark in marks]
        )
        for place, channel in enumerate((alt.Color, alt.Shape, alt.StrokeDash))
    ]


def _full_scale():
    """Make the box by which a reader of the page asks for the full scale."""
    box = alt.binding_checkbox(name="full scale")
    return alt.param(name=_FULL, value=False, bind=box)


def _fitted(low, high, full):
    """Make a scale from `low` to `high` that runs from 0 to `full` on demand."""
    return alt.Scale(
        domainMin=alt.ExprRef(f"{_FULL} ? 0 : {low}"),
        domainMax=alt.ExprRef(f"{_FULL} ? {full} : {high}"),
        **{"nice": False, "zero": False},
    )


def _test_subsets(known):
    """Return the test subsets among those known, in order; all of them if there is none."""
    return [subset for subset in known if subset != VAL] or list(known)


def confusion_matrices(confusion):
    """Draw the confusion matrices of a run on each test subset, side by side.

    Colour is the share of the true class, so that rare classes count as much as common ones;
    the numbers are images.

    Args:
        confusion: Data frame with `subset`, `true`, `predicted` and `count`, as
            `metrics.evaluate` returns it.
    """
    subsets = _test_subsets(list(confusion["subset"].unique()))
    names = " and ".join(subset_title(subset) for subset in subsets)
    mistakes = confusion[
        (confusion["subset"] == subsets[0]) & (confusion["true"] != confusion["predicted"])
    ]
    said = f"Confusion matrices of {confusion['true'].nunique()} classes on {names} images"
    if mistakes["count"].any():
        worst = mistakes.loc[mistakes["count"].idxmax()]
        said += (
            f"; the most frequent mistake on {subset_title(subsets[0])}: "
            f"{worst['true']} taken for {worst['predicted']}, {worst['count']} images"
        )
    return alt.hconcat(
        *(_confusion_matrix(confusion, subset) for subset in subsets)
    ).properties(description=said)


def _confusion_matrix(confusion, subset):
    rows = confusion[confusion["subset"] == subset].copy()
    total = rows.groupby("true")["count"].transform("sum")
    rows["share"] = rows["count"] / total.clip(lower=1)
    order = list(rows["true"].unique())
    base = alt.Chart(rows[["true", "predicted", "count", "share"]]).encode(
        x=alt.X("predicted:N", title="predicted")
        .scale(domain=order)
        .axis(labelAngle=-45, labelLimit=_NAME_LIMIT),
        y=alt.Y("true:N", title="true")
        .scale(domain=order)
        .axis(titlePadding=16, labelLimit=_NAME_LIMIT),
        tooltip=_tips(
            true="true", predicted="predicted", count=("images", ","), share=("share", ".1%")
        ),
    )
    cells = base.mark_rect().encode(
        color=alt.Color("share:Q", title="share of the true class")
        .scale(range=["#F4F8FC", "#08519C"], domain=[0, 1])
        .legend(format=".0%", orient="bottom", gradientLength=160, titleLimit=200)
    )
    numbers = base.mark_text().encode(
        text=alt.Text("count:Q", format=","),
        color=alt.when("datum.share > 0.7")
        .then(alt.value("white"))
        .otherwise(alt.value("#222222")),
    )
    return (cells + numbers.transform_filter("datum.count > 0")).properties(
        width=alt.Step(38), height=alt.Step(32), title=subset_title(subset)
    )


def learning_curves(history):
    """Draw loss and accuracy by epoch, for training and validation images.

    A dotted line ends each phase; a dot marks the epoch whose weights were kept.

    Args:
        history: Data frame, the content of history.csv.
    """
    history = history.assign(
        step=range(1, len(history) + 1), phase=history["phase"].str.replace("_", " ")
    )
    phases = history.groupby("phase", sort=False)["step"].agg(["min", "max"]).reset_index()
    start, phases["end"] = phases["min"] - 0.5, phases["max"] + 0.5
    # Names are stacked, because a phase may last one epoch, and stay inside the panel.
    phases["dy"] = -4.0 - 14 * np.arange(len(phases))[::-1]
    late = start > len(history) / 2
    phases["align"] = np.where(late, "right", "left")
    phases["at"] = start.where(~late, phases["end"])
    return alt.hconcat(
        *(_learning_curve(history, phases, metric) for metric in ("loss", "accuracy"))
    ).properties(description=_said_of(history, phases))


def _learning_curve(history, phases, metric):
    series = {metric: "training", f"val_{metric}": "validation"}
    rows = history.melt(
        id_vars=["step", "phase", "epoch", "best"],
        value_vars=list(series),
        var_name="images",
        value_name="value",
    )
    rows["images"] = rows["images"].map(series)
    share = metric == "accuracy"
    base = alt.Chart(rows).encode(
        x=alt.X("step:Q", title="epoch")
        .scale(domain=[0.5, len(history) + 0.5], nice=False)
        .axis(tickMinStep=1, format="d", grid=False),
        y=alt.Y("value:Q", title=metric).scale(zero=False).axis(format="~%" if share else "~r"),
        color=alt.Color("images:N", title=None)
        .scale(domain=list(series.values()), range=[_BLUE, _ORANGE])
        .legend(orient="bottom", symbolType="stroke", symbolSize=300),
        tooltip=_tips(
            phase="phase",
            epoch=("its epoch", "d"),
            images="images",
            value=(metric, ".1%" if share else ".3f"),
        ),
    )
    lines = base.mark_line(strokeWidth=1.8).encode(
        strokeDash=alt.StrokeDash("images:N", title=None)
        .scale(domain=list(series.values()), range=[[1, 0], [5, 3]])
        .legend(orient="bottom", symbolType="stroke", symbolSize=300)
    )
    # Tooltips need points: a line has one for all of its epochs.
    epochs = base.mark_point(filled=True, size=90, opacity=0)
    kept = base.mark_point(filled=True, size=45, opacity=1).transform_filter(
        "datum.best == true && datum.images == 'validation'"
    )
    border = (
        alt.Chart(phases.iloc[:-1]).mark_rule(strokeDash=[2, 3], opacity=0.6).encode(x="end:Q")
    )
    names = (
        alt.Chart(phases)
        .mark_text(
            baseline="bottom",
            dy=alt.expr("datum.dy"),
            align=alt.expr("datum.align"),
        )
        .encode(x="at:Q", y=alt.value(0), text="phase:N")
    )
    return (lines + epochs + kept + border + names).properties(width=340, height=200)


def _said_of(history, phases):
    said = f"Loss and accuracy over {len(history)} epochs ({', '.join(phases['phase'])})"
    kept = history[history["best"]]
    if len(kept):
        accuracy = 100 * kept["val_accuracy"].iloc[-1]
        said += f"; the weights kept at the end have {accuracy:.1f} % validation accuracy"
    return said


def calibration_of(metrics):
    """Return the bins of confidence of metrics.json, {subset: bins}."""
    return {subset: scores["calibration"] for subset, scores in metrics["subsets"].items()}


def scaled_calibration_of(metrics):
    """Return the bins after temperature scaling, {subset: bins}; None without a temperature."""
    if metrics["temperature"] is None:
        return None
    subsets = metrics["subsets"].items()
    return {subset: scores["scaled_calibration"] for subset, scores in subsets}


def reliability(calibration, scaled=None):
    """Draw accuracy against confidence, one series per test subset.

    A point is a bin, its area the number of images. On the diagonal, a run is right as often
    as it says. The axes fit the bins of at least `_FEW` images, if there are any. A line that
    leaves the panel leads to a bin with fewer.

    Args:
        calibration: {subset: bins, as `metrics.calibration` returns them}.
        scaled: The same after temperature scaling, for a second panel, or None.
    """
    # One scale of sizes and one of shares, for both panels.
    drawn = [of[name] for of in (calibration, scaled or {}) for name in _test_subsets(list(of))]
    bins = [bin_ for each in drawn for bin_ in each]
    largest = max((bin_["n"] for bin_ in bins), default=1)
    many = [bin_ for bin_ in bins if bin_["n"] >= _FEW] or bins
    seen = [value for bin_ in many for value in (bin_["confidence"], bin_["accuracy"])]
    lowest = max(0.0, min(seen, default=0.0) - 0.05)
    panel, said = _reliability_panel(calibration, largest, lowest)
    said = f"Accuracy in bins of confidence{said}"
    if scaled is None:
        return panel.add_params(_full_scale()).properties(description=said)
    other, after = _reliability_panel(scaled, largest, lowest)
    panels = alt.hconcat(
        panel.properties(title="as predicted"),
        other.properties(title="after temperature scaling"),
    )
    return panels.add_params(_full_scale()).properties(
        description=f"{said}. After temperature scaling{after}"
    )


def _reliability_panel(calibration, largest, lowest):
    subsets = _test_subsets(list(calibration))
    rows = pd.DataFrame(
        [bin_ | {"subset": subset_title(s)} for s in subsets for bin_ in calibration[s]],
        columns=["subset", "low", "high", "n", "confidence", "accuracy"],
    )
    colour, shape, dash = _subset_scales(subsets)
    base = alt.Chart(rows).encode(
        x=alt.X("confidence:Q", title="mean confidence")
        .scale(_fitted(lowest, 1, 1))
        .axis(format=".0%", tickCount=5),
        y=alt.Y("accuracy:Q", title="accuracy")
        .scale(_fitted(lowest, 1, 1))
        .axis(format=".0%", tickCount=5),
        color=colour.legend(orient="bottom", symbolStrokeWidth=0),
        tooltip=_tips(
            subset="images",
            low=("confidence from", ".1%"),
            high=("to", ".1%"),
            confidence=("mean confidence", ".1%"),
            accuracy=("accuracy", ".1%"),
            n=("number of images", ","),
        ),
    )
    # Clipping would cut the points at 100 %, too.
    inside = f"{_FULL} || min(datum.confidence, datum.accuracy) >= {lowest}"
    points = (
        base.transform_filter(inside)
        .mark_point(filled=True, opacity=1)
        .encode(
            shape=shape.legend(orient="bottom", symbolStrokeWidth=0),
            size=alt.Size("n:Q", title="images in a bin")
            .scale(domain=[0, largest], range=[12, 300])
            .legend(orient="bottom", tickCount=3, symbolFillColor=_GREY, symbolStrokeWidth=0),
        )
    )
    lines = base.mark_line(strokeWidth=1.4, clip=True).encode(
        strokeDash=dash.legend(orient="bottom", symbolStrokeWidth=0)
    )
    diagonal = (
        alt.Chart(pd.DataFrame({"end": [0, 1]}))
        .mark_line(strokeDash=[3, 3], strokeWidth=1, color=_GREY, clip=True)
        .encode(x="end:Q", y="end:Q")
    )
    said = ""
    for subset, bins in rows.groupby("subset", sort=False):
        right, sure = (
            np.average(bins[c], weights=bins["n"]) for c in ("accuracy", "confidence")
        )
        said += (
            f"; {subset}: {100 * right:.1f} % right at a mean confidence of {100 * sure:.1f} %"
        )
    return (diagonal + lines + points).properties(width=260, height=260), said


def abstention_of(metrics):
    """Return what a run answers, {subset: content of metrics.json}."""
    return {subset: scores["abstention"] for subset, scores in metrics["subsets"].items()}


def risk_coverage(answers):
    """Draw the share of wrong answers against the share of images answered, by test subset.

    The point is where the threshold chosen on validation images answers.

    Args:
        answers: {subset: what `metrics.answers` returns}.
    """
    subsets = _test_subsets(list(answers))
    curves = _curves((answers[s], {"subset": subset_title(s)}) for s in subsets)
    colour, shape, dash = _subset_scales(subsets)
    chosen = [
        {
            "subset": subset_title(s),
            "coverage": answers[s]["coverage"],
            "risk": 1 - answers[s]["accuracy"]["value"],
        }
        for s in subsets
        if answers[s]["accuracy"]
    ]
    key = {"orient": "bottom", "symbolStrokeWidth": 0}
    looks = [look.legend(**key) for look in (colour, dash)]
    lines = _risk_lines(curves, looks, subset="images")
    points = (
        alt.Chart(pd.DataFrame(chosen, columns=["subset", "coverage", "risk"]))
        .mark_point(filled=True, size=70, opacity=1)
        .encode(
            x="coverage:Q",
            y="risk:Q",
            color=looks[0],
            shape=shape.legend(**key),
            tooltip=_tips(
                subset="images", coverage=("answered", ".1%"), risk=("wrong of these", ".1%")
            ),
        )
    )
    said = "Share of wrong answers by the share of images answered, the most confident first"
    for row in chosen:
        said += (
            f"; {row['subset']}: at the threshold chosen on validation images "
            f"{100 * row['coverage']:.1f} % answered, {100 * row['risk']:.1f} % of these wrong"
        )
    return (lines + points).properties(width=260, height=260, description=said)


def risk_coverage_of_runs(metrics):
    """Draw the risk-coverage curves of all runs, a panel per test subset.

    Colour and dash are the backbone, or the kind of a run without one. Controls, which are as
    sure of every answer, are left out.

    Args:
        metrics: {run: content of metrics.json or None}.
    """
    runs = {run: m for run, m in metrics.items() if m and m["kind"] != "control"}
    subsets = _test_subsets({subset: 0 for m in runs.values() for subset in m["subsets"]})
    model_of = {
        run: m["backbone"] or _KINDS.get(m["kind"], m["kind"]) for run, m in runs.items()
    }
    models = list(dict.fromkeys(model_of.values()))
    looks = [
        channel("model:N", title=None)
        .scale(domain=models, range=[values[i % len(values)] for i in range(len(models))])
        .legend(orient="bottom", columns=5, symbolType="stroke", symbolSize=300)
        for channel, values in ((alt.Color, _COLOURS), (alt.StrokeDash, _DASHES))
    ]
    panels, said = [], "Share of wrong answers by the share of images answered"
    for subset in subsets:
        curves = _curves(
            (m["subsets"][subset]["abstention"], {"run": run, "model": model_of[run]})
            for run, m in runs.items()
            if subset in m["subsets"]
        )
        panel = _risk_lines(curves, [*looks, alt.Detail("run:N")], run="run")
        panels.append(panel.properties(width=300, height=260, title=subset_title(subset)))
        areas = {
            run: m["subsets"][subset]["abstention"]["aurc"]
            for run, m in runs.items()
            if subset in m["subsets"]
        }
        best = min(areas, key=areas.get)
        said += (
            f"; smallest area on {subset_title(subset)} images: {best}, "
            f"{100 * areas[best]:.1f} %"
        )
    return alt.concat(*panels, columns=3).properties(description=said)


def _curves(answers):
    """Lay out curves as rows, each with the facts that come with its answers."""
    rows = [
        {"coverage": (place + 1) / len(of["risks"]), "risk": risk} | facts
        for of, facts in answers
        for place, risk in enumerate(of["risks"])
    ]
    return pd.DataFrame(rows)


def _risk_lines(curves, looks, **names):
    base = alt.Chart(curves).encode(
        *looks,
        x=alt.X("coverage:Q", title="images answered")
        .scale(domain=[0, 1])
        .axis(format=".0%", tickCount=5),
        y=alt.Y("risk:Q", title="wrong answers").axis(format="~%", tickCount=5),
        tooltip=_tips(**names, coverage=("answered", ".0%"), risk=("wrong of these", ".1%")),
    )
    # Tooltips need points: a line has one for its whole length.
    return base.mark_line(strokeWidth=1.6) + base.mark_point(filled=True, size=90, opacity=0)


def parallel_coordinates(trials):
    """Draw the trials of a search as parallel coordinates, one line per trial.

    Each axis runs from the smallest to the largest value tried, on a logarithmic scale for
    learning rate, weight decay and epochs. Neurons are the sum over the Dense layers, dropout
    is the mean rate. Better trials are stronger and lie above worse ones; the best is orange.

    Args:
        trials: Data frame, as `trials.read_trials` returns it.
    """
    values = pd.DataFrame(
        {
            "Dense layers": trials["layers"],
            "neurons in all": trials["dense"].map(lambda text: sum(_numbers(text))),
            "mean dropout": trials["dropout"].map(lambda text: np.mean(_numbers(text))),
            "learning rate": trials["learning_rate"],
            "weight decay": trials["weight_decay"],
            "epochs": trials["epochs"],
            "validation accuracy, %": 100 * trials["val_accuracy"],
        }
    ).dropna(axis="columns", how="all")
    tried = trials[["trial", "dropout", "learning_rate", "epochs", "val_accuracy"]].assign(
        dense=trials["dense"].fillna("none")
    )
    lines, ticks = [], []
    for name, column in values.items():
        heights, marks = _axis(column, log=name in _LOGARITHMIC)
        lines.append(tried.assign(axis=name, height=heights))
        ticks.append(pd.DataFrame(marks, columns=["height", "label"]).assign(axis=name))
    lines = pd.concat(lines).sort_values("val_accuracy", kind="stable")
    # Half a step on either side leaves room for the last numbers.
    x = alt.X("axis:N", title=None).scale(type="point", domain=list(values), padding=0.5)
    x = x.axis(
        orient="top",
        domain=False,
        ticks=False,
        grid=True,
        gridOpacity=0.6,
        labelAngle=0,
        labelFontSize=_TEXT,
        labelFontWeight="bold",
        labelPadding=30,
        # One word per line, for a narrow page.
        labelExpr="split(replace(datum.label, ' ', '\\n'), '\\n')",
    )
    y = alt.Y("height:Q", axis=None, scale=alt.Scale(domain=[0, 1]))
    winner = best_trial(trials)
    number = int(winner["trial"])
    line = alt.Chart(lines).encode(
        x=x,
        y=y,
        detail="trial:N",
        tooltip=_tips(
            trial=("trial", "d"),
            dense="Dense",
            dropout="dropout",
            learning_rate=("learning rate", "~g"),
            epochs=("epochs", "d"),
            val_accuracy=("validation accuracy", ".1%"),
        ),
    )
    others = line.mark_line(strokeWidth=1.4, color=_BLUE).encode(
        strokeOpacity=alt.StrokeOpacity("val_accuracy:Q", legend=None).scale(
            domain=[float(trials["val_accuracy"].min()), float(winner["val_accuracy"])],
            range=[0.35, 0.9],
        )
    )
    best = line.transform_filter(alt.datum.trial == number)
    label = alt.Chart(pd.concat(ticks)).encode(x=x, y=y, text="label:N")
    name = best.transform_filter(alt.datum.axis == values.columns[-1]).encode(
        text=alt.value(f"best: trial {number}")
    )
    return (
        others
        + best.mark_line(strokeWidth=3.2, color=_ORANGE)
        + best.mark_point(filled=True, size=40, color=_ORANGE, opacity=1)
        + _haloed(label, align="left", dx=5, dy=-8)
        + _haloed(name, align="left", dx=7, dy=8, fontWeight="bold")
    ).properties(
        width=110 * len(values.columns),
        height=260,
        description=f"{len(trials)} trials of a search; the best, trial {number}, has "
        f"{100 * winner['val_accuracy']:.1f} % validation accuracy",
    )


_LOGARITHMIC = ("learning rate", "weight decay", "epochs")
_MARKS = 6  # values written on one axis
_MARGIN = 0.07  # between two of them, as a share of the axis


def _numbers(text):
    """Read "384, 128" as [384.0, 128.0] and a missing value as []."""
    return [] if pd.isna(text) else [float(number) for number in text.split(",")]


def _axis(column, *, log):
    """Place values on an axis of height 0 to 1: (heights, marks [(height, label)]).

    The marks are the values themselves if they are few, and evenly spaced otherwise.
    """
    scaled = np.log(column) if log else column
    low, high = scaled.min(), scaled.max()
    if low == high:
        return np.full(len(column), 0.5), [(0.5, _mark(column.iloc[0]))]
    heights = (scaled - low) / (high - low)
    distinct = sorted(set(zip(heights, column, strict=True)), reverse=True)
    if len(distinct) > _MARKS:
        steps = np.linspace(1, 0, _MARKS - 1)
        between = low + steps * (high - low)
        distinct = zip(steps, np.exp(between) if log else between, strict=True)
    marks = []
    for height, value in distinct:
        if not marks or marks[-1][0] - height >= _MARGIN:
            marks.append((height, _mark(value)))
    return heights, marks


def _mark(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def class_balance(audit):
    """Draw what became of the images of each class.

    A bar is as long as the number of images found. Its parts are the splits, and the images
    that deduplication removed. The numbers are images kept of images found.

    Args:
        audit: Content of audit.json.
    """
    classes = pd.DataFrame(audit["classes"])
    classes["removed"] = classes["found"] - classes["kept"]
    # One hue, of which each part has less, so that they differ in grey.
    shades = [f"rgba(0, 105, 173, {share})" for share in (1, 0.55, 0.25)]
    parts = dict(zip((TRAIN, VAL, TEST), shades, strict=True)) | {"removed": "transparent"}
    counts = classes.melt(
        id_vars=["class", "found", "kept"],
        value_vars=list(parts),
        var_name="part",
        value_name="images",
    )
    counts["place"] = counts["part"].map(list(parts).index)
    order = list(classes["class"])
    y = alt.Y("class:N", title=None).scale(domain=order).axis(labelLimit=_NAME_LIMIT)
    most = int(classes["found"].max())
    tips = {"class": "class"}
    bars = (
        alt.Chart(counts)
        .mark_bar(stroke=_GREY, strokeWidth=1)
        .encode(
            x=alt.X("images:Q", title="images found (numbers: kept of found)")
            # Room for the numbers.
            .scale(domain=[0, 1.25 * most], nice=False)
            .axis(tickCount=5),
            y=y,
            color=alt.Color("part:N", title=None)
            .scale(domain=list(parts), range=list(parts.values()))
            .legend(orient="bottom", symbolStrokeColor=_GREY, symbolStrokeWidth=1),
            order="place:Q",
            tooltip=_tips(
                **tips,
                part="part",
                images=("images", ","),
                kept=("kept", ","),
                found=("found", ","),
            ),
        )
    )
    numbers = (
        alt.Chart(classes[["class", "found", "kept"]])
        .mark_text(align="left", dx=5)
        .transform_calculate(text="format(datum.kept, ',') + ' of ' + format(datum.found, ',')")
        .encode(
            x="found:Q",
            y=y,
            text="text:N",
            tooltip=_tips(**tips, kept=("kept", ","), found=("found", ",")),
        )
    )
    found, kept = classes["found"], classes["kept"]
    most, fewest = (
        f"{classes['class'][place]} ({kept[place]:,})"
        for place in (kept.idxmax(), kept.idxmin())
    )
    return (bars + numbers).properties(
        width=360,
        height=20 * len(order),
        description=f"{found.sum():,} images of {len(classes)} classes found, {kept.sum():,} "
        f"kept; most of {most}, fewest of {fewest}",
    )


def accuracy_chart(grid):
    """Draw the test accuracies of all runs with their intervals (forest plot).

    Args:
        grid: Data frame, as `tables.grid_table` returns it. Controls and missing runs have
            rows, too.
    """
    order = list(grid["run"])
    subsets = [subset for subset in text.subsets_of(grid) if subset != VAL]
    rows = pd.concat([_accuracies(grid, TEST)[:0], *(_accuracies(grid, s) for s in subsets)])
    y = alt.Y("run:N", title=None).scale(domain=order).axis(grid=True, labelLimit=_NAME_LIMIT)
    trained = grid.loc[~grid["kind"].isin(["control", "missing"]), "run"]
    of_trained = rows[rows["run"].isin(trained)]
    fitted = _domain(of_trained[["low", "high"]], margin=0.05)
    lowest, highest = max(fitted[0], 0), min(fitted[1], 100)
    x = alt.X("low:Q", title="accuracy, % (line: 95 % interval)")
    colour, shape, _ = _subset_scales(subsets)
    row = alt.YOffset("subset:N").scale(domain=[subset_title(s) for s in subsets])
    base = alt.Chart(rows).encode(
        y=y,
        yOffset=row,
        color=colour.legend(orient="top"),
        tooltip=_tips(run="run", subset="images", shown="accuracy, %"),
    )
    interval = base.mark_rule(strokeWidth=2, clip=True).encode(
        x=x.scale(_fitted(lowest, highest, 100)).axis(tickCount=10), x2="high:Q"
    )
    point = base.mark_point(filled=True, size=32, opacity=1, clip=True).encode(
        x="accuracy:Q", shape=shape.legend(orient="top")
    )
    below = _haloed(
        alt.Chart(rows)
        .transform_filter(f"!{_FULL} && datum.accuracy < {lowest}")
        .transform_calculate(text="'\u2190 ' + format(datum.accuracy, '.1f')")
        .encode(y=y, yOffset=row, x=alt.value(0), text="text:N"),
        align="left",
        dx=4,
    )
    missing = (
        alt.Chart(grid.loc[grid["kind"] == "missing", ["run"]])
        .mark_text(text="missing", align="left", dx=6, fontStyle="italic")
        .encode(y=y, x=alt.value(0), tooltip=_tips(run="missing run"))
    )
    said = f"Accuracy of {text.counted(len(grid), 'run')} and controls with 95 % intervals"
    for subset in subsets:
        ours = _accuracies(grid[~grid["kind"].isin(["control", "missing"])], subset)
        if len(ours):
            best = ours.loc[ours["accuracy"].idxmax()]
            said += (
                f"; best on {best['subset']} images: {best['run']}, {best['accuracy']:.1f} %"
            )
    return (
        (interval + point + below + missing)
        .add_params(_full_scale())
        .properties(
            width=340,
            height=max(1, len(order)) * max(20, 14 * len(subsets)),
            description=said,
        )
    )


def _accuracies(grid, subset):
    """Return the accuracy (%) and its interval of the runs that have one on a subset."""
    columns = [f"{subset}_accuracy_pct{bound}" for bound in ("", "_low", "_high")]
    known = grid.reindex(columns=["run", *columns]).dropna()
    known["shown"] = list(text.shown(known[columns]).iloc[:, 0])
    known.columns = ["run", "accuracy", "low", "high", "shown"]
    return known.assign(subset=subset_title(subset))


def corruption_heat_map(table, summary):
    """Draw the accuracy of each run by kind of corruption, averaged over severities.

    Numbers are accuracies in %, colour is the fall against the untouched test images, whose
    accuracy stands in the first column.

    Args:
        table: Data frame, as `corruptions.accuracy_table` returns it.
        summary: Data frame, as `corruptions.summary_table` returns it.
    """
    cells = table.groupby(["run", "corruption"], sort=False).mean(numeric_only=True)
    cells = cells.reset_index()[["run", "corruption", "accuracy_pct", "fall_points"]]
    clean = summary[["run", "test_accuracy_pct"]].assign(corruption="none", fall_points=0.0)
    clean = clean.rename(columns={"test_accuracy_pct": "accuracy_pct"})
    cells = pd.concat([clean, cells]).rename(
        columns={"accuracy_pct": "accuracy", "fall_points": "fall"}
    )
    most = max(cells["fall"].max(), 1.0)
    worst = cells.iloc[cells["fall"].to_numpy().argmax()]
    base = alt.Chart(cells).encode(
        x=alt.X("corruption:N", title=None)
        .scale(domain=list(cells["corruption"].unique()))
        .axis(labelAngle=-45, labelLimit=_NAME_LIMIT, orient="top"),
        y=alt.Y("run:N", title=None)
        .scale(domain=list(summary["run"]))
        .axis(labelLimit=_NAME_LIMIT),
        tooltip=_tips(
            run="run",
            corruption="corruption",
            accuracy=("accuracy, %", ".1f"),
            fall=("fall, points", ".1f"),
        ),
    )
    squares = base.mark_rect().encode(
        color=alt.Color("fall:Q", title="fall, points")
        # The darkest square still shows its number.
        .scale(range=["#FFF5EB", "#F16913"], domain=[0, most], clamp=True)
        .legend(format=".0f", orient="bottom", gradientLength=160)
    )
    numbers = base.mark_text().encode(
        text=alt.Text("accuracy:Q", format=".1f"),
        color=alt.value("#222222"),
    )
    return (squares + numbers).properties(
        width=alt.Step(40),
        height=alt.Step(24),
        description=(
            f"Accuracy of {text.counted(len(summary), 'run')} on test images with "
            f"{table['corruption'].nunique()} kinds of corruptions, averaged over severities; "
            f"the largest fall: {worst['run']} by {worst['corruption']}, {worst['fall']:.1f} "
            "points"
        ),
    )


def recall_by_class(table):
    """Draw the recall of each class by several runs, with intervals.

    Args:
        table: Rows of `tables.recall_table` of one test subset and a few runs.
    """
    runs, classes = list(table["run"].unique()), list(table["class"].unique())
    colour, shape = _run_looks(runs)
    base = alt.Chart(table).encode(
        y=alt.Y("class:N", title=None)
        .scale(domain=classes)
        .axis(grid=True, labelLimit=_NAME_LIMIT),
        yOffset=alt.YOffset("run:N").scale(domain=runs),
        color=colour,
        tooltip=_tips(
            run="run",
            **{"class": "class"},
            images="images",
            recall_pct=("recall, %", ".1f"),
            recall_pct_low=("from", ".1f"),
            recall_pct_high=("to", ".1f"),
        ),
    )
    x = alt.X("recall_pct_low:Q", title="recall, % (line: 95 % interval)").scale(zero=False)
    points = base.mark_point(filled=True, size=45, opacity=1)
    worst = table.loc[table["recall_pct"].idxmin()]
    return (
        base.mark_rule(strokeWidth=2).encode(x=x, x2="recall_pct_high:Q")
        + points.encode(x="recall_pct:Q", shape=shape)
    ).properties(
        width=420,
        height=len(classes) * max(26, 12 * len(runs)),
        description=f"Recall of {len(classes)} classes by {text.counted(len(runs), 'run')}; "
        f"the lowest is that of {worst['class']} by {worst['run']}, "
        f"{worst['recall_pct']:.1f} %",
    )


def accuracy_by_policy(table):
    """Draw the accuracy of runs on the copies that each augmentation policy made.

    Args:
        table: Rows of `tables.policies_table` of one subset, without those of all copies.
    """
    runs = list(table["run"].unique())
    rows = table.assign(policy=table["policy"].map(lambda name: text.spell(name, "policy")))
    colour, shape = _run_looks(list(rows["policy"].unique()), "policy")
    base = alt.Chart(rows).encode(
        y=alt.Y("run:N", title=None).scale(domain=runs).axis(grid=True, labelLimit=_NAME_LIMIT),
        yOffset=alt.YOffset("policy:N"),
        color=colour,
        tooltip=_tips(
            run="run",
            policy="policy",
            with_blank_pct=("accuracy, %", ".1f"),
            with_blank_pct_low=("from", ".1f"),
            with_blank_pct_high=("to", ".1f"),
        ),
    )
    x = alt.X("with_blank_pct_low:Q", title="accuracy, % (line: 95 % interval)")
    means = rows.groupby("policy", sort=False)["with_blank_pct"].mean()
    said = ", ".join(f"{policy} {mean:.1f} %" for policy, mean in means.items())
    return (
        base.mark_rule(strokeWidth=2).encode(x=x.scale(zero=False), x2="with_blank_pct_high:Q")
        + base.mark_point(filled=True, size=45, opacity=1).encode(
            x="with_blank_pct:Q", shape=shape
        )
    ).properties(
        width=420,
        height=26 * len(runs),
        description=f"Accuracy of {text.counted(len(runs), 'run')} by augmentation policy; "
        f"means: {said}",
    )


def _run_looks(names, field="run"):
    """Return colour and shape of a field with a few names."""
    return [
        channel(f"{field}:N", title=None)
        .scale(domain=names, range=[values[i % len(values)] for i in range(len(names))])
        .legend(orient="bottom", columns=3, labelLimit=_NAME_LIMIT)
        for channel, values in ((alt.Color, _COLOURS), (alt.Shape, _SHAPES))
    ]


def learning_curves_of_runs(histories, model_of):
    """Draw validation loss and accuracy of several runs by epoch, over all phases.

    Colour and dash are the model.

    Args:
        histories: {run: data frame, the content of history.csv}.
        model_of: {run: its backbone, or itself without one}.
    """
    columns = ["epoch", "phase", "val_loss", "val_accuracy"]
    rows = pd.concat(
        of[["phase", "val_loss", "val_accuracy"]]
        .assign(run=run, model=model_of[run], epoch=range(1, len(of) + 1))
        .replace({"phase": r"_"}, {"phase": " "}, regex=True)[["run", "model", *columns]]
        for run, of in histories.items()
    ).reset_index(drop=True)
    models = list(dict.fromkeys(rows["model"]))
    looks = [
        channel("model:N", title=None)
        .scale(domain=models, range=[values[i % len(values)] for i in range(len(models))])
        .legend(orient="bottom", columns=5, symbolType="stroke", symbolSize=300)
        for channel, values in ((alt.Color, _COLOURS), (alt.StrokeDash, _DASHES))
    ]
    panels = []
    for metric, style in (("val_loss", "~r"), ("val_accuracy", "~%")):
        share = metric == "val_accuracy"
        base = alt.Chart(rows).encode(
            *looks,
            alt.Detail("run:N"),
            x=alt.X("epoch:Q", title="epoch, over all phases").axis(tickMinStep=1, format="d"),
            y=alt.Y(f"{metric}:Q", title=metric.replace("val_", "validation "))
            .scale(zero=False)
            .axis(format=style),
            tooltip=_tips(
                run="run",
                phase="phase",
                epoch=("epoch", "d"),
                **{metric: (metric.replace("val_", "validation "), ".1%" if share else ".3f")},
            ),
        )
        lines = base.mark_line(strokeWidth=1.6)
        points = base.mark_point(filled=True, size=90, opacity=0)
        panels.append((lines + points).properties(width=340, height=240))
    best = rows.loc[rows["val_accuracy"].fillna(-1).idxmax()]
    return alt.hconcat(*panels).properties(
        description="Validation loss and accuracy of "
        f"{text.counted(len(histories), 'run')} by epoch; the "
        f"highest accuracy is that of {best['run']}, {100 * best['val_accuracy']:.1f} %, in "
        f"epoch {best['epoch']}"
    )


def cell_map(places, classes):
    """Draw a map of the cells twice: by class, and by whether a run is right about them.

    Args:
        places: Data frame with `x`, `y`, `class`, `predicted` and `answer`, right or wrong.
        classes: The names of all classes.
    """
    reach = 1.05 * places[["x", "y"]].abs().to_numpy().max()
    scale = alt.Scale(domain=[-reach, reach] if reach else [-1, 1], nice=False)
    # The wrong ones lie on top.
    base = alt.Chart(places.sort_values("answer", kind="stable")).encode(
        x=alt.X("x:Q", axis=None, scale=scale),
        y=alt.Y("y:Q", axis=None, scale=scale),
        tooltip=_tips(**{"class": "class"}, predicted="predicted"),
    )
    points = base.mark_point(filled=True, opacity=0.8)
    by_class = points.encode(*_run_looks(classes, "class"), size=alt.value(26))
    by_answer = points.encode(
        *_run_looks(["right", "wrong"], "answer"),
        size=alt.when("datum.answer == 'wrong'").then(alt.value(34)).otherwise(alt.value(14)),
    )
    wrong = (places["answer"] == "wrong").sum()
    return (
        alt.hconcat(
            *(
                panel.properties(width=360, height=360, title=title)
                for panel, title in ((by_class, "by class"), (by_answer, "right or wrong"))
            )
        )
        .resolve_scale(color="independent", shape="independent")
        .properties(
            description=f"Map of {len(places):,} images of {len(classes)} classes by their "
            f"features; {wrong:,} of them are predicted wrong"
        )
    )


def agreement_heat_map(table, runs):
    """Draw Cohen's kappa of every pair of runs.

    Args:
        table: Rows of `agreement.agreement_table` about pairs of these runs.
        runs: Their names, in order.
    """
    pairs = table[["run", "compared_with", "kappa", "equal_pct", "both_wrong_pct"]]
    turned = pairs.rename(columns={"run": "compared_with", "compared_with": "run"})
    base = alt.Chart(pd.concat([pairs, turned])).encode(
        x=alt.X("run:N", title=None)
        .scale(domain=runs)
        .axis(labelAngle=-45, labelLimit=_NAME_LIMIT),
        y=alt.Y("compared_with:N", title=None).scale(domain=runs).axis(labelLimit=_NAME_LIMIT),
        tooltip=_tips(
            run="run",
            compared_with="and",
            kappa=("kappa", ".3f"),
            equal_pct=("equal answers, %", ".1f"),
            both_wrong_pct=("both wrong, %", ".1f"),
        ),
    )
    squares = base.mark_rect().encode(
        color=alt.Color("kappa:Q", title="Cohen's kappa")
        # The darkest square still shows its number.
        .scale(range=["#F4F8FC", "#6BAED6"])
        .legend(orient="bottom", gradientLength=160, format=".2f")
    )
    numbers = base.mark_text(fontSize=12).encode(
        text=alt.Text("kappa:Q", format=".2f"), color=alt.value("#222222")
    )
    said = ""
    if table["kappa"].notna().any():
        most, least = (
            table.loc[at] for at in (table["kappa"].idxmax(), table["kappa"].idxmin())
        )
        said = "".join(
            f"; {words} {of['run']} and {of['compared_with']}, {of['kappa']:.2f}"
            for words, of in (("the most alike are", most), ("the least alike are", least))
        )
    return (squares + numbers).properties(
        width=alt.Step(44),
        height=alt.Step(26),
        description=f"Cohen's kappa of the answers of {text.counted(len(runs), 'run')} to test "
        f"images{said}",
    )


def pareto_front(cost, score):
    """Mark the rows that no other row beats.

    A row beats another if it costs no more, scores no less, and is not equal in both; equal
    rows share the front. A row with a NaN is not on the front and beats no other.

    Args:
        cost: float (n,).
        score: float (n,).

    Returns:
        bool (n,).
    """
    cost, score = np.asarray(cost, float), np.asarray(score, float)
    no_worse = (cost[:, None] <= cost) & (score[:, None] >= score)
    differs = (cost[:, None] != cost) | (score[:, None] != score)
    beaten = (no_worse & differs).any(axis=0)
    return ~(beaten | np.isnan(cost) | np.isnan(score))


_NAMED = 30  # runs in a panel of `cost_chart` that all have their names
_PANEL = 340, 320  # width and height of a panel of `cost_chart`
_COLOURS = (_BLUE, _ORANGE, _GREEN, _PURPLE, _GREY)
_KINDS = {CNN: "CNN"}
_DASHES = ([1, 0], [6, 3], [2, 2], [8, 2, 2, 2], [12, 4])
_SHAPES = ("circle", "square", "triangle-up", "diamond", "triangle-down", "cross", "arrow")
_COSTS = {"parameters": "parameters", "training_seconds": f"{text.TRAINING_TIME}, s"}
_LETTER_SIZE, _LETTER = _TEXT, 6.6  # of labels: font size and mean width of a letter, in pixels


def cost_chart(grid):
    """Draw accuracy against parameters and against training time.

    The accuracy is that on augmented test images, or on test images if there are none. Filled
    points, joined by a line, are the Pareto front. A run of a backbone is labelled with its
    head; of many runs, only those on the front are labelled and have their interval drawn.
    Controls and missing runs have no cost and are left out.

    Args:
        grid: Data frame, as `tables.grid_table` returns it.
    """
    subset = TEST_AUGMENTED if f"{TEST_AUGMENTED}_accuracy_pct" in grid else TEST
    images = subset_title(subset)
    runs = _accuracies(grid, subset).join(grid[["kind", "backbone", "head", *_COSTS]])
    runs = runs.astype(dict.fromkeys(_COSTS, float) | {"backbone": object, "head": object})
    # What has no backbone goes by its kind.
    runs["backbone"] = runs["backbone"].fillna(runs["kind"].replace(_KINDS))
    runs = runs[(runs[list(_COSTS)] > 0).all(axis=1)]
    # Colour and shape stand for the backbone, so the label needs only the head.
    runs["label"] = runs["head"].fillna(runs["run"])
    runs = runs.fillna({"head": "none"})
    runs["time"] = runs["training_seconds"].map(text.duration)
    fronts = {cost: pareto_front(runs[cost], runs["accuracy"]) for cost in _COSTS}
    said = f"Accuracy on {images} images against the cost of {text.counted(len(runs), 'run')}"
    for cost, front in fronts.items():
        best = ", ".join(runs.loc[front, "run"]) or "none"
        said += f"; Pareto front by {_COSTS[cost].removesuffix(', s')}: {best}"
    return alt.hconcat(
        *(_cost_panel(runs, images, cost, front) for cost, front in fronts.items())
    ).properties(
        title=alt.TitleParams(
            "Filled, joined by a line: the Pareto front",
            anchor="start",
            fontSize=_TEXT,
            fontWeight="normal",
        ),
        description=said,
    )


def _cost_panel(runs, images, cost, front):
    width, height = _PANEL
    named = front | (len(runs) <= _NAMED)
    runs = runs.assign(named=named, label=runs["label"].where(named, ""))
    x_domain = _domain(np.log10(runs[cost]), margin=0.12)
    y_domain = _domain(runs[["low", "high"]], margin=0.05)
    x = width * _scaled(np.log10(runs[cost]), x_domain)
    y, top, bottom = (
        height * (1 - _scaled(runs[name], y_domain)) for name in ("accuracy", "high", "low")
    )
    steps = [place for place in np.argsort(x, kind="stable") if front[place]]
    covered = [
        *zip(x - 5, y - 5, x + 5, y + 5, strict=True),
        *zip(x - 1, top, x + 1, bottom, strict=True),
        *((x[i], y[i] - 1, x[j], y[i] + 1) for i, j in itertools.pairwise(steps)),
    ]
    widths = [min(_LETTER * len(label), _NAME_LIMIT) for label in runs["label"]]
    rows = runs.assign(cost=runs[cost], front=front, on_front=np.where(front, "yes", "no"))
    rows[["side", "dy"]] = _label_places(x, y, widths, covered)
    models = list(dict.fromkeys(runs["backbone"]))
    # Without a run, Vega makes a legend of infinite size.
    legend = alt.Legend(orient="bottom", columns=5, symbolOpacity=1) if models else None
    looks = [
        channel("backbone:N", title=None)
        .scale(domain=models, range=[values[i % len(values)] for i in range(len(models))])
        .legend(legend)
        for channel, values in ((alt.Color, _COLOURS), (alt.Shape, _SHAPES))
    ]
    base = alt.Chart(rows).encode(
        x=alt.X("cost:Q", title=_COSTS[cost])
        .scale(type="log", domain=[10**end for end in x_domain], nice=False)
        .axis(format="~s", tickCount=5, grid=False),
        y=alt.Y("accuracy:Q", title=f"accuracy, {images}, %").scale(
            domain=y_domain, nice=False
        ),
        tooltip=_tips(
            run="run",
            backbone="backbone",
            head="head",
            shown="accuracy, %",
            parameters=("parameters", ","),
            time=text.TRAINING_TIME,
            on_front="on the Pareto front",
        ),
    )
    staircase = base.transform_filter("datum.front").mark_line(
        interpolate="step-after", strokeWidth=1.2, strokeDash=[4, 3], opacity=0.8, color=_GREY
    )
    known = base.transform_filter("datum.named")
    intervals = known.encode(looks[0], y="low:Q", y2="high:Q").mark_rule(opacity=0.7)
    points = base.encode(*looks)
    # A label far from its point is joined to it by a line.
    leaders = known.transform_filter("abs(datum.dy) > 14").mark_rule(
        strokeWidth=0.6,
        opacity=0.6,
        x2Offset=alt.expr("6 * datum.side"),
        y2Offset=alt.expr("datum.dy"),
    )
    names = _haloed(
        known.encode(text="label:N"),
        dx=alt.expr("8 * datum.side"),
        dy=alt.expr("datum.dy"),
        align=alt.expr("datum.side > 0 ? 'left' : datum.side < 0 ? 'right' : 'center'"),
        baseline="middle",
        fontSize=_LETTER_SIZE,
        limit=_NAME_LIMIT,
    )
    return (
        staircase
        + intervals
        + leaders.encode(x2="cost:Q", y2="accuracy:Q")
        + points.mark_point(filled=False, size=55, strokeWidth=1.5, opacity=1)
        + points.transform_filter("datum.front").mark_point(filled=True, size=55, opacity=1)
        + names
    ).properties(width=width, height=height)


def _domain(values, margin):
    """Return [low, high] around all values, with a margin as a share of their range."""
    values = np.asarray(values, float)
    if not values.size:
        return [0.0, 1.0]
    room = margin * max(np.ptp(values), 1.0)
    return [float(values.min() - room), float(values.max() + room)]


def _scaled(values, domain):
    return (np.asarray(values, float) - domain[0]) / (domain[1] - domain[0])


def _label_places(x, y, widths, covered):
    """Choose a place for the label of each point, in pixels: an array of (side, dy).

    A label lies right (1) or left (-1) of its point, or centred (0), and `dy` below it. Labels
    are placed one by one from the top; each takes the nearest place that hides the least of
    other labels and of the boxes `covered`.
    """
    rise = _LETTER_SIZE + 2
    places = [(1, 0), (-1, 0), (0, -rise), (0, rise)]
    places += [(side, n * rise) for k in range(1, 7) for n in (-k, k) for side in (1, -1)]
    panel = np.array([[0, 0, *_PANEL]])
    chosen = np.zeros((len(x), 2))
    for i in np.argsort(y, kind="stable"):
        options = []
        for side, dy in places:
            left = x[i] + 8 * side - widths[i] * (1 - side) / 2
            top = y[i] + dy - rise / 2
            box = left, top, left + widths[i], top + rise
            outside = widths[i] * rise - _overlap(box, panel)
            hidden = _overlap(box, np.array(covered)) + 5 * outside
            options.append((hidden + 3 * abs(dy), len(options), box))
        _, place, box = min(options)
        chosen[i] = places[place]
        covered.append(box)
    return chosen


def _overlap(box, boxes):
    """Add up the areas that a box (left, top, right, bottom) shares with other boxes."""
    across = np.minimum(box[2], boxes[:, 2]) - np.maximum(box[0], boxes[:, 0])
    down = np.minimum(box[3], boxes[:, 3]) - np.maximum(box[1], boxes[:, 1])
    return float((across.clip(0) * down.clip(0)).sum())
