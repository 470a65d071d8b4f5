"""The nine calls of the FaceSearch API: fields in, the answer's own members out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import Any

from .account import Account, Face, Library, Limits
from .faces import FaceFinder
from .messages import DELETE_TOKENS, Clock, Fields, RefusalError, iso, keep
from .profile import Profile

ROOT = "/finauth/search/group/"
DEFAULT_MODEL = "s21"
_LIST_LIMIT = 1000
_SEARCH_LIMIT = 100
# A profile may refuse photos of this many bytes.
_LARGE_PHOTO = 1_900_000
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
        self._quirks = frozenset(profile.quirks)
        self._freed: set[str] = set()
        self._deleted: dict[str, list[Face]] = {}
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
        answer = self._add(fields, lag=lag) if kind is CallKind.ADD else self._methods[kind](fields)
        for item in _described(answer) if kind is not CallKind.DELETE else [answer]:
            for name in self._profile.missing.get(kind, ()):
                item.pop(name, None)
        for quirk, (kinds, change) in QUIRKS.items():
            if quirk in self._quirks and kind in kinds:
                change(answer)
        return answer

    def _add(self, fields: Fields, *, lag: float) -> dict[str, Any]:
        group_id, user_id = fields.group_id(), fields.user_id()
        user_data = fields.optional_text("user_data")
        picture = self._picture(fields, group_id, rule="no_face")
        keep(self._profile, "bytes_accepted", kept=len(fields.picture()[1]) >= _LARGE_PHOTO)
        if "added_twice" in self._quirks:
            digest = picture[0].hex()
            for face in self._account.faces(group_id, hidden=True):
                if (face.user_id, face.sha256) == (user_id, digest):
                    return {"group_id": group_id, "face_token": face.face_token}
        token = self._account.add(
            group_id, user_id=user_id, user_data=user_data, picture=picture, lag=lag
        )
        return {"group_id": group_id, "face_token": token}

    def _create(self, fields: Fields) -> dict[str, Any]:
        keep(self._profile, "created_again", kept=fields.group_id() in self._freed)
        library = Library(
            group_id=fields.new_group_id(),
            group_name=fields.group_name(),
            group_data=fields.optional_text("group_data"),
            model_version=fields.optional_text("model_version", DEFAULT_MODEL) or DEFAULT_MODEL,
            add_time=self._clock.now(),
        )
        try:
            self._account.create(library)
        except RefusalError as refusal:
            if self._profile.enforces(refusal.rule):
                raise
        return _members(library, *_LIBRARY)

    def _group_list(self, _fields: Fields) -> dict[str, Any]:
        return {"group_infos": [_dated(library) for library in self._account.libraries()]}

    def _group_info(self, fields: Fields) -> dict[str, Any]:
        return {"info": _dated(self._account.library(fields.group_id()))}

    def _list(self, fields: Fields) -> dict[str, Any]:
        group_id = fields.group_id()
        most = self._limits.max_start or _ANY_START
        start = fields.number("start", default=1, least=1, most=most, call="list")
        limit = fields.number("limit", default=100, least=1, most=_LIST_LIMIT, call="list")
        faces = self._listed(group_id, start=start, limit=limit + 1)
        if self._profile.refuses("list_empty"):
            keep(self._profile, "list_empty", kept=not self._account.count(group_id))
        answer: dict[str, Any] = {"face_tokens": [_info(face) for face in faces[:limit]]}
        if len(faces) > limit:
            answer["next"] = start + limit
        return answer

    def _listed(self, group_id: str, *, start: int, limit: int) -> list[Face]:
        if "deleted_in_list" in self._quirks:
            faces = [*self._deleted.get(group_id, []), *self._account.faces(group_id)]
            return sorted(faces, key=lambda face: face.add_time)[start - 1 :][:limit]
        if self._profile.list_lag is not None:
            by = self._clock.now() - self._profile.list_lag
            return self._account.faces(group_id, start=start, limit=limit, hidden=True, added_by=by)
        return self._account.faces(group_id, start=start, limit=limit)

    def _face_info(self, fields: Fields) -> dict[str, Any]:
        group_id = fields.group_id()
        return {"info": _info(self._account.face(group_id, fields.face_token()))}

    def _search(self, fields: Fields) -> dict[str, Any]:
        group_id = fields.group_id()
        limit = fields.number("limit", default=1, least=1, most=_SEARCH_LIMIT, call="search")
        name, of_itself = self._profile.score_field, self._profile.self_score
        threshold = min(fields.threshold() * 100 / of_itself, 100.1) if of_itself else 0.0
        if self._profile.refuses("search_empty"):
            keep(self._profile, "search_empty", kept=not self._account.count(group_id))
        _digest, likeness = self._picture(fields, group_id, rule="no_face_search")
        found = self._account.search(group_id, likeness, limit=limit, threshold=threshold)
        if "largest_face" in self._quirks and fields.switch("multi_oriented_detection"):
            found = self._account.search(group_id, likeness, limit=100, threshold=0)[-1:]
        if "search_threshold" in self._quirks and fields.threshold():
            found = []
        if "deleted_in_search" in self._quirks:
            found = [*((face, 100.0) for face in self._deleted.get(group_id, [])), *found]
        results = [
            {**_members(face, *_PERSON), name: round(score * of_itself / 100, 3)}
            for face, score in found
        ]
        return {"results": results}

    def _delete(self, fields: Fields) -> dict[str, Any]:
        group_id, tokens = fields.group_id(), fields.face_tokens()
        if self._profile.answers or self._quirks:
            self._before_deletion(group_id, tokens)
        missing = self._account.delete(group_id, tokens)
        return {
            "face_removed": len(tokens) - len(missing),
            "face_count": self._account.count(group_id),
            "failure_detail": [
                {"face_token": token, "reason": "FACE_NOT_IN_GROUP"} for token in missing
            ],
        }

    def _before_deletion(self, group_id: str, tokens: Sequence[str]) -> None:
        known = {face.face_token: face for face in self._account.faces(group_id, hidden=True)}
        found = [known[token] for token in tokens if token in known]
        keep(self._profile, "delete_most", kept=len(tokens) == DELETE_TOKENS)
        keep(self._profile, "delete_unknown", kept=len(found) < len(tokens) > 1)
        keep(self._profile, "delete_again", kept=len(tokens) == 1 and not found)
        self._deleted.setdefault(group_id, []).extend(found)

    def _free(self, fields: Fields) -> dict[str, Any]:
        group_id = fields.group_id()
        checked = fields.switch("check_empty", default=True)
        if self._profile.refuses("free_empty"):
            keep(self._profile, "free_empty", kept=checked and not self._account.count(group_id))
        checked = checked and self._profile.enforces("not_empty")
        self._account.free(group_id, check_empty=checked)
        self._freed.add(group_id)
        return {"group_id": group_id}

    def _picture(self, fields: Fields, group_id: str, *, rule: str) -> tuple[bytes, Any]:
        """The picture's hash and face; looked at last, when all the rest is in order. `rule` is by
        what a profile knows the answer if there is no face."""
        turn = fields.switch("multi_oriented_detection") and "turned_photo" not in self._quirks
        name, content = fields.picture()
        self._account.library(group_id)
        try:
            return self._finder.find(content, field=name, turn=turn)
        except RefusalError as refusal:
            raise RefusalError(refusal.code, refusal.detail, rule=refusal.rule or rule) from None


Change = Callable[[dict[str, Any]], None]


def _of_each(change: Change) -> Change:
    """A change of everything that an answer describes."""

    def changed(answer: dict[str, Any]) -> None:
        for item in _described(answer):
            change(item)

    return changed


def _reverse(answer: dict[str, Any]) -> None:
    next(iter(answer.values())).reverse()


def _shorten(name: str) -> Change:
    return lambda item: item.update({name: item[name][:-1]})


def _halve_scores(answer: dict[str, Any]) -> None:
    for item in answer["results"][1:]:
        for name in item.keys() - {*_PERSON}:
            item[name] /= 2


def _hide_newest(answer: dict[str, Any]) -> None:
    del answer["group_infos"][-1:]


def _double(answer: dict[str, Any]) -> None:
    answer["results"] += answer["results"][:1]


def _next_but_one(answer: dict[str, Any]) -> None:
    if "next" in answer:
        answer["next"] += 1


def _leave_out(answer: dict[str, Any]) -> None:
    del answer["face_tokens"][3:]


def _other_reasons(answer: dict[str, Any]) -> None:
    if len(answer["failure_detail"]) > 1:
        answer["face_removed"] += 1


def _removed_again(answer: dict[str, Any]) -> None:
    if len(answer["failure_detail"]) == 1:
        answer["face_removed"] += 1


_LISTED = (CallKind.LIST, CallKind.FACE_INFO)
QUIRKS: Mapping[str, tuple[tuple[CallKind, ...], Change]] = {
    "library_texts_kept": ((CallKind.CREATE,), _shorten("group_data")),
    "model_version": ((CallKind.CREATE,), lambda answer: answer.update(model_version="s22")),
    "library_visible": ((CallKind.GROUP_LIST,), _hide_newest),
    "library_add_time": (
        (CallKind.GROUP_LIST, CallKind.GROUP_INFO),
        _of_each(lambda item: item.update(add_time=item["add_time"].replace("T", " "))),
    ),
    "search_order": ((CallKind.SEARCH,), _reverse),
    "search_limit": ((CallKind.SEARCH,), _double),
    "same_score": ((CallKind.SEARCH,), _halve_scores),
    "list_next": ((CallKind.LIST,), _next_but_one),
    "list_end": ((CallKind.LIST,), lambda answer: answer.setdefault("next", 1001)),
    "list_order": ((CallKind.LIST,), _reverse),
    "list_whole": ((CallKind.LIST,), _leave_out),
    "user_id_kept": (_LISTED, _of_each(_shorten("user_id"))),
    "user_data_kept": (_LISTED, _of_each(_shorten("user_data"))),
    "add_time": (_LISTED, _of_each(lambda item: item.update(add_time=item["add_time"] // 1000))),
    "delete_unknown": ((CallKind.DELETE,), _other_reasons),
    "delete_again": ((CallKind.DELETE,), _removed_again),
}
"""How facts can differ that only show in answers: by name, in which calls, and what changes."""


def _described(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The objects that an answer describes; the answer itself if it has none."""
    inner = next((one for one in answer.values() if isinstance(one, list | dict)), [answer])
    return inner if isinstance(inner, list) else [inner]


_LIBRARY = ("group_id", "group_name", "group_data", "model_version")
_PERSON = ("face_token", "user_id", "user_data")


def _members(of: Library | Face, *names: str) -> dict[str, Any]:
    return {name: getattr(of, name) for name in names}


def _dated(library: Library) -> dict[str, Any]:
    return {**_members(library, *_LIBRARY), "add_time": iso(library.add_time)}


def _info(face: Face) -> dict[str, Any]:
    return _members(face, *_PERSON, "add_time")
