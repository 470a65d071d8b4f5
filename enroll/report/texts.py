"""The texts of a report in the language of its readers: one table for each in `templates`."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from enroll.report.lines import UNKNOWN
from enroll.report.pairs import PairGroup
from enroll.settings import Language

_Words = Mapping[str, Mapping[str, str]]

TEMPLATES = files(__package__) / "templates"


@dataclass(frozen=True, slots=True)
class Reason:
    """A reason, or a group of pairs, in words: a heading, and what to do."""

    title: str
    advice: str


@dataclass(frozen=True, slots=True)
class Texts:
    """All texts of one language; what it lacks is in English."""

    language: Language
    text: Mapping[str, str]
    status: Mapping[str, str]
    reasons: _Words
    pairs: _Words

    def reason(self, code: str) -> Reason:
        """The words for a code; those of its family, or of an unknown one, if it has none."""
        family = code[: len("HTTP_4")]
        found = self.reasons.get(code) or self.reasons.get(family) or self.reasons[UNKNOWN]
        return Reason(found["title"], found["advice"])

    def pair_group(self, group: PairGroup) -> Reason:
        """The words for a group of pairs."""
        return Reason(**self.pairs[group])

    def knows(self, code: str) -> bool:
        """Whether there is advice for this very code, or for its family."""
        return code in self.reasons or code[: len("HTTP_4")] in self.reasons


@cache
def texts_of(language: Language) -> Texts:
    """The texts of a language, and English ones where it has none."""
    english, own = table_of(Language.EN), table_of(language)
    return Texts(
        language=language,
        text={**english["text"], **own.get("text", {})},
        status={**english["status"], **own.get("status", {})},
        reasons=_advice(english["reason"], own.get("reason", {})),
        pairs=_advice(english["pairs"], own.get("pairs", {})),
    )


def _advice(english: _Words, own: _Words) -> _Words:
    return {code: {**words, **own.get(code, {})} for code, words in english.items()}


def table_of(language: Language) -> Mapping[str, Any]:
    """The table of a language alone."""
    text = (TEMPLATES / f"{language}.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
