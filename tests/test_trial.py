"""`--sample`: a trial of rows drawn by chance, and what it says of all that are due."""

from __future__ import annotations

from collections import Counter

import pytest
from archive import Archive, nobody
from real_command import Command

from enroll.model import Candidate, ScannedRow
from enroll.runner.sample import Sample, likely_share
from enroll.sandbox import Sandbox

RUN = ("run", "staff.csv", "--group-id", "staff")


def row(number: int) -> Candidate:
    return Candidate(row=ScannedRow(line=number, user_id="u", user_data="", image="", path=""))


def drawn(size: int, of: int, seed: int) -> list[int]:
    sample = Sample(size, seed)
    for number in range(of):
        sample.offer(row(number))
    assert sample.offered == of
    return [one.row.line for one in sample.drawn()]


def test_a_sample_is_as_large_as_asked_in_order_and_the_same_for_the_same_seed() -> None:
    once = drawn(20, of=500, seed=7)
    assert len(once) == len(set(once)) == 20
    assert once == sorted(once) == drawn(20, of=500, seed=7)
    assert once != drawn(20, of=500, seed=8)
    assert drawn(20, of=3, seed=7) == [0, 1, 2]


def test_every_row_is_drawn_about_as_often_as_any_other() -> None:
    times = Counter(number for seed in range(3000) for number in drawn(3, of=30, seed=seed))
    assert len(times) == 30
    # 300 each on average, with a standard deviation of 16.
    assert all(220 < count < 380 for count in times.values())


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(0, 0, 0.0, 1.0), (0, 100, 0.0, 0.037), (5, 100, 0.0215, 0.1118), (100, 100, 0.963, 1.0)],
)
def test_the_bounds_are_those_of_wilsons_interval(
    count: int, of: int, low: float, high: float
) -> None:
    assert likely_share(count, of) == pytest.approx((low, high), abs=5e-4)


def test_a_trial_sends_what_it_draws_reckons_the_rest_and_the_next_run_goes_on(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.photo("nobody.jpg", nobody())
    rows = [
        *archive.portraits(*range(1, 9)),
        *((f"n{number}", "", "nobody.jpg") for number in range(4)),
        ("not an id", "", "nobody.jpg"),
    ]
    archive.manifest(rows)
    trial = command(*RUN, "--sample", "6", "--seed", "3")
    assert trial.code == 6, trial
    assert "the trial of 6 rows is done; 6 due rows left" in trial.out
    assert "A trial of 6 rows, drawn from the 12 that are due." in trial.out
    for words in ("rejected  about", "enrolled  about", "calls     about", "time      about"):
        assert words in trial.out
    assert "invalid    1" in trial.out or "invalid   1" in trial.out
    assert box.count("add") == 6
    rest = command(*RUN)
    assert rest.code == 1, rest
    assert box.count("add") == 12
    statuses = Counter(line["status"] for line in archive.results())
    assert statuses == {"enrolled": 8, "rejected": 4, "invalid": 1}


def test_a_trial_of_everything_ends_as_a_run_does(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2))
    done = command(*RUN, "--sample", "10")
    assert (done.code, "A trial of 2 rows" in done.out) == (0, True), done
    assert box.count("add") == 2
