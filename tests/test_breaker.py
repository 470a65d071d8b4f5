"""The breakers, on simulated time."""

from __future__ import annotations

from enroll.model import Answer, Verdict
from enroll.runner.health import MOST, RUNNING, UNKNOWN_RUNNING, Breaker

ADDED = Answer(verdict=Verdict.APPLIED)
REJECTED = Answer(verdict=Verdict.REJECTED, code="NO_FACE_FOUND")
ODD = Answer(verdict=Verdict.FAILED, code="ODD")
LOST = Answer(verdict=Verdict.UNKNOWN, code="TIMEOUT")


def hear(breaker: Breaker, *answers: Answer, rejected: bool = False) -> list[str | None]:
    return [breaker.heard(answer, rejected=rejected, now=0.0) for answer in answers]


def test_the_same_error_twenty_times_running_stops() -> None:
    heard = hear(Breaker(), *[ODD] * RUNNING)
    assert heard == [None] * (RUNNING - 1) + ["ODD"]


def test_a_success_in_between_begins_the_count_anew() -> None:
    assert set(hear(Breaker(), *([ODD] * (RUNNING - 1) + [ADDED]) * 4)) == {None}


def test_ninety_of_a_hundred_answers_with_the_same_error_stop() -> None:
    heard = hear(Breaker(), *([ODD] * 9 + [ADDED]) * 10)
    assert "ODD" in heard
    assert heard.index("ODD") >= MOST


def test_eight_of_ten_answers_with_the_same_error_do_not_stop() -> None:
    assert set(hear(Breaker(), *([ODD] * 8 + [ADDED] * 2) * 50)) == {None}


def test_two_errors_in_turn_do_not_stop() -> None:
    other = Answer(verdict=Verdict.FAILED, code="OTHER")
    assert set(hear(Breaker(), *[ODD, other] * 100)) == {None}


def test_known_rejections_never_stop() -> None:
    assert set(hear(Breaker(), *[REJECTED] * 500)) == {None}


def test_errors_that_a_rule_makes_rejections_never_stop() -> None:
    assert set(hear(Breaker(), *[ODD] * 500, rejected=True)) == {None}


def test_after_ten_unknown_answers_calls_go_one_at_a_time_and_wait_longer_each_time() -> None:
    breaker = Breaker()
    other = Answer(verdict=Verdict.UNKNOWN, code="HTTP_502")
    for number in range(UNKNOWN_RUNNING - 1):
        breaker.heard(LOST if number % 2 else other, rejected=False, now=0.0)
    assert breaker.may_send(in_flight=7, now=0.0)
    waits = []
    now = 0.0
    for number in range(12):
        breaker.heard(LOST if number % 2 else other, rejected=False, now=now)
        assert not breaker.may_send(in_flight=1, now=now + 1e6)
        due = breaker.due_at()
        assert due is not None
        assert not breaker.may_send(in_flight=0, now=due - 0.01)
        assert breaker.may_send(in_flight=0, now=due)
        waits.append(due - now)
        now = due
    assert waits == sorted(waits)
    assert waits[0] == 1.0
    assert waits[-1] == 60.0


def test_answers_to_calls_that_were_in_flight_together_lengthen_the_wait_once() -> None:
    breaker = Breaker()
    hear(breaker, *[LOST] * (UNKNOWN_RUNNING + 6))
    assert breaker.due_at() == 1.0


def test_one_definite_answer_ends_the_caution() -> None:
    for definite in (ADDED, REJECTED):
        breaker = Breaker()
        hear(breaker, *[LOST] * UNKNOWN_RUNNING, definite)
        assert breaker.may_send(in_flight=7, now=0.0)
        assert breaker.due_at() is None
