import numpy as np
import pytest

from hemagrid.errors import InputError
from hemagrid.evaluation.comparisons import tuning_gain_table
from hemagrid.evaluation.metrics import evaluate
from hemagrid.evaluation.statistics import paired
from hemagrid.io import write_json
from hemagrid.reporting.tables import compare_tuned, read_tuned
from hemagrid.training.predictions import write_predictions

N = 200
# Share of right answers on the test and on the augmented test images.
SKILL = {
    "convnext_cfg1": (0.85, 0.60),
    "convnext_cfg3": (0.80, 0.70),
    "convnext_tuned": (0.95, 0.40),
    "convnext_tuned_adamw": (0.95, 0.42),
    "vgg16_tuned": (0.90, 0.60),
}


def answers(labels, skill, shift=0):
    """Answers that are right on a share of the rows, the first ones after `shift`."""
    place = (np.arange(len(labels)) - shift) % len(labels)
    return np.eye(3)[np.where(place < round(skill * len(labels)), labels, (labels + 1) % 3)]


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    labels = np.arange(N) % 3
    repeated, groups = np.repeat(labels, 2), np.arange(2 * N) // 2
    for place, (run, (test, augmented)) in enumerate(SKILL.items()):
        write_predictions(
            root / run / "predictions.npz",
            ["a", "b", "c"],
            {
                "val": (labels, answers(labels, test), np.arange(N)),
                "test": (labels, answers(labels, test, place), np.arange(N)),
                "test_augmented": (repeated, answers(repeated, augmented, place), groups),
            },
        )
        backbone, head = run.split("_", 1)
        content, _ = evaluate(
            root / run / "predictions.npz",
            run=run,
            kind="transfer",
            backbone=backbone,
            head=head,
            cost=None,
            bootstrap=20,
            calibration_bins=5,
            seed=1,
        )
        write_json(root / run / "metrics.json", content)
        if "tuned" in head:
            found = {
                "dense": [384, 128] if run == "convnext_tuned" else [],
                "batch_norm": True,
                "dropout": [0.1, 0.3] if run == "convnext_tuned" else [0.2],
                "learning_rate": 1e-4,
                "weight_decay": 1e-5 if head == "tuned_adamw" else None,
            }
            summary = {"run": run, "head": found, "trial": 4, "val_accuracy": 0.625}
            summary |= {"trials": 23, "epochs": 90, "seconds": 75.2}
            write_json(root / "tuning" / f"{run}.json", summary)
    return root


def inputs_of(study, runs=SKILL):
    return {
        "metrics": [study / run / "metrics.json" for run in runs],
        "predictions": [study / run / "predictions.npz" for run in runs],
        "heads": [study / "tuning" / f"{run}.json" for run in runs if "tuned" in run],
    }


def compare(study, out, inputs=None, **changes):
    settings = {"select_by": "test_augmented", "bootstrap": 100, "seed": 3}
    paths = {name: out / f"{name}.csv" for name in ("heads", "runs", "gain")}
    settings |= {"codabench": {}} | changes
    compare_tuned(inputs or inputs_of(study), paths, settings, None)
    return [read_tuned(path) for path in paths.values()]


def test_the_gain_is_that_over_the_best_untuned_run_of_the_backbone(study, tmp_path):
    gain = compare(study, tmp_path)[2]
    pairs = gain[["run", "compared_with", "subset"]].itertuples(index=False, name=None)
    assert list(pairs) == [
        # cfg3 is the best on test_augmented; the search with AdamW meets both.
        ("convnext_tuned", "convnext_cfg3", "test"),
        ("convnext_tuned", "convnext_cfg3", "test_augmented"),
        ("convnext_tuned_adamw", "convnext_cfg3", "test"),
        ("convnext_tuned_adamw", "convnext_cfg3", "test_augmented"),
        ("convnext_tuned_adamw", "convnext_tuned", "test"),
        ("convnext_tuned_adamw", "convnext_tuned", "test_augmented"),
    ]
    assert list(gain["gain_points"]) == pytest.approx([15, -30, 15, -28, 0, 2])
    difference = gain["tuned_accuracy_pct"] - gain["other_accuracy_pct"]
    assert list(gain["gain_points"]) == pytest.approx(list(difference))
    chance = "no difference beyond chance"
    assert list(gain["verdict"]) == ["better", "worse", "better", "worse", chance, chance]
    assert (gain["gain_points_low"] <= gain["gain_points"]).all()
    assert (gain["p_holm"] >= gain["p_value"]).all()
    assert gain["p_holm"][0] == pytest.approx(
        gain["p_value"][0] * (6 - (gain["p_value"] < gain["p_value"][0]).sum())
    )


def test_the_numbers_are_those_of_the_paired_comparison(study, tmp_path):
    gain = compare(study, tmp_path)[2].iloc[1]
    labels, groups = np.repeat(np.arange(N) % 3, 2), np.arange(2 * N) // 2
    ours = answers(labels, 0.40, 2).argmax(axis=1)
    theirs = answers(labels, 0.70, 1).argmax(axis=1)
    expected = paired(labels, ours, theirs, groups, resamples=100, seed=3)
    assert gain["p_value"] == pytest.approx(expected["p"])
    bounds = [gain["gain_points_low"] / 100, gain["gain_points_high"] / 100]
    assert bounds == pytest.approx([expected["low"], expected["high"]])


def test_the_untuned_run_is_chosen_on_the_subset_of_the_config(study, tmp_path):
    gain = compare(study, tmp_path, select_by="val")[2]
    assert list(gain["compared_with"][:2]) == ["convnext_cfg1"] * 2


@pytest.mark.parametrize(
    ("others", "verdict"), [(0, "better"), (2, "better"), (3, "no difference beyond chance")]
)
def test_a_difference_among_many_must_be_larger(tmp_path, others, verdict):
    # Seven answers against none: p is 2/128, times the number of comparisons.
    wrong = {"x_cfg1": 7, "x_tuned": 0}
    for other in range(others):
        wrong |= {f"y{other}_cfg1": 0, f"y{other}_tuned": 0}
    metrics, predictions = {}, {}
    for run, count in wrong.items():
        predictions[run] = tmp_path / run / "predictions.npz"
        rows = np.eye(2)[(np.arange(50) < count).astype(int)]
        subset = (np.zeros(50, int), rows, np.arange(50))
        write_predictions(predictions[run], ["a", "b"], {"holdout": subset})
        backbone, head = run.split("_")
        accuracy = {"accuracy": {"value": 1 - count / 50}}
        metrics[run] = {"kind": "transfer", "backbone": backbone, "head": head}
        metrics[run]["subsets"] = {"val": accuracy, "holdout": accuracy}
    table = tuning_gain_table(metrics, predictions, select_by="val", bootstrap=10, seed=0)
    row = table.set_index("run").loc["x_tuned"]
    assert row["p_holm"] == pytest.approx(2 / 128 * (1 + others))
    assert row["verdict"] == verdict and row["subset"] == "holdout"


def test_a_run_without_a_counterpart_has_no_gain(study, tmp_path):
    heads, runs, gain = compare(study, tmp_path, inputs_of(study, ["vgg16_tuned"]))
    assert len(heads) == len(runs) == 1 and gain.empty
    missing = inputs_of(study, ["convnext_tuned", "convnext_cfg9"])
    heads, runs, gain = compare(study, tmp_path, missing)
    assert len(runs) == 1 and gain.empty
    nothing = {"metrics": [], "predictions": [], "heads": []}
    assert all(table.empty for table in compare(study, tmp_path, nothing))


def test_runs_on_other_images_are_not_compared(study, tmp_path):
    inputs = inputs_of(study, ["convnext_cfg3", "convnext_tuned"])
    labels = np.arange(N) % 3
    other = tmp_path / "convnext_cfg3" / "predictions.npz"
    subset = (labels, answers(labels, 1), np.arange(N)[::-1])
    write_predictions(other, ["a", "b", "c"], {"test": subset})
    inputs["predictions"][0] = other
    with pytest.raises(InputError, match="convnext_tuned and convnext_cfg3 .* same test image"):
        compare(study, tmp_path, inputs)
    assert not list(tmp_path.glob("*.csv"))
