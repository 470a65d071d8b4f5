"""The service's responses as values: JSON, dates and numbers within bounds, what a call returns."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, NoReturn

from enroll.errors import ServiceError
from enroll.model import Answer, Library, LibraryFace, Verdict

MAX_RETRY_AFTER = 300.0
"""Seconds; the longest time for which a server may hold all calls."""

_SECONDS = re.compile(r"\s*(\d{1,9})(?:\.\d*)?\s*", re.ASCII)


def parse_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that `body` is, None when it is anything else.

    Stricter than `json`: UTF-8 only, no NaN or Infinity, no name twice in an object (which of
    two tokens would count?). Lone surrogates become U+FFFD, because no database or file takes
    them.
    """
    try:
        text = body.decode("utf-8-sig")
        value = _DECODER.decode(text)
        if r"\ud" in text.lower():
            value = _storable(value)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def parse_retry_after(text: str | None, *, now: float) -> float | None:
    """Seconds to wait, 0 to `MAX_RETRY_AFTER`; `now` is the server's time, for an HTTP date."""
    if text is None:
        return None
    seconds = _SECONDS.fullmatch(text)
    if seconds:
        return min(float(seconds[1]), MAX_RETRY_AFTER)
    date = parse_date(text)
    return None if date is None else min(max(date - now, 0.0), MAX_RETRY_AFTER)


@lru_cache(maxsize=64)  # many answers have the same second
def parse_date(text: str) -> float | None:
    """An HTTP date, in any form of RFC 9110 (5.6.7), in UNIX seconds; None when it is none."""
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:  # no zone, as in asctime's form, or "-0000": UTC all the same
            moment = moment.replace(tzinfo=UTC)
        seconds = moment.timestamp()
    except (ValueError, OverflowError, OSError, TypeError, IndexError):
        return None
    return seconds if math.isfinite(seconds) else None


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"not JSON: {text}")


def _once_each(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("a name twice")
    return members


def _storable(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_storable(item) for item in value]
    if isinstance(value, dict):
        return {_storable(name): _storable(item) for name, item in value.items()}
    return value


_DECODER = json.JSONDecoder(parse_constant=_refuse, object_pairs_hook=_once_each)


REDACTED = "[redacted]"
SHORTEST_PIECE = 8
"""Characters. Shorter pieces occur in ordinary words, and reveal nothing."""

_WORD = re.compile(r"[0-9A-Za-z]+")


def redact(text: str, secrets: Iterable[str]) -> str:
    """`text` without the secrets: each one whole, and each of its runs of letters and digits.

    An echo may be escaped for JSON, HTML or a URL; that changes only what lies between the runs.
    """
    if text:
        for piece in _pieces(secrets):
            text = text.replace(piece, REDACTED)
    return text


def _pieces(secrets: Iterable[str]) -> list[str]:
    """What to look for, longest first, so that nothing is left over of a whole secret."""
    pieces: set[str] = set()
    for secret in secrets:
        pieces.update((secret, *_WORD.findall(secret)))
    return sorted((each for each in pieces if len(each) >= SHORTEST_PIECE), key=len, reverse=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFace:
    """One result of `search`, its score 0 to 100; `add_time` (UNIX ms) only if the service says."""

    face_token: str
    user_id: str
    user_data: str
    score: float
    add_time: int | None = None


LIST_PAGE = 1000
"""The most faces that `list` shows in one call, by the vendor's page: a library of up to this many
is listed whole."""


def libraries(answer: Answer) -> list[Library]:
    """The account's libraries, from an answer of `group_list`."""
    return [_library(item) for item in _objects(answer, "group_infos")]


def library(answer: Answer) -> Library:
    """The library that an answer of `group_info` describes."""
    return _library(_object(_applied(answer).get("info"), "info"))


def faces(answer: Answer) -> list[LibraryFace]:
    """One page of a library's faces, oldest first, from an answer of `list`."""
    return [_face(item) for item in _objects(answer, "face_tokens")]


def next_start(answer: Answer) -> int | None:
    """Where the page after this answer of `list` starts; None when this was the last."""
    following = _applied(answer).get("next")
    if following is None:
        return None
    if isinstance(following, str) and following.isascii() and following.isdecimal():
        following = int(following[:20])
    if type(following) is not int or following < 1:
        raise _undocumented("next")
    return following


def face(answer: Answer) -> LibraryFace:
    """The face that an answer of `face_info` describes."""
    return _face(_object(_applied(answer).get("info"), "info"))


def candidates(answer: Answer) -> list[FoundFace]:
    """The faces that an answer of `search` found, best first."""
    return [
        FoundFace(
            face_token=_text(item, "face_token"),
            user_id=_text(item, "user_id"),
            user_data=_optional_text(item, "user_data"),
            score=_score(item),
            add_time=None if item.get("add_time") is None else _count(item, "add_time"),
        )
        for item in _objects(answer, "results")
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """What `delete` did: how many faces it deleted, and why not which others, by token."""

    removed: int
    failures: Mapping[str, str]


def deleted(answer: Answer) -> Deleted:
    """What an answer of `delete` says."""
    applied = _applied(answer)
    detail = _objects(answer, "failure_detail") if applied.get("failure_detail") else []
    return Deleted(
        removed=_count(applied, "face_removed"),
        failures={_text(item, "face_token"): _optional_text(item, "reason") for item in detail},
    )


def _library(item: Mapping[str, Any]) -> Library:
    return Library(
        group_id=_text(item, "group_id"),
        group_name=_optional_text(item, "group_name"),
        group_data=_optional_text(item, "group_data"),
        model_version=_optional_text(item, "model_version"),
        add_time=_optional_text(item, "add_time"),
    )


def _face(item: Mapping[str, Any]) -> LibraryFace:
    return LibraryFace(
        face_token=_text(item, "face_token"),
        user_id=_text(item, "user_id"),
        user_data=_optional_text(item, "user_data"),
        add_time=_count(item, "add_time"),
    )


def _applied(answer: Answer) -> Mapping[str, Any]:
    if answer.verdict is not Verdict.APPLIED:
        raise ServiceError(
            f"The service did not answer as expected: {answer.code}: {answer.message}. Try again, "
            "and ask the vendor if it happens again."
        )
    return answer.payload


def _objects(answer: Answer, field: str) -> list[Mapping[str, Any]]:
    items = _applied(answer).get(field)
    if not isinstance(items, list):
        raise _undocumented(field)
    return [_object(item, field) for item in items]


def _object(value: object, field: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _undocumented(field)
    return value


def _text(item: Mapping[str, Any], field: str) -> str:
    value = item.get(field)
    if not isinstance(value, str) or not value:
        raise _undocumented(field)
    return value


def _optional_text(item: Mapping[str, Any], field: str) -> str:
    value = item.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise _undocumented(field)
    return value


def _count(item: Mapping[str, Any], field: str) -> int:
    value = item.get(field)
    # No database takes more than 63 bits.
    if type(value) is not int or not 0 <= value < 2**63:
        raise _undocumented(field)
    return value


def _score(item: Mapping[str, Any]) -> float:
    # The field's name is not visible in the vendor's pages; its family uses both.
    value = item.get("confidence", item.get("score"))
    if type(value) not in (int, float) or not 0 <= value <= 100:
        raise _undocumented("confidence")
    return float(value)


def _undocumented(field: str) -> ServiceError:
    return ServiceError(
        f"The service's answer does not hold `{field}` as documented. "
        "Check that the endpoint is a FaceSearch service."
    )
