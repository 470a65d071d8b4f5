"""The adaptive limiter, against a service with a hidden limit in simulated time."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enroll.limiter.adaptive import FIRST_LIMIT, MOST_IN_FLIGHT, AdaptiveLimiter
from enroll.limiter.limits import LONGEST_RETRY_AFTER_SECONDS, CallEnd, Cap, Slot

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
_cases = runpy.run_path(str(BENCHMARKS / "throttle_cases.py"))
Service, Simulation = _cases["Service"], _cases["Simulation"]

TEN_MINUTES = 600.0


def held(limit: Callable[[float], int], *, seconds: float = TEN_MINUTES, **more: Any) -> Any:
    """What comes of a run against a service with this limit."""
    return Simulation(AdaptiveLimiter(), Service(limit=limit, **more), seed=1).run(seconds)


@pytest.mark.parametrize("limit", [4, 16, pytest.param(64, marks=pytest.mark.thorough)])
def test_a_limit_is_found_and_held(limit: int) -> None:
    outcome = held(lambda t: limit)
    assert outcome.throughput >= 97
    assert outcome.refused_share <= 1


def test_a_limit_that_falls_and_rises_is_followed() -> None:
    outcome = held(_cases["step"](0, each=600), seconds=1800)
    assert outcome.throughput >= 97
    assert outcome.refused_share <= 1


def test_a_limit_that_has_fallen_and_rises_again_soon_is_tried_for() -> None:
    outcomes = [held(_cases["step"](seed, each=180), seconds=540) for seed in range(4)]
    assert sum(one.throughput for one in outcomes) / len(outcomes) >= 97
    assert max(one.refused_share for one in outcomes) <= 1


def test_a_limit_that_falls_far_is_followed_with_few_refusals() -> None:
    outcome = held(lambda t: 100 if t < 120 else 6, seconds=240)
    assert outcome.refused < 150
    assert outcome.limits[-1][1] <= 7


def test_a_limit_of_one_is_held() -> None:
    outcome = held(lambda t: 1)
    assert outcome.throughput >= 90
    assert outcome.refused_share <= 3


@pytest.mark.parametrize(("rate", "call_seconds"), [(20, 0.5), (20, 0.2), (5, 0.1)])
def test_where_calls_a_second_are_counted_calls_are_spaced_out(
    rate: int, call_seconds: float
) -> None:
    limiter = AdaptiveLimiter()
    service = Service(per_second=rate, call_seconds=call_seconds)
    outcome = Simulation(limiter, service, seed=1).run(TEN_MINUTES, warm_up=120)
    spacing = limiter.gauge(TEN_MINUTES).spacing
    assert spacing == pytest.approx(rate, rel=0.25)
    assert outcome.throughput >= 95
    assert outcome.refused_share <= 3
    assert limiter.ceiling is None


def test_spacing_ends_when_the_service_counts_calls_a_second_no_more() -> None:
    limiter = AdaptiveLimiter()
    service = Service(limit=lambda t: 16, per_second=5, call_seconds=0.2)
    simulation = Simulation(limiter, service, seed=1)
    simulation.run(60.0)
    assert limiter.gauge(60.0).spacing is not None
    free = Service(limit=lambda t: 16, call_seconds=0.2)
    simulation.serve(free)
    simulation.run(TEN_MINUTES)
    assert limiter.gauge(TEN_MINUTES).spacing is None
    assert limiter.limit == pytest.approx(16, abs=1)


def test_no_place_is_shared_with_others_for_long() -> None:
    outcome = held(lambda t: 32, others=_cases["others"](1), seconds=900)
    assert outcome.throughput >= 88
    assert outcome.refused_share <= 1.5


def test_the_model_tells_a_bad_throttle_from_a_good_one() -> None:
    fixed = _cases["THROTTLES"]["32 fixed with back-off"]()
    outcome = Simulation(fixed, Service(limit=lambda t: 16), seed=1).run(TEN_MINUTES)
    assert outcome.refused_share > 30
    assert outcome.throughput < 90


# Step by step


def served(limiter: AdaptiveLimiter, permits: list[Slot], now: float) -> None:
    for slot in permits:
        limiter.release(slot, now, CallEnd.SERVED)


def full(limiter: AdaptiveLimiter, now: float) -> list[Slot]:
    return [limiter.sent(now) for _ in range(limiter.free(now))]


def test_it_starts_small_and_doubles_each_time_that_a_call_takes() -> None:
    limiter = AdaptiveLimiter()
    assert (limiter.limit, limiter.ceiling) == (FIRST_LIMIT, None)
    served(limiter, full(limiter, 0.0), 0.5)
    assert limiter.limit >= 2 * FIRST_LIMIT - 1
    assert limiter.ceiling is None


def test_it_starts_at_what_an_earlier_run_found() -> None:
    limiter = AdaptiveLimiter(known=40)
    assert (limiter.limit, limiter.ceiling) == (40, 40)


def test_slow_start_ends_at_most_at_its_own_bound_which_proves_nothing() -> None:
    limiter = AdaptiveLimiter(most=6)
    for second in range(10):
        served(limiter, full(limiter, second), second + 0.5)
    assert (limiter.limit, limiter.ceiling) == (6, None)
    full(limiter, 20.0)
    assert limiter.gauge(20.0).cap is Cap.AUTO


def test_the_limit_stays_as_it_is_while_places_are_free() -> None:
    limiter = AdaptiveLimiter()
    for second in range(100):
        served(limiter, [limiter.sent(second)], second + 0.5)
    assert limiter.limit == FIRST_LIMIT


def test_calls_that_did_not_leave_or_prove_nothing_raise_no_limit() -> None:
    limiter = AdaptiveLimiter()
    for second in range(100):
        for slot in full(limiter, second):
            limiter.release(slot, second + 0.1, CallEnd.UNKNOWN)
    assert limiter.limit == FIRST_LIMIT


def test_the_first_refusal_proves_a_ceiling() -> None:
    limiter = AdaptiveLimiter()
    for second in range(4):
        served(limiter, full(limiter, second), second + 0.5)
    permits = full(limiter, 5.0)
    limiter.release(permits[-1], 5.1, CallEnd.REFUSED)
    assert limiter.ceiling == limiter.limit == int(0.9 * (len(permits) - 1))


def test_a_refusal_of_a_call_that_left_before_the_last_cut_is_ignored() -> None:
    limiter = AdaptiveLimiter(known=20)
    first, second, *_ = full(limiter, 0.0)
    limiter.release(second, 0.1, CallEnd.REFUSED)
    limit = limiter.limit
    assert limit < 20
    limiter.release(first, 0.2, CallEnd.REFUSED)
    assert limiter.limit == limit


def test_a_refused_call_keeps_its_place_as_long_as_a_call_takes() -> None:
    limiter = AdaptiveLimiter(known=4)
    permits = full(limiter, 0.0)
    limiter.release(permits[-1], 0.05, CallEnd.REFUSED)
    served(limiter, permits[:-1], 0.5 - 0.01)
    assert limiter.limit == 3
    assert limiter.free(0.5 - 0.01) == 2
    assert limiter.free(0.5) == 3


def test_a_try_that_is_refused_is_taken_back() -> None:
    limiter = AdaptiveLimiter(known=8)
    served(limiter, full(limiter, 0.0), 0.5)
    assert (limiter.limit, limiter.ceiling) == (9, 8)
    permits = full(limiter, 1.0)
    limiter.release(permits[-1], 1.1, CallEnd.REFUSED)
    assert (limiter.limit, limiter.ceiling) == (8, 8)
    assert limiter.free(1.1) == 0
    limiter.release(permits[0], 1.2, CallEnd.SERVED)
    assert limiter.free(1.2) == 1


def test_refused_at_one_place_it_waits_longer_each_time_up_to_a_minute() -> None:
    limiter, now, pauses = AdaptiveLimiter(known=1), 0.0, []
    for _ in range(10):
        limiter.release(limiter.sent(now), now + 0.01, CallEnd.REFUSED)
        opens_at = limiter.opens_at(now + 0.01)
        assert opens_at is not None
        pauses.append(opens_at - now - 0.01)
        now = opens_at
        assert limiter.free(now) == 1
    assert pauses[:3] == pytest.approx([1.0, 2.0, 4.0])
    assert pauses[-1] == pytest.approx(60.0)


def test_the_services_own_pause_closes_it_for_all_calls_but_for_five_minutes_at_most() -> None:
    limiter = AdaptiveLimiter(known=8)
    limiter.release(limiter.sent(0.0), 0.0, CallEnd.REFUSED, retry_after=30.0)
    assert limiter.free(29.9) == 0
    assert limiter.free(30.0) > 0
    assert limiter.gauge(10.0).closed == 20.0
    limiter.release(limiter.sent(30.0), 30.0, CallEnd.REFUSED, retry_after=86_400.0)
    assert limiter.opens_at(31.0) == 30.0 + LONGEST_RETRY_AFTER_SECONDS


@pytest.mark.parametrize("seconds", [1200, pytest.param(3600, marks=pytest.mark.thorough)])
def test_where_refusals_cost_pauses_tries_are_rare(seconds: int) -> None:
    patient = held(lambda t: 16, seconds=seconds, retry_after=5.0)
    assert patient.throughput >= 92


def test_a_call_that_timed_out_keeps_its_place_until_it_cannot_be_applied_any_more() -> None:
    limiter = AdaptiveLimiter(known=1)
    limiter.release(limiter.sent(0.0), 60.0, CallEnd.UNKNOWN, held_until=63.0)
    assert limiter.free(62.9) == 0
    assert limiter.opens_at(62.9) == 63.0
    assert limiter.free(63.0) == 1


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["send", "serve", "refuse", "lose"]),
        st.floats(0.0, 3.0),
        st.integers(0, 1000),
        st.one_of(st.none(), st.floats(0.0, 500.0)),
    ),
    max_size=200,
)


@given(steps=STEPS, known=st.one_of(st.none(), st.integers(1, 2000)), most=st.integers(1, 50))
def test_whatever_happens_no_more_leave_than_there_are_places_and_there_is_always_one(
    steps: list[tuple[str, float, int, float | None]], known: int | None, most: int
) -> None:
    limiter, now, in_flight = AdaptiveLimiter(known=known, most=most), 0.0, list[Slot]()
    for what, later, which, wait in steps:
        now += later
        if what == "send":
            free = limiter.free(now)
            assert 0 <= free <= limiter.limit
            in_flight += [limiter.sent(now) for _ in range(free)]
            assert not free or len(in_flight) <= limiter.limit
        elif in_flight:
            limiter.release(
                in_flight.pop(which % len(in_flight)),
                now,
                ENDS[what],
                retry_after=wait if what == "refuse" else None,
                held_until=now + wait if what == "lose" and wait is not None else None,
            )
        assert 1 <= limiter.limit <= most
        assert limiter.ceiling is None or 1 <= limiter.ceiling <= limiter.limit
        opens_at = limiter.opens_at(now)
        assert opens_at is None or opens_at > now
        assert limiter.free(now) or opens_at is not None or in_flight
    # Left alone, it opens again.
    for slot in in_flight:
        limiter.release(slot, now, CallEnd.UNKNOWN)
    assert limiter.free(now + 1000.0) >= 1


def test_autos_bound_leaves_files_for_the_rest_of_the_process() -> None:
    assert MOST_IN_FLIGHT <= 1024 // 2


ENDS = {"serve": CallEnd.SERVED, "refuse": CallEnd.REFUSED, "lose": CallEnd.UNKNOWN}
