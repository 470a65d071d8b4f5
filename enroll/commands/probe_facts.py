"""What `enroll probe` checks: every fact about the service that enroll relies on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from enroll import clock
from enroll.commands.probe_calls import (
    ProbeCalls,
    RawCall,
    StoppedError,
    padded,
    probe_photo,
    resized,
)
from enroll.commands.probe_notes import SCORES, Notes, Observed, Outcome, said
from enroll.commands.probe_rules import (
    LONGEST_ID,
    LONGEST_TEXT,
    NO_TOKEN,
    OTHER,
    TEXT,
    USER,
    Photos,
    Rule,
    argument_rules,
    number_rules,
    picture_rules,
    signature_rules,
)
from enroll.errors import ServiceError
from enroll.expiry import DEFAULT_SETTLE_AFTER
from enroll.facesearch import (
    candidates,
    deleted,
    face,
    faces,
    libraries,
    library,
    next_start,
)
from enroll.facesearch.answers import CREDENTIAL_CODES
from enroll.model import Answer, CallKind, LibraryFace, Photo, SendAs, Verdict
from enroll.session.library_faces import NO_FACE_FOUND, SEARCH_THRESHOLD
from enroll.settings import DEFAULT_MAX_BYTES, DEFAULT_MAX_SIDE

SMALLEST_SIDE = 48
"""Pixels, as the vendor's other products have it; `DEFAULT_MAX_SIDE` is the largest."""
DOCUMENTED_REQUEST_BYTES = 2 * 1024 * 1024
BURST = 16
"""Calls that are made at the same time, if the budget still has that many."""
LOOKS = (0.0, 1.0, 2.0, 5.0, 12.0, 40.0)
"""Seconds before each look for a new face, in search and in list."""
LONGEST_WAIT = sum(LOOKS)
CLOCK_SECONDS = 300.0
"""How far the time of a new face may be from now and still be milliseconds since 1970."""

_LIBRARY = frozenset({"group_id", "group_name", "group_data", "model_version"})
_FACE = frozenset({"face_token", "user_id", "user_data", "add_time"})


class Prober:
    """Checks the facts one after the other in the library `group_id`, which it creates."""

    def __init__(self, calls: ProbeCalls, group_id: str, photos: Photos, *, data: str) -> None:
        self.notes = Notes()
        self.observed = Observed()
        self.created = False
        """Whether the library may exist."""
        self._calls = calls
        self._group_id = group_id
        self._photos = photos
        self._data = data
        self._added: list[str] = []
        """The user ids of the faces that were added, oldest first."""
        self._faces: list[LibraryFace] = []
        self._face_found = False

    def check(self) -> None:
        """Check everything but the removal. Raises ServiceError if the service is away."""
        parts = (self._library, self._people, self._pages, self._rules, self._deletion, self._burst)
        try:
            for part in parts:
                part()
        except StoppedError:
            self.notes.note("all", "every fact", "the probe ended early", Outcome.UNCHECKED)

    def removed(self, answer: Answer) -> None:
        """Take in the answer to the call that removed the library, and what concerns all calls."""
        self.notes.fields("free", answer, {"group_id"})
        bare = {code or "success": n for code, n in self._calls.bare.items()}
        for code in (*CREDENTIAL_CODES, "API_NOT_FOUND", "HTTP_413", "HTTP_429"):
            bare.pop(code, None)
        seen = ", ".join(f"missing after {code}" for code in bare) or "in every answer"
        self.notes.judge("request_id", "request_id and time_used", seen, holds=not bare)

    # The library

    def _library(self) -> None:
        fields = {
            "group_id": self._group_id,
            "group_name": self._group_id[:60],
            "group_data": self._data,
        }
        self.created = True
        created = self._make(CallKind.CREATE, fields)
        if created.verdict is not Verdict.APPLIED:
            raise self._calls.connection.failed(created)
        self.notes.fields("create", created, _LIBRARY)
        listed = self._make(CallKind.GROUP_LIST, {}, library=False)
        infos = listed.payload.get("group_infos", [])
        own = [one for one in infos if isinstance(one, dict) and self._is_own(one)]
        self.notes.fields("group_list", listed, {*_LIBRARY, "add_time"}, own[:1], reading=libraries)
        self.notes.judge(
            "library_visible",
            "a new library is in group_list at once",
            "it is" if own else "it is not",
            holds=bool(own),
        )
        info = self._make(CallKind.GROUP_INFO, {})
        items = [info.payload.get("info", {})]
        self.notes.fields("group_info", info, {*_LIBRARY, "add_time"}, items, reading=library)
        times = [str(one.get("add_time", "")) for one in (*own, *items) if isinstance(one, dict)]
        iso = all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d", time) for time in times)
        self.notes.judge(
            "library_add_time",
            "ISO 8601, the same in group_list and group_info",
            " and ".join(dict.fromkeys(times)),
            holds=iso and len(set(times)) == 1,
        )

    def _is_own(self, info: Mapping[str, Any]) -> bool:
        return info.get("group_id") == self._group_id

    # Faces

    def _people(self) -> None:
        one = probe_photo(self._photos.one)
        fields = {"user_id": USER, "user_data": TEXT, "multi_oriented_detection": "1"}
        added = self._make(CallKind.ADD, fields, photo=one)
        sent = clock.monotonic()
        self._face_found = added.verdict is Verdict.APPLIED
        self.notes.accepted("user_id_accepted", "letters, digits, -%@#&_", added)
        self.notes.accepted("user_data_accepted", f"{LONGEST_TEXT} characters, not bytes", added)
        if not self._face_found:
            return
        self._added.append(USER)
        self.notes.fields("add", added, {"group_id", "face_token"})
        self._visibility(added.face_token, one, sent)
        again = self._make(
            CallKind.ADD, {"user_id": USER, "user_data": TEXT}, photo=one, send_as=SendAs.IMAGE
        )
        self.notes.accepted("image_accepted", "the photo as Base64 in `image`", again)
        if again.verdict is Verdict.APPLIED:
            self._added.append(USER)
            self.notes.judge(
                "added_twice",
                "the same photo added twice is two faces",
                "one face" if again.face_token == added.face_token else "two faces",
                holds=again.face_token != added.face_token,
            )
        large = probe_photo(padded(self._photos.other, DEFAULT_MAX_BYTES))
        other = self._make(CallKind.ADD, {"user_id": OTHER}, photo=large)
        self.notes.accepted("user_id_longest", f"{LONGEST_ID} bytes", other)
        self._sized(other, "bytes_accepted", f"{DEFAULT_MAX_BYTES:,} bytes", DEFAULT_MAX_BYTES)
        if other.verdict is Verdict.APPLIED:
            self._added.append(OTHER)
        self._score(one, {added.face_token, again.face_token})

    def _visibility(self, token: str, photo: Photo, sent: float) -> None:
        """Look for a new face in search and list until both show it."""
        shown: dict[CallKind, float] = {}
        for pause in LOOKS:
            self._calls.wait(pause)
            for kind in (CallKind.SEARCH, CallKind.LIST):
                if kind not in shown:
                    began = clock.monotonic() - sent
                    searched = kind is CallKind.SEARCH
                    answer = self._make(kind, {"limit": "100"}, photo=photo if searched else None)
                    items = answer.payload.get("results" if searched else "face_tokens")
                    if token in values_of(items, "face_token"):
                        shown[kind] = began if pause else 0.0
            if len(shown) == 2:
                break
        for kind in (CallKind.SEARCH, CallKind.LIST):
            after = shown.get(kind)
            self.notes.judge(
                f"visible_in_{kind}",
                f"not documented; expected within {DEFAULT_SETTLE_AFTER:g} s",
                f"not within {LONGEST_WAIT:g} s" if after is None else _soon(after),
                holds=after is not None and after <= DEFAULT_SETTLE_AFTER,
            )
        self.observed.visible_after = max([*shown.values(), *([LONGEST_WAIT] * (2 - len(shown)))])

    def _score(self, photo: Photo, own: set[str]) -> None:
        answer = self._make(CallKind.SEARCH, {"limit": "100", "threshold": "50"}, photo=photo)
        results = answer.payload.get("results")
        items = [one for one in results if isinstance(one, dict)] if results else []
        self.notes.fields("search", answer, _FACE - {"add_time"}, items, reading=candidates)
        numbers = [
            name
            for name, value in (items[0].items() if items else ())
            if type(value) in (int, float) and name != "add_time"
        ]
        known = [name for name in numbers if name in SCORES]
        names = " and ".join(numbers) or "none"
        self.notes.judge("score_field", " or ".join(SCORES), names, holds=bool(known))
        if not numbers:
            words = "no score was returned"
            self.notes.note("self_score", "0 to 100", words, Outcome.UNCHECKED)
            return
        name = (known or numbers)[0]
        self.observed.score_field = name
        scores: list[Any] = [one.get(name) for one in items]
        mine = [one.get(name) for one in items if one.get("face_token") in own]
        best = mine[0] if mine else None
        good = isinstance(best, int | float) and SEARCH_THRESHOLD <= best <= 100
        self.observed.self_score = float(best) if isinstance(best, int | float) else None
        self.notes.judge(
            "self_score",
            "0 to 100, the photo's own face first",
            f"{best} of itself" if good else f"{best}",
            holds=good and best == scores[0],
        )
        ordered = scores == sorted(scores, reverse=True)
        self.notes.judge(
            "search_order", "best first", "as documented" if ordered else "otherwise", holds=ordered
        )
        few = self._make(CallKind.SEARCH, {"limit": "1"}, photo=photo)
        count = len(values_of(few.payload.get("results"), "face_token"))
        self.notes.judge("search_limit", "limit=1 returns one face", f"{count}", holds=count == 1)

    # Pages

    def _pages(self) -> None:
        count = len(self._added)
        if count < 2:
            words = "no two faces could be added"
            self.notes.note("faces", "all about faces", words, Outcome.UNCHECKED)
            return
        self._calls.wait(min(2 * (self.observed.visible_after or 0.0), LONGEST_WAIT))
        page = {"limit": str(count - 1)}
        first = self._make(CallKind.LIST, {"start": "1", **page})
        items = first.payload.get("face_tokens", [])
        self.notes.fields("list", first, _FACE, items, reading=faces)
        try:
            found, following = faces(first), next_start(first)
        except ServiceError as error:
            self.notes.judge("list_next", "the start of the next page", str(error), holds=False)
            return
        documented = f"next={count} after {count - 1} of {count} faces"
        self.notes.judge("list_next", documented, f"next={following}", holds=following == count)
        second = self._make(CallKind.LIST, {"start": str(following or count), **page})
        found += faces(second) if second.verdict is Verdict.APPLIED else []
        last = second.payload.get("next")
        self.notes.judge("list_end", "no next on the last page", f"next={last}", holds=last is None)
        self._faces = found
        ids, times = [one.user_id for one in found], [one.add_time for one in found]
        oldest = times == sorted(times) and ids == self._added
        self.notes.judge(
            "list_order", "oldest first", "oldest first" if oldest else "otherwise", holds=oldest
        )
        text = [one.user_data for one in found if one.user_id == USER]
        same = bool(text) and set(text) == {TEXT}
        self.notes.judge("user_data_kept", "word for word", "it is" if same else "not", holds=same)
        near = bool(times) and all(
            abs(time / 1000 - self._calls.now()) < CLOCK_SECONDS for time in times
        )
        shown = f"{times[0]}" if times else "no face"
        self.notes.judge("add_time", "milliseconds since 1970", shown, holds=near)
        token = {"face_token": found[0].face_token if found else NO_TOKEN}
        info = self._make(CallKind.FACE_INFO, token)
        self.notes.fields("face_info", info, _FACE, [info.payload.get("info")], reading=face)

    # Broken rules

    def _rules(self) -> None:
        for rule in signature_rules(self._group_id):
            self._rule(rule)
        photo = probe_photo(self._photos.one)
        for rule in (*argument_rules(photo), *number_rules()):
            self._rule(rule)
        self._far_page()
        self._pictures()

    def _rule(self, rule: Rule) -> Answer:
        answer = self._call(rule.call)
        documented = f"{rule.status} {rule.codes[0]}"
        self.observe_error(answer, rule)
        if answer.code == NO_FACE_FOUND and rule.with_face and not self._face_found:
            words = "NO_FACE_FOUND came first"
            self.notes.note(rule.name, documented, words, Outcome.UNCHECKED)
            return answer
        right = answer.code in rule.codes and answer.http_status == rule.status
        self.notes.judge_call(rule.name, documented, answer, holds=right)
        return answer

    def observe_error(self, answer: Answer, rule: Rule) -> None:
        """Remember how the service refuses what the stand-in would refuse otherwise."""
        instead = rule.instead or rule.codes[0]
        error = answer.message if answer.http_status else ""
        accepted = answer.verdict is Verdict.APPLIED or answer.code == NO_FACE_FOUND
        if accepted or not error or answer.code.startswith("HTTP_"):
            return
        if answer.code != instead.partition(":")[0] or answer.http_status != rule.status:
            self.observed.errors[instead] = (answer.http_status, error)

    def _far_page(self) -> None:
        answer = self._make(CallKind.LIST, {"start": "1001", "limit": "1"})
        applied = answer.verdict is Verdict.APPLIED
        if answer.code == "BAD_ARGUMENTS":
            self.observed.max_start = 1000
        self.notes.judge(
            "list_start_1001",
            "start up to 1000; beyond it not documented",
            said(answer),
            holds=applied or answer.code == "BAD_ARGUMENTS",
        )

    def _pictures(self) -> None:
        nobody = self._photos.nobody
        small = self._side("side_48", SMALLEST_SIDE, (SMALLEST_SIDE, SMALLEST_SIDE))
        large = self._side("side_4096", DEFAULT_MAX_SIDE, (DEFAULT_MAX_SIDE, 512))
        if NO_FACE_FOUND in (small.code, large.code):
            seen = small if small.code == NO_FACE_FOUND else large
            self.notes.judge("no_face", f"400 {NO_FACE_FOUND}", said(seen), holds=True)
        else:
            fields = {"user_id": USER}
            call = RawCall(kind=CallKind.ADD, fields=fields, photo=probe_photo(nobody))
            self._rule(Rule(name="no_face", call=call, codes=[NO_FACE_FOUND]))
        for rule in picture_rules(self._photos):
            answer = self._rule(rule)
            side = 47 if rule.name == "side_47" else 4097
            if rule.name.startswith("side_"):
                refused = answer.code in rule.codes
                (self.observed.refused_sides if refused else self.observed.accepted_sides).append(
                    side
                )
        length = DOCUMENTED_REQUEST_BYTES + 4096
        photo = probe_photo(padded(self._photos.one, length))
        answer = self._call(RawCall(kind=CallKind.ADD, fields={"user_id": USER}, photo=photo))
        refused = answer.code in ("HTTP_413", "IMAGE_FILE_TOO_LARGE")
        documented = "413 Request Entity Too Large above 2 MB"
        self.notes.judge("bytes_refused", documented, said(answer), holds=refused)
        if answer.verdict is Verdict.APPLIED or answer.code == NO_FACE_FOUND:
            self.observed.accepted_bytes = length
        else:
            self.observed.refused_bytes = length

    def _side(self, name: str, side: int, size: tuple[int, int]) -> Answer:
        """Send a picture of nobody that has an allowed size."""
        photo = probe_photo(resized(self._photos.nobody, size))
        answer = self._call(RawCall(kind=CallKind.ADD, fields={"user_id": USER}, photo=photo))
        taken = answer.code == NO_FACE_FOUND or answer.verdict is Verdict.APPLIED
        self.notes.judge(name, f"{side} pixels a side are accepted", said(answer), holds=taken)
        (self.observed.accepted_sides if taken else self.observed.refused_sides).append(side)
        return answer

    # The end

    def _deletion(self) -> None:
        if not self._faces:
            return
        call = RawCall(kind=CallKind.FREE, fields={"check_empty": "1"})
        kept = self._rule(Rule(name="not_empty", call=call, codes=["NOT_EMPTY"]))
        if kept.verdict is Verdict.APPLIED:
            self.created = False
            raise StoppedError
        tokens = [one.face_token for one in self._faces]
        gone = tokens[0]
        answer = self._make(CallKind.DELETE, {"face_tokens": f"{gone},{NO_TOKEN}"})
        expected = {"face_removed", "face_count", "failure_detail"}
        self.notes.fields("delete", answer, expected, reading=deleted)
        detail = answer.payload.get("failure_detail")
        reasons = values_of(detail, "reason") if isinstance(detail, list) else []
        self.notes.judge(
            "delete_unknown",
            "face_removed 1, reason FACE_NOT_IN_GROUP for the other",
            f"face_removed {answer.payload.get('face_removed')}, {', '.join(reasons) or 'none'}",
            holds=answer.payload.get("face_removed") == 1 and reasons == ["FACE_NOT_IN_GROUP"],
        )
        listed = self._make(CallKind.LIST, {"limit": "1000"})
        there = gone in values_of(listed.payload.get("face_tokens"), "face_token")
        words = "still listed" if there else "gone from list"
        self.notes.judge("deleted_at_once", "gone from list at once", words, holds=not there)

    def _burst(self) -> None:
        count = min(BURST, self._calls.left)
        if count < 2:
            raise StoppedError
        info = RawCall(kind=CallKind.GROUP_INFO, fields={"group_id": self._group_id})
        answers = self._calls.at_once(info, count)
        refused = [one for one in answers if one.verdict is not Verdict.APPLIED]
        documented = "beyond the account's limit 403 CONCURRENCY_LIMIT_EXCEEDED"
        if not refused:
            self.notes.judge("parallel", documented, f"none of {count} refused", holds=True)
            return
        self.observed.parallel = count - len(refused)
        kinds = " and ".join(dict.fromkeys(map(said, refused)))
        self.notes.judge(
            "parallel",
            documented,
            f"{len(refused)} of {count} refused: {kinds}",
            holds=all(one.verdict is Verdict.REFUSED for one in refused),
        )
        error = refused[0].message
        if refused[0].code != "CONCURRENCY_LIMIT_EXCEEDED" and refused[0].http_status >= 400:
            limit = "CONCURRENCY_LIMIT_EXCEEDED"
            self.observed.errors[limit] = (refused[0].http_status, error)

    # What all have in common

    def _make(
        self,
        kind: CallKind,
        fields: Mapping[str, str],
        *,
        photo: Photo | None = None,
        send_as: SendAs = SendAs.FILE,
        library: bool = True,
    ) -> Answer:
        given = {"group_id": self._group_id, **fields} if library else fields
        once = kind in (CallKind.ADD, CallKind.CREATE, CallKind.DELETE)
        return self._calls.make(
            RawCall(kind=kind, fields=given, photo=photo, send_as=send_as, once=once)
        )

    def _call(self, call: RawCall) -> Answer:
        """Make a call in the probe's library, unless it names one."""
        fields = {"group_id": self._group_id, **call.fields}
        return self._calls.make(replace(call, fields=fields))

    def _sized(self, answer: Answer, name: str, words: str, length: int) -> None:
        self.notes.accepted(name, words, answer)
        if answer.verdict is Verdict.APPLIED:
            self.observed.accepted_bytes = length
        elif answer.code in ("HTTP_413", "IMAGE_FILE_TOO_LARGE"):
            self.observed.refused_bytes = length


def _soon(seconds: float) -> str:
    return f"after {seconds:.1f} s" if seconds else "at once"


def values_of(items: object, name: str) -> list[Any]:
    listed = items if isinstance(items, list) else []
    return [one.get(name) for one in listed if isinstance(one, dict)]
