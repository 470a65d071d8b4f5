"""The service's clock, learned from dates that are cut off to whole seconds."""

from __future__ import annotations

import math
import random

import pytest

from enroll.expiry import CLOCK_BOUND_SECONDS
from enroll.facesearch.signing import AGREEING, ServiceClock


def test_an_unknown_clock_is_taken_for_ours() -> None:
    assert ServiceClock().offset == 0.0


def test_the_offset_of_one_answer_is_within_half_a_second_and_half_its_round_trip() -> None:
    clock = ServiceClock()
    clock.learn(1600.0, sent=1000.0, received=1000.2)
    assert clock.offset == pytest.approx(600.4)


def test_many_answers_narrow_the_offset_below_the_resolution_of_a_date() -> None:
    clock, true, draw = ServiceClock(), -37.3, random.Random(1)
    for _ in range(200):
        sent = draw.uniform(0, 10000)
        took = draw.uniform(0.01, 2.0)
        clock.learn(math.floor(sent + took / 2 + true), sent=sent, received=sent + took)
    assert clock.offset == pytest.approx(true, abs=0.1)


def test_a_long_round_trip_does_not_spoil_what_a_short_one_told() -> None:
    clock = ServiceClock()
    clock.learn(1000.0, sent=1000.0, received=1000.01)
    before = clock.offset
    clock.learn(1000.0, sent=1000.0, received=1060.0)
    assert clock.offset == before


def told(clock: ServiceClock, *offsets: float) -> None:
    """Answers come, a second after each other, from a clock that is so far ahead."""
    for number, offset in enumerate(offsets):
        at = 1000.0 + number
        clock.learn(at + offset, sent=at, received=at + 0.1)


def test_a_clock_that_was_set_is_learned_anew() -> None:
    clock = ServiceClock()
    told(clock, *[0.0] * 50, *[300.0] * AGREEING)
    assert clock.offset == pytest.approx(300, abs=1)


def test_one_answer_does_not_outvote_a_thousand() -> None:
    clock = ServiceClock()
    told(clock, *[0.0] * 1000)
    before = clock.offset
    for wrong in (300.0, -300.0, 1e9, -1e9):
        told(clock, wrong)
        assert (clock.offset, clock.trouble()) == (before, None)
    told(clock, *[300.0] * (AGREEING - 1), 0.0, *[300.0] * (AGREEING - 1))
    assert clock.offset == before


def test_answers_that_disagree_with_each_other_outvote_nothing() -> None:
    clock = ServiceClock()
    told(clock, *[0.0] * 10, *[60.0 * number for number in range(1, 10)])
    assert clock.offset == pytest.approx(0, abs=1)


def test_the_first_answer_is_outvoted_by_the_second() -> None:
    clock = ServiceClock()
    told(clock, 1e9, 2.0)
    assert clock.offset == pytest.approx(2, abs=1)
    assert clock.trouble() is None


def test_what_has_expired_is_said_by_the_earlier_clock_while_answers_disagree() -> None:
    clock = ServiceClock()
    told(clock, *[100.0] * 10)
    assert clock.least == clock.offset
    told(clock, 40.0)
    assert clock.least == pytest.approx(40, abs=1)
    assert clock.offset == pytest.approx(100, abs=1)
    told(clock, 100.0)
    assert clock.least == clock.offset
    told(clock, 200.0)
    assert clock.least == clock.offset


def test_the_highest_offset_is_kept_though_the_clock_was_set_back() -> None:
    clock = ServiceClock()
    assert clock.most == 0.0
    told(clock, *[-60.0] * 5)
    assert clock.most == pytest.approx(-60, abs=1)
    told(clock, *[100.0] * 5, *[-100.0] * 5)
    assert clock.offset == pytest.approx(-100, abs=1)
    assert clock.most == pytest.approx(100, abs=1)


@pytest.mark.parametrize(("offset", "apart"), [(899.0, False), (901.5, True), (1e12, True)])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_offset_is_bounded(offset: float, sign: int, *, apart: bool) -> None:
    clock = ServiceClock()
    told(clock, sign * offset)
    trouble = clock.trouble()
    assert (trouble is not None) is apart
    assert abs(clock.offset) <= CLOCK_BOUND_SECONDS
    assert max(abs(clock.least), abs(clock.most)) <= CLOCK_BOUND_SECONDS
    assert trouble is None or trouble.message.startswith("This machine's clock says 20")


def test_an_answer_during_which_our_clock_was_set_back_teaches_nothing() -> None:
    clock = ServiceClock()
    clock.learn(1000.0, sent=1000.0, received=900.0)
    assert clock.offset == 0.0
