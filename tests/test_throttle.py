"""The fixed throttle, on simulated time."""

from __future__ import annotations

import pytest

from enroll.throttle import LONGEST_PAUSE_SECONDS, REFUSAL_PAUSE_SECONDS, FixedThrottle


def test_no_more_calls_leave_than_there_are_places() -> None:
    throttle = FixedThrottle(2)
    throttle.sent(0.0)
    throttle.sent(0.0)
    assert throttle.free(0.0) == 0
    throttle.answered(1.0, refused=False)
    assert throttle.free(1.0) == 1


def test_no_call_leaves_for_a_while_after_a_refusal() -> None:
    throttle = FixedThrottle(2)
    throttle.sent(0.0)
    throttle.answered(1.0, refused=True)
    assert throttle.free(1.0) == 0
    assert throttle.opens_at(1.0) == 1.0 + REFUSAL_PAUSE_SECONDS
    assert throttle.free(1.0 + REFUSAL_PAUSE_SECONDS) == 2


def refuse_alone(throttle: FixedThrottle, now: float) -> float:
    """Have one call refused at `now`; when the pause ends."""
    throttle.sent(now)
    throttle.answered(now, refused=True)
    opens = throttle.opens_at(now)
    assert opens is not None
    return opens


def test_each_further_refusal_doubles_the_pause_up_to_a_minute() -> None:
    throttle, now, pauses = FixedThrottle(1), 0.0, []
    for _ in range(12):
        opens = refuse_alone(throttle, now)
        pauses.append(opens - now)
        now = opens
    assert pauses[1] == pytest.approx(2 * pauses[0])
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE_SECONDS)
    assert sorted(pauses) == pauses


def test_calls_that_are_refused_together_lengthen_the_pause_once() -> None:
    throttle = FixedThrottle(8)
    for _ in range(8):
        throttle.sent(0.0)
    for _ in range(8):
        throttle.answered(0.5, refused=True)
    assert throttle.opens_at(0.5) == pytest.approx(0.5 + 2 * REFUSAL_PAUSE_SECONDS, abs=0.3)
    assert throttle.free(0.5 + 2 * REFUSAL_PAUSE_SECONDS) == 8


def test_a_success_makes_the_next_pause_short_again() -> None:
    throttle, now = FixedThrottle(1), 0.0
    for _ in range(5):
        now = refuse_alone(throttle, now)
    throttle.sent(now)
    throttle.answered(now, refused=False)
    assert refuse_alone(throttle, now) - now == pytest.approx(REFUSAL_PAUSE_SECONDS)


def test_the_services_own_pause_is_kept() -> None:
    throttle = FixedThrottle(1)
    throttle.sent(0.0)
    throttle.answered(0.0, refused=True, retry_after=30.0)
    assert throttle.free(29.9) == 0
    assert throttle.free(30.0) == 1


def test_a_throttle_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        FixedThrottle(0)
