"""How to use a run, what it may be used for, and under which licences: its model card.

The format is that of Hugging Face's model cards (https://huggingface.co/docs/hub/model-cards):
Markdown with metadata in YAML. What it says follows Mitchell et al. 2019 (FAT*, "Model cards
for model reporting").
"""

from pathlib import Path

import jinja2
import yaml

from hemagrid import io
from hemagrid.names import TRANSFER, VAL, subset_title
from hemagrid.reporting.text import counted

UNKNOWN = "not stated (card: {} in the config)"

# As MedMNIST states at https://zenodo.org/records/10519652.
_DATA = {
    "bloodmnist": "CC BY 4.0 (BloodMNIST of MedMNIST, https://zenodo.org/records/10519652)",
    "smears": "none: the pictures are drawn by this program",
}
_IMAGENET = (
    "those of Keras Applications, trained on ImageNet; see https://keras.io/api/applications "
    "for the licence of each network, and the terms of ImageNet"
)
_TEMPLATES = Path(__file__).with_name("templates")


def facts(metrics, config):
    """Gather what a card says.

    Args:
        metrics: Content of metrics.json of a run that is no control.
        config: The study's config.

    Returns:
        A mapping: `run`, `command` and `python` (how to use it), `size` (pixels), `input`,
        `classes`, `data`, `data_licence`, `weights_licence`, `intended_use`, `citation`,
        `scores` (a list of {"name", "n", "accuracy", "balanced_accuracy"}), and `starts_from`
        (the network whose weights it started from, or None).
    """
    run, said, dataset = metrics["run"], config.get("card") or {}, config["dataset"]
    backbone = config["backbones"].get(metrics["backbone"], {})
    weights = backbone.get("weights") if metrics["kind"] == TRANSFER else "random"
    licence = said.get("weights_licence")
    if licence is None:
        licence = UNKNOWN.format("weights_licence")
        if weights in ("imagenet", "random"):
            licence = {"imagenet": _IMAGENET, "random": "none: they were drawn at random"}[
                weights
            ]
    size = dataset.get("image_size")
    return {
        "run": run,
        "kind": metrics["kind"],
        "members": (metrics["cost"] or {}).get("members"),
        "command": f"hemagrid predict {run} PICTURES",
        "size": size,
        "classes": metrics["class_names"],
        "data": dataset["source"],
        "data_licence": said.get("data_licence")
        or _DATA.get(dataset["source"], UNKNOWN.format("data_licence")),
        "weights_licence": licence,
        "intended_use": said.get("intended_use"),
        "citation": said.get("citation"),
        "starts_from": backbone.get("application") if weights == "imagenet" else None,
        "parameters": metrics["cost"]["parameters"],
        "latency": metrics.get("latency"),
        "scores": [
            {
                "name": subset_title(subset),
                "n": of["n"],
                "accuracy": of["accuracy"],
                "balanced_accuracy": of["balanced_accuracy"],
            }
            for subset, of in metrics["subsets"].items()
            if subset != VAL
        ],
    }


def write_card(metrics, config, out):
    """Write the card of a run.

    Args:
        metrics: Path of its metrics.json.
        config: The keys `dataset`, `backbones` and `card` of the study's config.
        out: Path of the Markdown file.
    """
    card = facts(io.read_json(metrics), config)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["counted"] = counted
    template = environment.get_template("model_card.md.j2")
    io.write_text(out, template.render(card=card, metadata=_metadata(card)))


def _metadata(card):
    """Spell the metadata of a card, in the keys of Hugging Face's specification."""
    results = [
        {
            "task": {"type": "image-classification"},
            "dataset": {"name": f"{card['data']}, {of['name']} images", "type": card["data"]},
            "metrics": [
                {"type": "accuracy", "value": round(of["accuracy"]["value"], 4)},
                {
                    "type": "balanced_accuracy",
                    "value": round(of["balanced_accuracy"]["value"], 4),
                },
            ],
        }
        for of in card["scores"]
    ]
    metadata = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "license": "other",
        "license_name": "see-below",
        "tags": ["image-classification", "blood-cells", "hemagrid"],
        "metrics": ["accuracy"],
        "model-index": [{"name": card["run"], "results": results}],
    }
    return yaml.safe_dump(metadata, sort_keys=False, allow_unicode=True)
