"""What `enroll probe` checks: every fact about the service that enroll relies on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any

from enroll import clock
from enroll.commands.library import LONGEST_NAME
from enroll.commands.probe_calls import (
    ProbeCalls,
    RawCall,
    Signing,
    StoppedError,
    padded,
    probe_photo,
    resized,
    turned_pair,
)
from enroll.commands.probe_notes import SCORES, Notes, said
from enroll.commands.probe_rules import (
    DENIED,
    LONGEST_ID,
    LONGEST_TEXT,
    NARROW_SIDE,
    NO_TOKEN,
    OTHER,
    SIGNS,
    SMALLEST_SIDE,
    TEXT,
    TOO_LARGE,
    TOO_MANY_BYTES,
    USER,
    WRONG_SIZE,
    Photos,
    Rule,
    rules_of_calls,
    rules_of_pictures,
)
from enroll.errors import ServiceError
from enroll.expiry import DEFAULT_SETTLE_AFTER
from enroll.facesearch import candidates, deleted, face, faces, libraries, library, next_start
from enroll.facesearch.answers import CREDENTIAL_CODES
from enroll.model import Answer, CallKind, Photo, SendAs, Verdict
from enroll.session.deletions import DELETE_PAGE, NOT_THERE
from enroll.session.library_faces import NO_FACE_FOUND, NO_SUCH_FACE, SCORE_SLACK, SEARCH_THRESHOLD
from enroll.settings import DEFAULT_MAX_BYTES, DEFAULT_MAX_SIDE

BURST = 9
"""Faces that are added at the same time, if as many calls are left."""
AFTER_BURST = 5
"""Calls that follow the burst, before the library is removed."""
LOOKS = (0.0, 2.0, 7.0, 51.0)
"""Seconds before each look for a new face, in search and in list."""
LONGEST_WAIT = sum(LOOKS)
NEVER_SHOWN = 2 * LONGEST_WAIT
"""The lag of a face that no look has shown, for a stand-in."""
LAG_SLACK_SECONDS = 2.0
"""How much longer than its lag to wait for a new face."""
CLOCK_SECONDS = 300.0
"""How far the time of a new face may be from now and still be milliseconds since 1970."""
LATER_SECONDS = 1.1
"""How much later a library is created again if times are in whole seconds, so that they differ."""

_LIBRARY = frozenset({"group_id", "group_name", "group_data", "model_version"})
_FACE = frozenset({"face_token", "user_id", "user_data", "add_time"})
_LIBRARY_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d")


class Prober:
    """Checks the facts one after the other in the library `group_id`, which it creates. `data` is
    by what a later probe knows the library."""

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

    def check(self) -> None:
        """Check everything but the removal. Raises ServiceError if the service is away."""
        parts = (
            self._library,
            self._empty,
            self._people,
            self._broken,
            self._burst,
            self._deletion,
        )
        try:
            for part in parts:
                part()
        except StoppedError:
            self.notes.unchecked("all", "all other facts", "the probe ended early")

    def finish(self) -> None:
        """Note what concerns all calls."""
        observed, calls = self.notes.observed, self._calls
        may_lack = {*CREDENTIAL_CODES, "API_NOT_FOUND", "HTTP_413", "HTTP_429"}
        bare = sorted(code or "success" for code in calls.bare if code not in may_lack)
        observed.bare = bare
        seen = f"missing after {', '.join(bare)}" if bare else "in every answer"
        self.notes.judge("request_id", "request_id and time_used", seen, holds=not bare)
        offset = calls.connection.service.clock.offset
        seen = (
            f"missing in {calls.undated}" if calls.undated else f"{offset:+.0f} s from this clock"
        )
        self.notes.judge(
            "date", "the service's time in every answer", seen, holds=not calls.undated
        )

    # The library

    def _library(self) -> None:
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
        before = _info(info)
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
        times = [f"{one.get('add_time', 'none')}" for one in (*mine, _info(info)) if one]
        words = "the former time" if former in times else " and ".join(dict.fromkeys(times))
        self.notes.judge(
            "library_add_time",
            "ISO 8601, the same in both calls, another for a later library",
            words or "none",
            holds=len(set(times)) == 1
            and former not in times
            and _LIBRARY_TIME.match(times[0]) is not None,
        )

    def _empty(self) -> None:
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

    # Faces

    def _people(self) -> None:
        first = RawCall(
            kind=CallKind.ADD,
            fields={"user_id": USER, "user_data": TEXT, "multi_oriented_detection": "1"},
            photo=self._photo,
        )
        plain = {**first.fields, "user_id": "probe1"}, {**first.fields, "user_data": "text"}
        text = f"{LONGEST_TEXT} characters, not bytes"
        sent, added = self._either(
            first,
            {
                "user_id_accepted": ("letters, digits, -%@#&_", {"fields": plain[0]}),
                "user_data_accepted": (text, {"fields": plain[1]}),
            },
        )
        if not self._added:
            self.notes.unchecked("faces", "all about faces", "no face could be added")
            return
        self.notes.fields("add", added, {"group_id", "face_token"})
        self._visibility(added.face_token, clock.monotonic())
        self._user_id = sent.fields["user_id"]
        user = {"user_id": self._user_id}
        second = replace(first, fields={**user, "user_data": SIGNS}, send_as=SendAs.IMAGE)
        marks = "blanks, line breaks, quotes, emoji"
        _, again = self._either(
            second,
            {
                "image_accepted": ("the photo as Base64 in `image`", {"send_as": SendAs.FILE}),
                "user_data_signs": (marks, {"fields": user}),
            },
        )
        if again.verdict is Verdict.APPLIED:
            same = again.face_token == added.face_token
            words = "one face" if same else "two faces"
            rule = "the same photo added twice is two faces"
            self.notes.judge("added_twice", rule, words, holds=not same)
        large = probe_photo(padded(self._photos.other, DEFAULT_MAX_BYTES))
        third = RawCall(kind=CallKind.ADD, fields={"user_id": OTHER}, photo=large)
        size, small = f"{DEFAULT_MAX_BYTES:,} bytes", probe_photo(self._photos.other)
        sent, _ = self._either(
            third,
            {
                "user_id_longest": (f"{LONGEST_ID} bytes", {"fields": {"user_id": "P"}}),
                "bytes_accepted": (size, {"photo": small}),
            },
        )
        if self.notes.observed.answers.get("bytes_accepted", (0, ""))[0] == TOO_LARGE:
            self.notes.observed.refused_bytes = DEFAULT_MAX_BYTES
        elif sent.photo is large:
            self.notes.observed.accepted_bytes = DEFAULT_MAX_BYTES
        self._pair()
        self._page()

    def _visibility(self, token: str, sent: float) -> None:
        """Look for a new face in search and list until both show it."""
        lags: dict[CallKind, float] = {}
        took: dict[CallKind, float] = {}
        waited = 0.0
        for pause in LOOKS:
            self._calls.wait(pause)
            waited += pause
            for kind in (CallKind.SEARCH, CallKind.LIST):
                if kind in lags:
                    continue
                began = clock.monotonic() - sent
                searched = kind is CallKind.SEARCH
                photo = self._photo if searched else None
                answer = self._make(kind, {"limit": "100"}, photo=photo)
                if token in _tokens(answer):
                    lags[kind], took[kind] = waited, began if pause else 0.0
                    if searched:
                        self._own_score(answer, token)
            if len(lags) == 2:
                break
        observed = self.notes.observed
        observed.search_lag = lags.get(CallKind.SEARCH, NEVER_SHOWN)
        observed.list_lag = lags.get(CallKind.LIST, NEVER_SHOWN)
        latest = max(took.values(), default=0.0)
        self._lag = latest + LAG_SLACK_SECONDS if latest else 0.0
        for kind in (CallKind.SEARCH, CallKind.LIST):
            after = took.get(kind)
            words = f"not within {LONGEST_WAIT:g} s" if after is None else _soon(after)
            documented = f"not documented; expected within {DEFAULT_SETTLE_AFTER:g} s"
            holds = after is not None and after <= DEFAULT_SETTLE_AFTER
            self.notes.judge(f"visible_in_{kind}", documented, words, holds=holds)

    def _own_score(self, answer: Answer, token: str) -> None:
        """Learn the score's name, and what a photo scores for its own face."""
        items = _items(answer)
        self.notes.fields("search", answer, _FACE - {"add_time"}, items, reading=candidates)
        numbers = [
            name
            for name, value in items[0].items()
            if type(value) in (int, float) and name != "add_time"
        ]
        known = [name for name in numbers if name in SCORES]
        names = " and ".join(numbers) or "none"
        self.notes.judge("score_field", " or ".join(SCORES), names, holds=bool(known))
        if not numbers:
            return
        self._score_field = self.notes.observed.score_field = (known or numbers)[0]
        first = items[0]
        score = float(first[self._score_field])
        self._score = self.notes.observed.self_score = score
        holds = SEARCH_THRESHOLD <= score <= 100 and first["face_token"] == token
        documented = f"{SEARCH_THRESHOLD:g} to 100 of itself"
        self.notes.judge("self_score", documented, f"{score:g}", holds=holds)

    def _pair(self) -> None:
        """Search once with two faces of different sizes, which lie on their side."""
        pair = probe_photo(turned_pair(self._photos.one, self._photos.small))
        fields = {
            "limit": "1",
            "threshold": f"{SEARCH_THRESHOLD:g}",
            "multi_oriented_detection": "1",
        }
        answer = self._make(CallKind.SEARCH, fields, photo=pair)
        turned = answer.verdict is Verdict.APPLIED
        rule = "with multi_oriented_detection a turned photo has a face"
        self.notes.judge("turned_photo", rule, said(answer), holds=turned)
        found = _tokens(answer)
        mine = [token for token, call in self._added.items() if call.photo is self._photo]
        if not turned:
            return
        if found or (self._score or 0.0) >= SEARCH_THRESHOLD:
            words = "returned" if found else "not returned"
            rule = f"threshold={SEARCH_THRESHOLD:g} returns the photo's own face"
            self.notes.judge("search_threshold", rule, words, holds=bool(found))
        if found:
            words = f"{len(found)}"
            rule = "limit=1 returns one face"
            self.notes.judge("search_limit", rule, words, holds=len(found) == 1)
            largest = found[0] in mine
            words = "the largest" if largest else "another"
            rule = "of several faces the largest is used"
            self.notes.judge("largest_face", rule, words, holds=largest)

    def _page(self) -> None:
        """Look at the first page of the library, and at one face."""
        self._calls.wait(self._lag)
        tokens = list(self._added)
        size = max(len(tokens) - 1, 1)
        page = self._make(CallKind.LIST, {"start": "1", "limit": f"{size}"})
        items = _items(page)
        self.notes.fields("list", page, _FACE, items, reading=faces)
        info = self._make(CallKind.FACE_INFO, {"face_token": tokens[0]})
        self.notes.fields("face_info", info, _FACE, [_info(info)], reading=face)
        try:
            found, following = faces(page), next_start(page)
        except ServiceError:
            words = "enroll cannot read list"
            self.notes.unchecked("list_pages", "order, texts and times of faces", words)
            return
        if len(tokens) > 1:
            documented = f"next={size + 1} after {size} of {len(tokens)} faces"
            holds = following == size + 1
            self.notes.judge("list_next", documented, f"next={following}", holds=holds)
        times = [one.add_time for one in found]
        oldest = [one.face_token for one in found] == tokens[:size] and times == sorted(times)
        words = "oldest first" if oldest else "otherwise"
        self.notes.judge("list_order", "oldest first", words, holds=oldest)
        sent = [self._added.get(one.face_token) for one in found]
        for name in ("user_id", "user_data"):
            kept = all(
                call is not None and getattr(one, name) == call.fields.get(name, "")
                for one, call in zip(found, sent, strict=True)
            )
            words = "they do" if kept else "not"
            self.notes.judge(f"{name}_kept", "come back word for word", words, holds=kept)
        now = self._calls.now()
        near = bool(times) and all(abs(time / 1000 - now) < CLOCK_SECONDS for time in times)
        words = "milliseconds" if near else f"{(*times, 'no face')[0]}"
        self.notes.judge("add_time", "milliseconds since 1970", words, holds=near)

    # Broken rules

    def _broken(self) -> None:
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

    # The end

    def _burst(self) -> None:
        count = min(BURST, self._calls.left - AFTER_BURST)
        documented = "beyond the account's limit 403 CONCURRENCY_LIMIT_EXCEEDED"
        if count < 2:
            self.notes.unchecked("parallel", documented, "too few calls were left")
            return
        fields = {"group_id": self._group_id, "user_id": self._user_id}
        call = RawCall(kind=CallKind.ADD, fields=fields, photo=self._photo)
        answers = self._calls.at_once(call, count)
        for answer in answers:
            self._remember(call, answer)
        served = (Verdict.APPLIED, Verdict.REJECTED)
        refused = [one for one in answers if one.verdict not in served]
        if not refused:
            self.notes.judge("parallel", documented, f"none of {count} refused", holds=True)
            return
        self.notes.observed.parallel = max(count - len(refused), 1)
        kinds = " and ".join(dict.fromkeys(map(said, refused)))
        waits = {one.retry_after for one in refused} - {None}
        later = f", Retry-After {max(filter(None, waits), default=0):g} s" if waits else ""
        words = f"{len(refused)} of {count} refused: {kinds}{later}"
        holds = all(one.verdict is Verdict.REFUSED for one in refused)
        self.notes.judge("parallel", documented, words, holds=holds)
        first = refused[0]
        if first.code != "CONCURRENCY_LIMIT_EXCEEDED" and first.http_status >= 400:
            self.notes.observed.answers["parallel"] = first.http_status, first.message

    def _deletion(self) -> None:
        if not self._added:
            unknown = RawCall(kind=CallKind.FACE_INFO, fields={"face_token": NO_TOKEN})
            self._rule(Rule(name="unknown_token", call=unknown, codes=[NO_SUCH_FACE]))
            return
        self._calls.wait(self._lag)
        gone, *left = self._added
        self._delete_most(gone)
        self._rest(gone, left)
        info = RawCall(kind=CallKind.FACE_INFO, fields={"face_token": gone})
        self._rule(Rule(name="unknown_token", call=info, codes=[NO_SUCH_FACE]))
        self._search_rest(gone)
        if self._calls.left > 0:
            again = self._make(CallKind.DELETE, {"face_tokens": gone})
            self._judge_deletion("delete_again", again, removed=0, unknown=1)

    def _delete_most(self, gone: str) -> None:
        """Delete one face and try to delete as many as a call can name, which do not exist."""
        unknown = [f"{number:032x}" for number in range(DELETE_PAGE - 1)]
        answer = self._make(CallKind.DELETE, {"face_tokens": ",".join((gone, *unknown))})
        most = answer
        if answer.verdict is not Verdict.APPLIED:
            unknown = unknown[:1]
            answer = self._make(CallKind.DELETE, {"face_tokens": f"{gone},{NO_TOKEN}"})
        if most is not answer and most.code == answer.code:
            words = "refused as with two tokens"
            self.notes.unchecked("delete_most", f"accepted: {DELETE_PAGE} tokens", words)
        else:
            self.notes.accepted("delete_most", f"{DELETE_PAGE} tokens", most)
        self._judge_deletion("delete_unknown", answer, removed=1, unknown=len(unknown))
        if answer.verdict is not Verdict.APPLIED:
            answer = self._make(CallKind.DELETE, {"face_tokens": gone})
        expected = {"face_removed", "face_count", "failure_detail"}
        self.notes.fields("delete", answer, expected, reading=deleted)

    def _judge_deletion(self, name: str, answer: Answer, *, removed: int, unknown: int) -> None:
        documented = f"face_removed {removed}, {unknown} {NOT_THERE}"
        words = said(answer)
        if answer.verdict is Verdict.APPLIED:
            reasons = [f"{one.get('reason')}" for one in _items(answer)]
            kinds = ", ".join(f"{reasons.count(one)} {one}" for one in dict.fromkeys(reasons))
            words = f"face_removed {answer.payload.get('face_removed')}, {kinds or 'no reason'}"
        elif answer.http_status:
            self.notes.observed.answers[name] = answer.http_status, answer.message
        self.notes.judge(name, documented, words, holds=words == documented)

    def _rest(self, gone: str, left: Sequence[str]) -> None:
        """List all but the first of the faces that are left, on one page."""
        page = self._make(CallKind.LIST, {"start": "2", "limit": "1000"})
        tokens = _tokens(page)
        there = gone in tokens or left[:1] == tokens[:1]
        words = "still listed" if there else "gone"
        self.notes.judge("deleted_in_list", "gone at once", words, holds=not there)
        shown, expected = {*tokens} - {gone, *left[:1]}, {*left[1:]}
        more = len(shown - expected)
        words = f"{more} added" if more else "none added"
        self.notes.judge("refused_not_added", "no refused call adds a face", words, holds=not more)
        missing, twice = len(expected - shown), len(tokens) - len({*tokens})
        words = f"{missing} missing, {twice} twice" if missing or twice else "they are"
        rule = "all faces from start to limit are listed once"
        self.notes.judge("list_whole", rule, words, holds=not missing and not twice)
        following = page.payload.get("next")
        words = f"next={following}"
        self.notes.judge("list_end", "no next on the last page", words, holds=following is None)

    def _search_rest(self, gone: str) -> None:
        """Search with the photo of several faces, of which one was deleted."""
        answer = self._make(CallKind.SEARCH, {"limit": "100"}, photo=self._photo)
        found = _tokens(answer)
        words = "still found" if gone in found else "gone"
        self.notes.judge("deleted_in_search", "gone at once", words, holds=gone not in found)
        if self._score is None:
            return
        numbers = [one.get(self._score_field) for one in _items(answer)]
        scores = {
            token: float(number)
            for token, number in zip(found, numbers, strict=True)
            if isinstance(number, int | float)
        }
        mine = [token for token, call in self._added.items() if call.photo is self._photo]
        copies = [scores.get(token) for token in mine if token != gone]
        near = [one for one in copies if one is not None and abs(one - self._score) <= SCORE_SLACK]
        words = f"{len(near)} of {len(copies)}"
        rule = f"each copy of a photo has the same score, to {SCORE_SLACK:g}"
        self.notes.judge("same_score", rule, words, holds=len(near) == len(copies))
        values = list(scores.values())
        ordered = values == sorted(values, reverse=True)
        words = "best first" if ordered else "otherwise"
        self.notes.judge("search_order", "best first", words, holds=ordered)

    # What all have in common

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


def _soon(seconds: float) -> str:
    return f"after {seconds:.1f} s" if seconds else "at once"


def _info(answer: Answer) -> Mapping[str, Any]:
    info = answer.payload.get("info")
    return info if isinstance(info, dict) else {}


def _items(answer: Answer) -> list[dict[str, Any]]:
    """The objects in the list of an answer of `list`, `search` or `delete`."""
    lists = [answer.payload.get(name) for name in ("results", "face_tokens", "failure_detail")]
    items = next((one for one in lists if isinstance(one, list)), [])
    return [one for one in items if isinstance(one, dict)]


def _tokens(answer: Answer) -> list[str]:
    return [f"{one.get('face_token')}" for one in _items(answer)]
