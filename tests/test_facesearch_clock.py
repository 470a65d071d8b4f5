"""The service's clock, learned from dates that are cut off to whole seconds."""

from __future__ import annotations

import math
import random

import pytest

from enroll.facesearch.clock import ServiceClock


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


def test_a_clock_that_was_set_is_learned_anew() -> None:
    clock = ServiceClock()
    clock.learn(1000.0, sent=1000.0, received=1000.1)
    clock.learn(4600.0, sent=1001.0, received=1001.1)
    assert clock.offset == pytest.approx(3599.45)


def test_an_answer_during_which_our_clock_was_set_back_teaches_nothing() -> None:
    clock = ServiceClock()
    clock.learn(1000.0, sent=1000.0, received=900.0)
    assert clock.offset == 0.0
