"""Falls are paired with the clean images, and errors are in shares of the reference's."""

import numpy as np
import pytest

from hemagrid.errors import InputError
from hemagrid.evaluation.corruptions import REFERENCE, accuracy_table, summary_table

N, KINDS = 400, ("bubble", "saturate")
SETTINGS = {"bootstrap": 500, "seed": 0}


def answer(clean, **corrupted):
    """Answers of which the given number of the first ones is right; two severities each."""
    groups = np.arange(N) // 2
    by_severity = {
        (kind, severity): np.arange(N) < count
        for kind, counts in corrupted.items()
        for severity, count in zip((1, 5), counts, strict=True)
    }
    return groups, np.arange(N) < clean, by_severity


ANSWERS = {
    REFERENCE: answer(360, bubble=(320, 280), saturate=(360, 200)),
    "better": answer(380, bubble=(370, 360), saturate=(380, 340)),
}


def test_accuracy_and_fall_by_kind_and_severity():
    table = accuracy_table(ANSWERS, **SETTINGS).set_index(["run", "corruption", "severity"])
    assert len(table) == 8
    row = table.loc[REFERENCE, "bubble", 5]
    assert row["accuracy_pct"] == pytest.approx(70) and row["fall_points"] == pytest.approx(20)
    assert row["accuracy_pct_low"] < 70 < row["accuracy_pct_high"]
    assert row["fall_points_low"] < 20 < row["fall_points_high"]
    # Paired: narrower than if the images were others.
    assert row["fall_points_high"] - row["fall_points_low"] < 12


def test_a_corruption_that_changes_no_answer_has_a_fall_of_zero_with_an_interval():
    table = accuracy_table(ANSWERS, **SETTINGS).set_index(["run", "corruption", "severity"])
    row = table.loc[REFERENCE, "saturate", 1]
    assert row["fall_points"] == 0
    assert row["fall_points_low"] < 0 < row["fall_points_high"]


def test_mean_corruption_errors_as_defined():
    table = summary_table(ANSWERS, **SETTINGS).set_index("run")
    reference, better = table.loc[REFERENCE], table.loc["better"]
    assert reference["mce_pct"] == pytest.approx(100)
    assert reference["relative_mce_pct"] == pytest.approx(100)
    # Errors: bubble 30 + 40 of 80 + 120, saturate 20 + 60 of 40 + 200.
    assert better["mce_pct"] == pytest.approx(100 * (70 / 200 + 80 / 240) / 2)
    # Falls: bubble 10 + 20 of 40 + 80, saturate 0 + 40 of 0 + 160.
    assert better["relative_mce_pct"] == pytest.approx(25)
    assert better["relative_mce_kinds"] == 2
    assert better["mce_pct_low"] < better["mce_pct"] < better["mce_pct_high"]
    assert better["mean_accuracy_pct"] == pytest.approx((370 + 360 + 380 + 340) / 16)
    assert better["mean_fall_points"] == pytest.approx(95 - better["mean_accuracy_pct"])
    assert reference["worst_corruption"] == "saturate"
    assert reference["worst_fall_points"] == pytest.approx(20)


def test_kinds_that_leave_the_reference_as_it_is_are_no_relative_error():
    reference = answer(360, bubble=(320, 280), saturate=(365, 360))
    table = summary_table({REFERENCE: reference, "better": ANSWERS["better"]}, **SETTINGS)
    better = table.set_index("run").loc["better"]
    assert better["relative_mce_kinds"] == 1
    assert better["relative_mce_pct"] == pytest.approx(25)


def test_a_reference_without_errors_gives_no_mean_corruption_error():
    perfect = answer(N, bubble=(N, N), saturate=(N, N))
    table = summary_table({REFERENCE: perfect, "better": ANSWERS["better"]}, **SETTINGS)
    assert table["mce_pct"].isna().all() and table["relative_mce_pct"].isna().all()


def test_without_the_reference_no_corruption_error_is_told():
    table = summary_table({"better": ANSWERS["better"]}, **SETTINGS)
    assert not [name for name in table if "mce" in name]
    assert table["mean_fall_points"].notna().all()


def test_other_images_than_those_of_the_reference_are_refused():
    groups, clean, corrupted = ANSWERS["better"]
    fewer = (groups, clean, {("bubble", 1): corrupted["bubble", 1]})
    with pytest.raises(InputError, match="not predict the same corrupted images.*4 corr"):
        summary_table({REFERENCE: ANSWERS[REFERENCE], "better": fewer}, **SETTINGS)


def test_means_that_no_image_changes_have_intervals_all_the_same():
    same = answer(360, bubble=(360, 360), saturate=(360, 360))
    right = answer(N, bubble=(N, N), saturate=(N, N))
    table = summary_table({"same": same, "right": right}, **SETTINGS).set_index("run")
    assert (table["mean_fall_points"] == 0).all()
    assert (table["mean_fall_points_low"] < 0).all()
    assert (table["mean_fall_points_high"] > 0).all()
    assert table.loc["right", "mean_accuracy_pct"] == 100
    assert 97 < table.loc["right", "mean_accuracy_pct_low"] < 99
