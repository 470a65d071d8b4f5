"""When calls can no longer be applied: every reckoning against every way a call may have gone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from enroll.expiry import (
    ALIVE_SECONDS,
    CLOCK_BOUND_SECONDS,
    CLOCK_ERROR_SECONDS,
    INTENT_SECONDS,
    bounded_offset,
    expiry_after_death,
    last_expiry,
    latest_expiry,
    settled_from,
    signed_until,
)

MOMENTS = st.floats(1.7e9, 1.8e9)
TIMEOUTS = st.floats(0.1, 600.0)
ERRORS = st.floats(-CLOCK_ERROR_SECONDS, CLOCK_ERROR_SECONDS)
"""By how much the service's clock is misjudged when something is reckoned."""


@given(began=MOMENTS, timeout=TIMEOUTS)
def test_a_signature_outlasts_its_call(began: float, timeout: float) -> None:
    expires = signed_until(began, left=timeout)
    assert began + timeout + 1.9 <= expires <= began + timeout + 3.1


@given(recorded=MOMENTS, later=st.floats(0.0, INTENT_SECONDS), timeout=TIMEOUTS)
def test_a_call_that_leaves_soon_after_its_intent_expires_no_later_than_that_says(
    recorded: float, later: float, timeout: float
) -> None:
    intended = signed_until(recorded + INTENT_SECONDS, left=timeout)
    assert signed_until(recorded + later, left=timeout) <= intended


@given(expires=MOMENTS, wrong=ERRORS, settle_after=st.floats(0.0, 60.0))
def test_no_look_comes_before_what_arrived_in_time_is_applied(
    expires: float, wrong: float, settle_after: float
) -> None:
    # The look comes when the clock as it is reckoned has reached the moment.
    truly = settled_from(expires, settle_after=settle_after) - wrong
    assert truly >= expires + settle_after - 1e-6


@given(now=MOMENTS, ago=st.floats(0.0, 600.0), timeout=TIMEOUTS, then=ERRORS)
def test_no_call_that_has_begun_expires_after_the_last_expiry(
    now: float, ago: float, timeout: float, then: float
) -> None:
    expires = signed_until(now - ago + then, left=timeout)
    assert expires <= last_expiry(now, timeout=timeout)


@given(
    alive_at=MOMENTS,
    later=st.floats(0.0, ALIVE_SECONDS),
    timeout=TIMEOUTS,
    then=ERRORS,
)
def test_no_call_of_a_killed_run_expires_after_what_is_reckoned_from_its_last_commit(
    alive_at: float, later: float, timeout: float, then: float
) -> None:
    expires = signed_until(alive_at + later + then, left=timeout)
    assert expires <= expiry_after_death(alive_at, timeout=timeout)


OFFSETS = st.floats(-CLOCK_BOUND_SECONDS, CLOCK_BOUND_SECONDS)


@given(began=MOMENTS, ago=st.floats(0.0, 1e6), timeout=TIMEOUTS, offset=st.floats(allow_nan=False))
def test_nothing_expires_beyond_the_bound_whatever_offset_it_was_signed_with(
    began: float, ago: float, timeout: float, offset: float
) -> None:
    expires = signed_until(began + bounded_offset(offset), left=timeout)
    assert expires <= latest_expiry(began + ago, timeout=timeout)


@given(began=MOMENTS, ago=st.floats(0.0, 1e6), timeout=TIMEOUTS, now=OFFSETS, wrong=ERRORS)
def test_nothing_expires_beyond_the_bound_though_our_clock_was_set_since(
    began: float, ago: float, timeout: float, now: float, wrong: float
) -> None:
    # `began` is by the service's clock; ours is now behind it, or ahead, by `now`.
    expires = signed_until(began + wrong, left=timeout)
    assert expires <= latest_expiry(began + ago - now, timeout=timeout)


@given(now=MOMENTS, timeout=TIMEOUTS, offset=OFFSETS)
def test_what_a_run_leaves_behind_expires_within_the_bound(
    now: float, timeout: float, offset: float
) -> None:
    assert last_expiry(now + offset, timeout=timeout) <= latest_expiry(now, timeout=timeout)
