"""What looks prove: the rules as cases, and a state machine against a model of the service."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from enroll.model import Answer, FaceRecord, FileTimes, Photo, Status, Verdict
from enroll.runner import reconcile_rules, transitions
from enroll.runner.reconcile_rules import (
    ABSENT_LOOKS,
    RECHECK_LOOKS,
    REFUSED_LOOKS,
    Absent,
    Adopt,
    Calibration,
    Doubt,
    LookAgain,
    Undecided,
    first_look_at,
    judge,
    look_refused,
    only_face,
)
from enroll.runner.transitions import InDoubt, Outcome, Policy, Send
from enroll.session.library_faces import SCORE_SLACK, Findings, SeenFace

CONTROL = Calibration(score=97.0, lag=0.0)
FACE = FaceRecord(
    face_id=1, user_id="u1", sha256=b"\1" * 32, status=Status.IN_DOUBT, expires=100.0, attempts=1
)
DOUBT = Doubt(face=FACE)
SENT_AGAIN = replace(FACE, status=Status.ENROLLED, face_token="own", recheck=True)
RECHECK = Doubt(face=SENT_AGAIN, recheck=True)


NOW = 1000.0
"""Long after everything has been applied and become visible."""


def look(
    *seen: SeenFace,
    doubt: Doubt = DOUBT,
    at: float = NOW,
    cut_at: float | None = None,
    own: bool | None = None,
    calibration: Calibration = CONTROL,
) -> reconcile_rules.Settlement:
    findings = Findings(seen, cut_at, at=at, own=own)
    return judge(doubt, findings, calibration=calibration, settle_after=10.0)


def test_the_first_look_waits_for_the_signatures_expiry_and_the_settling_time() -> None:
    # And for the second by which the service's clock may be misjudged.
    assert first_look_at(DOUBT, calibration=None, settle_after=10.0) == 111.0
    assert first_look_at(DOUBT, calibration=CONTROL, settle_after=10.0) == 111.0


def test_the_first_look_waits_for_as_long_as_the_service_shows_new_faces_late() -> None:
    slow = Calibration(97.0, lag=30.0)
    assert first_look_at(DOUBT, calibration=slow, settle_after=10.0) == 141.0
    # A face that is shown itself proves that what came before it is visible.
    again = Doubt(face=SENT_AGAIN, recheck=True)
    assert first_look_at(again, calibration=slow, settle_after=10.0) == 111.0


@pytest.mark.parametrize(("at", "absent"), [(140.9, 0), (141.0, 1), (170.0, 1)])
def test_a_look_before_new_faces_are_visible_proves_no_absence(at: float, absent: int) -> None:
    found = look(at=at, calibration=Calibration(97.0, lag=30.0))
    assert isinstance(found, LookAgain)
    assert found.doubt.absent == absent
    if not absent:
        assert found.after == pytest.approx(141.0 - at)


def test_a_face_that_is_seen_early_is_adopted_all_the_same() -> None:
    assert look(SeenFace("t1", 5, 97.0), at=0.0, calibration=Calibration(97.0, lag=30.0)) == Adopt(
        "t1", ()
    )


def test_a_stranger_with_the_controls_score_is_adopted() -> None:
    assert look(SeenFace("t1", 5, 97.0)) == Adopt("t1", ())
    assert look(SeenFace("t1", 5, 97.0 - SCORE_SLACK / 2)) == Adopt("t1", ())


def test_a_stranger_that_is_less_like_the_photo_is_another_photo_of_the_person() -> None:
    assert isinstance(look(SeenFace("t1", 5, 96.0)), LookAgain)


def test_of_several_the_oldest_is_adopted_and_the_rest_are_surplus() -> None:
    found = look(
        SeenFace("young", 9, 97.0), SeenFace("old", 5, 97.0), SeenFace("no time", None, 97.0)
    )
    assert found == Adopt("old", ("young", "no time"))


def test_a_face_is_absent_only_when_it_was_looked_for_twice_with_a_longer_wait_between() -> None:
    first = look()
    assert isinstance(first, LookAgain)
    assert first.after > 10.0
    assert first.doubt.absent == 1
    assert look(doubt=first.doubt) == Absent()
    assert ABSENT_LOOKS == 2


def test_a_service_that_shows_new_faces_late_is_given_longer() -> None:
    slow = look(calibration=Calibration(97.0, lag=30.0))
    quick = look()
    assert isinstance(slow, LookAgain)
    assert isinstance(quick, LookAgain)
    assert slow.after >= quick.after + 60.0


def test_a_search_that_is_full_of_likenesses_proves_nothing() -> None:
    assert isinstance(look(cut_at=97.0), Undecided)
    assert isinstance(look(cut_at=80.0), LookAgain)


def test_a_full_search_that_shows_the_face_is_enough() -> None:
    assert look(SeenFace("t1", 5, 97.0), cut_at=97.0) == Adopt("t1", ())


def test_a_look_that_is_refused_is_no_look_and_is_repeated_only_a_few_times() -> None:
    doubt = replace(DOUBT, absent=1)
    for _ in range(REFUSED_LOOKS - 1):
        again = look_refused(doubt, "why")
        assert isinstance(again, LookAgain)
        assert again.doubt.absent == 1
        assert again.after <= 60.0
        doubt = again.doubt
    assert look_refused(doubt, "why") == Undecided("why")


def test_a_look_that_works_forgets_those_that_were_refused() -> None:
    again = look(doubt=replace(DOUBT, refused=2))
    assert isinstance(again, LookAgain)
    assert again.doubt.refused == 0


def test_one_look_that_shows_a_face_sent_again_is_enough_to_find_no_copy() -> None:
    assert look(doubt=RECHECK, own=True) == Absent()


def test_one_look_is_enough_where_the_face_has_no_token_to_be_shown() -> None:
    failed = replace(FACE, status=Status.FAILED)
    assert look(doubt=Doubt(face=failed, recheck=True), own=None) == Absent()


def test_a_look_that_does_not_show_a_face_sent_again_is_repeated_and_never_settles_it() -> None:
    doubt, waits = RECHECK, []
    for _ in range(RECHECK_LOOKS - 1):
        again = look(doubt=doubt, own=False)
        assert isinstance(again, LookAgain)
        waits.append(again.after)
        doubt = again.doubt
    assert waits == sorted(waits)
    assert 60.0 < sum(waits) < 180.0
    assert isinstance(look(doubt=doubt, own=False), Undecided)
    assert look(doubt=doubt, own=True) == Absent()


def test_a_copy_that_is_seen_before_the_face_itself_is_reported_and_others_are_looked_for() -> None:
    found = look(SeenFace("copy", 5, 97.0), doubt=RECHECK, own=False)
    assert isinstance(found, Adopt)
    assert isinstance(found.then, LookAgain)
    assert (found.face_token, found.then.doubt.recheck) == ("copy", True)
    assert look(SeenFace("copy", 5, 97.0), doubt=RECHECK, own=True) == Adopt("copy", ())


@pytest.mark.parametrize(("attempts", "only"), [(0, True), (1, False)])
def test_a_listed_stranger_is_the_face_only_if_no_other_photo_was_ever_sent(
    attempts: int, only: bool
) -> None:
    other = FaceRecord(
        face_id=2, user_id="u1", sha256=b"\2" * 32, status=Status.PENDING, attempts=attempts
    )
    stranger = SeenFace("t1", 5, None)
    assert only_face([stranger], [FACE, other], FACE) is only
    assert not only_face([], [FACE], FACE)
    assert not only_face([stranger, SeenFace("t2", 6, None)], [FACE], FACE)


EXPIRES, SETTLE_AFTER, LAG = 5.0, 10.0, 30.0
"""Seconds from a call's end to its signature's expiry, and what the service takes at most."""

SLOW = Calibration(97.0, lag=LAG)
LATE = st.sampled_from([0.0, EXPIRES, EXPIRES + SETTLE_AFTER])


@dataclass
class Copy:
    """A face that the service holds: of which photo, and from when on a look shows it."""

    token: str
    content: int
    visible_at: float = field(compare=False)


class SettledService(RuleBasedStateMachine):
    """One person with several photos; answers are lost, runs die, and looks settle it.

    The service applies a call at the latest SETTLE_AFTER after its signature's expiry or never, as
    the promise says, and shows a face LAG seconds later. A look shows each of the person's
    faces with a score: the calibration's for the same photo, less for another.
    """

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[int, FaceRecord] = {}
        self.doubts: dict[int, Doubt] = {}
        self.library: list[Copy] = []
        self.surplus: set[str] = set()
        self.under_way: int | None = None
        self.previous_expires: float | None = None
        self.run = 1
        self.now = 0.0

    @rule(seconds=st.sampled_from([1.0, 10.0, 50.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(content=st.integers(1, 3))
    @precondition(lambda self: self.under_way is None)
    def a_row_comes_up(self, content: int) -> None:
        photo = Photo(
            times=FileTimes(1, 2, 3),
            sha256=bytes([content]) * 32,
            content=b"",
            media_type="image/jpeg",
        )
        known = list(self.records.values())
        step = transitions.first_step(known, photo, policy=Policy(attempts=5), run=self.run)
        if isinstance(step, Send):
            face = step.face or FaceRecord(
                face_id=content, user_id="u", sha256=photo.sha256, status=Status.PENDING
            )
            self.previous_expires = face.expires
            self.records[content] = transitions.mark_sending(
                face, at=1, run=self.run, expires=self.now + EXPIRES
            )
            self.under_way = content

    def applies(self, content: int, *, after: float) -> None:
        token = f"{len(self.library) + 1:032x}"
        self.library.append(Copy(token, content, self.now + after + LAG))

    @rule(applied=st.booleans(), lost=st.booleans(), after=LATE)
    @precondition(lambda self: self.under_way is not None)
    def the_call_ends(self, applied: bool, lost: bool, after: float) -> None:
        assert self.under_way is not None
        content, self.under_way = self.under_way, None
        token = f"{len(self.library) + 1:032x}"
        if applied:
            self.applies(content, after=after if lost else 0.0)
        if lost:
            expires = self.now + EXPIRES
            told = Answer(verdict=Verdict.UNKNOWN, code="TIMEOUT", expires=expires)
        elif applied:
            told = Answer(verdict=Verdict.APPLIED, face_token=token)
        else:
            told = Answer(verdict=Verdict.FAILED, code="ODD")
        face = self.records[content]
        step = transitions.after(
            face,
            told,
            at=2,
            policy=Policy(attempts=5),
            tries=1,
            previous_expires=self.previous_expires,
        )
        self.records[content] = step.face
        assert isinstance(step, InDoubt if lost else Outcome)
        if lost:
            self.doubts[content] = Doubt(face=step.face)

    @rule(applied=st.booleans(), after=LATE)
    @precondition(lambda self: self.under_way is not None)
    def the_process_is_killed(self, applied: bool, after: float) -> None:
        assert self.under_way is not None
        content, self.under_way = self.under_way, None
        if applied:
            self.applies(content, after=after)
        self.run += 1
        self.records[content] = replace(
            self.records[content], status=Status.IN_DOUBT, expires=self.now + EXPIRES
        )
        self.doubts = {
            number: Doubt(face=record) for number, record in self.records.items() if record.open
        }

    @rule(data=st.data(), fails=st.booleans())
    @precondition(lambda self: self.doubts and self.under_way is None)
    def a_look_is_taken(self, data: st.DataObject, fails: bool) -> None:
        content = data.draw(st.sampled_from(sorted(self.doubts)))
        doubt = self.doubts[content]
        if fails:
            settlement: reconcile_rules.Settlement = look_refused(doubt, "refused")
        else:
            settlement = judge(
                doubt, self.findings(content), calibration=SLOW, settle_after=SETTLE_AFTER
            )
        if isinstance(settlement, LookAgain):
            self.doubts[content] = settlement.doubt
            return
        del self.doubts[content]
        face = doubt.face
        if isinstance(settlement, Adopt):
            self.surplus.update(settlement.surplus)
            face = replace(face, status=Status.ENROLLED, face_token=settlement.face_token)
        elif isinstance(settlement, Absent):
            face = replace(face, status=Status.PENDING)
        self.records[content] = face

    def findings(self, content: int) -> Findings:
        held = {record.face_token for record in self.records.values()} | self.surplus
        return Findings(
            tuple(
                SeenFace(copy.token, number, 97.0 if copy.content == content else 91.0)
                for number, copy in enumerate(self.library)
                if copy.token not in held and copy.visible_at <= self.now
            ),
            at=self.now,
        )

    @rule()
    @precondition(lambda self: self.under_way is None)
    def another_run_begins(self) -> None:
        self.run += 1
        self.doubts = {
            number: Doubt(face=record) for number, record in self.records.items() if record.open
        }

    @invariant()
    def no_photo_is_in_the_library_twice(self) -> None:
        contents = [copy.content for copy in self.library]
        assert len(contents) == len(set(contents)), contents

    @invariant()
    def every_token_is_of_its_own_photo(self) -> None:
        for content, record in self.records.items():
            if record.status is Status.ENROLLED:
                assert Copy(str(record.face_token), content, 0.0) in self.library

    @invariant()
    def what_the_library_holds_is_enrolled_or_open(self) -> None:
        for copy in self.library:
            record = self.records[copy.content]
            assert record.open or record.status is Status.ENROLLED


TestSettledService = SettledService.TestCase
TestSettledService.settings = hypothesis_settings(max_examples=150, stateful_step_count=30)
