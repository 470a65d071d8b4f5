"""The nine calls of the FaceSearch API: fields in, the answer's own members out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any

from .account import Account, Face, Library, Limits
from .faces import FaceFinder
from .messages import Clock, Fields, iso
from .profile import Profile

ROOT = "/finauth/search/group/"
DEFAULT_MODEL = "s21"
_LIST_LIMIT = 1000
_SEARCH_LIMIT = 100
# `start` without a bound of its own still has to be a sane number.
_ANY_START = 999_999_999


class CallKind(StrEnum):
    """The calls, by the last part of their path."""

    ADD = "add"
    CREATE = "create"
    GROUP_LIST = "group_list"
    GROUP_INFO = "group_info"
    LIST = "list"
    FACE_INFO = "face_info"
    SEARCH = "search"
    DELETE = "delete"
    FREE = "free"


_PICTURE_FIELDS = frozenset({"image", "file", "multi_oriented_detection"})
_OWN_FIELDS: Mapping[CallKind, frozenset[str]] = {
    CallKind.ADD: _PICTURE_FIELDS | {"group_id", "user_id", "user_data"},
    CallKind.CREATE: frozenset({"group_id", "group_name", "group_data", "model_version"}),
    CallKind.GROUP_LIST: frozenset(),
    CallKind.GROUP_INFO: frozenset({"group_id"}),
    CallKind.LIST: frozenset({"group_id", "start", "limit"}),
    CallKind.FACE_INFO: frozenset({"group_id", "face_token"}),
    CallKind.SEARCH: _PICTURE_FIELDS | {"group_id", "limit", "threshold"},
    CallKind.DELETE: frozenset({"group_id", "face_tokens"}),
    CallKind.FREE: frozenset({"group_id", "check_empty"}),
}


def documented_fields(kind: CallKind) -> frozenset[str]:
    """Every field that the documentation has for a call; the service takes no other."""
    return _OWN_FIELDS[kind] | {"sign", "sign_version"}


def call_kind(*, method: str, path: str) -> CallKind | None:
    """The call that a request means; None when the service has no such call."""
    name = path.removeprefix(ROOT)
    if method != "POST" or name == path or name not in set(CallKind):
        return None
    return CallKind(name)


class Calls:
    """Carries out calls on the account. Every method raises `RefusalError` when refused."""

    def __init__(
        self,
        *,
        account: Account,
        finder: FaceFinder,
        clock: Clock,
        limits: Limits,
        profile: Profile,
    ) -> None:
        self._account = account
        self._finder = finder
        self._clock = clock
        self._limits = limits
        self._profile = profile
        self._methods: dict[CallKind, Callable[[Fields], dict[str, Any]]] = {
            CallKind.CREATE: self._create,
            CallKind.GROUP_LIST: self._group_list,
            CallKind.GROUP_INFO: self._group_info,
            CallKind.LIST: self._list,
            CallKind.FACE_INFO: self._face_info,
            CallKind.SEARCH: self._search,
            CallKind.DELETE: self._delete,
            CallKind.FREE: self._free,
        }

    def carry_out(self, kind: CallKind, fields: Fields, *, lag: float = 0.0) -> dict[str, Any]:
        """Do what the call asks; a face that is added stays unseen for `lag` seconds."""
        if kind is CallKind.ADD:
            return self._add(fields, lag=lag)
        return self._methods[kind](fields)

    def _add(self, fields: Fields, *, lag: float) -> dict[str, Any]:
        group_id, user_id = fields.group_id(), fields.user_id()
        user_data = fields.optional_text("user_data")
        picture = self._picture(fields, group_id)
        token = self._account.add(
            group_id, user_id=user_id, user_data=user_data, picture=picture, lag=lag
        )
        return {"group_id": group_id, "face_token": token}

    def _create(self, fields: Fields) -> dict[str, Any]:
        library = Library(
            group_id=fields.group_id(),
            group_name=fields.group_name(),
            group_data=fields.optional_text("group_data"),
            model_version=fields.optional_text("model_version", DEFAULT_MODEL) or DEFAULT_MODEL,
            add_time=self._clock.now(),
        )
        self._account.create(library)
        return _members(library, *_LIBRARY)

    def _group_list(self, _fields: Fields) -> dict[str, Any]:
        return {"group_infos": [_dated(library) for library in self._account.libraries()]}

    def _group_info(self, fields: Fields) -> dict[str, Any]:
        return {"info": _dated(self._account.library(fields.group_id()))}

    def _list(self, fields: Fields) -> dict[str, Any]:
        group_id = fields.group_id()
        most = self._limits.max_start or _ANY_START
        start = fields.number("start", default=1, least=1, most=most)
        limit = fields.number("limit", default=100, least=1, most=_LIST_LIMIT)
        faces = self._account.faces(group_id, start=start, limit=limit + 1)
        answer: dict[str, Any] = {"face_tokens": [_info(face) for face in faces[:limit]]}
        if len(faces) > limit:
            answer["next"] = start + limit
        return answer

    def _face_info(self, fields: Fields) -> dict[str, Any]:
        group_id = fields.group_id()
        return {"info": _info(self._account.face(group_id, fields.face_token()))}

    def _search(self, fields: Fields) -> dict[str, Any]:
        group_id = fields.group_id()
        limit = fields.number("limit", default=1, least=1, most=_SEARCH_LIMIT)
        name, of_itself = self._profile.score_field, self._profile.self_score
        threshold = min(fields.threshold() * 100 / of_itself, 100.0) if of_itself else 0.0
        _digest, likeness = self._picture(fields, group_id)
        found = self._account.search(group_id, likeness, limit=limit, threshold=threshold)
        results = [
            {**_members(face, *_PERSON), name: round(score * of_itself / 100, 3)}
            for face, score in found
        ]
        return {"results": results}

    def _delete(self, fields: Fields) -> dict[str, Any]:
        group_id, tokens = fields.group_id(), fields.face_tokens()
        missing = self._account.delete(group_id, tokens)
        return {
            "face_removed": len(tokens) - len(missing),
            "face_count": self._account.count(group_id),
            "failure_detail": [
                {"face_token": token, "reason": "FACE_NOT_IN_GROUP"} for token in missing
            ],
        }

    def _free(self, fields: Fields) -> dict[str, Any]:
        group_id = fields.group_id()
        self._account.free(group_id, check_empty=fields.switch("check_empty", default=True))
        return {"group_id": group_id}

    def _picture(self, fields: Fields, group_id: str) -> tuple[bytes, Any]:
        """The picture's hash and face; looked at last, when all the rest is in order."""
        turn = fields.switch("multi_oriented_detection")
        name, content = fields.picture()
        self._account.library(group_id)
        return self._finder.find(content, field=name, turn=turn)


_LIBRARY = ("group_id", "group_name", "group_data", "model_version")
_PERSON = ("face_token", "user_id", "user_data")


def _members(of: Library | Face, *names: str) -> dict[str, Any]:
    return {name: getattr(of, name) for name in names}


def _dated(library: Library) -> dict[str, Any]:
    return {**_members(library, *_LIBRARY), "add_time": iso(library.add_time)}


def _info(face: Face) -> dict[str, Any]:
    return _members(face, *_PERSON, "add_time")
