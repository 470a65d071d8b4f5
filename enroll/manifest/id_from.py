"""`--id-from`: how the path of a photo yields its user_id, and perhaps its user_data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from unicodedata import normalize

from enroll.errors import UsageError
from enroll.photos.listing import PHOTO_SUFFIXES, suffix_of

DEFAULT_TEMPLATES = ("{user_id}",)
"""The file name without its suffix, in whatever folder."""

_TOKEN = re.compile(
    r"\{(?P<field>[^{}]*)\}|(?P<wild>[*?])|(?P<text>[^{}*?]+)|(?P<wrong>.)", re.DOTALL
)

_SHORT = {"user_id": "(?P<user_id>[^/]+?)", "user_data": "(?P<user_data>[^/]+)", "*": "[^/]*"}
_LONG = {"user_id": "(?P<user_id>[^/]+)", "user_data": "(?P<user_data>[^/]+?)", "*": "[^/]*?"}
"""Patterns of fields, so that the user_id becomes as short, or as long, as it can be."""


@dataclass(frozen=True, slots=True)
class Ids:
    """What a path yields. `by_name` says that only the file's name decided, not its folder."""

    user_id: str
    user_data: str
    by_name: bool


class UncertainError(Exception):
    """A path can be split in several ways, so that it is not certain whose photo it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PathTemplate:
    """One template. `{user_id}` and `{user_data}` are one or more characters of one part of the
    path, `*` is any number of them, and `?` is one. Without a slash, it describes the file's name,
    else the whole path."""

    text: str
    by_name: bool
    has_user_data: bool
    _short: re.Pattern[str] = field(repr=False)
    _long: re.Pattern[str] = field(repr=False)
    _strict: bool = field(repr=False)

    def match(self, path: str) -> Ids | None:
        """What a relative path without its suffix yields; None if it does not match. Raises
        UncertainError."""
        text = path.rpartition("/")[2] if self.by_name else path
        found = self._short.fullmatch(text)
        if found is None:
            return None
        user_id = found["user_id"]
        if self._strict:
            longest = self._long.fullmatch(text)
            if longest is not None and longest["user_id"] != user_id:
                raise UncertainError
        user_data = normalize("NFC", found["user_data"]) if self.has_user_data else ""
        return Ids(user_id, user_data, self.by_name)


def parse_path_template(text: str) -> PathTemplate:
    """A template of `--id-from`. Raises UsageError for one that can never be right."""
    tokens = list(_tokens(text))
    kinds = [kind for kind, _ in tokens]
    for name in ("user_id", "user_data"):
        if kinds.count(name) > 1:
            raise _wrong(text, f"has {{{name}}} twice; give it once")
    if "user_id" not in kinds:
        raise _wrong(text, "has no {user_id}, which says whose photo it is; add it")
    if text.startswith("/") or "//" in text or text.endswith("/"):
        raise _wrong(text, "begins or ends with a slash, or has two in a row; leave it out")
    if suffix_of(text) in PHOTO_SUFFIXES:
        raise _wrong(text, "has a suffix, but is compared with paths without theirs; leave it out")
    wild = {"user_id", "user_data", "*"}
    if any(left in wild and right in wild for left, right in pairwise(kinds)):
        raise _wrong(text, "has two fields or stars with nothing between them; separate them")
    return PathTemplate(
        text=text,
        by_name="/" not in text,
        has_user_data="user_data" in kinds,
        _short=_pattern(tokens, _SHORT),
        _long=_pattern(tokens, _LONG),
        _strict="*" in _neighbours(tokens),
    )


def parse_path_templates(texts: Sequence[str]) -> list[PathTemplate]:
    """The templates of `--id-from`, or the default. Raises UsageError."""
    return [parse_path_template(text) for text in texts or DEFAULT_TEMPLATES]


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """The parts of a template: their kind (a field, `*`, `?` or empty), and their text."""
    for found in _TOKEN.finditer(text):
        if found["field"] is not None:
            if found["field"] not in ("user_id", "user_data"):
                shown = found.group()
                raise _wrong(text, f"has {shown}; only {{user_id}} and {{user_data}} are known")
            yield found["field"], ""
        elif found["wild"]:
            yield found["wild"], ""
        elif found["text"]:
            yield "", found["text"]
        else:
            raise _wrong(text, f"has a single {found['wrong']!r}; write {{user_id}}")


def _pattern(tokens: Sequence[tuple[str, str]], patterns: dict[str, str]) -> re.Pattern[str]:
    parts = [
        "[^/]" if kind == "?" else patterns.get(kind) or re.escape(text) for kind, text in tokens
    ]
    return re.compile("".join(parts), re.DOTALL)


def _neighbours(tokens: Sequence[tuple[str, str]]) -> set[str]:
    """The fields and stars next to {user_id} in its part of the path.

    What is beside a star may end anywhere: with `{user_id}_*`, the photo `7_2_1` may be that of 7
    or of 7_2. Text may contain what separates it: with `{user_id}-{user_data}`, the first hyphen
    ends the user_id.
    """
    at = next(place for place, (kind, _) in enumerate(tokens) if kind == "user_id")
    found = set()
    for side in (reversed(tokens[:at]), tokens[at + 1 :]):
        for kind, text in side:
            if "/" in text:
                break
            if kind in ("*", "user_data"):
                found.add(kind)
                break
    return found


def _wrong(text: str, why: str) -> UsageError:
    return UsageError(f"Invalid value for '--id-from': {text!r} {why}.")
