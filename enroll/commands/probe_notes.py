"""The facts that `enroll probe` has checked: what is documented, and what an answer shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from enroll.commands.probe_rules import Rule
from enroll.errors import ServiceError
from enroll.facesearch.answers import OwnCode
from enroll.model import Answer, Verdict
from enroll.session.library_faces import NO_FACE_FOUND

SCORES = ("confidence", "score")
_ALWAYS = frozenset({"request_id", "time_used", "error", "next", *SCORES})
"""Fields that are no news in an answer: other facts are about them."""

Reading = Callable[[Answer], object]


class Outcome(StrEnum):
    """Whether a fact is as documented."""

    HOLDS = "holds"
    DIFFERS = "differs"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One fact: its stable name, and what is documented and what was observed, in words."""

    name: str
    documented: str
    observed: str
    outcome: Outcome


@dataclass(slots=True)
class Observed:
    """What a stand-in needs to behave likewise; None where it was not observed.

    `answers` are status and error text by fact, of calls that ended otherwise than documented; 200
    if one was accepted. `bare` are the codes of answers without `request_id`, and `missing` the
    fields that calls' answers lack. A lag is the seconds until a new face was shown. Sizes are
    those of requests and of the sides of pictures that were accepted or refused.
    """

    answers: dict[str, tuple[int, str]] = field(default_factory=dict)
    missing: dict[str, list[str]] = field(default_factory=dict)
    bare: list[str] = field(default_factory=list)
    score_field: str | None = None
    self_score: float | None = None
    search_lag: float | None = None
    list_lag: float | None = None
    parallel: int | None = None
    max_start: int | None = None
    accepted_bytes: int | None = None
    refused_bytes: int | None = None
    accepted_sides: list[int] = field(default_factory=list)
    refused_sides: list[int] = field(default_factory=list)


class Notes:
    """The facts in the order in which they were checked, and what a stand-in needs."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []
        self.observed = Observed()

    def judge(self, name: str, documented: str, observed: str, *, holds: bool) -> None:
        """Note a fact that was seen."""
        self._note(name, documented, observed, Outcome.HOLDS if holds else Outcome.DIFFERS)

    def unchecked(self, name: str, documented: str, because: str) -> None:
        """Note a fact of which nothing is known."""
        self._note(name, documented, because, Outcome.UNCHECKED)

    def _note(self, name: str, documented: str, observed: str, outcome: Outcome) -> None:
        self.facts.append(
            Fact(name=name, documented=documented, observed=observed, outcome=outcome)
        )

    def fields(
        self,
        name: str,
        answer: Answer,
        expected: Collection[str],
        items: Sequence[Any] | None = None,
        *,
        reading: Reading = lambda _answer: None,
    ) -> None:
        """Compare the fields of an answer, or of the `items` in it, with the documented ones, and
        read it as enroll does."""
        documented = ", ".join(sorted(expected))
        payload = answer.payload or _object(answer.raw)
        objects = [payload] if items is None else [one for one in items if isinstance(one, dict)]
        if answer.http_status != HTTPStatus.OK or not objects:
            words = "it has none" if answer.verdict is Verdict.APPLIED else said(answer)
            self.judge(f"{name}_fields", documented, words, holds=False)
            return
        missing = sorted(set(expected).difference(*[set.intersection(*map(set, objects))]))
        more = sorted(set().union(*objects) - set(expected) - _ALWAYS)
        unreadable = "" if missing else _unreadable(answer, reading)
        words = f"without {', '.join(missing)}" if missing else unreadable or "these"
        if more:
            words = f"{words}; also {', '.join(more)}"
        self.judge(f"{name}_fields", documented, words, holds=not missing and not unreadable)
        if missing:
            self.observed.missing[name] = missing

    def accepted(self, name: str, what: str, answer: Answer) -> None:
        """Note whether a call was accepted that should be."""
        if answer.code == NO_FACE_FOUND:
            words = "NO_FACE_FOUND: give a photo of a person with --portrait"
            self.unchecked(name, f"accepted: {what}", words)
            return
        lacking = answer.code == OwnCode.FIELD_MISSING  # which is a fact of its own
        holds = answer.verdict is Verdict.APPLIED or lacking
        self._ended(name, f"accepted: {what}", answer, holds=holds)
        if answer.verdict is not Verdict.APPLIED and answer.http_status >= 400:
            self.observed.answers[name] = answer.http_status, answer.message

    def refused(self, rule: Rule, answer: Answer, *, face_found: bool) -> None:
        """Note how a call was refused that should be. Where no face was found in any photo, that
        may be the reason."""
        if answer.code == NO_FACE_FOUND and rule.with_face and not face_found:
            self.unchecked(rule.name, rule.documented, "NO_FACE_FOUND came first")
            return
        code, status = answer.code, answer.http_status
        as_documented = (code, status) == (rule.codes[0], rule.status)
        enforced = status >= 400 and (code != NO_FACE_FOUND or code in rule.codes)
        if status and not as_documented:
            self.observed.answers[rule.name] = (status, answer.message) if enforced else (200, "")
        right = as_documented or code in rule.codes[1:] or rule.any_code
        self._ended(rule.name, rule.documented, answer, holds=enforced and right)

    def _ended(self, name: str, documented: str, answer: Answer, *, holds: bool) -> None:
        """Judge how a call ended; without any answer, nothing is known."""
        if answer.http_status:
            self.judge(name, documented, said(answer), holds=holds)
        else:
            self.unchecked(name, documented, f"no answer: {answer.code}")


def said(answer: Answer) -> str:
    """How a call ended, in a few words."""
    if answer.verdict is Verdict.APPLIED:
        return "accepted"
    status = f"{answer.http_status} " if answer.http_status else ""
    if answer.code == f"HTTP_{answer.http_status}":
        return f"{status}{'with a page' if '<html' in answer.raw.lower() else answer.raw[:60]}"
    return f"{status}{answer.code}"


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _unreadable(answer: Answer, reading: Reading) -> str:
    """Why enroll cannot read an answer; empty if it can."""
    if answer.verdict is not Verdict.APPLIED:
        return said(answer)
    try:
        reading(answer)
    except ServiceError as error:
        return str(error).partition(". ")[0]
    return ""
