"""What `enroll probe` checks of its library while it is empty, the rules that it breaks, and how it
makes each of its calls."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from enroll.commands.library import LONGEST_NAME
from enroll.commands.probe_calls import (
    ProbeCalls,
    RawCall,
    Signing,
    StoppedError,
    probe_photo,
    resized,
)
from enroll.commands.probe_notes import Notes, said
from enroll.commands.probe_rules import (
    DENIED,
    LONGEST_ID,
    LONGEST_TEXT,
    NARROW_SIDE,
    SMALLEST_SIDE,
    TOO_MANY_BYTES,
    USER,
    WRONG_SIZE,
    Photos,
    Rule,
    rules_of_calls,
    rules_of_pictures,
)
from enroll.facesearch import libraries, library
from enroll.model import Answer, CallKind, Photo, Verdict
from enroll.session.library_faces import NO_FACE_FOUND
from enroll.settings import DEFAULT_MAX_SIDE

LATER_SECONDS = 1.1
"""How much later a library is created again if times are in whole seconds, so that they differ."""

_LIBRARY = frozenset({"group_id", "group_name", "group_data", "model_version"})
_LIBRARY_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d")


class LibraryProber:
    """Checks the library `group_id`, which it creates, and the rules of calls that change nothing.
    `data` is by what a later probe knows the library."""

    def __init__(self, calls: ProbeCalls, group_id: str, photos: Photos, *, data: str) -> None:
        self.notes = Notes()
        self.libraries: list[str] = []
        """The libraries that may exist now."""
        self._calls = calls
        self._group_id = group_id
        self._photos = photos
        self._photo = probe_photo(photos.one)
        self._data = data
        self._user_id = USER
        self._added: dict[str, RawCall] = {}
        """The calls that added faces, by token, in their order."""
        self._lag = 0.0
        """How many seconds to wait before looking for faces that were just added."""
        self._score_field = ""
        self._score: float | None = None

    def check_library(self) -> None:
        """Create, describe, delete, and create it again. Raises ServiceError if that fails."""
        name, data = self._group_id.ljust(LONGEST_NAME, "é"), f"{self._data} ".ljust(127, ".") + "é"
        short = {"group_id": self._group_id, "group_name": "enroll probe", "group_data": self._data}
        wrong = {**short, "group_id": f"{self._group_id[:-1]}+"}
        refused = self._rule(
            Rule(name="group_id_characters", call=RawCall(kind=CallKind.CREATE, fields=wrong))
        )
        if refused.verdict is Verdict.APPLIED:
            self._free(wrong["group_id"])
        longest = RawCall(
            kind=CallKind.CREATE, fields={**short, "group_name": name, "group_data": data}
        )
        texts = f"{LONGEST_ID} bytes of group_id, {LONGEST_NAME} and {LONGEST_TEXT} characters"
        create, created = self._either(longest, {"library_texts": (texts, {"fields": short})})
        if created.verdict is not Verdict.APPLIED:
            raise self._calls.connection.failed(created)
        self.notes.fields("create", created, _LIBRARY)
        kept = all(created.payload.get(name, sent) == sent for name, sent in create.fields.items())
        words = "they are" if kept else "not"
        self.notes.judge("library_texts_kept", "come back word for word", words, holds=kept)
        model = created.payload.get("model_version")
        self.notes.judge("model_version", "s21 by default", f"{model}", holds=model == "s21")
        once = RawCall(kind=CallKind.GROUP_INFO, fields={}, signing=Signing.SINGLE)
        info = self._single(once)
        before = info_of(info)
        self.notes.fields("group_info", info, {*_LIBRARY, "add_time"}, [before], reading=library)
        later = self._again(create, f"{before.get('add_time')}")
        self._listed(before if later else {})
        twice = replace(create, fields={**create.fields, "group_id": self._group_id})
        self._rule(Rule(name="created_twice", call=twice, any_code=True))

    def _single(self, call: RawCall) -> Answer:
        """Make a call whose signature is good for one call, and try to make it again."""
        documented = f"b=0 is good for one call, then 403 {DENIED}"
        info = self._call(call)
        if info.http_status >= HTTPStatus.BAD_REQUEST:
            self.notes.judge("signature_single", documented, said(info), holds=False)
            self.notes.observed.answers["signature_single"] = info.http_status, info.message
            return self._call(replace(call, signing=Signing.USUAL))
        again = self._call(replace(call, signing=Signing.AS_BEFORE))
        spent = again.code == DENIED
        words = f"accepted, then {said(again)}"
        self.notes.judge("signature_single", documented, words, holds=spent)
        if not spent:
            accepted = again.verdict is Verdict.APPLIED
            seen = (200, "") if accepted else (again.http_status, again.message)
            self.notes.observed.answers["signature_spent"] = seen
        return info

    def _again(self, create: RawCall, former: str) -> bool:
        """Delete the library, which is empty, and create it again; whether it is another now.
        `former` is its time."""
        emptied = self._free(self._group_id, check_empty="1")
        self.notes.accepted("free_empty", "an empty library is deleted", emptied)
        if emptied.http_status >= HTTPStatus.BAD_REQUEST:
            return False
        self.notes.fields("free", emptied, {"group_id"})
        if "." not in former:
            self._calls.wait(LATER_SECONDS)
        again = self._call(create)
        self.notes.accepted("created_again", "the name of a deleted library", again)
        if again.verdict is Verdict.APPLIED:
            return True
        last = "0" if self._group_id[-1] != "0" else "1"
        self._group_id = f"{self._group_id[:-1]}{last}"
        other = self._call(replace(create, fields={**create.fields, "group_id": self._group_id}))
        if other.verdict is not Verdict.APPLIED:
            raise self._calls.connection.failed(other)
        return True

    def _listed(self, before: Mapping[str, Any]) -> None:
        """Look at the library, which is a new one, with one signature for two calls."""
        listing = RawCall(kind=CallKind.GROUP_LIST, fields={}, signing=Signing.LONGEST)
        listed = self._call(listing)
        self.notes.accepted("signature_longest", "2 s ahead, and good for a day", listed)
        if listed.http_status >= HTTPStatus.BAD_REQUEST:
            listed = self._call(replace(listing, signing=Signing.USUAL))
        info = self._call(RawCall(kind=CallKind.GROUP_INFO, fields={}, signing=Signing.AS_BEFORE))
        self.notes.accepted("signature_reused", "a signature for two calls", info)
        infos = listed.payload.get("group_infos", [])
        mine = [
            one for one in infos if isinstance(one, dict) and one.get("group_id") == self._group_id
        ]
        words = "it is" if mine else "it is not"
        visible = "a new library is in group_list at once"
        self.notes.judge("library_visible", visible, words, holds=bool(mine))
        if mine:
            expected = {*_LIBRARY, "add_time"}
            self.notes.fields("group_list", listed, expected, mine, reading=libraries)
        former = before.get("add_time")
        times = [f"{one.get('add_time', 'none')}" for one in (*mine, info_of(info)) if one]
        words = "the former time" if former in times else " and ".join(dict.fromkeys(times))
        self.notes.judge(
            "library_add_time",
            "ISO 8601, the same in both calls, another for a later library",
            words or "none",
            holds=len(set(times)) == 1
            and former not in times
            and _LIBRARY_TIME.match(times[0]) is not None,
        )

    def check_empty(self) -> None:
        """List and search the empty library."""
        listed = self._make(CallKind.LIST, {})
        self._nothing("list_empty", listed, "face_tokens")
        found = self._make(CallKind.SEARCH, {"limit": "100"}, photo=self._photo)
        self._nothing("search_empty", found, "results")

    def _nothing(self, name: str, answer: Answer, field: str) -> None:
        items = answer.payload.get(field)
        if items:
            words = f"{len(items)} faces"
            self.notes.judge(name, "accepted: no face", words, holds=False)
        else:
            self.notes.accepted(name, "no face", answer)

    # Broken rules

    def check_rules(self) -> None:
        """Break each rule."""
        for rule in rules_of_calls(self._photos, self._user_id):
            self._rule(rule)
        self._far_page()
        self._sizes()
        for rule in rules_of_pictures(self._photos, self._user_id):
            answer = self._rule(rule)
            _, _, side = rule.name.partition("side_")
            taken = answer.verdict is Verdict.APPLIED or answer.code == NO_FACE_FOUND
            observed = self.notes.observed
            if side:
                sides = observed.accepted_sides if taken else observed.refused_sides
                sides.append(int(side))
            elif rule.name == "bytes_refused":
                if taken:
                    observed.accepted_bytes = TOO_MANY_BYTES
                else:
                    observed.refused_bytes = observed.refused_bytes or TOO_MANY_BYTES
        if self._added:
            kept = RawCall(kind=CallKind.FREE, fields={"check_empty": "1"})
            answer = self._rule(Rule(name="not_empty", call=kept, codes=["NOT_EMPTY"]))
            if answer.verdict is Verdict.APPLIED:  # the library is gone
                raise StoppedError

    def _far_page(self) -> None:
        answer = self._make(CallKind.LIST, {"start": "1001", "limit": "1"})
        refused = answer.code == "BAD_ARGUMENTS"
        if refused:
            self.notes.observed.max_start = 1000
        holds = refused or answer.verdict is Verdict.APPLIED
        documented = "start up to 1000; beyond it not documented"
        self.notes.judge("list_start_1001", documented, said(answer), holds=holds)

    def _sizes(self) -> None:
        """Send pictures of nobody that have allowed sizes: a BMP to search with, a PNG to add."""
        user = {"user_id": self._user_id}
        self._sized(
            Rule(
                name="no_face_search",
                call=RawCall(kind=CallKind.SEARCH, fields={}),
                codes=[NO_FACE_FOUND],
            ),
            form="BMP",
            size=(SMALLEST_SIDE, SMALLEST_SIDE),
        )
        self._sized(
            Rule(
                name="no_face",
                call=RawCall(kind=CallKind.ADD, fields=user),
                codes=[NO_FACE_FOUND],
            ),
            form="PNG",
            size=(DEFAULT_MAX_SIDE, NARROW_SIDE),
        )

    def _sized(self, rule: Rule, *, form: str, size: tuple[int, int]) -> None:
        """Send a picture of nobody; if it is not refused for that, find out what the reason is."""
        observed, accepted = self.notes.observed, (NO_FACE_FOUND, WRONG_SIZE, "")
        answer = self._pictured(rule, size, form)
        refused = None
        if answer.code not in accepted:
            plain = self._pictured(rule, size)
            if plain.code != answer.code:
                refused, answer = answer, plain
        wrong_size = answer if answer.code == WRONG_SIZE else None
        if wrong_size is not None:
            answer = self._pictured(rule, (200, 200), "JPEG" if refused else form)
        words = said(refused) if refused else "accepted"
        self.notes.judge(form.lower(), f"accepted: a {form}", words, holds=refused is None)
        if refused is not None:
            observed.answers[form.lower()] = refused.http_status, refused.message
        side = size[0]
        words = said(wrong_size) if wrong_size else "accepted"
        documented = f"accepted: {side:,} pixels a side"
        self.notes.judge(f"side_{side}", documented, words, holds=wrong_size is None)
        (observed.refused_sides if wrong_size else observed.accepted_sides).append(side)
        self.notes.refused(rule, answer, face_found=True)

    def _pictured(self, rule: Rule, size: tuple[int, int], form: str = "JPEG") -> Answer:
        content = resized(self._photos.nobody, size, form)
        photo = probe_photo(content, f"image/{form.lower()}")
        return self._call(replace(rule.call, photo=photo))

    # How all calls are made

    def _make(
        self, kind: CallKind, fields: Mapping[str, str], *, photo: Photo | None = None
    ) -> Answer:
        return self._call(RawCall(kind=kind, fields=fields, photo=photo))

    def _call(self, call: RawCall) -> Answer:
        """Make a call in the probe's library, unless it names one, and remember what it made."""
        group_id = call.fields.get("group_id", self._group_id)
        fields = {"group_id": group_id, **call.fields}
        if call.kind is CallKind.GROUP_LIST:
            fields = {}
        new = call.kind is CallKind.CREATE and group_id not in self.libraries
        if new:
            self.libraries.append(group_id)
        answer = self._calls.make(replace(call, fields=fields))
        refused = answer.verdict in (Verdict.REJECTED, Verdict.FAILED, Verdict.FATAL)
        freed = call.kind is CallKind.FREE and answer.verdict is Verdict.APPLIED
        if freed or (new and refused):
            self.libraries.remove(group_id)
        self._remember(call, answer)
        return answer

    def _remember(self, call: RawCall, answer: Answer) -> None:
        if call.kind is CallKind.ADD and answer.verdict is Verdict.APPLIED:
            self._added.setdefault(answer.face_token, call)

    def _free(self, group_id: str, *, check_empty: str = "0") -> Answer:
        fields = {"group_id": group_id, "check_empty": check_empty}
        return self._make(CallKind.FREE, fields)

    def _rule(self, rule: Rule) -> Answer:
        answer = self._call(rule.call)
        self.notes.refused(rule, answer, face_found=bool(self._added))
        return answer

    def _either(
        self, call: RawCall, facts: Mapping[str, tuple[str, Mapping[str, Any]]]
    ) -> tuple[RawCall, Answer]:
        """Make a call that should be accepted, for several facts. If it is refused, find out which
        of them is the reason: each comes in words, and with what to change to do without it."""
        answer = self._call(call)
        refused = answer.verdict in (Verdict.REJECTED, Verdict.FAILED)
        blamed: dict[str, Answer] = {}
        if refused and answer.code != NO_FACE_FOUND:
            for name, (_, changes) in facts.items():
                other = replace(call, **changes)
                again = self._call(other)
                if again.verdict is Verdict.APPLIED or again.code == NO_FACE_FOUND:
                    blamed = {name: answer}
                    call, answer = other, again
                    break
        for name, (words, _) in facts.items():
            self.notes.accepted(name, words, blamed.get(name, answer))
        return call, answer


def info_of(answer: Answer) -> Mapping[str, Any]:
    info = answer.payload.get("info")
    return info if isinstance(info, dict) else {}


def items_of(answer: Answer) -> list[dict[str, Any]]:
    """The objects in the list of an answer of `list`, `search` or `delete`."""
    lists = [answer.payload.get(name) for name in ("results", "face_tokens", "failure_detail")]
    items = next((one for one in lists if isinstance(one, list)), [])
    return [one for one in items if isinstance(one, dict)]


def tokens_of(answer: Answer) -> list[str]:
    return [f"{one.get('face_token')}" for one in items_of(answer)]
