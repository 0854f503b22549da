import pytest

from hemagrid.reporting.text import aligned, size


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
