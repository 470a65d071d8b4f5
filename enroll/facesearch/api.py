"""The nine calls of the service: the fields that each sends, and what its answer holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from enroll.errors import ServiceError
from enroll.model import Answer, CallKind, Library, LibraryFace, SendAs, Verdict

LIST_PAGE = 1000
"""The most faces that `list` shows in one call, by the vendor's page: a library of up to this many
is listed whole."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call before it is signed: the fields of its form, without the photo, which is sent as
    `send_as` says."""

    kind: CallKind
    fields: Mapping[str, str] = field(repr=False)
    send_as: SendAs = SendAs.FILE

    @classmethod
    def add(
        cls,
        *,
        group_id: str,
        user_id: str,
        user_data: str,
        send_as: SendAs,
        multi_oriented_detection: bool,
    ) -> Call:
        """Add the face of a photo to a library. Not idempotent: twice is two faces."""
        fields = _given(
            group_id=group_id,
            user_id=user_id,
            user_data=user_data,
            multi_oriented_detection="1" if multi_oriented_detection else "",
        )
        return cls(CallKind.ADD, fields, send_as)

    @classmethod
    def search(
        cls,
        *,
        group_id: str,
        send_as: SendAs,
        limit: int = 1,
        threshold: float | None = None,
        multi_oriented_detection: bool = False,
    ) -> Call:
        """Find the faces most like a photo's: at most `limit` (100), best first."""
        fields = _given(
            group_id=group_id,
            limit=str(limit),
            threshold="" if threshold is None else f"{threshold:g}",
            multi_oriented_detection="1" if multi_oriented_detection else "",
        )
        return cls(CallKind.SEARCH, fields, send_as)

    @classmethod
    def list(cls, *, group_id: str, start: int = 1, limit: int = 100) -> Call:
        """One page of a library's faces from the `start`-th (1-based), at most `limit` (1000)."""
        fields = {"group_id": group_id, "start": str(start), "limit": str(limit)}
        return cls(CallKind.LIST, fields)

    @classmethod
    def group_list(cls) -> Call:
        """The account's libraries."""
        return cls(CallKind.GROUP_LIST, {})

    @classmethod
    def group_info(cls, *, group_id: str) -> Call:
        """One library of the account."""
        return cls(CallKind.GROUP_INFO, {"group_id": group_id})

    @classmethod
    def face_info(cls, *, group_id: str, face_token: str) -> Call:
        """One face of a library."""
        return cls(CallKind.FACE_INFO, {"group_id": group_id, "face_token": face_token})

    @classmethod
    def create(
        cls, *, group_id: str, group_name: str, group_data: str = "", model_version: str = ""
    ) -> Call:
        """Make a library; an empty `model_version` leaves the choice to the service."""
        fields = _given(
            group_id=group_id,
            group_name=group_name,
            group_data=group_data,
            model_version=model_version,
        )
        return cls(CallKind.CREATE, fields)

    @classmethod
    def delete(cls, *, group_id: str, face_tokens: Sequence[str]) -> Call:
        """Delete faces of a library, at most 1000."""
        fields = {"group_id": group_id, "face_tokens": ",".join(face_tokens)}
        return cls(CallKind.DELETE, fields)

    @classmethod
    def free(cls, *, group_id: str, check_empty: bool = True) -> Call:
        """Delete a library; with `check_empty` only one without faces."""
        fields = {"group_id": group_id, "check_empty": "1" if check_empty else "0"}
        return cls(CallKind.FREE, fields)


def _given(**fields: str) -> dict[str, str]:
    """The fields that say something; the service treats the others by its defaults."""
    return {name: value for name, value in fields.items() if value}


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundFace:
    """One result of `search`, its score 0 to 100; `add_time` (UNIX ms) only if the service says."""

    face_token: str
    user_id: str
    user_data: str
    score: float
    add_time: int | None = None


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
