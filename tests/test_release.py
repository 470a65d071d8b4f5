"""The slot of a call that has ended is given back as its answer has it."""

from __future__ import annotations

import pytest

from enroll.limiter.adaptive import AdaptiveLimiter
from enroll.limiter.limits import FixedLimiter, Limiter
from enroll.model import Answer, Verdict


def ended(limiter: Limiter, answer: Answer) -> None:
    """A call that left at 0 is answered at 1, ten seconds past the UNIX thousand."""
    limiter.answered(limiter.sent(0.0), answer, now=1.0, service_time=1010.0)


def test_a_call_that_timed_out_keeps_its_place_until_its_signature_has_expired() -> None:
    limiter = FixedLimiter(1)
    ended(limiter, Answer(verdict=Verdict.UNKNOWN, code="TIMEOUT", expires=1013.0))
    assert limiter.free(3.9) == 0
    assert limiter.free(4.0) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(verdict=Verdict.UNKNOWN, code="TIMEOUT", expires=1009.0),
        Answer(verdict=Verdict.UNKNOWN, code="HTTP_502", expires=1013.0),
        Answer(verdict=Verdict.UNKNOWN, code="CONNECTION_LOST", expires=1013.0),
        Answer(verdict=Verdict.APPLIED, expires=1013.0),
    ],
)
def test_any_other_gives_it_back_at_once(answer: Answer) -> None:
    limiter = FixedLimiter(1)
    ended(limiter, answer)
    assert limiter.free(1.0) == 1


def test_a_refused_call_closes_the_throttle_for_as_long_as_the_service_says() -> None:
    limiter = FixedLimiter(1)
    ended(limiter, Answer(verdict=Verdict.REFUSED, retry_after=20.0))
    assert limiter.opens_at(1.0) == 21.0


@pytest.mark.parametrize(
    ("verdict", "grows"),
    [
        (Verdict.APPLIED, True),
        (Verdict.REJECTED, True),
        (Verdict.FAILED, True),
        (Verdict.NOT_SENT, False),
        (Verdict.BLOCKED, False),
        (Verdict.UNKNOWN, False),
    ],
)
def test_only_a_call_that_was_served_shows_that_there_was_a_place(
    verdict: Verdict, grows: bool
) -> None:
    limiter = AdaptiveLimiter()
    permits = [limiter.sent(0.0) for _ in range(limiter.free(0.0))]
    limiter.answered(permits[0], Answer(verdict=verdict), now=1.0, service_time=0.0)
    assert (limiter.limit > len(permits)) is grows
