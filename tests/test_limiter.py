"""The fixed limiter and what goes around one, on simulated time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enroll.limiter.limits import (
    LONGEST_PAUSE_SECONDS,
    LONGEST_RETRY_AFTER_SECONDS,
    REFUSAL_PAUSE_SECONDS,
    ROOM_SECONDS,
    Bounded,
    CallBudget,
    CallEnd,
    Cap,
    FixedLimiter,
    LimiterState,
    RateLimiter,
    Slot,
)


def test_no_more_calls_leave_than_there_are_places() -> None:
    limiter = FixedLimiter(2)
    limiter.sent(0.0)
    slot = limiter.sent(0.0)
    assert slot == Slot(2, 0.0)
    assert limiter.free(0.0) == 0
    limiter.release(slot, 1.0, CallEnd.SERVED)
    assert limiter.free(1.0) == 1


def test_no_call_leaves_for_a_while_after_a_refusal() -> None:
    limiter = FixedLimiter(2)
    limiter.release(limiter.sent(0.0), 1.0, CallEnd.REFUSED)
    assert limiter.free(1.0) == 0
    assert limiter.opens_at(1.0) == 1.0 + REFUSAL_PAUSE_SECONDS
    assert limiter.free(1.0 + REFUSAL_PAUSE_SECONDS) == 2


def refuse_alone(limiter: FixedLimiter, now: float) -> float:
    """Have one call refused at `now`; when the pause ends."""
    limiter.release(limiter.sent(now), now, CallEnd.REFUSED)
    opens = limiter.opens_at(now)
    assert opens is not None
    return opens


def test_each_further_refusal_doubles_the_pause_up_to_a_minute() -> None:
    limiter, now, pauses = FixedLimiter(1), 0.0, []
    for _ in range(12):
        opens = refuse_alone(limiter, now)
        pauses.append(opens - now)
        now = opens
    assert pauses[1] == pytest.approx(2 * pauses[0])
    assert pauses[-1] == pytest.approx(LONGEST_PAUSE_SECONDS)
    assert sorted(pauses) == pauses


def test_calls_that_are_refused_together_lengthen_the_pause_once() -> None:
    limiter = FixedLimiter(8)
    for slot in [limiter.sent(0.0) for _ in range(8)]:
        limiter.release(slot, 0.5, CallEnd.REFUSED)
    assert limiter.opens_at(0.5) == pytest.approx(0.5 + 2 * REFUSAL_PAUSE_SECONDS, abs=0.3)
    assert limiter.free(0.5 + 2 * REFUSAL_PAUSE_SECONDS) == 8


def test_a_success_makes_the_next_pause_short_again() -> None:
    limiter, now = FixedLimiter(1), 0.0
    for _ in range(5):
        now = refuse_alone(limiter, now)
    limiter.release(limiter.sent(now), now, CallEnd.SERVED)
    assert refuse_alone(limiter, now) - now == pytest.approx(REFUSAL_PAUSE_SECONDS)


def test_the_services_own_pause_is_kept() -> None:
    limiter = FixedLimiter(1)
    limiter.release(limiter.sent(0.0), 0.0, CallEnd.REFUSED, retry_after=30.0)
    assert limiter.free(29.9) == 0
    assert limiter.free(30.0) == 1


def test_it_is_kept_for_five_minutes_at_most() -> None:
    limiter = FixedLimiter(1)
    limiter.release(limiter.sent(0.0), 0.0, CallEnd.REFUSED, retry_after=86_400.0)
    assert limiter.opens_at(0.0) == LONGEST_RETRY_AFTER_SECONDS


def test_a_call_that_may_still_be_applied_keeps_its_place() -> None:
    limiter = FixedLimiter(1)
    limiter.release(limiter.sent(0.0), 60.0, CallEnd.UNKNOWN, held_until=63.0)
    assert limiter.free(62.9) == 0
    assert limiter.opens_at(62.9) == 63.0
    assert limiter.free(63.0) == 1
    assert limiter.opens_at(63.0) is None


def test_its_own_bound_is_what_limits_when_all_places_are_taken() -> None:
    limiter = FixedLimiter(1)
    assert limiter.gauge(0.0) == LimiterState(limit=1, taken=0)
    limiter.sent(0.0)
    assert limiter.gauge(0.0) == LimiterState(limit=1, taken=1, cap=Cap.MAX_IN_FLIGHT)


def test_a_metered_throttle_lets_so_many_calls_leave_and_no_more() -> None:
    limiter = CallBudget(FixedLimiter(4), left=2)
    assert limiter.free(0.0) == 2
    permits = [limiter.sent(0.0), limiter.sent(0.0)]
    assert limiter.spent
    for slot in permits:
        limiter.release(slot, 1.0, CallEnd.SERVED)
    assert limiter.free(1.0) == 0


@given(
    rate=st.floats(0.1, 200.0),
    waits=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=100),
)
def test_no_more_calls_a_second_leave_than_are_allowed(rate: float, waits: list[float]) -> None:
    limiter, now, left = RateLimiter(FixedLimiter(1_000_000), rate=lambda _: rate), 0.0, 0
    for wait in waits:
        now += wait
        while limiter.free(now):
            limiter.sent(now)
            left += 1
        assert left <= 1 + rate * now + 1e-6 * left
        opens_at = limiter.opens_at(now)
        assert opens_at is not None
        assert limiter.free(opens_at) >= 1


def test_a_rate_is_met_by_a_driver_that_wakes_late() -> None:
    limiter, now, left = RateLimiter(FixedLimiter(100), rate=lambda _: 50.0), 0.0, 0
    while now < 60.0:
        for _ in range(limiter.free(now)):
            limiter.release(limiter.sent(now), now, CallEnd.SERVED)
            left += 1
        now += 0.03
    assert left == pytest.approx(60 * 50, rel=0.01)


def test_the_rate_is_what_limits_while_places_are_free() -> None:
    limiter = RateLimiter(FixedLimiter(2), rate=lambda _: 1.0)
    assert limiter.gauge(0.0).cap is None
    limiter.sent(0.0)
    assert limiter.gauge(0.1).cap is Cap.RATE
    limiter.sent(1.0)
    assert limiter.gauge(1.1).cap is Cap.MAX_IN_FLIGHT


def test_the_rate_may_change_with_the_time() -> None:
    rates = {0: 0.001, 1: 10.0, 2: None}
    limiter = RateLimiter(FixedLimiter(1000), rate=lambda now: rates[int(now // 100)])
    left = {0: 0, 1: 0, 2: 0}
    now = 0.0
    while now < 300:
        for _ in range(min(limiter.free(now), 100)):
            limiter.release(limiter.sent(now), now, CallEnd.SERVED)
            left[int(now // 100)] += 1
        now += 0.05
    assert left == {0: 1, 1: pytest.approx(1000, rel=0.01), 2: pytest.approx(2000 * 100, rel=0.01)}


def test_a_throttle_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        FixedLimiter(0)


def test_a_machine_that_has_no_room_for_a_call_gets_one_fewer_at_a_time() -> None:
    limiter = Bounded(FixedLimiter(100), most=10)
    assert (limiter.limit, limiter.free(0.0)) == (10, 10)
    permits = [limiter.sent(0.0) for _ in range(10)]
    assert limiter.gauge(0.0).cap is Cap.MACHINE
    limiter.release(permits.pop(), 1.0, CallEnd.BLOCKED)
    assert (limiter.limit, limiter.free(1.0)) == (9, 0)
    limiter.release(permits.pop(), 1.0, CallEnd.SERVED)
    assert limiter.free(1.0) == 1


def test_a_machine_without_room_for_any_call_is_asked_again_less_and_less_often() -> None:
    limiter, now, pauses = Bounded(FixedLimiter(4), most=4), 0.0, []
    for _ in range(20):
        limiter.release(limiter.sent(now), now, CallEnd.BLOCKED)
        opens = limiter.opens_at(now)
        assert opens is not None
        pauses.append(opens - now)
        now = opens
        assert limiter.free(now) == 1
    assert pauses == sorted(pauses)
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_when_there_is_room_again_it_is_found_one_call_at_a_time() -> None:
    limiter, now = Bounded(FixedLimiter(100), most=8), 0.0
    limiter.release(limiter.sent(now), now, CallEnd.BLOCKED)
    limits = []
    for _ in range(10):
        now += ROOM_SECONDS
        permits = [limiter.sent(now) for _ in range(limiter.free(now))]
        for slot in permits:
            limiter.release(slot, now + 0.5, CallEnd.SERVED)
        limits.append(limiter.limit)
    assert limits == [2, 3, 4, 5, 6, 7, 8, 8, 8, 8]


def test_a_call_that_this_machine_did_not_let_leave_is_none_of_those_that_may_be_made() -> None:
    limiter = CallBudget(Bounded(FixedLimiter(4), most=4), left=1)
    limiter.release(limiter.sent(0.0), 0.0, CallEnd.BLOCKED)
    assert not limiter.spent
