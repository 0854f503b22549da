"""How problems of a config are told."""

import pytest
import yaml

from .conftest import CONFIG, problems

VGG19 = {"application": "VGG19"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (
            {"heads": {"cfg1": {"learning_rate": yaml.safe_load("1e-3")}}},
            "heads.cfg1.learning_rate: found the text '1e-3', expected a finite number "
            "above 0 and at most 1; YAML reads 1e-3 as text, write 1.0e-3",
        ),
        ({"training": {"finetune_all": {"learning_rate": "2.5E05"}}}, "write 2.5e+5"),
        ({"seed": "42"}, "seed: found the text '42', expected a whole number"),
        (
            # --config 'training={class_weights: false}'
            {"training": {"class_weights": "false"}},
            "expected true or false; write it without quotes, in a config file: a mapping "
            "after --config holds only text",
        ),
        (
            {"dataset": "folder"},
            "dataset: found the text 'folder', expected a mapping; single keys of a mapping "
            "are set in a file, with --configfile",
        ),
        (
            {"dataset": {"source": "folder", "path": "a", "classes": ["a", False]}},
            "dataset.classes[1]: found false, expected text, not empty; write it in quotes",
        ),
        (
            {"dataset": {"classes": ["a", yaml.safe_load("2026-11-25")]}},
            "dataset.classes[1]: found datetime.date(2026, 11, 25), expected text, not empty; "
            "write it in quotes",
        ),
        (
            {"dataset": {"source": "npz", "path": "a", "classes": ["a", "b", "a"]}},
            "dataset.classes: found the text 'a' again, expected every entry once",
        ),
        (
            {"training": {"optimizer": "Adam"}},
            "training.optimizer: found the text 'Adam', expected one of adam, adamw, sgd; did "
            "you mean adam?",
        ),
        (
            {
                "backbones": CONFIG["backbones"]
                | {"vgg19": VGG19 | {"top": "a", "weights": "x"}}
            },
            "backbones.vgg19.weights: found the text 'x', expected one of imagenet, own, "
            "random or a path that ends in .weights.h5, .keras or .h5",
        ),
        (
            {"backbones": CONFIG["backbones"] | {"vgg19": VGG19}},
            "backbones.vgg19.top: found nothing, expected the last layer of VGG19 that",
        ),
        (
            {"backbones": CONFIG["backbones"] | {"vgg_19": VGG19 | {"top": "a"}}},
            "backbones.vgg_19: found the name 'vgg_19', expected lower-case letters and digits",
        ),
        ({"heads": CONFIG["heads"] | {"Wide-1": {}}}, "heads.Wide-1: found the name 'Wide-1'"),
        ({"heads": CONFIG["heads"] | {1: {}}}, "heads[1]: found the name 1"),
    ],
)
def test_a_mistake_is_the_one_problem_named(config, expected):
    (line,) = problems(config)
    assert expected in line
