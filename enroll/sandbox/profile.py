"""How an account behaved when it was probed, as far as the stand-in can behave likewise."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """What the stand-in replays; by default what is documented.

    `self_score` is the score of a photo against itself; all others are in proportion. `errors` are
    status and error text by the stand-in's own error (`BAD_ARGUMENTS: user_id`, or its code alone).
    `latency` and `search_lag` are seconds, `clock_skew` as well.
    """

    score_field: str = "confidence"
    self_score: float = 100.0
    search_lag: float = 0.0
    latency: float = 0.0
    clock_skew: float = 0.0
    parallel: int | None = None
    max_start: int | None = None
    max_request_bytes: int = 2 * 1024 * 1024
    min_side: int = 48
    max_side: int = 4096
    errors: Mapping[str, tuple[int, str]] = field(default_factory=dict)


def read_profile(path: Path) -> Profile:
    """The profile in a JSON file that `enroll probe --profile` wrote; what it leaves out is as
    documented. Raises ValueError for anything else, and OSError."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as exc:
        raise ValueError(f"{path} is not a profile: it is not JSON") from exc
    if not isinstance(found, dict) or found.get("profile") != VERSION:
        raise ValueError(f"{path} is not a profile of version {VERSION}")
    known = {one.name for one in fields(Profile)} - {"errors"}
    given = {name: found[name] for name in known if found.get(name) is not None}
    for name, value in given.items():
        if not _ALLOWED[name](value):
            raise ValueError(f"{path} is not a profile: {name} is {value!r}")
    return Profile(**given, errors=_errors(found.get("errors", {}), path))


def _errors(given: Any, path: Path) -> dict[str, tuple[int, str]]:
    errors: dict[str, tuple[int, str]] = {}
    try:
        for documented, observed in given.items():
            status, error = observed["status"], observed["error"]
            if type(status) is not int or not 400 <= status <= 599 or not isinstance(error, str):
                raise ValueError  # noqa: TRY301 - said below
            errors[documented] = (status, error)
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise ValueError(
            f"{path} is not a profile: errors needs status and error for each"
        ) from exc
    return errors


def _number(least: float, most: float) -> Callable[[Any], bool]:
    return lambda value: type(value) in (int, float) and least <= value <= most


def _whole(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


_ALLOWED: Mapping[str, Callable[[Any], bool]] = {
    "score_field": lambda value: isinstance(value, str) and bool(value),
    "self_score": _number(0, 100),
    "search_lag": _number(0, 3600),
    "latency": _number(0, 3600),
    "clock_skew": _number(-86_400, 86_400),
    "parallel": _whole(1, 1_000_000),
    "max_start": _whole(1, 999_999_999),
    "max_request_bytes": _whole(1, 1 << 30),
    "min_side": _whole(1, 100_000),
    "max_side": _whole(1, 100_000),
}
