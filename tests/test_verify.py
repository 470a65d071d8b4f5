"""enroll verify: real HTTP against the stand-in, real ledgers, and a library that others change."""

from __future__ import annotations

import csv
import stat
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archive import GROUP, Archive, Told
from moved_clock import standin
from real_command import Command

from enroll.clock import now_ms
from enroll.commands.verify import DIFFERENCE_COLUMNS, Verified, VerifySettings, verify
from enroll.errors import (
    ExitCode,
    LedgerBusyError,
    LedgerMismatchError,
    ServiceError,
    UnreachedError,
)
from enroll.facesearch import Call, FaceSearch
from enroll.ledger import DifferenceKind, empty_listing, read_ledger
from enroll.ledger.sqlite_lock import LedgerLock
from enroll.model import Answer, CallKind, Credentials, Event, EventKind, Photo, Status
from enroll.runner.transitions import mark_sending
from enroll.sandbox import Limits, Sandbox
from enroll.session import library_faces
from enroll.session.account import Connection
from enroll.session.caller import Caller
from enroll.session.retry import COMMAND

TRIES = int(COMMAND.unknown)


pytestmark = pytest.mark.usefixtures("short_back_off")


@pytest.fixture
def box(faceless_box: Sandbox) -> Sandbox:
    return faceless_box


@pytest.fixture
def archive(box: Sandbox, tmp_path: Path) -> Archive:
    """Five people, enrolled."""
    there = Archive(tmp_path, box)
    there.people(1, 2, 3, 4, 5)
    there.run()
    return there


def verified(archive: Archive, told: Told | None = None, **changed: Any) -> Verified:
    settings = replace(VerifySettings(ledger=archive.ledger), **changed)
    return verify(settings, lambda: archive.credentials, told or Told())


def differences(found: Verified) -> dict[str, int]:
    return {kind.value: count for kind, count in found.differences.items()}


def test_a_ledger_that_agrees_with_its_library_has_no_difference(archive: Archive) -> None:
    told = Told()
    found = verified(archive, told)
    assert (found.exit_code, differences(found), found.seen) == (ExitCode.DONE, {}, 5)
    assert "No difference." in told.text
    assert archive.box.count("face_info") == 0


def test_each_kind_of_difference_is_found_and_written_down(
    archive: Archive, tmp_path: Path
) -> None:
    gone = archive.face("u1").face_token or ""
    archive.delete(gone)
    stranger = archive.add("nobody", "2.jpg")
    copy = archive.add("u3", "3.jpg")
    archive.surplus("u3", copy)
    archive.doubt("u4")
    landed = archive.add("u4", "4.jpg")
    theirs = archive.add("x5", "5.jpg")
    archive.record(replace(archive.face("u5"), face_token=theirs))
    file = tmp_path / "differences.csv"
    found = verified(archive, differences=file)
    assert found.exit_code is ExitCode.SOME_ROWS_FAILED
    kinds = Counter(differences(found))
    assert kinds == {"missing": 1, "stranger": 2, "unsettled": 2, "surplus": 1, "other_user_id": 1}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    with file.open(encoding="utf-8", newline="") as opened:
        reader = csv.DictReader(opened)
        assert tuple(reader.fieldnames or ()) == DIFFERENCE_COLUMNS
        lines = {line["face_token"]: line for line in reader}
    told = {token: (line["difference"], line["user_id"]) for token, line in lines.items()}
    assert told[gone] == ("missing", "u1")
    assert lines[gone]["image"] == "1.jpg"
    assert told[stranger] == ("stranger", "")
    assert (lines[stranger]["library_user_id"], lines[stranger]["add_time"][:2]) == ("nobody", "20")
    assert told[copy] == ("surplus", "u3")
    assert told[landed] == ("unsettled", "")
    assert (told[theirs], lines[theirs]["library_user_id"]) == (("other_user_id", "u5"), "x5")


def test_verifying_alone_writes_nothing_into_the_ledger(archive: Archive) -> None:
    archive.delete(archive.face("u1").face_token or "")
    archive.add("nobody", "2.jpg")
    reader = read_ledger(archive.ledger)
    before = reader.status()
    reader.close()
    verified(archive)
    reader = read_ledger(archive.ledger)
    assert reader.status() == before
    reader.close()


def test_a_library_of_several_pages_is_followed_to_its_end(archive: Archive) -> None:
    for _ in range(1003):
        archive.box.account.add(GROUP, **_new_face(archive))
    found = verified(archive)
    assert (found.listed.whole, found.seen, archive.box.count("list")) == (True, 1008, 3)
    assert differences(found) == {"stranger": 1003}


def _new_face(archive: Archive) -> dict[str, Any]:
    """A face as it lies in the stand-in's library, without the cost of a call."""
    from enroll.sandbox.faces import shared_finder
    from enroll.sandbox.matchers import CROP

    content = (archive.folder / "1.jpg").read_bytes()
    picture = shared_finder(CROP, detect=False).find(content, field="file", turn=False)
    return {"user_id": "many", "user_data": "", "picture": picture}


@pytest.fixture
def bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    """Five people in a library whose `list` shows three faces and no more."""
    monkeypatch.setattr(library_faces, "LIST_PAGE", 3)
    with standin(detect=False, limits=Limits(max_start=3)) as box:
        box.create_library(GROUP)
        archive = Archive(tmp_path, box)
        for number in range(1, 6):  # one by one, so that it is known who comes last
            archive.people(number)
            archive.run()
        yield archive


def test_a_service_that_stops_short_is_told_with_how_much_it_showed(bounded: Archive) -> None:
    told = Told()
    found = verified(bounded, told)
    assert (found.listed.whole, found.seen, found.unchecked) == (False, 3, 2)
    assert "`list` showed 3 faces and no more" in told.text
    assert "BAD_ARGUMENTS: start" in told.text
    assert "2 faces of the ledger could not be compared. --deep looks up each" in told.text
    assert differences(found) == {}
    assert found.exit_code is ExitCode.IN_DOUBT  # not seen is no agreement


class SamePage(FaceSearch):
    """Shows the first page again and again, as a service might that ignores `start`."""

    def make(self, call: Call, photo: Photo | None = None) -> Answer:
        answer = super().make(Call.list(group_id=GROUP, start=1, limit=2), photo)
        return replace(answer, payload={**answer.payload, "next": int(call.fields["start"]) + 2})


class SameNext(FaceSearch):
    """Always names the same page as the next one."""

    def make(self, call: Call, photo: Photo | None = None) -> Answer:
        self.asked = getattr(self, "asked", 0) + 1
        page = Call.list(group_id=GROUP, start=2 * self.asked - 1, limit=2)
        answer = super().make(page, photo)
        return replace(answer, payload={**answer.payload, "next": 3})


@contextmanager
def asks(archive: Archive, service: type[FaceSearch]) -> Iterator[Caller]:
    """Calls to the stand-in by a client that changes answers as a strange service might."""
    client = service(archive.box.endpoint, archive.credentials, timeout=10.0)
    with (
        Connection(
            endpoint=archive.box.endpoint,
            service=client,
            credentials=archive.credentials,
            read_credentials=lambda: archive.credentials,
        ) as connection,
        Caller(connection, GROUP, concurrency=2) as opened,
    ):
        yield opened


@pytest.mark.parametrize(("service", "seen"), [(SamePage, 2), (SameNext, 4)])
def test_a_page_that_leads_nowhere_ends_the_reading(
    archive: Archive, service: type[FaceSearch], seen: int
) -> None:
    listing = empty_listing()
    with asks(archive, service) as opened:
        listed = library_faces.read_library(opened, listing)
    assert (listed.whole, listed.faces) == (False, seen)
    assert listed.because == "The page from 3 on leads back to faces already listed."
    listing.close()


class Circle(FaceSearch):
    """A `list` that goes round and round, and shows a face that nobody has seen each time."""

    asked = 0

    def make(self, call: Call, photo: Photo | None = None) -> Answer:
        self.asked += 1
        answer = super().make(Call.list(group_id=GROUP), photo)
        shown = answer.payload["face_tokens"]
        new = {**shown[0], "face_token": f"{self.asked:032x}"}
        following = int(call.fields["start"]) + 1000
        payload = {**answer.payload, "face_tokens": [*shown, new], "next": following}
        return replace(answer, payload=payload)


@pytest.mark.parametrize("bound", ["MOST_FACES", "MOST_PAGES"])
def test_a_list_that_has_no_end_ends_the_reading(
    archive: Archive, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    monkeypatch.setattr(library_faces, bound, 20)
    listing = empty_listing()
    with asks(archive, Circle) as opened:
        listed = library_faces.read_library(opened, listing)
    assert not listed.whole
    assert "beyond the" in listed.because
    assert listed.faces < 30
    listing.close()


def test_an_answer_about_another_face_is_none(archive: Archive) -> None:
    other = archive.face("u2").face_token or ""

    class Confused(FaceSearch):
        def make(self, call: Call, photo: Photo | None = None) -> Answer:
            assert call.kind is CallKind.FACE_INFO
            return super().make(Call.face_info(group_id=GROUP, face_token=other), photo)

    with asks(archive, Confused) as opened:
        ((_, found),) = library_faces.look_up(opened, [archive.face("u1").face_token or ""])
    assert isinstance(found, ServiceError)


def test_credentials_that_were_exchanged_are_read_again(archive: Archive) -> None:
    offered = [archive.credentials, Rotated(archive.box.api_key, archive.box.api_secret)]
    settings = VerifySettings(ledger=archive.ledger)
    archive.box.script(["auth"], call="face_info")
    archive.delete(archive.face("u1").face_token or "")
    found = verify(replace(settings, deep=True), lambda: offered.pop(0), Told())
    assert differences(found) == {"missing": 1}
    assert offered == []


class Rotated(Credentials):
    """Credentials that are as good as the others and not equal to them."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)


def test_with_deep_each_face_that_was_not_shown_is_asked_for(bounded: Archive) -> None:
    bounded.delete(bounded.face("u5").face_token or "")
    told = Told()
    found = verified(bounded, told, deep=True)
    assert told.questions == [
        "`list` did not show 2 faces of the ledger. Look up each, with 2 calls of face_info?"
    ]
    assert bounded.box.count("face_info") == 2
    assert found.unchecked == 0
    assert differences(found) == {"missing": 1}


def test_without_consent_deep_asks_for_nothing(bounded: Archive) -> None:
    found = verified(bounded, Told(agrees=False), deep=True)
    assert bounded.box.count("face_info") == 0
    assert found.unchecked == 2


def test_a_face_that_the_service_says_nothing_of_is_not_missing(bounded: Archive) -> None:
    bounded.box.script(["500"] * TRIES * 2, call="face_info")
    found = verified(bounded, deep=True)
    assert DifferenceKind.MISSING not in found.differences
    assert found.unchecked == 2
    assert found.exit_code is ExitCode.UNREACHED  # it was away to the end


def test_a_service_that_goes_away_while_it_is_listed_ends_the_comparison_and_changes_nothing(
    bounded: Archive,
) -> None:
    bounded.surplus("u1", bounded.add("u1", "1.jpg"))
    bounded.box.script([None, *["502"] * TRIES], call="list")
    told = Told()
    found = verified(bounded, told, deep=True, remove_surplus=True)
    assert (found.exit_code, found.stop is not None) == (ExitCode.UNREACHED, True)
    assert "`list` showed 3 faces and no more: The service could not be reached" in told.text
    assert told.questions == []


def test_a_service_that_shows_nothing_ends_the_command(archive: Archive) -> None:
    archive.box.script(["500"] * TRIES, call="list")
    with pytest.raises(UnreachedError, match="could not be reached"):
        verified(archive)
    archive.box.script(["unknown-code"] * TRIES, call="list")
    with pytest.raises(ServiceError, match="does not list the faces from 1 on"):
        verified(archive)


def test_an_answer_lost_on_the_way_is_asked_for_again(archive: Archive) -> None:
    archive.box.script(["502", "refused", "cut", None], call="list")
    assert verified(archive).exit_code is ExitCode.DONE


def test_a_library_that_was_made_anew_is_another(archive: Archive) -> None:
    service = archive.service
    service.make(Call.free(group_id=GROUP, check_empty=False))
    service.make(Call.create(group_id=GROUP, group_name=GROUP))
    service.close()
    with pytest.raises(LedgerMismatchError, match="as it was created at"):
        verified(archive, requeue_missing=True)
    assert archive.face("u1").status is Status.ENROLLED


def test_while_a_run_goes_on_the_ledger_is_compared_and_not_changed(archive: Archive) -> None:
    archive.record(replace(archive.face("u1"), status=Status.SENDING, face_token=None))
    told = Told()
    with LedgerLock(archive.ledger):
        found = verified(archive, told)
        assert "A run is in progress: process" in told.text
        assert found.exit_code is ExitCode.DONE  # what it is sending right now is no difference
        archive.add("nobody", "2.jpg")
        assert differences(verified(archive)) == {"stranger": 1}
        archive.delete(archive.face("u2").face_token or "")
        with pytest.raises(LedgerBusyError):
            verified(archive, requeue_missing=True)
    assert archive.face("u2").status is Status.ENROLLED
    assert differences(verified(archive)) == {"missing": 1, "stranger": 1, "unsettled": 1}


def test_what_a_run_adds_while_the_library_is_read_is_left_out(archive: Archive) -> None:
    class Meanwhile(Told):
        def progress(self, done: int, what: str, *, of: int | None = None) -> None:
            if len(archive.rows) == 5:  # the page has been read
                archive.people(6)
                archive.run()

    assert differences(verified(archive, Meanwhile())) == {}
    assert archive.face("u6").status is Status.ENROLLED


# Surplus


def test_copies_on_record_are_deleted_and_nothing_else(archive: Archive) -> None:
    copies = [archive.add("u3", "3.jpg") for _ in range(2)]
    for copy in copies:
        archive.surplus("u3", copy)
    stranger = archive.add("nobody", "2.jpg")
    told = Told()
    found = verified(archive, told, remove_surplus=True)
    assert told.questions[0].startswith("Delete 2 faces from the library staff: 2 on record")
    assert differences(found) == {"stranger": 1}
    assert found.exit_code is ExitCode.SOME_ROWS_FAILED
    assert archive.box.count("delete") == 1
    assert archive.in_library() == {*(entry.face_token for entry in archive.entries()), stranger}
    assert [event for event in archive.history() if event[0].startswith("remov")] == [
        *[("removing", "u3", copy) for copy in sorted(copies)],
        *[("removed", "u3", copy) for copy in sorted(copies)],
    ]
    assert verified(archive, told, remove_surplus=True).exit_code is ExitCode.SOME_ROWS_FAILED
    assert "There is no copy to delete." in told.text


def left_with_a_copy(archive: Archive, *, copies: int = 1) -> tuple[str, list[str]]:
    """Copies of `u3` are on record, and somebody deletes the face itself: its token, theirs."""
    own = archive.face("u3").face_token or ""
    added = [archive.add("u3", "3.jpg") for _ in range(copies)]
    for copy in added:
        archive.surplus("u3", copy)
    archive.delete(own)
    return own, added


def test_a_copy_of_a_face_that_is_gone_itself_is_not_deleted(archive: Archive) -> None:
    _, (copy,) = left_with_a_copy(archive)
    spare = archive.add("u4", "4.jpg")
    archive.surplus("u4", spare)
    told = Told()
    found = verified(archive, told, remove_surplus=True)
    assert "1 on record as surplus" in told.questions[0]
    assert "1 copy on record not deleted" in told.text
    assert "--requeue-missing makes the oldest copy of each the face itself" in told.text
    assert copy in archive.in_library()
    assert spare not in archive.in_library()
    assert differences(found) == {"missing": 1, "surplus": 1}


def test_whether_a_face_is_there_itself_is_asked_where_list_does_not_show_it(
    bounded: Archive,
) -> None:
    last, other = bounded.face("u5").face_token or "", bounded.face("u4").face_token or ""
    for user_id in ("u4", "u5"):
        number = user_id[1:]
        bounded.surplus(user_id, bounded.add(user_id, f"{number}.jpg"))
    bounded.delete(last)
    told = Told()
    verified(bounded, told, remove_surplus=True)
    assert "with 2 calls of face_info" in told.text
    there = [face.user_id for face in bounded.box.faces(GROUP)]
    assert other in bounded.in_library()
    assert (there.count("u4"), there.count("u5")) == (1, 1)


def test_the_copy_of_a_face_that_no_row_points_to_may_go(archive: Archive) -> None:
    _, (copy,) = left_with_a_copy(archive)
    face = replace(archive.face("u3"), status=Status.REMOVED, face_token=None)
    archive.record(face)
    verified(archive, remove_surplus=True)
    assert copy not in archive.in_library()


def test_nothing_is_deleted_without_consent(archive: Archive) -> None:
    copy = archive.add("u3", "3.jpg")
    archive.surplus("u3", copy)
    found = verified(archive, Told(agrees=False), remove_surplus=True)
    assert found.exit_code is ExitCode.SOME_ROWS_FAILED
    assert copy in archive.in_library()
    assert archive.box.count("delete") == 0


def test_a_token_that_a_face_bears_is_never_deleted(archive: Archive) -> None:
    token = archive.face("u3").face_token or ""
    archive.surplus("u3", token)
    told = Told()
    verified(archive, told, remove_surplus=True)
    assert "There is no copy to delete." in told.text
    assert token in archive.in_library()


def test_a_stranger_is_deleted_that_an_attempt_in_doubt_has_left(archive: Archive) -> None:
    archive.doubt("u3", token=archive.face("u3").face_token)
    copy = archive.add("u3", "3.jpg")
    told = Told()
    found = verified(archive, told, remove_surplus=True)
    assert "1 stranger may come from an attempt that was in doubt" in told.text
    assert told.questions[0].startswith("Delete 1 face from the library staff: 0 on record as")
    assert found.exit_code is ExitCode.DONE
    assert copy not in archive.in_library()
    assert archive.box.count("search") == 1
    assert ("removed", "u3", copy) in archive.history()


def test_a_stranger_that_is_another_photo_of_the_person_stays(archive: Archive) -> None:
    archive.doubt("u3", token=archive.face("u3").face_token)
    archive.photo("other.jpg", 12)
    other = archive.add("u3", "other.jpg")
    told = Told()
    verified(archive, told, remove_surplus=True)
    assert "checking, with 1 call of search" in told.text
    assert told.questions == []
    assert other in archive.in_library()


def test_a_stranger_with_the_same_photo_under_another_user_id_stays(archive: Archive) -> None:
    archive.doubt("u3", token=archive.face("u3").face_token)
    theirs = archive.add("u4", "3.jpg")
    archive.doubt("u4", token=archive.face("u4").face_token)
    verified(archive, Told(), remove_surplus=True)
    assert theirs in archive.in_library()


def test_a_stranger_of_a_person_never_in_doubt_stays(archive: Archive) -> None:
    copy = archive.add("u3", "3.jpg")
    verified(archive, Told(), remove_surplus=True)
    assert archive.box.count("search") == 0
    assert copy in archive.in_library()


def test_a_stranger_from_another_time_than_the_doubt_stays(archive: Archive) -> None:
    copy = archive.add("u3", "3.jpg")
    face = archive.face("u3")
    hour = 3_600_000
    old = Event(at=now_ms() - hour, kind=EventKind.IN_DOUBT, run=1, face_id=face.face_id)
    archive.record(face, events=[old])
    with archive.writing() as ledger:
        ledger._connection.exec_driver_sql(f"UPDATE run SET started_at = started_at - {2 * hour}")
    verified(archive, Told(), remove_surplus=True)
    assert archive.box.count("search") == 0
    assert copy in archive.in_library()


def test_a_face_whose_own_token_is_another_photos_proves_no_copy(archive: Archive) -> None:
    archive.photo("other.jpg", 12)
    wrong = archive.add("u3", "other.jpg")
    archive.doubt("u3", token=wrong)
    again = archive.add("u3", "other.jpg")
    verified(archive, Told(), remove_surplus=True)
    assert archive.box.count("search") == 1
    assert again in archive.in_library()


def test_another_face_of_the_ledger_that_looks_the_same_is_never_deleted(archive: Archive) -> None:
    same = (archive.folder / "3.jpg").read_bytes()
    (archive.folder / "again.jpg").write_bytes(same[:2] + b"\xff" + same[2:])  # a fill byte
    archive.rows.append(("u3", "", "again.jpg"))
    archive.run()
    first, second = archive.faces("u3")
    archive.record(
        first,
        events=[Event(at=now_ms(), kind=EventKind.IN_DOUBT, run=1, face_id=first.face_id)],
    )
    copy = archive.add("u3", "3.jpg")
    verified(archive, Told(), remove_surplus=True)
    assert archive.in_library() >= {first.face_token, second.face_token}
    assert copy not in archive.in_library()


def test_a_copy_that_was_adopted_while_we_asked_is_not_deleted(archive: Archive) -> None:
    recorded = archive.add("u3", "3.jpg")
    archive.surplus("u3", recorded)
    archive.doubt("u4", token=archive.face("u4").face_token)
    proved = archive.add("u4", "4.jpg")

    class Meanwhile(Told):
        def confirm(self, question: str, *, changes: bool = True) -> bool:
            archive.record(
                replace(archive.face("u3"), face_token=recorded),
                replace(archive.face("u4"), face_token=proved),
            )
            return super().confirm(question)

    told = Meanwhile()
    verified(archive, told, remove_surplus=True)
    assert "1 on record as surplus, 1 proved" in told.questions[0]
    assert "0 of 2 faces deleted." in told.text
    assert archive.in_library() >= {recorded, proved}


def test_the_intent_to_delete_is_on_disk_before_the_call_leaves(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = archive.add("u3", "3.jpg")
    archive.surplus("u3", copy)
    make = FaceSearch.make
    seen: list[list[tuple[str, str, str]]] = []

    def watched(service: FaceSearch, call: Call, photo: Photo | None = None) -> Answer:
        if call.kind is CallKind.DELETE:
            seen.append(archive.history())
        return make(service, call, photo)

    monkeypatch.setattr(FaceSearch, "make", watched)
    verified(archive, remove_surplus=True)
    assert seen == [[("removing", "u3", copy)]]


def test_an_answer_whose_numbers_do_not_add_up_is_looked_up(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = archive.add("u3", "3.jpg")
    archive.surplus("u3", copy)
    make = FaceSearch.make

    def forgetful(service: FaceSearch, call: Call, photo: Photo | None = None) -> Answer:
        answer = make(service, call, photo)
        if call.kind is not CallKind.DELETE:
            return answer
        return replace(answer, payload={**answer.payload, "face_removed": 0})

    monkeypatch.setattr(FaceSearch, "make", forgetful)
    verified(archive, remove_surplus=True)
    assert archive.box.count("face_info") == 1
    assert ("removed", "u3", copy) in archive.history()


def test_a_photo_that_is_gone_proves_no_copy(archive: Archive) -> None:
    archive.doubt("u3", token=archive.face("u3").face_token)
    copy = archive.add("u3", "3.jpg")
    (archive.folder / "3.jpg").unlink()
    verified(archive, Told(), remove_surplus=True)
    assert copy in archive.in_library()


def test_a_copy_that_is_gone_already_counts_as_removed(archive: Archive) -> None:
    copy = archive.add("u3", "3.jpg")
    archive.surplus("u3", copy)
    archive.delete(copy)
    verified(archive, remove_surplus=True)
    assert ("removed", "u3", copy) in archive.history()
    told = Told()
    verified(archive, told, remove_surplus=True)
    assert "There is no copy to delete." in told.text


@pytest.mark.parametrize("fault", ["500-after", "500-before", "reset-after", "not-json-before"])
def test_a_deletion_whose_answer_is_lost_is_looked_up_before_it_is_recorded(
    archive: Archive, fault: str
) -> None:
    copy = archive.add("u3", "3.jpg")
    archive.surplus("u3", copy)
    before = archive.box.count("delete")
    archive.box.script([fault], call="delete")
    found = verified(archive, remove_surplus=True)
    assert found.exit_code is ExitCode.DONE
    assert archive.box.count("face_info") == 1
    assert archive.box.count("delete") - before == (2 if "before" in fault else 1)
    assert copy not in archive.in_library()
    assert ("removed", "u3", copy) in archive.history()


def test_a_deletion_that_nothing_is_known_of_stays_on_record(archive: Archive) -> None:
    copy = archive.add("u3", "3.jpg")
    archive.surplus("u3", copy)
    archive.box.script(["500-before"] * 3, call="delete")
    archive.box.script(["500"] * TRIES * 3, call="face_info")
    found = verified(archive, remove_surplus=True)
    assert differences(found) == {"surplus": 1}
    assert [event[0] for event in archive.history()] == ["removing"]


def test_an_account_that_may_not_delete_ends_the_command_and_its_record(archive: Archive) -> None:
    archive.surplus("u3", archive.add("u3", "3.jpg"))
    archive.box.script(["auth"], call="delete")
    with pytest.raises(ServiceError, match="AUTHORIZATION_ERROR"):
        verified(archive, remove_surplus=True)
    reader = read_ledger(archive.ledger)
    last = reader.status(runs=1).runs[0]
    reader.close()
    assert last.start.options["command"] == "verify"
    assert last.end is not None
    assert last.end.exit_code == ExitCode.SERVICE


# Missing faces


def test_a_missing_face_is_made_due_and_added_again_by_the_next_run(archive: Archive) -> None:
    gone = archive.face("u1").face_token or ""
    archive.delete(gone)
    told = Told()
    found = verified(archive, told, requeue_missing=True)
    assert told.questions[0].startswith("Make 1 face due again that the library does not hold?")
    assert archive.box.count("face_info") == 1
    assert found.exit_code is ExitCode.DONE
    assert archive.face("u1").status is Status.PENDING
    assert ("requeued", "u1", gone) in archive.history()
    added = archive.box.count("add")
    assert archive.run().exit_code is ExitCode.DONE
    assert archive.box.count("add") == added + 1
    assert archive.face("u1").status is Status.ENROLLED
    assert verified(archive).exit_code is ExitCode.DONE


def test_a_missing_face_gets_the_token_of_the_copy_that_is_left(archive: Archive) -> None:
    own, (copy, younger) = left_with_a_copy(archive, copies=2)
    told = Told()
    found = verified(archive, told, requeue_missing=True, remove_surplus=True)
    assert "with at most 3 calls of face_info" in told.questions[0]
    assert "1 face now with the token of a copy" in told.text
    face = archive.face("u3")
    assert (face.status, face.face_token) == (Status.ENROLLED, copy)
    assert archive.history()[-2:] == [("gone", "u3", own), ("adopted", "u3", copy)]
    assert differences(found) == {"surplus": 1}
    assert differences(verified(archive, remove_surplus=True)) == {}
    assert younger not in archive.in_library()
    added = archive.box.count("add")
    assert archive.run().exit_code is ExitCode.DONE
    assert archive.box.count("add") == added


def test_a_copy_that_is_gone_too_does_not_keep_a_missing_face_from_being_due(
    archive: Archive,
) -> None:
    _, (copy,) = left_with_a_copy(archive)
    archive.delete(copy)
    verified(archive, requeue_missing=True)
    assert archive.face("u3").status is Status.PENDING


def test_a_missing_face_stays_while_it_is_not_known_whether_its_copy_is_there(
    archive: Archive,
) -> None:
    left_with_a_copy(archive)
    archive.box.script([None, *["500"] * TRIES], call="face_info")
    told = Told()
    verified(archive, told, requeue_missing=True)
    assert "1 face left unchanged" in told.text
    assert archive.face("u3").status is Status.ENROLLED


def test_a_missing_face_stays_enrolled_without_consent(archive: Archive) -> None:
    archive.delete(archive.face("u1").face_token or "")
    found = verified(archive, Told(agrees=False), requeue_missing=True)
    assert found.exit_code is ExitCode.SOME_ROWS_FAILED
    assert archive.face("u1").status is Status.ENROLLED


def test_a_face_that_list_left_out_is_asked_for_and_not_made_due(archive: Archive) -> None:
    archive.people(6)
    archive.box.script(["search-lag"])  # list does not show it yet, face_info does
    archive.run()
    assert differences(verified(archive)) == {"missing": 1}
    told = Told()
    found = verified(archive, told, requeue_missing=True)
    assert found.exit_code is ExitCode.DONE
    assert archive.face("u6").status is Status.ENROLLED
    assert "1 face left unchanged" in told.text


def test_a_face_that_another_command_has_changed_meanwhile_stays_as_it_is(archive: Archive) -> None:
    archive.delete(archive.face("u1").face_token or "")

    class Meanwhile(Told):
        def confirm(self, question: str, *, changes: bool = True) -> bool:
            archive.record(replace(archive.face("u1"), face_token=archive.add("u1", "1.jpg")))
            return super().confirm(question)

    verified(archive, Meanwhile(), requeue_missing=True)
    assert archive.face("u1").status is Status.ENROLLED


@pytest.mark.parametrize("fault", ["500", "unknown-code", "html-403"])
def test_a_missing_face_that_the_service_will_not_confirm_stays(
    archive: Archive, fault: str
) -> None:
    archive.delete(archive.face("u1").face_token or "")
    archive.box.script([fault] * TRIES, call="face_info")
    told = Told()
    found = verified(archive, told, requeue_missing=True)
    assert differences(found) == {"missing": 1}
    assert "1 face left unchanged" in told.text
    assert archive.face("u1").status is Status.ENROLLED


def test_a_missing_face_that_no_row_points_to_is_recorded_as_removed(archive: Archive) -> None:
    old = archive.face("u1").face_token or ""
    archive.photo("1.jpg", 70)
    archive.run()
    archive.delete(old)
    told = Told()
    found = verified(archive, told, requeue_missing=True)
    assert found.exit_code is ExitCode.DONE
    assert sorted(face.status for face in archive.faces("u1")) == [Status.ENROLLED, Status.REMOVED]
    assert ("gone", "u1", old) in archive.history()
    added = archive.box.count("add")
    archive.run()
    assert archive.box.count("add") == added


def added_anew(archive: Archive) -> tuple[str, str]:
    """The face of `u1` was added anew, and that is gone; what was there before was not deleted
    yet. Both tokens."""
    old = archive.face("u1").face_token or ""
    new = archive.add("u1", "1.jpg", user_data="new name")
    intent = mark_sending(archive.face("u1"), at=now_ms(), run=1, expires=0.0, user_data="new name")
    archive.record(replace(intent, status=Status.ENROLLED, face_token=new))
    archive.delete(new)
    return old, new


def test_a_missing_face_of_which_the_former_is_there_stands_as_before(archive: Archive) -> None:
    old, new = added_anew(archive)
    told = Told()
    found = verified(archive, told, requeue_missing=True)
    assert "with at most 2 calls of face_info" in told.questions[0]
    assert found.exit_code is ExitCode.DONE
    face = archive.face("u1")
    assert (face.status, face.face_token, face.former_token, face.user_data) == (
        Status.ENROLLED,
        old,
        None,
        "name 1",
    )
    assert archive.history()[-2:] == [("gone", "u1", new), ("restored", "u1", old)]


def test_a_copy_goes_before_the_former_of_a_missing_face(archive: Archive) -> None:
    old, _ = added_anew(archive)
    copy = archive.add("u1", "1.jpg", user_data="new name")
    archive.surplus("u1", copy)
    verified(archive, requeue_missing=True)
    face = archive.face("u1")
    assert (face.face_token, face.former_token) == (copy, old)


def test_a_missing_face_of_which_the_former_is_gone_too_is_due(archive: Archive) -> None:
    old, _ = added_anew(archive)
    archive.delete(old)
    verified(archive, requeue_missing=True)
    face = archive.face("u1")
    assert (face.status, face.face_token, face.former_token) == (Status.PENDING, None, None)


def test_a_missing_face_stays_while_it_is_not_known_whether_its_former_is_there(
    archive: Archive,
) -> None:
    _, new = added_anew(archive)
    archive.box.script([None, *["500"] * TRIES], call="face_info")
    verified(archive, requeue_missing=True)
    assert (archive.face("u1").status, archive.face("u1").face_token) == (Status.ENROLLED, new)


# The command


@pytest.fixture
def command(archive: Archive, tmp_path: Path) -> Command:
    environ = {"ENROLL_API_KEY": archive.box.api_key, "ENROLL_API_SECRET": archive.box.api_secret}
    return Command(home=tmp_path / "home", folder=archive.folder, environ=environ)


def test_the_command_knows_the_endpoint_from_the_last_run(
    archive: Archive, command: Command
) -> None:
    done = command("verify", "--ledger", archive.ledger)
    assert (done.code, done.told) == (0, "")
    assert f"staff at {archive.box.endpoint}, all 5 faces seen" in done.out


def test_the_command_needs_yes_where_nobody_can_be_asked(
    archive: Archive, command: Command
) -> None:
    archive.delete(archive.face("u1").face_token or "")
    done = command("verify", "--ledger", archive.ledger, "--requeue-missing")
    assert done.code == ExitCode.USAGE
    assert "Agree with --yes" in done.err
    assert archive.face("u1").status is Status.ENROLLED
    done = command("verify", "--ledger", archive.ledger, "--requeue-missing", "--yes")
    assert done.code == 0
    assert "1 face due again for the next `enroll run`." in done.out
    assert archive.face("u1").status is Status.PENDING


def test_the_command_shows_no_user_id(archive: Archive, command: Command) -> None:
    archive.add("nobody-else", "2.jpg")
    done = command("verify", "--ledger", archive.ledger)
    assert done.code == 1
    assert "nobody-else" not in done.out + done.err
