"""What `enroll probe` checks: every fact about the service that enroll relies on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from enroll import clock
from enroll.commands.probe_calls import (
    RawCall,
    StoppedError,
    padded,
    probe_photo,
    turned_pair,
)
from enroll.commands.probe_library import LibraryProber, info_of, items_of, tokens_of
from enroll.commands.probe_notes import SCORES, said
from enroll.commands.probe_rules import (
    CHARACTERS,
    LONGEST_ID,
    LONGEST_TEXT,
    NO_TOKEN,
    OTHER,
    TEXT,
    TOO_LARGE,
    USER,
    Rule,
)
from enroll.errors import ServiceError
from enroll.expiry import DEFAULT_SETTLE_AFTER
from enroll.facesearch import candidates, deleted, face, faces, next_start
from enroll.facesearch.answers import CREDENTIAL_CODES
from enroll.model import Answer, CallKind, SendAs, Verdict
from enroll.session.deletions import DELETE_PAGE, NOT_THERE
from enroll.session.library_faces import NO_SUCH_FACE, SCORE_SLACK, SEARCH_THRESHOLD
from enroll.settings import DEFAULT_MAX_BYTES

BURST = 9
"""Faces that are added at the same time, if as many calls are left."""
AFTER_BURST = 5
"""Calls that follow the burst, before the library is removed."""
LOOKS = (0.0, 2.0, 9.0, 60.0)
"""How many seconds after a face was added it is looked for, in search and in list."""
LONGEST_WAIT = LOOKS[-1]
NEVER_SHOWN = 2 * LONGEST_WAIT
"""The lag of a face that no look has shown, for a stand-in."""
LAG_SLACK_SECONDS = 2.0
"""How much longer than its lag to wait for a new face."""
CLOCK_SECONDS = 300.0
"""How far the time of a new face may be from now and still be milliseconds since 1970."""

_FACE = frozenset({"face_token", "user_id", "user_data", "add_time"})


class Prober(LibraryProber):
    """Checks the facts one after the other."""

    def check(self) -> None:
        """Check everything but the removal. Raises ServiceError if the service is away."""
        parts = (
            self.check_library,
            self.check_empty,
            self._people,
            self.check_rules,
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
        second = replace(first, fields={**user, "user_data": CHARACTERS}, send_as=SendAs.IMAGE)
        marks = "blanks, line breaks, quotes, emoji"
        _, again = self._either(
            second,
            {
                "image_accepted": ("the photo as Base64 in `image`", {"send_as": SendAs.FILE}),
                "user_data_characters": (marks, {"fields": user}),
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
        for seconds in LOOKS:
            self._calls.wait(sent + seconds - clock.monotonic())
            for kind in (CallKind.SEARCH, CallKind.LIST):
                if kind in lags:
                    continue
                began = clock.monotonic() - sent
                searched = kind is CallKind.SEARCH
                photo = self._photo if searched else None
                answer = self._make(kind, {"limit": "100"}, photo=photo)
                if token in tokens_of(answer):
                    lags[kind], took[kind] = seconds, began if seconds else 0.0
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
        items = items_of(answer)
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
        found = tokens_of(answer)
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
        items = items_of(page)
        self.notes.fields("list", page, _FACE, items, reading=faces)
        info = self._make(CallKind.FACE_INFO, {"face_token": tokens[0]})
        self.notes.fields("face_info", info, _FACE, [info_of(info)], reading=face)
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
            reasons = [f"{one.get('reason')}" for one in items_of(answer)]
            kinds = ", ".join(f"{reasons.count(one)} {one}" for one in dict.fromkeys(reasons))
            words = f"face_removed {answer.payload.get('face_removed')}, {kinds or 'no reason'}"
        elif answer.http_status:
            self.notes.observed.answers[name] = answer.http_status, answer.message
        self.notes.judge(name, documented, words, holds=words == documented)

    def _rest(self, gone: str, left: Sequence[str]) -> None:
        """List all but the first of the faces that are left, on one page."""
        page = self._make(CallKind.LIST, {"start": "2", "limit": "1000"})
        tokens = tokens_of(page)
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
        found = tokens_of(answer)
        words = "still found" if gone in found else "gone"
        self.notes.judge("deleted_in_search", "gone at once", words, holds=gone not in found)
        if self._score is None:
            return
        numbers = [one.get(self._score_field) for one in items_of(answer)]
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


def _soon(seconds: float) -> str:
    return f"after {seconds:.1f} s" if seconds else "at once"
