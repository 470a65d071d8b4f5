"""The facts that `enroll probe` has checked: what is documented, and what an answer shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from enroll.errors import ServiceError
from enroll.model import Answer, Verdict
from enroll.session.library_faces import NO_FACE_FOUND

_ANSWER = frozenset({"request_id", "time_used"})
SCORES = ("confidence", "score")
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

    `errors` are status and error text by what the documentation has instead (`BAD_ARGUMENTS:
    user_id`). `visible_after` is the seconds until search and list showed a new face. Sizes are
    those of the largest request and the sides of pictures that were accepted or refused.
    """

    score_field: str | None = None
    self_score: float | None = None
    visible_after: float | None = None
    parallel: int | None = None
    max_start: int | None = None
    errors: dict[str, tuple[int, str]] = field(default_factory=dict)
    accepted_bytes: int | None = None
    refused_bytes: int | None = None
    accepted_sides: list[int] = field(default_factory=list)
    refused_sides: list[int] = field(default_factory=list)


class Notes:
    """The facts in the order in which they were checked."""

    def __init__(self) -> None:
        self.facts: list[Fact] = []

    def fields(
        self,
        name: str,
        answer: Answer,
        expected: set[str] | frozenset[str],
        items: Sequence[Any] | None = None,
        *,
        reading: Reading | None = None,
    ) -> None:
        """Compare the fields of an answer, or of the `items` in it, with the documented ones, and
        read it as enroll does."""
        documented = ", ".join(sorted(expected))
        payload = answer.payload or _object(answer.raw)
        objects = [payload] if items is None else [one for one in items if isinstance(one, dict)]
        if not objects:
            self.judge(f"{name}_fields", documented, said(answer), holds=False)
            return
        missing = sorted(set(expected).difference(*[set.intersection(*map(set, objects))]))
        more = sorted(set().union(*objects) - set(expected) - _ANSWER - {"error"})
        if name == "search":
            more = [one for one in more if one not in SCORES]
        if name == "list":
            more = [one for one in more if one != "next"]
        words = [f"without {', '.join(missing)}"] if missing else ["these"]
        words += [f"also {', '.join(more)}"] if more else []
        if answer.verdict is not Verdict.APPLIED:
            words = [said(answer), *words]
        unreadable = _unreadable(answer, reading)
        if unreadable and not missing:
            words = [unreadable]
        holds = answer.verdict is Verdict.APPLIED and not missing and not unreadable
        self.judge(f"{name}_fields", documented, "; ".join(words), holds=holds)

    def accepted(self, name: str, documented: str, answer: Answer) -> None:
        if answer.code == NO_FACE_FOUND:
            words = "NO_FACE_FOUND: give one of a person with --portrait"
            self.note(name, documented, words, Outcome.UNCHECKED)
            return
        self.judge_call(
            name, f"accepted: {documented}", answer, holds=answer.verdict is Verdict.APPLIED
        )

    def judge_call(self, name: str, documented: str, answer: Answer, *, holds: bool) -> None:
        """Judge how a call ended; without any answer, nothing is known."""
        if answer.http_status:
            self.judge(name, documented, said(answer), holds=holds)
        else:
            self.note(name, documented, f"no answer: {answer.code}", Outcome.UNCHECKED)

    def judge(self, name: str, documented: str, observed: str, *, holds: bool) -> None:
        self.note(name, documented, observed, Outcome.HOLDS if holds else Outcome.DIFFERS)

    def note(self, name: str, documented: str, observed: str, outcome: Outcome) -> None:
        self.facts.append(
            Fact(name=name, documented=documented, observed=observed, outcome=outcome)
        )


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


def _unreadable(answer: Answer, reading: Reading | None) -> str:
    """Why enroll cannot read an answer; empty if it can."""
    if reading is None or answer.verdict is not Verdict.APPLIED:
        return ""
    try:
        reading(answer)
    except ServiceError as error:
        return str(error).partition(". ")[0]
    return ""
