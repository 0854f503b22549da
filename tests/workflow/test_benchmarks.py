"""The benchmarks compare like with like: what is measured, and that it still runs."""

import re
import subprocess
import sys

import pandas as pd
import pytest
from made_study import make_study

from ..conftest import ROOT

BENCHMARKS = ROOT / "tests" / "benchmarks"


def printed(program, *arguments):
    """Run a benchmark; return what it printed and its status."""
    ended = subprocess.run(
        [sys.executable, BENCHMARKS / f"{program}.py", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=600,
    )
    return ended.stdout, ended.stderr, ended.returncode


@pytest.mark.parametrize("row", ["extraction_mobilenetv3", "finetuning_mobilenetv3"])
def test_the_direct_way_ends_in_the_same_weights(row):
    said, errors, status = printed("bench", "--only", row, "--scale", 0.02)
    assert status == 0, errors
    header, cells = said.splitlines()
    columns = "what,ours,clever notebook,ratio,direct way,ratio,to reach,difference"
    assert re.split("  +", header) == columns.split(",")
    assert float(cells.split()[-1]) < 1e-5


def test_a_benchmark_of_growth_tells_seconds_and_memory():
    said, errors, status = printed("growth", "--only", "near_pairs", "--scale", 0.01)
    assert status == 0, errors
    _, small, large = said.splitlines()
    number = r"([\d,.]+)"
    row = rf"near pairs among .* views +{number} +{number} +{number} .* {number} pairs"
    counts = [re.match(row, line).groups() for line in (small, large)]
    assert [count for count, *_ in counts] == ["137", "10,000"]
    assert all(float(seconds) >= 0 and float(mib) > 0 for _, seconds, mib, _ in counts)


def test_intervals_over_replicates_are_held_against_others():
    said, errors, status = printed("replicate_intervals", "--studies", 500)
    assert status == 0, errors
    lowest = [
        [float(cell.split("–")[0]) for cell in row.split()[1:]] for row in said.splitlines()[1:]
    ]
    assert len(lowest) == 4 and all(ours > bootstrap for ours, _, bootstrap in lowest)


def test_growth_runs_the_rules_of_the_data_set():
    said, errors, status = printed("growth", "--only", "dataset", "--scale", 0.02)
    assert status == 0, errors
    assert said.count("h for 1,000,000, if in proportion") == 2


def test_where_the_time_of_a_study_went(study):
    said, errors, status = printed("where_time_goes", study.folder)
    assert status == 0, errors
    shares = re.findall(r"^(\w+) .* (\d+)%$", said, flags=re.MULTILINE)
    assert {"train", "predict", "all"} <= {rule for rule, _ in shares}
    assert sum(int(share) for rule, share in shares if rule != "all") in range(95, 106)
    assert re.search(r"Starting Keras on TensorFlow: [\d.]+ s, in \d+ jobs", said)


def test_the_first_of_the_silent_choices_is_the_run_of_the_study(study):
    arguments = ["mobilenetv3_cfg1", "--only", "features standardised"]
    said, errors, status = printed("silent_choices", study.folder, *arguments)
    assert status == 0, errors
    _, _, ours, other = (line.strip("| ").split(" | ") for line in said.splitlines())
    history = pd.read_csv(study.results / "mobilenetv3_cfg1" / "history.csv")
    assert float(ours[2].split()[0]) == round(100 * history["val_accuracy"][0], 1)
    assert (ours[0], other[0]) == ("as in the config", "features standardised")
    assert all(re.fullmatch(r"\**[+−][\d.]+ \(\S+ to \S+\)\**", cell) for cell in other[4:6])


def test_the_networks_of_a_study_are_trained_the_direct_way(study):
    said, errors, status = printed("demonstration", study.folder, "--only", "mobilenetv3")
    assert status == 0, errors
    _, network, together = (line.split() for line in said.splitlines())
    assert network[0] == "mobilenetv3" and int(network[1]) > 1
    # The same seconds in both rows, of work that was done on both sides.
    assert network[2:] == together[3:]
    assert min(int(network[2]), int(network[4])) > 0


def test_a_training_step_tells_speed_and_memory():
    options = ["--batches", 8, 32, "--steps", 1, "--precision", "float32", "--xla", "off"]
    said, errors, status = printed("training_step", "--only", "MobileNet", *options)
    assert status == 0, errors
    few, many, reading = (line.split() for line in said.splitlines()[1:])
    assert 0 < float(reading[-2]) < 1
    assert (few[3], many[3]) == ("8", "32")
    per_image, more = (mib.replace(",", "") for mib in (many[-1], many[-2]))
    assert 1 < float(per_image) < 100 and float(more) > float(few[-1].replace(",", ""))
    assert all(0 < float(many[place].rstrip("%")) < 100 for place in (5, 8))
    # 0.04 thousand million multiplications of 96 px, as published (0.22 of 224 px).
    rate, share, of = float(many[7]), float(many[8].rstrip("%")) / 100, float(many[9])
    assert share * of * 1e12 / rate / 6 == pytest.approx(0.22e9 * (96 / 224) ** 2, rel=0.15)


def test_the_nearest_reading_of_the_published_augmentation_is_named(tmp_path):
    runs = {"baseline_cnn": 0.2, "regularized_cnn": 0.8, "vgg16_cfg1": 0.9}
    readings = {"alternate": ("randaugment", "augmix"), "sequence": ("randaugment+augmix",)}
    for name, policies in readings.items():
        settings = {"augmentation": {"assignment": name}, "seed": len(name)}
        settings |= {"policies": policies, "blank": [0, 2]}
        make_study(tmp_path / name, runs, ["basophil", "ig"], **settings)
    said, errors, status = printed("augmentation_readings", *(tmp_path / n for n in readings))
    assert status == 0, errors
    *lines, _, nearest = said.splitlines()
    header, _, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in lines)
    assert header == ["model", "images", "published", *readings]
    assert [row[1:3] for row in rows[:2]] == [["test", "57.9"], ["augmented test", "30.9"]]
    kinds = ["RandAugment", "AugMix", "RandAugment, then AugMix"]
    assert [row[1].lstrip("\N{EN DASH} ") for row in rows[2:5]] == kinds
    assert "alternate: 2 of 48, sequence: 2 of 48" in rows[5][1]
    off = {}
    for column, name in enumerate(readings, 3):
        pairs = [(float(row[2]), float(row[column].split()[0])) for row in rows if row[2]]
        assert len(pairs) == 6
        off[name] = sum(abs(theirs - ours) for theirs, ours in pairs)
    assert [float(cell) for cell in rows[-1][3:]] == pytest.approx(list(off.values()), abs=0.4)
    assert nearest == f"Nearest: {min(off, key=off.get)}"
