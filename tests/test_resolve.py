"""enroll resolve: a real ledger, and the stand-in where the service is asked."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from archive import GROUP, Archive
from moved_clock import standin
from real_command import Command

from enroll.clock import now_ms
from enroll.commands.resolve import Resolved, ResolveSettings, resolve
from enroll.errors import ExitCode, LedgerBusyError, ServiceError, UsageError
from enroll.expiry import CLOCK_BOUND_SECONDS, DEFAULT_TIMEOUT, ClockOffsets
from enroll.ledger.sqlite_lock import LedgerLock
from enroll.model import EventKind, Status
from enroll.runner.transitions import mark_sending
from enroll.session.retry import COMMAND

TRIES = int(COMMAND.unknown)


UNKNOWN = "0" * 32


pytestmark = pytest.mark.usefixtures("short_back_off")


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    """Two people are enrolled, and then the face of `u1` is in doubt."""
    with standin(detect=False) as box:
        box.create_library(GROUP)
        there = Archive(tmp_path, box)
        there.people(1, 2)
        there.run()
        there.token = there.face("u1").face_token or ""
        there.doubt("u1")
        yield there


def resolved(archive: Archive, *, offline: bool = False, **changed: Any) -> Resolved:
    settings = replace(ResolveSettings(ledger=archive.ledger, user_id="u1", token=None), **changed)
    return resolve(settings, None if offline else lambda: archive.credentials)


def decisions(archive: Archive) -> list[tuple[str, str, str]]:
    return [event for event in archive.history() if event[0] == EventKind.RESOLVED]


def test_a_token_that_the_service_knows_is_recorded_with_its_time(archive: Archive) -> None:
    told = resolved(archive, token=archive.token)
    face = archive.face("u1")
    assert (face.status, face.face_token, face.code) == (Status.ENROLLED, archive.token, "")
    there = next(one for one in archive.box.faces(GROUP) if one.face_token == archive.token)
    assert face.enrolled_at == there.add_time
    assert decisions(archive) == [("resolved", "u1", archive.token)]
    assert told.sentence == (
        f"Recorded as enrolled, with the token {archive.token} (as the service has it)."
    )
    added = archive.box.count("add")
    assert archive.run().exit_code is ExitCode.DONE
    assert archive.box.count("add") == added


def test_a_face_that_was_not_added_is_sent_by_the_next_run(archive: Archive) -> None:
    archive.delete(archive.token)
    told = resolved(archive)
    assert told.sentence == (
        "Recorded as not added (the library shows none): the next run sends it."
    )
    assert (archive.face("u1").status, decisions(archive)) == (
        Status.PENDING,
        [("resolved", "u1", "")],
    )
    assert archive.box.count("face_info") == 0
    added = archive.box.count("add")
    assert archive.run().exit_code is ExitCode.DONE
    assert archive.box.count("add") == added + 1
    assert archive.face("u1").status is Status.ENROLLED


def test_a_face_that_the_library_shows_was_not_not_added(archive: Archive) -> None:
    other = archive.add("u1", "2.jpg")
    with pytest.raises(UsageError, match="holds 2 faces of this person that the ledger") as refused:
        resolved(archive)
    said = str(refused.value)
    assert f"{archive.token}, {other}" in said
    assert "give it with --token" in said
    assert "u1" not in said
    assert (archive.face("u1").status, decisions(archive)) == (Status.IN_DOUBT, [])
    told = resolved(archive, offline=True)
    assert told.sentence == (
        "Recorded as not added (not searched for in the library): the next run sends it."
    )
    assert archive.face("u1").status is Status.PENDING


def test_faces_that_the_ledger_knows_do_not_speak_against_not_added(archive: Archive) -> None:
    archive.delete(archive.token)
    archive.surplus("u2", archive.add("u1", "2.jpg"))
    assert resolved(archive).asked
    assert archive.face("u1").status is Status.PENDING


def test_a_library_that_may_not_be_listed_does_not_keep_a_person_from_deciding(
    archive: Archive,
) -> None:
    archive.box.script(["auth"] * 10, call="list")
    assert "not searched for in the library" in resolved(archive).sentence
    assert archive.face("u1").status is Status.PENDING


def test_a_service_that_is_away_leaves_the_choice_of_not_asking(archive: Archive) -> None:
    archive.box.stop()
    with pytest.raises(ServiceError, match="decide without checking, with --offline"):
        resolved(archive)
    assert archive.face("u1").status is Status.IN_DOUBT


def test_a_face_that_was_added_after_all_is_found_before_it_is_sent_again(archive: Archive) -> None:
    resolved(archive, offline=True)  # by mistake: the library holds it
    added = archive.box.count("add")
    archive.run()
    assert archive.box.count("add") == added
    assert [kind for kind, user_id, _ in archive.history() if user_id == "u1"][-1] == "adopted"
    assert archive.face("u1").face_token == archive.token


def test_what_a_killed_run_left_sending_can_be_decided(archive: Archive) -> None:
    archive.record(replace(archive.face("u1"), status=Status.SENDING))
    resolved(archive, token=archive.token)
    assert archive.face("u1").status is Status.ENROLLED


@pytest.mark.parametrize("offline", [False, True])
def test_not_added_is_refused_while_the_last_call_can_still_be_applied(
    archive: Archive, *, offline: bool
) -> None:
    archive.run()
    archive.delete(archive.token)
    archive.box.clock_skew = 600.0
    archive.people(3)
    archive.run(settle_after=30.0)  # puts the service's clock on record
    expires = time.time() + 600 + 60
    archive.record(replace(archive.doubt("u1"), expires=expires))
    with pytest.raises(UsageError, match=r"in (\d+) seconds") as refused:
        resolved(archive, offline=offline)
    seconds = re.search(r"in (\d+) seconds", str(refused.value))
    assert seconds is not None
    # The call's expiry, a second for clocks, and the run's --settle-after; a test takes its time.
    assert 60 < int(seconds[1]) <= 92
    assert (archive.face("u1").status, decisions(archive)) == (Status.IN_DOUBT, [])
    archive.record(replace(archive.face("u1"), expires=expires - 92))
    assert resolved(archive, offline=offline).face.status is Status.PENDING
    assert (archive.face("u1").expires, archive.face("u1").recheck) == (expires - 92, True)


@pytest.mark.parametrize("before", ["run", "forget"])
def test_offline_the_least_that_the_clock_was_judged_to_be_says_what_has_expired(
    archive: Archive, before: str
) -> None:
    archive.delete(archive.token)
    expires = time.time() + 60
    archive.record(replace(archive.doubt("u1"), expires=expires))
    with archive.writing() as ledger:
        last = ledger.status().runs[0].start
        # For a while the run took the service's clock for 10 minutes ahead, by wrong answers.
        ledger.start_run(last, offsets=ClockOffsets())
        ledger.commit(offsets=ClockOffsets(least=0.0, most=600.0))
        if before == "forget":  # which asks nothing, and learns nothing of the clock
            ledger.start_run(replace(last, command="forget"))
    with pytest.raises(UsageError, match=r"in \d\d seconds"):
        resolved(archive, offline=True)
    archive.record(replace(archive.face("u1"), expires=expires - 92))
    assert resolved(archive, offline=True).face.status is Status.PENDING


@pytest.mark.parametrize("offline", [False, True])
def test_an_expiry_that_cannot_be_does_not_keep_a_doubt_open_for_ever(
    archive: Archive, *, offline: bool
) -> None:
    archive.delete(archive.token)
    far = datetime(2099, 1, 1, tzinfo=UTC).timestamp()
    archive.record(replace(archive.face("u1"), expires=far))
    with pytest.raises(UsageError, match="may still be applied"):
        resolved(archive, offline=offline)
    bound = archive.face("u1").expires
    assert bound is not None
    # The bound, the longest call of any run, and margins.
    assert time.time() < bound < time.time() + CLOCK_BOUND_SECONDS + DEFAULT_TIMEOUT + 10
    with pytest.raises(UsageError, match="may still be applied"):
        resolved(archive, offline=offline)
    assert archive.face("u1").expires == bound  # it draws nearer
    # The time passes.
    archive.record(replace(archive.face("u1"), expires=bound - CLOCK_BOUND_SECONDS - 100))
    assert resolved(archive, offline=offline).face.status is Status.PENDING


@pytest.mark.parametrize("offline", [False, True])
def test_what_a_killed_run_left_sending_is_reckoned_with_before_it_counts_as_not_added(
    archive: Archive, *, offline: bool
) -> None:
    archive.delete(archive.token)
    archive.record(replace(archive.face("u1"), status=Status.SENDING))
    for _ in range(2):  # the second time it stands in the ledger, reckoned the first time
        with pytest.raises(UsageError, match="may still be applied"):
            resolved(archive, offline=offline)
    face = archive.face("u1")
    assert (face.status, decisions(archive)) == (Status.IN_DOUBT, [])
    assert face.expires is not None
    # A fresh killed run's call: its five seconds and margins.
    assert 0 < face.expires - time.time() < 20


def test_a_person_without_a_doubt_is_said_so(archive: Archive) -> None:
    with pytest.raises(UsageError, match=r"No face of this person is in doubt \(1 face: enrolled"):
        resolved(archive, user_id="u2")
    with pytest.raises(UsageError, match="knows nobody with this user_id"):
        resolved(archive, user_id="nobody")
    assert decisions(archive) == []


def test_of_several_doubts_one_is_chosen_by_its_sha256(archive: Archive) -> None:
    archive.photo("more.jpg", 90)
    archive.record(replace(archive.face("u1"), status=Status.REJECTED))
    archive.rows.append(("u1", "", "more.jpg"))
    archive.run()
    for face in archive.faces("u1"):
        archive.record(replace(face, status=Status.IN_DOUBT, face_token=None, code="TIMEOUT"))
    first, second = archive.faces("u1")
    with pytest.raises(UsageError, match="Choose one with --sha256") as refused:
        resolved(archive)
    lines = str(refused.value).splitlines()[1:]
    assert [line.split() for line in lines] == [
        [first.sha256.hex()[:12], "TIMEOUT", "1.jpg"],
        [second.sha256.hex()[:12], "TIMEOUT", "more.jpg"],
    ]
    with pytest.raises(UsageError, match="has no face in doubt whose SHA-256 begins with ffffff"):
        resolved(archive, sha256="ffffff")
    resolved(archive, sha256=second.sha256.hex()[:12].upper(), offline=True)
    assert [face.status for face in archive.faces("u1")] == [Status.IN_DOUBT, Status.PENDING]


@pytest.mark.parametrize("token", ["", "abc", "x" * 32, "0" * 33, f"{'0' * 32}\n"])
def test_a_token_has_32_hexadecimal_digits(archive: Archive, token: str) -> None:
    with pytest.raises(UsageError, match="32 hexadecimal digits"):
        resolved(archive, token=token)


def test_a_token_that_another_face_holds_is_refused(archive: Archive) -> None:
    with pytest.raises(UsageError, match="holds this token for another face"):
        resolved(archive, token=archive.face("u2").face_token, offline=True)
    assert archive.face("u1").status is Status.IN_DOUBT


def test_a_token_that_is_anothers_surplus_is_refused(archive: Archive) -> None:
    archive.surplus("u2", UNKNOWN)
    with pytest.raises(UsageError, match="holds this token for another face"):
        resolved(archive, token=UNKNOWN, offline=True)


def test_a_copy_of_the_face_itself_can_be_chosen_and_is_a_copy_no_more(archive: Archive) -> None:
    archive.surplus("u1", archive.token)
    resolved(archive, token=archive.token)
    with archive.writing() as ledger:
        count = ledger._connection.exec_driver_sql("SELECT count(*) FROM surplus").scalar()
    assert count == 0


def test_a_token_that_the_library_does_not_hold_is_refused(archive: Archive) -> None:
    with pytest.raises(UsageError, match="holds no face with this token"):
        resolved(archive, token=UNKNOWN)


def test_a_token_of_another_person_is_refused(archive: Archive) -> None:
    theirs = archive.add("u3", "1.jpg")
    with pytest.raises(UsageError, match="under another user_id"):
        resolved(archive, token=theirs)
    assert archive.face("u1").status is Status.IN_DOUBT


def test_a_service_that_does_not_answer_leaves_the_doubt(archive: Archive) -> None:
    archive.box.script(["500"] * TRIES, call="face_info")
    with pytest.raises(ServiceError, match="unchecked with --offline"):
        resolved(archive, token=archive.token)
    assert (archive.face("u1").status, decisions(archive)) == (Status.IN_DOUBT, [])


def test_offline_the_service_is_not_asked(archive: Archive) -> None:
    calls = len(archive.box.calls)
    told = resolved(archive, token=UNKNOWN, offline=True)
    assert len(archive.box.calls) == calls
    assert "not checked with the service" in told.sentence
    assert archive.face("u1").face_token == UNKNOWN


def test_nothing_is_decided_while_a_run_holds_the_ledger(archive: Archive) -> None:
    with LedgerLock(archive.ledger), pytest.raises(LedgerBusyError):
        resolved(archive)


def test_a_ledger_of_another_library_is_refused(archive: Archive) -> None:
    with pytest.raises(UsageError, match="not to guests at"):
        resolved(archive, group_id="guests")


# A face that was being added anew


@pytest.fixture
def renewing(archive: Archive) -> Archive:
    """The face of `u1` was being added anew with the text of its row now; the call did not land."""
    archive.record(replace(archive.face("u1"), status=Status.ENROLLED, face_token=archive.token))
    intent = mark_sending(archive.face("u1"), at=now_ms(), run=1, expires=0.0, user_data="new name")
    archive.record(replace(intent, status=Status.IN_DOUBT, code="TIMEOUT", expires=0.0))
    archive.rows[0] = ("u1", "new name", "1.jpg")
    return archive


@pytest.mark.parametrize("by_token", [False, True])
@pytest.mark.parametrize("offline", [False, True])
def test_a_face_that_was_not_added_anew_stays_as_it_was_and_is_added_by_the_next_sync(
    renewing: Archive, *, offline: bool, by_token: bool
) -> None:
    told = resolved(renewing, offline=offline, token=renewing.token if by_token else None)
    asked = "the service was not asked" if offline else "the service was asked"
    assert told.sentence == (
        f"Recorded as not added again ({asked}): the face stays as it was, with the token "
        f"{renewing.token}."
    )
    face = renewing.face("u1")
    assert (face.status, face.face_token, face.former_token, face.user_data, face.code) == (
        Status.ENROLLED,
        renewing.token,
        None,
        "name 1",
        "",
    )
    assert decisions(renewing) == [("resolved", "u1", "")]
    assert renewing.sync().exit_code is ExitCode.DONE
    assert renewing.there() == [("u1", "new name"), ("u2", "name 2")]


@pytest.mark.parametrize("by_token", [False, True])
def test_that_a_face_was_not_added_anew_is_refused_while_its_call_can_still_be_applied(
    renewing: Archive, *, by_token: bool
) -> None:
    renewing.record(replace(renewing.face("u1"), expires=time.time() + 600))
    with pytest.raises(UsageError, match="may still be applied"):
        resolved(renewing, token=renewing.token if by_token else None)
    assert renewing.face("u1").status is Status.IN_DOUBT


def test_another_face_speaks_against_not_added_anew_and_takes_the_formers_place(
    renewing: Archive,
) -> None:
    new = renewing.add("u1", "1.jpg", user_data="new name")
    with pytest.raises(UsageError, match=f"does not know: {new}. If") as refused:
        resolved(renewing)
    assert renewing.token not in str(refused.value)
    resolved(renewing, token=new)
    face = renewing.face("u1")
    assert (face.face_token, face.former_token) == (new, renewing.token)
    renewing.sync()
    assert renewing.there() == [("u1", "new name"), ("u2", "name 2")]


# The command


@pytest.fixture
def command(archive: Archive, tmp_path: Path) -> Command:
    return Command(home=tmp_path / "home", folder=archive.folder)


def test_the_command_checks_a_token_where_there_are_credentials(
    archive: Archive, command: Command
) -> None:
    known = ("resolve", "--ledger", archive.ledger, "--user-id", "u1")
    command.environ["ENROLL_API_KEY"] = archive.box.api_key
    command.environ["ENROLL_API_SECRET"] = archive.box.api_secret
    done = command(*known, "--token", UNKNOWN)
    assert (done.code, done.out) == (ExitCode.USAGE, "")
    assert "holds no face with this token" in done.err
    done = command(*known, "--token", archive.token)
    assert (done.code, done.told) == (0, "")
    assert done.err.startswith(f"Endpoint  {archive.box.endpoint} (as in the ledger's last run)\n")
    assert "as the service has it" in done.out


def test_the_command_needs_no_credentials(archive: Archive, command: Command) -> None:
    done = command(
        "resolve", "--ledger", archive.ledger, "--user-id", "u1", "--token", archive.token
    )
    assert done.code == 0
    assert "not checked with the service" in done.out


@pytest.mark.parametrize("choice", [[], ["--not-added", "--token", UNKNOWN]])
def test_the_command_takes_one_decision(
    archive: Archive, command: Command, choice: list[str]
) -> None:
    done = command("resolve", "--ledger", archive.ledger, "--user-id", "u1", *choice)
    assert done.code == ExitCode.USAGE
    assert "Give one of --token TOKEN and --not-added" in done.err


def test_the_command_says_who_holds_the_ledger(archive: Archive, command: Command) -> None:
    with LedgerLock(archive.ledger):
        done = command("resolve", "--ledger", archive.ledger, "--user-id", "u1", "--not-added")
    assert done.code == ExitCode.LEDGER_BUSY
    assert "Another run holds the ledger" in done.err
