"""The published study's numbers, and when they stand beside ours.

Source: "AN2DL - First Homework Report, Bio.log(y) Team", January 2025.
"""

from pathlib import Path

from hemagrid.config.grid import tunable_backbones
from hemagrid.names import TEST, TEST_AUGMENTED, VAL

CLASSES = ["basophil", "eosinophil", "erythroblast", "ig"]
CLASSES += ["lymphocyte", "monocyte", "neutrophil", "platelet"]
KEPT = 11953
"""Classes of the challenge's data set, and its images without duplicates."""

_CLOSE = 10  # images by which other rules for duplicates may differ from KEPT
_NUMBERS = ("learning_rate", VAL, TEST, TEST_AUGMENTED, "codabench")


def settings(config):
    """Return the part of the config that `published` depends on."""
    backbones = {name: config["backbones"][name] for name in tunable_backbones(config)}
    return {
        "shown": config["published"],
        "source": config["dataset"]["source"],
        "applications": {name: entry["application"] for name, entry in backbones.items()},
    }


def published(settings, audit):
    """Read the published numbers, if they belong beside those of a study.

    They never do beside drawn cells (source `smears`). Else they
    do if the config says so (`published: true`), or, unless it says `false`, if the images
    are those of the published study: BloodMNIST, or an npz with the challenge's eight classes
    and as many images as the challenge's set has without duplicates. Numbers of a backbone are
    joined by its application and head, whatever the config calls the backbone.

    Args:
        settings: What `settings` returns.
        audit: Content of audit.json.

    Returns:
        None, or a data frame of the published rows. `table` is `configurations` (the heads that
        were tried), `heads` (the best head of each model) or `tuned` (after the searches).
        `run` and `backbone` name the same model in this study, and are missing if it has none.
        Accuracies are in %, NaN if the published study gives none.
    """
    shown, source = settings["shown"], settings["source"]
    if shown is None:
        same_classes = [row["class"] for row in audit["classes"]] == CLASSES
        same_images = same_classes and abs(audit["counts"]["kept"] - KEPT) <= _CLOSE
        shown = source == "bloodmnist" or source == "npz" and same_images
    if not shown or source == "smears":
        return None
    import pandas as pd  # not above: the workflow imports this module for `settings`

    path = Path(__file__).with_name("published.csv")
    rows = []
    for row in pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records"):
        same = [n for n, of in settings["applications"].items() if of == row["application"]]
        for backbone in same or [None]:
            run = f"{backbone}_{row['head']}" if backbone else None
            # A CNN has no application: its name in the config is the model's.
            run = run if row["application"] else row["model"]
            rows.append(row | {"backbone": backbone, "run": run})
    table = pd.DataFrame(rows).replace("", None)
    return table.assign(**{name: pd.to_numeric(table[name]) for name in _NUMBERS})


def part(published, table, key):
    """Choose one table of `published`, to be joined to a table of ours by the column `key`.

    The other columns are named as in our tables, with `published_` in front.
    """
    percent = {name: f"{name}_pct" for name in (VAL, TEST, TEST_AUGMENTED)}
    chosen = published[(published["table"] == table) & published[key].notna()]
    others = chosen.drop(columns=key).rename(columns=percent).add_prefix("published_")
    return others.assign(**{key: chosen[key]})
