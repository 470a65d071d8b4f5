"""Bytes from the network into values that cannot hurt: JSON, dates, numbers. Nothing raises."""

from __future__ import annotations

import json
import math
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any, NoReturn

MAX_RETRY_AFTER = 300.0
"""Seconds; the longest time for which we let a server hold all calls."""

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


@lru_cache(maxsize=64)  # calls in flight come back with the same second many times
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
