"""A job that is started again asks for more of what it ran short of, and of nothing else."""

import os
import time

import pytest

from hemagrid.config import attempts, slurm

FIRST = {"mem_mb": 2000, "runtime": 60}
BEGUN = "2026-11-27 10:00:00 This attempt has mem_mb=4000, runtime=120\n"


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A function from a log and its age in minutes to what the third attempt asks for."""
    limit = {("gpu", "lab", ""): {"runtime": (150, "account lab")}}
    monkeypatch.setattr(slurm, "limits", lambda *queue: limit[queue])

    def asked(text, minutes=10):
        log = tmp_path / "job.log"
        log.write_text(text)
        begun = time.mktime(time.strptime("2026-11-27 10:00", "%Y-%m-%d %H:%M"))
        os.utime(log, (begun + 60 * minutes,) * 2)
        return [attempts.amount(key, FIRST[key], 3, log, ("gpu", "lab", "")) for key in FIRST]

    return asked


@pytest.mark.parametrize(
    ("end", "expected"),
    [
        ("2026-11-27 10:30:00 Error: images.npy: not found", [4000, 120]),
        ("2026-11-27 10:30:00 Error: MemoryError: ", [6000, 120]),
        ("2026-11-27 10:30:00 Error: ImportError: x.so: failed to map segment", [6000, 120]),
        ("2026-11-27 10:30:00 Stopped: by SIGTERM in epoch 3", [4000, 120]),  # cancelled
        (
            "2026-11-27 10:30:00 Its memory was 3700 MB at most\n"
            "2026-11-27 10:30:00 Stopped: by SIGTERM",
            [6000, 120],
        ),
        # Three minutes before its limit; the partition allows 150 minutes.
        ("2026-11-27 11:57:00 Stopped: by SIGTERM in epoch 3", [4000, 150]),
        ("2026-11-27 10:30:00 an epoch", [6000, 120]),  # killed without a word
    ],
)
def test_more_is_asked_for_where_it_was_the_cause(asked, end, expected):
    assert asked(BEGUN + end + "\n") == expected


def test_a_job_killed_at_its_limit_gets_more_of_both(asked):
    assert asked(BEGUN, minutes=119) == [6000, 150]


@pytest.mark.parametrize("text", ["", "2026-11-27 10:30:00 Error: no words before\n"])
def test_a_job_that_never_began_asks_for_what_it_did(asked, text):
    assert asked(text) == [2000, 60]


def test_what_was_refused_before_it_began_asks_for_no_more(tmp_path):
    for attempt in (1, 2, 4):
        assert attempts.amount("mem_mb", 2000, attempt, tmp_path / "none.log") == 2000


def test_no_attempt_asks_for_more_time_than_the_profile_allows(tmp_path):
    log = tmp_path / "job.log"
    log.write_text(BEGUN + "2026-11-27 11:58:00 Stopped: by SIGTERM\n")
    asked = [attempts.amount("runtime", 60, 3, log, longest=most) for most in (150, 0, 30)]
    assert asked == [150, 180, 60]
