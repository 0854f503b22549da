"""The study's figures as SVG: confusion, learning curves, trials, intervals, class counts."""

import altair as alt
import numpy as np
import pandas as pd
import vl_convert

from hemagrid.files import write_text
from hemagrid.predictions import SUBSET_NAMES
from hemagrid.trials import best_trial

# Okabe & Ito's colours (Color Universal Design, 2008): told apart by every kind of
# colour vision. Marks differ in shape or dash as well.
_BLUE, _ORANGE, _GREEN, _PURPLE = "#0072B2", "#D55E00", "#009E73", "#CC79A7"
_SUBSET_COLOURS = dict(zip(SUBSET_NAMES, (_PURPLE, _BLUE, _ORANGE, _GREEN), strict=True))


def svg(chart):
    """Render a chart as the text of an SVG document."""
    return vl_convert.vegalite_to_svg(chart.to_dict())


def save(chart, path_svg):
    """Write a chart as SVG."""
    write_text(path_svg, svg(chart))


def confusion_matrices(confusion):
    """Draw the confusion matrices of every test subset of one run, side by side."""
    subsets = [s for s in SUBSET_NAMES if s != "val" and s in set(confusion["subset"])] or list(
        confusion["subset"].unique()
    )
    return _styled(alt.hconcat(*(confusion_chart(confusion, s) for s in subsets)))


def confusion_chart(confusion, subset):
    """Draw one subset of a confusion table (subset, true, predicted, count).

    Colour is the share of the true class, so that rare classes count as much as common
    ones; the numbers are images.
    """
    rows = confusion[confusion["subset"] == subset].copy()
    total = rows.groupby("true")["count"].transform("sum")
    rows["share"] = rows["count"] / total.clip(lower=1)
    order = list(rows["true"].unique())
    base = alt.Chart(rows[["true", "predicted", "count", "share"]]).encode(
        x=alt.X("predicted:N", sort=order, title="predicted").axis(labelAngle=-45),
        y=alt.Y("true:N", sort=order, title="true").axis(titlePadding=16),
    )
    cells = base.mark_rect().encode(
        color=alt.Color("share:Q", title="share of the true class")
        .scale(range=["#F4F8FC", "#08519C"], domain=[0, 1])
        .legend(format=".0%", orient="bottom", gradientLength=160, titleLimit=200)
    )
    numbers = base.mark_text(fontSize=11).encode(
        text=alt.Text("count:Q", format=","),
        color=alt.when("datum.share > 0.5")
        .then(alt.value("white"))
        .otherwise(alt.value("#222222")),
    )
    return (cells + numbers.transform_filter("datum.count > 0")).properties(
        width=alt.Step(38), height=alt.Step(32), title=SUBSET_NAMES.get(subset, subset)
    )


def learning_curves(history):
    """Draw loss and accuracy by epoch, for training and validation.

    A dashed line ends each phase; a dot is the epoch whose weights were kept.
    """
    history = history.assign(step=range(1, len(history) + 1))
    ends = history.groupby("phase", sort=False)["step"].agg(["min", "max"])
    ends = ends.reset_index().assign(phase=lambda t: t["phase"].str.replace("_", " "))
    ends["between"] = ends["max"] + 0.5
    epochs = alt.X("step:Q", title="epoch").axis(tickMinStep=1, format="d", grid=False)
    epochs = epochs.scale(domain=[0.5, len(history) + 0.5], nice=False)
    panels = []
    for metric in ("loss", "accuracy"):
        rows = history.melt(
            id_vars=["step", "best"],
            value_vars=[metric, f"val_{metric}"],
            var_name="images",
            value_name="value",
        )
        rows["images"] = rows["images"].map({metric: "training", f"val_{metric}": "validation"})
        line = alt.Chart(rows).encode(
            x=epochs,
            y=alt.Y("value:Q", title=metric).scale(zero=False),
            color=alt.Color("images:N", title=None)
            .scale(domain=["training", "validation"], range=[_BLUE, _ORANGE])
            .legend(orient="bottom"),
            strokeDash=alt.StrokeDash("images:N", title=None)
            .scale(domain=["training", "validation"], range=[[1, 0], [5, 3]])
            .legend(orient="bottom"),
        )
        kept = line.mark_point(filled=True, size=45, opacity=1).transform_filter(
            "datum.best == true && datum.images == 'validation'"
        )
        border = (
            alt.Chart(ends.iloc[:-1])
            .mark_rule(strokeDash=[2, 3], color="#888888")
            .encode(x="between:Q")
        )
        names = (
            alt.Chart(ends)
            .mark_text(align="left", baseline="bottom", dy=-4, fontSize=10)
            .encode(x="min:Q", y=alt.value(0), text="phase:N")
        )
        panels.append(
            (line.mark_line(strokeWidth=1.8) + kept + border + names).properties(
                width=340, height=200
            )
        )
    return _styled(alt.hconcat(*panels))


def parallel_coordinates(trials):
    """Draw the trials of a search (as `trials.read_trials` reads them), a line for each.

    Every axis runs from the smallest to the largest value tried; those of learning rate,
    weight decay and epochs are logarithmic. Neurons are those of all Dense layers, dropout
    is the mean rate. Better trials are darker and lie above worse ones; the best is orange.
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
    lines, ticks = [], []
    for name, column in values.items():
        heights, marks = _axis(column, log=name in _LOGARITHMIC)
        lines.append(
            pd.DataFrame({"axis": name, "height": heights, "trial": trials["trial"]}).assign(
                accuracy=values["validation accuracy, %"]
            )
        )
        ticks.append(pd.DataFrame(marks, columns=["height", "label"]).assign(axis=name))
    lines = pd.concat(lines).sort_values("accuracy", kind="stable")
    x = alt.X("axis:N", sort=list(values), title=None, scale=alt.Scale(type="point")).axis(
        orient="top",
        domain=False,
        ticks=False,
        grid=True,
        gridColor="#8A939B",
        labelAngle=0,
        labelFontSize=11,
        labelFontWeight="bold",
        labelPadding=20,
    )
    y = alt.Y("height:Q", axis=None, scale=alt.Scale(domain=[0, 1]))
    number = int(best_trial(trials)["trial"])
    line = alt.Chart(lines).encode(x=x, y=y, detail="trial:N")
    others = line.mark_line(strokeWidth=1.4, opacity=0.85).encode(
        color=alt.Color("accuracy:Q", legend=None).scale(range=["#BFD3E6", "#08306B"])
    )
    best = line.transform_filter(alt.datum.trial == number)
    label = alt.Chart(pd.concat(ticks)).encode(x=x, y=y, text="label:N")
    style = {"align": "left", "dx": 5, "dy": -8, "fontSize": 10}
    name = best.transform_filter(alt.datum.axis == values.columns[-1]).mark_text(
        align="left", dx=9, dy=6, fontWeight="bold", color=_ORANGE, text=f"best: trial {number}"
    )
    return _styled(
        (
            others
            + best.mark_line(strokeWidth=3.2, color=_ORANGE)
            + best.mark_point(filled=True, size=40, color=_ORANGE, opacity=1)
            # White beneath, so that numbers are read across lines.
            + label.mark_text(**style, stroke="white", strokeWidth=3, strokeJoin="round")
            + label.mark_text(**style, color="#333333")
            + name
        ).properties(width=110 * (len(values.columns) - 1), height=260)
    )


_LOGARITHMIC = ("learning rate", "weight decay", "epochs")
_MARKS = 6  # on one axis
_MARGIN = 0.06  # between two marks, of the axis


def _numbers(text):
    """Read "384, 128" as [384.0, 128.0], what is missing as nothing."""
    return [] if pd.isna(text) else [float(number) for number in text.split(",")]


def _axis(column, *, log):
    """Place values on an axis of height 0 to 1: (heights, marks [(height, label)]).

    The marks are the values themselves where they are few, or else evenly spaced.
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
    """Draw how many images of each class every split of an audit (audit.json) has."""
    classes = pd.DataFrame(audit["classes"])
    splits = ["train", "val", "test"]
    counts = classes.melt(
        id_vars="class", value_vars=splits, var_name="split", value_name="images"
    )
    return _styled(
        alt.Chart(counts)
        .mark_bar()
        .encode(
            x=alt.X("images:Q", title="images kept"),
            y=alt.Y("class:N", sort=list(classes["class"]), title=None),
            color=alt.Color("split:N", title=None)
            .scale(domain=splits, range=[_BLUE, _PURPLE, _ORANGE])
            .legend(orient="bottom"),
            order=alt.Order("place:Q"),
        )
        .transform_calculate(place="indexof(['train', 'val', 'test'], datum.split)")
        .properties(width=320, height=alt.Step(18))
    )


def accuracy_chart(grid):
    """Draw the test accuracies of a grid table with their intervals (forest plot)."""
    rows = []
    for subset in ("test", "test_augmented"):
        column = f"{subset}_accuracy_pct"
        if column in grid:
            part = grid[["run", column, f"{column}_low", f"{column}_high"]]
            part = part.set_axis(["run", "accuracy", "low", "high"], axis=1)
            rows.append(part.assign(subset=SUBSET_NAMES[subset]))
    rows = pd.concat(rows).dropna()
    shown = [s for s in ("test", "test_augmented") if f"{s}_accuracy_pct" in grid]
    names = [SUBSET_NAMES[s] for s in shown]
    base = alt.Chart(rows).encode(
        y=alt.Y("run:N", sort=list(grid["run"]), title=None).axis(grid=True, labelLimit=260),
        yOffset=alt.YOffset("subset:N", sort=names),
        color=alt.Color("subset:N", title=None)
        .scale(domain=names, range=[_SUBSET_COLOURS[s] for s in shown])
        .legend(orient="top"),
    )
    interval = base.mark_rule(strokeWidth=2).encode(
        x=alt.X("low:Q", title="accuracy, % (line: 95 % interval)")
        .scale(domain=[0, 100])
        .axis(tickCount=10),
        x2="high:Q",
    )
    point = base.mark_point(filled=True, size=18, opacity=1).encode(
        x="accuracy:Q",
        shape=alt.Shape("subset:N", title=None).scale(
            domain=names, range=["circle", "diamond"][: len(names)]
        ),
    )
    return _styled((interval + point).properties(width=320, height=alt.Step(10)))


def _styled(chart):
    return chart.configure(
        background="white", font="Helvetica, Arial, sans-serif", padding=8
    ).configure_view(stroke=None)
