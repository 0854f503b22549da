"""Groups of the user's from files to splits, and what makes them again."""

import os

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image

from hemagrid import names
from hemagrid.io import read_json

CLASSES = ["alpha", "beta"]


@pytest.fixture
def study(tmp_path, snakemake, in_folder):
    """Pictures of twelve patients, two of each class, and functions that run and plan."""
    rows = ["file,group"]
    random = np.random.default_rng(0)
    for name in CLASSES:
        (tmp_path / "cells" / name).mkdir(parents=True)
        for number in range(24):
            pixels = random.integers(0, 256, (4, 4, 3), "uint8")
            picture = Image.fromarray(pixels.repeat(8, axis=0).repeat(8, axis=1))
            picture.save(tmp_path / "cells" / name / f"P{number % 12}_{number}.png")
            rows.append(f"{name}/P{number % 12}_{number}.png,P{number % 12}")
    (tmp_path / "groups.csv").write_text("\n".join(rows))
    folder = tmp_path / "study"
    folder.mkdir()

    def arguments(groups):
        dataset = {"source": "folder", "path": str(tmp_path / "cells"), "classes": CLASSES}
        config = {"dataset": dataset | {"image_size": 32, "groups": groups}}
        (tmp_path / "study.yaml").write_text(yaml.safe_dump(config))
        return in_folder(folder, tmp_path / "study.yaml")

    def run(groups, *more):
        return snakemake(folder, names.AUDIT, *arguments(groups), "-c2", *more)

    run.folder, run.csv, run.arguments = folder, tmp_path / "groups.csv", arguments
    return run


def test_groups_of_a_csv_stay_together_and_its_content_decides(study, plan):
    groups = {"csv": str(study.csv)}
    result = study(groups)
    assert result.returncode == 0, result.said
    splits = pd.read_csv(study.folder / names.SPLIT_TABLE)
    assert (splits["source"].str.extract(r"/(P\d+)_")[0] == splits["group_name"]).all()
    assert (splits.groupby("group_name")["split"].nunique() == 1).all()
    found = read_json(study.folder / names.AUDIT)["groups"]
    assert found["count"] == found["units"] == 12 and found["images"]["min"] == 4

    def remade(groups=groups):
        return set(plan(study.folder, names.AUDIT, *study.arguments(groups)).values())

    os.utime(study.csv)
    assert remade() == set()
    study.csv.write_text(study.csv.read_text().replace(",P1\n", ",P2\n"))
    assert remade() == {"groups", "split", "audit"}
    assert remade(None) == {"split", "audit"}
    study.csv.write_text("name,group\n")
    result = study(groups, "-n")
    assert result.returncode != 0 and "Traceback" not in result.said
    assert "found the columns 'name', 'group', expected file and group" in result.said
