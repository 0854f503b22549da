import pandas as pd
import pytest

from hemagrid.reporting.text import (
    DASH,
    aligned,
    counted,
    duration,
    p_text,
    shorten,
    shown,
    size,
)


def test_differences_keep_their_sign():
    table = pd.DataFrame(
        {
            "gain_points": [-2.31, 0.0, 1.0, None],
            "gain_points_low": [-4.0, -1.5, 0.04, None],
            "gain_points_high": [-0.6, 1.5, 2.0, None],
        }
    )
    assert list(shown(table)["difference, points"]) == [
        "−2.3 (−4.0 to −0.6)",
        "+0.0 (−1.5 to +1.5)",
        "+1.0 (+0.0 to +2.0)",
        DASH,
    ]


@pytest.mark.parametrize(
    ("p", "text"), [(0.0123, "0.012"), (1, "1.000"), (0.001, "0.001"), (4e-9, "below 0.001")]
)
def test_p_values(p, text):
    assert p_text(p) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.6, "1 min 00 s"), (725, "12 min 05 s"), (12_000, "3 h 20 min")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_columns_line_up():
    text = aligned(["run", "n"], [["a", 1], ["longer", 1000]])
    assert text == "run        n\na          1\nlonger  1000"
    assert aligned(["run", "state"], [["a", "b"]], left=2) == "run  state\na    b"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (15_400_000, "15 MB"),
        (8_150_000_000, "8.2 GB"),
        (2_000_000_000_000_000, "2,000.0 TB"),
    ],
)
def test_sizes(count, text):
    assert size(count) == text


def test_a_long_text_is_cut_to_its_width():
    assert shorten("basophil", 8) == "basophil"
    assert shorten("basophils", 8) == "basophi\N{HORIZONTAL ELLIPSIS}"
    # In whatever unit its length is measured.
    assert shorten("basophils", 16, lambda text: 2 * len(text)) == shorten("basophils", 8)


@pytest.mark.parametrize(
    ("number", "said"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs"), (1200, "1,200 runs")]
)
def test_counts(number, said):
    assert counted(number, "run") == said
