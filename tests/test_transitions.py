"""The journey: each case of the table, and a state machine against a model of the service."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from enroll.model import (
    Answer,
    Candidate,
    FaceRecord,
    FileTimes,
    Photo,
    ScannedRow,
    Status,
    Verdict,
)
from enroll.runner import transitions
from enroll.runner.transitions import (
    Again,
    Hold,
    InDoubt,
    NoCall,
    Outcome,
    Policy,
    ReadAgain,
    Send,
    Stop,
)
from enroll.settings import CodeRule

TOKEN = "0123456789abcdef0123456789abcdef"


def photo(content: int = 1, *, sent: int | None = None) -> Photo:
    return Photo(
        times=FileTimes(1, 2, 3),
        sha256=bytes([content]) * 32,
        sent_sha256=None if sent is None else bytes([sent]) * 32,
        content=b"jpeg",
        media_type="image/jpeg",
    )


def face(status: Status, content: int = 1, *, number: int = 1, run: int = 1) -> FaceRecord:
    return FaceRecord(
        face_id=number, user_id="u1", sha256=bytes([content]) * 32, status=status, run=run
    )


def answer(verdict: Verdict, code: str = "", **more: object) -> Answer:
    return Answer(verdict=verdict, code=code, message=code, **more)  # type: ignore[arg-type]


def begin(*known: FaceRecord, of: Photo | None = None, policy: Policy | None = None) -> object:
    return transitions.first_step(
        list(known), of or photo(), policy=policy or Policy(attempts=5), run=2
    )


def sent(tries: int = 1) -> FaceRecord:
    intended = transitions.mark_sending(face(Status.PENDING), at=5, run=2, expires=9.0)
    return replace(intended, attempts=tries)


def after(given: Answer, policy: Policy | None = None, *, tries: int = 1) -> object:
    return transitions.after(
        sent(tries), given, at=9, policy=policy or Policy(attempts=5), tries=tries
    )


def test_a_photo_that_nobody_knows_is_sent_as_a_new_face() -> None:
    assert begin() == Send(None)


@pytest.mark.parametrize("status", [Status.PENDING, Status.FAILED, Status.REMOVED, Status.INVALID])
def test_a_face_that_is_not_in_the_library_is_sent_on_its_old_record(status: Status) -> None:
    known = face(status)
    assert begin(known) == Send(known)


def test_an_enrolled_face_is_never_sent_again() -> None:
    known = replace(face(Status.ENROLLED), face_token=TOKEN)
    assert begin(known) == NoCall(known)


def test_a_superseded_face_that_comes_back_is_enrolled_with_its_old_token() -> None:
    known = replace(face(Status.SUPERSEDED), face_token=TOKEN)
    assert begin(known) == NoCall(replace(known, status=Status.ENROLLED))


@pytest.mark.parametrize("status", [Status.IN_DOUBT, Status.SENDING])
def test_a_face_in_doubt_is_never_sent_by_itself(status: Status) -> None:
    known = face(status)
    assert begin(known) == NoCall(known)


@pytest.mark.parametrize("status", [Status.IN_DOUBT, Status.SENDING])
def test_another_photo_of_a_person_in_doubt_is_held(status: Status) -> None:
    behind = face(status, content=7)
    assert begin(behind) == Hold(behind)


def test_an_enrolled_face_is_known_even_while_another_of_its_person_is_in_doubt() -> None:
    known = replace(face(Status.ENROLLED), face_token=TOKEN)
    assert begin(face(Status.IN_DOUBT, content=7, number=2), known) == NoCall(known)


def test_a_file_of_which_only_metadata_changed_is_the_same_face() -> None:
    known = replace(face(Status.ENROLLED, content=1), sent_sha256=b"\x09" * 32, face_token=TOKEN)
    assert begin(known, of=photo(2, sent=9)) == NoCall(known)


def test_a_file_whose_own_bytes_were_sent_before_is_the_same_face() -> None:
    known = replace(face(Status.ENROLLED, content=1), face_token=TOKEN)
    assert begin(known, of=photo(2, sent=1)) == NoCall(known)


def test_a_rejected_photo_is_not_sent_again() -> None:
    known = replace(face(Status.REJECTED), code="NO_FACE_FOUND")
    assert begin(known) == NoCall(known)


def test_a_held_photo_is_not_sent_again_whatever_is_retried_or_has_changed_but_the_photo() -> None:
    held = replace(face(Status.HELD), code="LOOKALIKE", user_data="old")
    policy = Policy(attempts=5, retry_codes=frozenset({"LOOKALIKE"}))
    step = transitions.first_step([held], photo(), policy=policy, run=2, user_data="new")
    assert step == NoCall(held)
    assert begin(held, of=photo(2)) == Send(None)
    row = ScannedRow(line=1, user_id="u1", user_data="new", image="1.jpg", path="/1.jpg")
    due = [
        transitions.is_due(
            Candidate(
                row=row,
                status=Status.HELD,
                code="LOOKALIKE",
                changed=changed,
                user_data_changed=True,
            ),
            policy,
        )
        for changed in (False, True)
    ]
    assert due == [False, True]


def test_a_rejected_photo_is_sent_again_when_its_code_is_to_be_retried() -> None:
    known = replace(face(Status.REJECTED), code="BAD_ARGUMENTS")
    assert begin(
        known, policy=Policy(attempts=5, retry_codes=frozenset({"BAD_ARGUMENTS"}))
    ) == Send(known)


def test_a_faceless_photo_is_sent_again_once_turning_is_switched_on() -> None:
    known = replace(face(Status.REJECTED), code="NO_FACE_FOUND")
    turning = Policy(attempts=5, multi_oriented_detection=True)
    assert begin(known, policy=turning) == Send(known)
    turned = replace(known, multi_oriented_detection=True)
    assert begin(turned, policy=turning) == NoCall(turned)


@pytest.mark.parametrize("status", [Status.REJECTED, Status.FAILED])
def test_a_second_row_of_the_same_photo_does_not_repeat_this_runs_answer(status: Status) -> None:
    known = replace(face(status, run=2), code="X")
    retry = Policy(attempts=5, retry_codes=frozenset({"X"}))
    assert begin(known, policy=retry) == NoCall(known)


def test_an_intent_counts_an_attempt_and_keeps_the_first_attempts_time() -> None:
    first = transitions.mark_sending(face(Status.PENDING), at=5, run=2, expires=9.0)
    assert (first.status, first.attempts, first.first_attempt_at) == (Status.SENDING, 1, 5)
    second = transitions.mark_sending(
        replace(first, status=Status.FAILED), at=8, run=3, expires=9.0
    )
    assert (second.attempts, second.first_attempt_at, second.run) == (2, 5, 3)


def test_an_intent_for_a_removed_face_forgets_its_old_token() -> None:
    removed = replace(face(Status.REMOVED), face_token=TOKEN, enrolled_at=3)
    intended = transitions.mark_sending(removed, at=5, run=2, expires=9.0)
    assert intended.face_token is None
    assert intended.enrolled_at is None


@pytest.mark.parametrize(
    "verdict",
    [Verdict.APPLIED, Verdict.REJECTED, Verdict.FAILED, Verdict.REFUSED, Verdict.NOT_SENT],
)
def test_a_call_whose_end_is_known_leaves_the_expiry_of_the_last_doubtful_one(
    verdict: Verdict,
) -> None:
    given = answer(verdict, expires=60.0)
    step = transitions.after(
        sent(), given, at=9, policy=Policy(attempts=5), tries=1, previous_expires=7.0
    )
    assert step.face.expires == 7.0
    doubtful = transitions.after(
        sent(),
        answer(Verdict.UNKNOWN, expires=60.0),
        at=9,
        policy=Policy(attempts=5),
        tries=1,
        previous_expires=7.0,
    )
    assert doubtful.face.expires == 60.0


def test_a_withdrawn_intent_costs_no_attempt() -> None:
    withdrawn = transitions.cancel(sent(), previous_expires=None)
    assert (withdrawn.status, withdrawn.attempts) == (Status.PENDING, 0)
    assert withdrawn.expires is None
    assert withdrawn.first_attempt_at is None


def test_a_token_makes_a_face_enrolled() -> None:
    step = after(answer(Verdict.APPLIED, face_token=TOKEN, request_id="r"))
    assert isinstance(step, Outcome)
    assert step.face.status is Status.ENROLLED
    assert (step.face.face_token, step.face.enrolled_at, step.face.request_id) == (TOKEN, 9, "r")


def test_an_answer_that_proves_nothing_leaves_the_face_in_doubt() -> None:
    step = after(answer(Verdict.UNKNOWN, "TIMEOUT", expires=77.0))
    assert isinstance(step, InDoubt)
    assert (step.face.status, step.face.code, step.face.expires) == (
        Status.IN_DOUBT,
        "TIMEOUT",
        77.0,
    )


def test_a_photo_that_will_never_do_is_rejected() -> None:
    step = after(answer(Verdict.REJECTED, "NO_FACE_FOUND"))
    assert isinstance(step, Outcome)
    assert (step.face.status, step.face.code) == (Status.REJECTED, "NO_FACE_FOUND")


def test_an_error_that_nobody_knows_is_failed_and_due_again() -> None:
    step = after(answer(Verdict.FAILED, "ODD"))
    assert isinstance(step, Outcome)
    assert (step.face.status, step.face.code, step.face.attempts) == (Status.FAILED, "ODD", 1)


@pytest.mark.parametrize(
    ("verdict", "refused"),
    [(Verdict.REFUSED, True), (Verdict.BLOCKED, True), (Verdict.NOT_SENT, False)],
)
def test_a_call_that_was_not_let_in_spends_no_attempt(verdict: Verdict, refused: bool) -> None:
    step = after(answer(verdict, "X"))
    assert isinstance(step, Again)
    assert step.refused is refused
    assert (step.face.status, step.face.attempts) == (Status.PENDING, 0)


def test_a_fatal_answer_stops_the_run_and_leaves_the_row_due() -> None:
    fatal = answer(Verdict.FATAL, "AUTHORIZATION_ERROR")
    step = after(fatal)
    assert isinstance(step, Stop)
    assert step.answer == fatal
    assert (step.face.status, step.face.code) == (Status.PENDING, "AUTHORIZATION_ERROR")


def test_a_code_to_be_rejected_is_rejected() -> None:
    step = after(
        answer(Verdict.FAILED, "ODD"), Policy(attempts=5, on_code={"ODD": CodeRule.REJECT})
    )
    assert isinstance(step, Outcome)
    assert step.face.status is Status.REJECTED


def test_a_code_to_stop_at_stops_the_run() -> None:
    step = after(
        answer(Verdict.REJECTED, "ODD"), Policy(attempts=5, on_code={"ODD": CodeRule.STOP})
    )
    assert isinstance(step, Stop)


def test_a_code_to_be_retried_is_retried_until_its_attempts_are_spent() -> None:
    policy = Policy(attempts=3, on_code={"ODD": CodeRule.RETRY})
    again = after(answer(Verdict.FAILED, "ODD"), policy, tries=2)
    assert isinstance(again, Again)
    assert (again.refused, again.face.attempts) == (False, 2)
    last = after(answer(Verdict.FAILED, "ODD"), policy, tries=3)
    assert isinstance(last, Outcome)
    assert last.face.status is Status.FAILED


def test_no_rule_can_make_a_doubt_be_sent_again() -> None:
    policy = Policy(attempts=5, on_code={"HTTP_502": CodeRule.RETRY})
    step = after(answer(Verdict.UNKNOWN, "HTTP_502"), policy)
    assert isinstance(step, InDoubt)
    assert step.face.status is Status.IN_DOUBT


def candidate(status: Status, code: str = "", *, changed: bool = False) -> Candidate:
    row = ScannedRow(line=2, user_id="u1", user_data="", image="a.jpg", path="/a.jpg")
    return Candidate(row=row, status=status, code=code, changed=changed)


@pytest.mark.parametrize(
    ("status", "due"),
    [
        (Status.PENDING, True),
        (Status.FAILED, True),
        (Status.SUPERSEDED, True),
        (Status.REMOVED, True),
        (Status.REJECTED, False),
        (Status.INVALID, False),
        (Status.IN_DOUBT, True),
        (Status.SENDING, True),
    ],
)
def test_what_is_due_of_unchanged_rows(status: Status, due: bool) -> None:
    assert transitions.is_due(candidate(status), Policy(attempts=5)) is due


@pytest.mark.parametrize("status", list(Status))
def test_a_row_whose_photo_changed_is_always_looked_at(status: Status) -> None:
    assert transitions.is_due(candidate(status, changed=True), Policy(attempts=5))


def test_a_row_is_due_when_its_code_is_to_be_retried() -> None:
    policy = Policy(attempts=5, retry_codes=frozenset({"NO_FACE_FOUND"}))
    assert transitions.is_due(candidate(Status.REJECTED, "NO_FACE_FOUND"), policy)
    assert not transitions.is_due(candidate(Status.REJECTED, "BAD_ARGUMENTS"), policy)


@pytest.mark.parametrize("status", [Status.REJECTED, Status.INVALID])
def test_a_refused_row_is_due_when_a_setting_that_matters_to_its_code_has_changed(
    status: Status,
) -> None:
    policy = Policy(attempts=5, marks={"PHOTO_FORMAT": "convert=1"})
    for under, due in [("convert=1", False), ("convert=0", True), (None, True)]:
        refused = replace(candidate(status, "PHOTO_FORMAT"), refused_under=under)
        assert transitions.is_due(refused, policy) is due
    other = replace(candidate(status, "PHOTO_EMPTY"), refused_under=None)
    assert not transitions.is_due(other, policy)


def test_a_rejection_remembers_the_settings_on_which_it_depended() -> None:
    policy = Policy(attempts=5, marks={"HTTP_413": "max_bytes=9"})
    step = after(answer(Verdict.REJECTED, "HTTP_413"), policy)
    assert isinstance(step, Outcome)
    assert step.face.refused_under == "max_bytes=9"
    again = transitions.mark_sending(step.face, at=1, run=2, expires=9.0)
    assert again.refused_under is None
    settled = after(answer(Verdict.REJECTED, "NO_FACE_FOUND"), policy)
    assert isinstance(settled, Outcome)
    assert settled.face.refused_under is None


@pytest.mark.parametrize(
    ("stands", "renews", "tries", "expected"),
    [
        (Status.PENDING, False, 4, ReadAgain),  # not there: it is sent again
        (Status.PENDING, False, 5, Status.FAILED),  # not there, and no attempt is left
        (Status.ENROLLED, False, 5, NoCall),  # there
        (Status.IN_DOUBT, False, 1, NoCall),  # nothing tells
        (Status.ENROLLED, True, 4, ReadAgain),  # there with its old text only
        (Status.ENROLLED, True, 5, Status.ENROLLED),  # and keeps that
        (Status.IN_DOUBT, True, 1, NoCall),
    ],
)
def test_after_a_look_a_row_is_sent_again_while_it_has_attempts_left(
    stands: Status, renews: bool, tries: int, expected: object
) -> None:
    looked_for = face(stands)
    if stands is Status.ENROLLED:
        looked_for = replace(looked_for, face_token=TOKEN, user_data="old")
    row = ScannedRow(line=2, user_id="u1", user_data="new", image="", path="/1")
    due = Candidate(row=row, lines=1, status=Status.PENDING, renews=renews)
    told = replace(looked_for, status=Status.IN_DOUBT, code="TIMEOUT", message="It took long.")
    step = transitions.after_look(
        looked_for, due, told=told, policy=Policy(attempts=5), tries=tries
    )
    if isinstance(expected, Status):
        said = replace(looked_for, status=expected, code="TIMEOUT", message="It took long.")
        assert step == Outcome(said)
    else:
        assert step == expected(looked_for)  # type: ignore[operator]


class OnePersonsFaces(RuleBasedStateMachine):
    """One person with several photos, a service that applies calls or not, and any answer.

    The model of the service counts how often each photo's face was really added.
    """

    def __init__(self) -> None:
        super().__init__()
        self.records: dict[int, FaceRecord] = {}
        self.added: dict[int, int] = {}
        self.under_way: int | None = None
        self.tokens = 0
        self.run = 1

    @rule(content=st.integers(1, 3))
    @precondition(lambda self: self.under_way is None)
    def a_row_comes_up(self, content: int) -> None:
        step = transitions.first_step(
            list(self.records.values()), photo(content), policy=Policy(attempts=5), run=self.run
        )
        if isinstance(step, Send):
            known = step.face or face(Status.PENDING, content, number=content)
            self.records[content] = transitions.mark_sending(known, at=1, run=self.run, expires=9.0)
            self.under_way = content

    @rule(
        verdict=st.sampled_from(
            [Verdict.REJECTED, Verdict.FAILED, Verdict.REFUSED, Verdict.NOT_SENT, Verdict.FATAL]
        )
    )
    @precondition(lambda self: self.under_way is not None)
    def the_service_does_not_add_it_and_says_so(self, verdict: Verdict) -> None:
        self.hear(answer(verdict, "CODE"))

    @rule()
    @precondition(lambda self: self.under_way is not None)
    def the_service_adds_it_and_says_so(self) -> None:
        self.add()
        self.tokens += 1
        self.hear(answer(Verdict.APPLIED, face_token=f"{self.tokens:032x}"))

    @rule(applied=st.booleans())
    @precondition(lambda self: self.under_way is not None)
    def the_answer_is_lost(self, applied: bool) -> None:
        if applied:
            self.add()
        self.hear(answer(Verdict.UNKNOWN, "TIMEOUT"))

    @rule(applied=st.booleans())
    @precondition(lambda self: self.under_way is not None)
    def the_process_is_killed(self, applied: bool) -> None:
        if applied:
            self.add()
        self.under_way = None
        self.run += 1

    @rule()
    @precondition(lambda self: self.under_way is None)
    def another_run_begins(self) -> None:
        self.run += 1

    def add(self) -> None:
        assert self.under_way is not None
        self.added[self.under_way] = self.added.get(self.under_way, 0) + 1

    def hear(self, given: Answer) -> None:
        assert self.under_way is not None
        record = self.records[self.under_way]
        step = transitions.after(record, given, at=2, policy=Policy(attempts=5), tries=1)
        self.records[self.under_way] = step.face
        self.under_way = None

    @invariant()
    def no_face_is_added_twice(self) -> None:
        assert all(times <= 1 for times in self.added.values()), self.added

    @invariant()
    def a_face_that_was_added_is_enrolled_or_open(self) -> None:
        for content in self.added:
            record = self.records[content]
            assert record.open or record.status is Status.ENROLLED, record

    @invariant()
    def an_enrolled_face_was_added_and_has_a_token(self) -> None:
        for content, record in self.records.items():
            if record.status is Status.ENROLLED:
                assert self.added[content] == 1
                assert record.face_token

    @invariant()
    def at_most_one_face_of_the_person_is_open(self) -> None:
        assert sum(record.open for record in self.records.values()) <= 1

    @invariant()
    def attempts_are_never_below_zero(self) -> None:
        assert all(record.attempts >= 0 for record in self.records.values())


TestOnePersonsFaces = OnePersonsFaces.TestCase
TestOnePersonsFaces.settings = hypothesis_settings(max_examples=150, stateful_step_count=30)
