"""When a call that may be made twice is made again."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import pytest
from cases import cases

from enroll.limiter.limits import LONGEST_PAUSE_SECONDS
from enroll.model import Answer, Verdict
from enroll.session import retry
from enroll.session.retry import NO_ANSWER, NO_SLOT, RetryPolicy

POLICIES = {name: value for name, value in vars(retry).items() if isinstance(value, RetryPolicy)}


def pauses(policy: RetryPolicy, answer: Answer, *, most: int = 1000) -> list[float]:
    """How long is waited between the calls that all end the same, until the answer stands."""
    tries: Counter[Verdict] = Counter()
    waited: list[float] = []
    while len(waited) < most:
        tries[answer.verdict] += 1
        after = policy.again_after(answer, tries)
        if after is None:
            break
        waited.append(after)
    return waited


def ended(verdict: Verdict) -> Answer:
    return Answer(verdict=verdict, code="CODE", message="message")


@cases("name", POLICIES)
@cases("verdict", sorted(set(Verdict) - NO_ANSWER - NO_SLOT, key=str))
def test_an_answer_that_proves_something_stands_at_once(name: str, verdict: Verdict) -> None:
    assert pauses(POLICIES[name], ended(verdict)) == []


@pytest.mark.parametrize("name", POLICIES)
def test_pauses_grow_to_a_minute_and_end_when_the_bound_is_reached(name: str) -> None:
    policy = POLICIES[name]
    for verdict, bound in ((Verdict.NOT_SENT, policy.not_sent), (Verdict.UNKNOWN, policy.unknown)):
        waited = pauses(policy, ended(verdict))
        assert len(waited) == min(bound - 1, 1000)
        assert waited == sorted(waited)
        assert all(1.0 <= seconds <= LONGEST_PAUSE_SECONDS for seconds in waited)


@cases("name", POLICIES)
@cases("verdict", sorted(NO_SLOT, key=str))
def test_a_call_without_a_slot_is_left_to_the_limiter_if_there_is_one(
    name: str, verdict: Verdict
) -> None:
    policy = POLICIES[name]
    bound = policy.refused if verdict is Verdict.REFUSED else policy.blocked
    waited = pauses(policy, ended(verdict))
    assert len(waited) == min(bound - 1, 1000)
    assert all((seconds == 0.0) == policy.limited for seconds in waited)


def test_a_refused_call_waits_for_as_long_as_the_service_asks_where_no_limiter_does() -> None:
    refused = replace(ended(Verdict.REFUSED), retry_after=17.0)
    assert pauses(retry.OPENING, refused, most=2) == [17.0, 17.0]


def test_what_changes_something_is_never_made_again_after_it_may_have_been_carried_out() -> None:
    for policy in (retry.CHANGE, retry.COMMAND_ONCE):
        assert pauses(policy, ended(Verdict.UNKNOWN)) == []


def test_a_run_looks_again_for_as_long_as_it_waits_for_a_service_that_is_away() -> None:
    for verdict in NO_ANSWER:
        assert 3600 < sum(pauses(retry.RUN, ended(verdict))) < math.inf


def test_trouble_on_the_way_does_not_count_as_a_refusal() -> None:
    tries = Counter({Verdict.UNKNOWN: 4, Verdict.NOT_SENT: 4})
    refused = ended(Verdict.REFUSED)
    tries[Verdict.REFUSED] += 1
    assert retry.COMMAND.again_after(refused, tries) == 0.0
