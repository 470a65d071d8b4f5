"""From an applied answer's payload to values. A shape that is not as documented stops the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from enroll.errors import ServiceError
from enroll.model import Answer, Library, LibraryFace, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFace:
    """One result of `search`, its score 0 to 100; `add_time` (UNIX ms) only if the service says."""

    face_token: str
    user_id: str
    user_data: str
    score: float
    add_time: int | None = None


LIST_PAGE = 1000
"""The most faces that `list` shows in one call, by the vendor's page: a library up to so many is
listed whole."""


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
    """What `delete` did: how many faces it took out, and why not which others, by token."""

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
            f"The service did not answer as asked: {answer.code}: {answer.message}. "
            "Try again, and ask the vendor if it stays so."
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
    # Past 63 bits no database takes it.
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
