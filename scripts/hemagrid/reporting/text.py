"""How values, names and tables are spelled for people, on the page and on a terminal."""

from functools import partial
from pathlib import PurePath

import pandas as pd

from hemagrid.names import SUBSET_TITLES, subset_title

DASH = "\N{EN DASH}"  # between bounds, and for what is missing
MINUS = "\N{MINUS SIGN}"
TRAINING_TIME = "training time, without embedding and search"
"""What is measured besides accuracy: the same words in tables, charts and captions."""

SCORES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "calibration_error": "calibration error",
}
"""The scores of metrics.json that tables hold, as people read them."""

_POLICIES = {
    "all": "all copies",
    "randaugment": "RandAugment",
    "augmix": "AugMix",
    "randaugment+augmix": "RandAugment, then AugMix",
}
_HEADINGS = {
    "gap_points": "test minus augmented, points",
    "training_seconds": TRAINING_TIME,
    "peak_memory_mib": "peak memory, MiB",
    "images_per_second": "images/s",
    "published_head": "published head",
    **{
        f"published_{name}_pct": f"published {title}, %"
        for name, title in SUBSET_TITLES.items()
    },
    "codabench_pct": "Codabench, %",
    "local_score_pct": "local score (images), %",
    "published_codabench": "published Codabench, %",
    "dense": "Dense",
    "published_dense": "published Dense",
    "published_dropout": "published dropout",
    "batch_norm": "BatchNormalization",
    "published_batch_norm": "published BatchNormalization",
    "learning_rate": "learning rate",
    "published_learning_rate": "published learning rate",
    "weight_decay": "weight decay",
    "trial_val_accuracy_pct": "validation accuracy of the best trial, %",
    "val_loss": "validation loss",
    "embedding_seconds": "embedding time of its backbone",
    "search_seconds": "search time",
    "seconds": "time",
    "compared_with": "compared with",
    "subset": "images",
    "tuned_accuracy_pct": "its accuracy, %",
    "other_accuracy_pct": "the other's accuracy, %",
    "gain_points": "difference, points",
    "accuracy_pct": "its accuracy, %",
    "difference_points": "winner minus run, points",
    "fall_points": "fall, points",
    "mean_accuracy_pct": "accuracy on corrupted images, %",
    "mean_fall_points": "fall, points",
    "mce_pct": "mean corruption error, %",
    "relative_mce_pct": "relative mean corruption error, %",
    "relative_mce_kinds": "over kinds",
    "worst_corruption": "worst kind",
    "worst_fall_points": "its fall, points",
    "p_value": "p",
    "p_holm": "p, corrected",
    "family": "corrected for",
    "calibration_error_pct": "calibration error, %",
    "scaled_calibration_error_pct": "after scaling, %",
    "threshold_pct": "least confidence of an answer, %",
    "coverage_pct": "images answered, %",
    "answered_accuracy_pct": "accuracy of the answers, %",
    "aurc_pct": "area under the curve, %",
    "oracle_coverage_pct": "answered with hindsight, %",
    "seed_share_pct": "seed's share of the variance, %",
    "replicate_of": "replicate of",
    "train_seed": "seed",
    "recall_pct": "recall, %",
    "latency_ms": "one image, median, ms",
    "latency_p95_ms": "95th percentile, ms",
    "energy_kwh": "energy of training, kWh",
    "equal_pct": "equal answers, %",
    "kappa": "Cohen's kappa",
    "both_wrong_pct": "both wrong, %",
    "blank": "blank copies",
    "faint": "nearly blank",
    "redrawn": "drawn again",
    "with_blank_pct": "accuracy, %",
    "without_blank_pct": "without blank copies, %",
}


def shown(table):
    """Turn a table into text for people: "92.5 (91.0–93.9)", units in the headings.

    Args:
        table: Data frame with column names as the library writes them. A column and its
            `_low` and `_high` become one column, as do `_least` and `_most`, bounds of a range,
            and a local score and its images.

    Returns:
        A data frame of strings. A missing value is a dash.
    """
    columns = {}
    for name in table:
        if name.endswith(("_low", "_high", "_most", "local_score_set")):
            continue
        if name.endswith("_least"):
            score = name.removesuffix("_least")
            bounds = zip(table[name], table[f"{score}_most"], strict=True)
            columns[heading(score).replace(", %", ", range, %")] = [
                DASH if pd.isna(low) else f"{spell(low, score)}{DASH}{spell(high, score)}"
                for low, high in bounds
            ]
            continue
        cells = [spell(value, name) for value in table[name]]
        if f"{name}_low" in table:
            # A difference may be negative, and a dash beside a minus sign is hard to read.
            to = " to " if name.endswith("_points") else DASH
            bounds = zip(table[f"{name}_low"], table[f"{name}_high"], strict=True)
            cells = [
                cell if pd.isna(low) else f"{cell} ({spell(low, name)}{to}{spell(high, name)})"
                for cell, (low, high) in zip(cells, bounds, strict=True)
            ]
        if name == "local_score_pct":
            cells = [
                cell if cell == DASH else f"{cell} ({subset_title(PurePath(of).name)})"
                for cell, of in zip(cells, table["local_score_set"], strict=True)
            ]
        columns[heading(name)] = cells
    return pd.DataFrame(columns, dtype=object)


def subsets_of(table):
    """List the subsets whose accuracy a table holds, in the order of its columns."""
    ending = "_accuracy_pct"
    names = [name.removesuffix(ending) for name in table if name.endswith(ending)]
    return [name for name in names if not name.endswith("_balanced")]


def heading(name):
    """Spell the name of a column: "test_accuracy_pct" becomes "test accuracy, %"."""
    if name in _HEADINGS:
        return _HEADINGS[name]
    for score, score_name in SCORES.items():
        subset = name.removesuffix(f"_{score}_pct")
        if subset != name and not subset.endswith("_balanced"):
            return f"{subset_title(subset)} {score_name}, %"
    if name.endswith("_seed_share_pct"):
        subset = name.removesuffix("_seed_share_pct")
        return f"{subset_title(subset)} accuracy, seed's share of the variance, %"
    if name.endswith("_auc"):
        return f"{subset_title(name.removesuffix('_auc'))} AUC"
    if name.endswith("_drop_points"):
        return f"test minus {subset_title(name.removesuffix('_drop_points'))}, points"
    return name


def covered(metrics):
    """Say what the intervals and tests of a study cover.

    Args:
        metrics: {run: content of metrics.json, or of the summary of its replicates, or None}.
    """
    counts = {
        run: len(m.get("replicates", [run]))
        for run, m in metrics.items()
        if m and m["kind"] != "control"
    }
    once = [run for run, count in counts.items() if count == 1]
    if len(once) == len(counts):
        return (
            "Intervals and tests cover the choice of images. They leave out the seed: each run "
            "was trained once (replicates: 1)."
        )
    times = " or ".join(str(count) for count in sorted(set(counts.values()) - {1}))
    said = (
        "Accuracies are means over replicates. Intervals and tests cover the choice of images"
    )
    wide = ""
    if 2 in counts.values():
        wide = (
            " Two replicates hardly tell how much the seed matters, so their intervals are "
            "wide, at times 0 to 100; three or more narrow them."
        )
    if not once:
        return f"{said} and of the seed: each run was trained {times} times.{wide}"
    left_out = ", ".join(once) if len(once) < 4 else f"the {len(once)} runs with one replicate"
    return (
        f"{said} and, of runs that were trained {times} times, of the seed. They leave out the "
        f"seed of {left_out}.{wide}"
    )


def spell(value, column):
    """Spell one value of a column; the end of the column's name decides how."""
    if value is None or pd.isna(value) or value == "":
        return DASH
    for ending, spelled in _SPELLINGS.items():
        if column.endswith(ending):
            return spelled(value)
    return value if isinstance(value, str) else f"{value:,.0f}"


def counted(number, noun):
    """Spell a number of things: "1 run", "1,200 runs"."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def listed(numbers):
    """Spell a list of layers or rates: "512, 256", or "none" if it is empty."""
    return ", ".join(f"{number:g}" for number in numbers) or "none"


def p_text(p):
    """Spell a p value to three decimals: "0.012", "below 0.001"."""
    return "below 0.001" if p < 0.001 else f"{p:.3f}"


def number(value, form):
    """Spell a number by a format, with a real minus sign."""
    return format(value, form).replace("-", MINUS)


def points(value, low, high):
    """Spell a difference in percentage points: "+1.2 points (−0.3 to +2.7)"."""
    value, low, high = (number(each, "+z.1f") for each in (value, low, high))
    return f"{value} points ({low} to {high})"


def few(names, most=8):
    """List names, at most this many: "a, b and 12 more"."""
    left = len(names) - most
    return ", ".join(names[:most]) + (f" and {left} more" if left > 0 else "")


def duration(seconds):
    """Spell a duration: "48 s", "12 min 05 s", "3 h 20 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def size(count):
    """Spell a number of bytes in powers of 1000: "48 kB", "1.2 GB"."""
    units = ["B", "kB", "MB", "GB", "TB"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        units.pop(0)
    return f"{count:,.1f} {units[0]}" if units[0] in ("GB", "TB") else f"{count:.0f} {units[0]}"


def shorten(text, width, length=len):
    """Cut a text that is longer than `width`, as `length` measures it, and end it with "…"."""
    if length(text) <= width:
        return text
    while text and length(text + "\N{HORIZONTAL ELLIPSIS}") > width:
        text = text[:-1]
    return text + "\N{HORIZONTAL ELLIPSIS}"


def aligned(header, rows, left=1):
    """Lay out a table for a terminal.

    Args:
        header: Headings of the columns.
        rows: Lists of cells.
        left: Number of columns that are aligned to the left; the others go to the right.

    Returns:
        The table as text, one line per row.
    """
    lines = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if place < left else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


# How the values of a column are spelled, by the end of its name; the first that fits counts.
_SPELLINGS = {
    "gain_points": partial(number, form="+z.1f"),
    "difference_points": partial(number, form="+z.1f"),
    "drop_points": partial(number, form="+z.1f"),
    "_points": partial(number, form="z.1f"),
    "_pct": partial(number, form="z.1f"),
    "seconds": duration,
    "_auc": "{:.4f}".format,
    "kappa": partial(number, form=".3f"),
    "_ms": "{:.1f}".format,
    "_kwh": "{:.3g}".format,
    "_rate": "{:g}".format,
    "_decay": "{:g}".format,
    "_loss": "{:.3f}".format,
    "temperature": "{:.2f}".format,
    "p_value": p_text,
    "p_holm": p_text,
    "subset": subset_title,
    "policy": lambda name: _POLICIES.get(name, name),
}
