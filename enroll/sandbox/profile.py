"""How an account behaved when it was probed, as far as the stand-in can behave likewise."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

VERSION = 1

_DOCUMENTED_FORMATS = frozenset({"JPEG", "PNG", "BMP"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What the stand-in replays; by default what is documented.

    `self_score` is the score of a photo against itself; all others are in proportion. Lags and
    `latency` are seconds, `clock_skew` as well; without a `list_lag` it is the `search_lag`.

    The names of rules and quirks are those of the facts of `enroll probe`. `answers` are status and
    error text by rule: a call that breaks it, or keeps it as the case may be, is answered so; 200
    means that the rule is not enforced. `quirks` are other facts that differ. `missing` are the
    fields that the answers to a kind of call lack, and `bare` the codes that come without
    `request_id` (`success` for none).
    """

    score_field: str = "confidence"
    self_score: float = 100.0
    search_lag: float = 0.0
    list_lag: float | None = None
    latency: float = 0.0
    clock_skew: float = 0.0
    parallel: int | None = None
    max_start: int | None = None
    max_request_bytes: int = 2 * 1024 * 1024
    min_side: int = 48
    max_side: int = 4096
    answers: Mapping[str, tuple[int, str]] = field(default_factory=dict)
    missing: Mapping[str, Sequence[str]] = field(default_factory=dict)
    bare: Sequence[str] = ()
    quirks: Sequence[str] = ()

    def enforces(self, rule: str) -> bool:
        """Whether a rule that is documented is enforced."""
        return self.answers.get(rule, (400, ""))[0] >= 400

    def refuses(self, rule: str) -> bool:
        """Whether a call is refused that should be accepted."""
        return rule in self.answers and self.enforces(rule)

    @property
    def formats(self) -> frozenset[str]:
        """The formats of pictures that are accepted."""
        refused = {name for name in ("PNG", "BMP") if self.refuses(name.lower())}
        more = set() if self.enforces("format") else {"GIF"}
        return (_DOCUMENTED_FORMATS - refused) | more


def read_profile(path: Path) -> Profile:
    """The profile in a JSON file that `enroll probe --profile` wrote; what it leaves out is as
    documented. Raises ValueError for anything else, and OSError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise ValueError(f"{path} is not a profile: it is not JSON") from exc
    if not isinstance(found, dict) or found.get("profile") != VERSION:
        raise ValueError(f"{path} is not a profile of version {VERSION}")
    known = {one.name for one in fields(Profile)}
    given = {name: found[name] for name in known if found.get(name) is not None}
    for name, value in given.items():
        if not _ALLOWED[name](value):
            raise ValueError(f"{path} is not a profile: {name} is {str(value)[:100]!r}")
    given |= {name: tuple(given[name]) for name in ("bare", "quirks") if name in given}
    if "missing" in given:
        given["missing"] = {kind: tuple(names) for kind, names in given["missing"].items()}
    if "answers" in given:
        given["answers"] = {
            rule: (answer["status"], answer.get("error", ""))
            for rule, answer in given["answers"].items()
        }
    return Profile(**given)


def _number(least: float, most: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and least <= value <= most


def _whole(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_answer(value: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(value.get("error", ""), str):
        return False
    status = value.get("status")
    return type(status) is int and (status == 200 or (400 <= status < 600 and "error" in value))


_ALLOWED: Mapping[str, Callable[[Any], bool]] = {
    "score_field": lambda value: isinstance(value, str) and bool(value),
    "self_score": _number(0, 1_000_000),
    "search_lag": _number(0, 3600),
    "list_lag": _number(0, 3600),
    "latency": _number(0, 3600),
    "clock_skew": _number(-86_400, 86_400),
    "parallel": _whole(1, 1_000_000),
    "max_start": _whole(1, 999_999_999),
    "max_request_bytes": _whole(1, 1 << 30),
    "min_side": _whole(1, 100_000),
    "max_side": _whole(1, 100_000),
    "answers": lambda value: isinstance(value, dict) and all(map(_is_answer, value.values())),
    "missing": lambda value: isinstance(value, dict) and all(map(_texts, value.values())),
    "bare": _texts,
    "quirks": _texts,
}
