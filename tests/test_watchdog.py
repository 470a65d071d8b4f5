"""When a run counts as standing still, on simulated time."""

from __future__ import annotations

from enroll.driver.watchdog import STILL_SECONDS, Watchdog
from enroll.model import CallKind
from enroll.tally import Quiet, Tally


def test_a_run_that_only_makes_calls_stands_still() -> None:
    tally, watchdog = Tally(in_doubt_now=1), Watchdog(Quiet(), now=0.0)
    assert not watchdog.still(tally, 0.0)
    tally.calls[CallKind.SEARCH] += 1
    assert not watchdog.still(tally, STILL_SECONDS - 1)
    tally.calls[CallKind.SEARCH] += 1
    assert watchdog.still(tally, STILL_SECONDS)
    assert not watchdog.still(tally, STILL_SECONDS + 1)  # it has just been said


def test_a_row_or_a_doubt_that_moves_on_is_progress() -> None:
    moved = (Tally(done=1), Tally(due=1), Tally(in_doubt_now=1), Tally(adopted=1), Tally(surplus=1))
    for tally in moved:
        watchdog = Watchdog(Quiet(), now=0.0)
        assert not watchdog.still(Tally(), 0.0)
        assert not watchdog.still(tally, STILL_SECONDS - 1), tally
        assert not watchdog.still(tally, STILL_SECONDS), tally
        assert watchdog.still(tally, 2 * STILL_SECONDS), tally
