"""enroll audit: real HTTP against the stand-in, which knows a photo again, however encoded."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from archive import GROUP, Archive, Told, picture, read_csv
from moved_clock import MovedClock, standin
from PIL import Image
from real_command import Command, account_of

from enroll import clock
from enroll.commands.audit import AuditSettings, accept_pairs, audit
from enroll.commands.audit_report import FINDING_COLUMNS, Audited, audited_lines
from enroll.commands.audit_search import FACES_A_COMMIT
from enroll.errors import ExitCode, LedgerBusyError, LocalError, ServiceError, UsageError
from enroll.ledger import Changes, Finding, FindingKind, Searched, read_ledger
from enroll.ledger.sqlite_lock import LedgerLock
from enroll.model import FaceRecord, RowRecord, Status
from enroll.report.status import read_status, status_json, status_lines
from enroll.sandbox import Sandbox
from enroll.session import library_faces

pytestmark = pytest.mark.usefixtures("short_back_off")


@pytest.fixture
def box(faceless_box: Sandbox) -> Sandbox:
    return faceless_box


@pytest.fixture
def archive(box: Sandbox, tmp_path: Path) -> Archive:
    return Archive(tmp_path, box)


def like(number: int, *, size: int = 96) -> bytes:
    """Another photo of the same person: the `picture`, larger and encoded otherwise."""
    out = BytesIO()
    with Image.open(BytesIO(picture(number))) as known:
        known.resize((size, size), Image.Resampling.BICUBIC).save(out, "JPEG", quality=80)
    return out.getvalue()


def enrolled(archive: Archive, *rows: tuple[str, str, bytes]) -> None:
    """Enroll these people: a user id, a photo's name and content."""
    for user_id, name, content in rows:
        archive.photo(name, content)
        archive.rows.append((user_id, f"name of {user_id}", name))
    archive.run()


def audited(archive: Archive, told: Told | None = None, **changed: Any) -> Audited:
    settings = replace(AuditSettings(ledger=archive.ledger), **changed)
    return audit(settings, lambda: archive.credentials, told or Told())


def kinds(found: Audited) -> list[tuple[str, str, str]]:
    """The findings, each with its people in order."""
    people = [
        (one.finding.kind.value, one.user_id, one.finding.other_user_id) for one in found.findings
    ]
    return sorted((kind, min(those), max(those)) for kind, *those in people)


def swapped_and_misplaced(archive: Archive) -> None:
    """A person under two ids, two whose second photos are swapped, one with a photo of another, one
    whose face somebody has deleted, and two without a fault."""
    enrolled(
        archive,
        ("double-1", "1.jpg", picture(1)),
        ("double-2", "1b.jpg", like(1)),
        ("swap-1", "2.jpg", picture(2)),
        ("swap-1", "3b.jpg", like(3)),
        ("swap-2", "3.jpg", picture(3)),
        ("swap-2", "2b.jpg", like(2)),
        ("wrong", "4.jpg", picture(4)),
        ("wrong", "5b.jpg", like(5)),
        ("right", "5.jpg", picture(5)),
        ("right", "5c.jpg", like(5, size=128)),
        ("gone-01", "6.jpg", picture(6)),
        ("good-01", "7.jpg", picture(7)),
        ("good-01", "7b.jpg", like(7)),
    )
    archive.delete(archive.face("gone-01").face_token or "")


def test_every_planted_fault_is_found_and_no_other(archive: Archive, tmp_path: Path) -> None:
    swapped_and_misplaced(archive)
    told, file = Told(), tmp_path / "findings.csv"
    found = audited(archive, told, findings=file)
    assert kinds(found) == [
        ("lookalike", "double-1", "double-2"),
        ("lookalike", "right", "wrong"),
        ("lookalike", "right", "wrong"),
        ("lookalike", "swap-1", "swap-2"),
        ("lookalike", "swap-1", "swap-2"),
        ("not_itself", "", "gone-01"),
        ("unlike", "swap-1", "swap-1"),
        ("unlike", "swap-2", "swap-2"),
        ("unlike", "wrong", "wrong"),
    ]
    assert (found.exit_code, found.searched, found.people) == (ExitCode.SOME_ROWS_FAILED, 13, 7)
    assert found.calls == {"group_list": 1, "search": 13}
    assert "Two photos of sw***1 and sw***2 are probably swapped" in told.text
    assert told.text.count("A photo of *** probably shows ***") == 1
    assert found.figures()["misplaced"] == 1
    named = "\n".join(audited_lines(found, shown=True, file=None))
    assert named.count("The photo 5b.jpg of wrong probably shows right: ") == 1
    assert "double-1" not in told.text
    lines = read_csv(file)
    assert tuple(lines[0]) == FINDING_COLUMNS
    assert [line["finding"] for line in lines][-4:] == ["unlike"] * 3 + ["not_itself"]
    scores = [float(line["score"]) for line in lines[:5]]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] >= 85
    (double,) = [line for line in lines if "double-1" in line.values()]
    assert {double["image"], double["other_image"]} == {"1.jpg", "1b.jpg"}
    assert double["status"] == "enrolled"


def test_a_second_audit_searches_with_new_faces_alone_and_keeps_what_was_found(
    archive: Archive,
) -> None:
    enrolled(archive, ("a", "1.jpg", picture(1)), ("b", "2.jpg", picture(2)))
    assert audited(archive).exit_code is ExitCode.DONE
    enrolled(archive, ("c", "1b.jpg", like(1)))
    before = archive.box.count("search")
    assert kinds(audited(archive)) == [("lookalike", "a", "c")]
    assert archive.box.count("search") == before + 1
    third = audited(archive)
    assert (third.chosen, kinds(third)) == (0, [("lookalike", "a", "c")])
    assert third.exit_code is ExitCode.SOME_ROWS_FAILED
    assert archive.box.count("search") == before + 1
    again = audited(archive, again=True)
    assert (again.searched, kinds(again)) == (3, [("lookalike", "a", "c")])


def test_a_finding_ends_with_the_face_that_was_wrong(archive: Archive) -> None:
    enrolled(archive, ("a", "1.jpg", picture(1)), ("b", "1b.jpg", like(1)))
    assert audited(archive).exit_code is ExitCode.SOME_ROWS_FAILED
    archive.rows = archive.rows[:1]
    archive.sync()
    assert audited(archive).exit_code is ExitCode.DONE


def test_a_bound_ends_an_audit_that_the_next_one_continues(archive: Archive) -> None:
    archive.crowd(8)
    archive.run()
    told = Told()
    first = audited(archive, told, max_calls=6)
    assert (first.exit_code, first.searched, first.left) == (ExitCode.ENDED_EARLY, 5, 3)
    assert "3 faces left: `enroll audit` goes on with them." in told.text
    assert (audited(archive).searched, archive.box.count("search")) == (3, 8)


def test_what_is_chosen_can_be_narrowed(archive: Archive, tmp_path: Path) -> None:
    archive.crowd(6)
    archive.run()
    archive.row("later", 90)
    archive.run()
    assert audited(archive, of_run=2).searched == 1
    file = tmp_path / "ids.txt"
    file.write_text("staff-p0\nstaff-p1\nnobody-7\n", encoding="utf-8")
    told = Told()
    assert audited(archive, told, user_ids=file).searched == 2
    assert "The ledger has no face of 1 of the 3 people: no***7." in told.text
    sample = audited(archive, sample=3, seed=1, again=True)
    assert (sample.chosen, sample.searched) == (3, 3)
    assert audited(archive).not_audited == 0
    with pytest.raises(UsageError, match="There is no run 99"):
        audited(archive, of_run=99)


def test_again_is_continued_by_the_next_audit(archive: Archive) -> None:
    archive.crowd(5)
    archive.run()
    audited(archive)
    assert audited(archive, again=True, max_calls=3).left == 3
    assert audited(archive).searched == 3


def test_photos_that_are_gone_or_refused_are_counted_and_left_for_later(archive: Archive) -> None:
    archive.crowd(4)
    archive.run()
    (archive.folder / "0.jpg").unlink()
    archive.photo("1.jpg", picture(77))
    archive.box.script(["unknown-code"], call="search")
    told = Told()
    found = audited(archive, told)
    assert (found.searched, found.photos_gone, sum(found.refused.values())) == (1, 2, 1)
    assert found.not_audited == 3
    assert "2 faces left out, because the photo is gone or has changed" in told.text
    assert "1 photo that the service does not search with: " in told.text
    assert found.exit_code is ExitCode.DONE
    assert audited(archive).searched == 1


def test_a_folder_that_is_gone_stops_the_audit(archive: Archive, tmp_path: Path) -> None:
    archive.crowd(2)
    images = archive.folder / "photos"
    images.mkdir()
    for name in ("0.jpg", "1.jpg"):
        shutil.move(archive.folder / name, images / name)
    archive.run(images=images)
    shutil.rmtree(images)
    found = audited(archive)
    assert isinstance(found.stop, LocalError)
    assert (found.exit_code, archive.box.count("search")) == (ExitCode.LOCAL, 0)


def test_what_a_full_answer_leaves_open_is_said_with_the_option_that_closes_it(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library_faces, "SEARCH_LIMIT", 2)
    enrolled(
        archive,
        ("a", "1.jpg", picture(1)),
        ("a", "2.jpg", picture(2)),
        ("b", "1b.jpg", like(1)),
        ("c", "2b.jpg", like(2)),
    )
    told = Told()
    found = audited(archive, told)
    assert kinds(found) == [("lookalike", "a", "b"), ("lookalike", "a", "c")]
    assert found.uncompared == 2
    assert "2 photos not compared with another of the same person" in told.text
    assert found.cut_at == 0
    assert "`enroll audit --again --unlike" not in told.text  # which would find everybody unlike
    told.said.clear()
    cut = replace(found, cut_at=75.5)
    assert "--again --unlike 80` compares them." in "\n".join(
        audited_lines(cut, shown=False, file=None)
    )
    higher = audited(archive, again=True, unlike=100.0)
    assert ("unlike", "a", "a") in kinds(higher)


def test_photos_of_all_manifests_are_found_wherever_they_are(
    archive: Archive, tmp_path: Path
) -> None:
    for number, site in enumerate(("north", "south")):
        (archive.folder / site).mkdir()
        (archive.folder / site / f"{number}.jpg").write_bytes(picture(number))
        archive.rows = [(site, "", f"{number}.jpg")]
        archive.run(images=archive.folder / site)
    assert audited(archive).searched == 2
    shutil.rmtree(archive.folder / "north")
    found = audited(archive, again=True)
    assert (found.searched, found.photos_gone, found.stop) == (1, 1, None)


def test_the_same_error_over_and_over_stops_the_audit(archive: Archive) -> None:
    archive.crowd(30)
    archive.run()
    archive.box.script(["unknown-code"] * 30, call="search")
    found = audited(archive, max_in_flight=1)
    assert isinstance(found.stop, ServiceError)
    assert (found.exit_code, archive.box.count("search")) == (ExitCode.SERVICE, 20)
    with read_ledger_of(archive) as ledger:
        last = ledger.runs(1)[0]
    assert (last.start.command, last.end and last.end.exit_code) == ("audit", 3)


class read_ledger_of:  # noqa: N801 - reads as a function
    def __init__(self, archive: Archive) -> None:
        self._reader = read_ledger(archive.ledger)

    def __enter__(self) -> Any:
        return self._reader

    def __exit__(self, *error: object) -> None:
        self._reader.close()


def test_new_faces_that_the_service_does_not_show_yet_are_no_finding(
    moved_clock: MovedClock, tmp_path: Path
) -> None:
    with standin(detect=False, search_lag=40.0) as box:
        box.create_library(GROUP)
        archive = Archive(tmp_path, box)
        enrolled(archive, ("a", "1.jpg", picture(1)), ("a", "1b.jpg", like(1)))
        told = Told()
        early = audited(archive, told)
        assert (early.searched, early.too_new, kinds(early)) == (0, 2, [])
        assert "2 faces left out, because the service does not show such new ones" in told.text
        clock.sleep(40.0)
        later = audited(archive)
        assert (later.searched, later.too_new, kinds(later)) == (2, 0, [])


def test_an_audit_waits_while_the_service_hides_what_was_just_added(
    moved_clock: MovedClock, tmp_path: Path
) -> None:
    with standin(detect=False, search_lag=5.0) as box:
        box.create_library(GROUP)
        archive = Archive(tmp_path, box)
        enrolled(
            archive,
            ("a", "1.jpg", picture(1)),
            ("a", "2.jpg", picture(2)),
            ("b", "1b.jpg", like(1)),
        )
        with archive.writing() as ledger:
            ledger.remember_lag(6.0)
        found = audited(archive)
        assert kinds(found) == [("lookalike", "a", "b"), ("unlike", "a", "a")]
        assert (found.searched, found.too_new) == (3, 0)


def test_faces_in_doubt_wait_for_a_run(archive: Archive) -> None:
    archive.crowd(2)
    archive.run()
    archive.doubt("staff-p0")
    told = Told()
    found = audited(archive, told)
    assert (found.chosen, found.in_doubt) == (1, 1)
    assert "1 face in doubt left out: `enroll run` settles doubts" in told.text


def test_an_audit_needs_the_ledger_for_itself(archive: Archive) -> None:
    archive.crowd(1)
    archive.run()
    with LedgerLock(archive.ledger), pytest.raises(LedgerBusyError):
        audited(archive)


@pytest.mark.parametrize(("sent", "lost"), [("SIGKILL", FACES_A_COMMIT), ("SIGINT", 0)])
def test_a_killed_audit_loses_a_batch_at_most_and_an_interrupted_one_nothing(
    archive: Archive, tmp_path: Path, sent: str, lost: int
) -> None:
    archive.crowd(3 * FACES_A_COMMIT)
    archive.run()
    command = Command(tmp_path / "home", tmp_path, account_of(archive.box))
    arguments = ("audit", "--ledger", archive.ledger, "--max-in-flight", "2", "--json")
    with command.started(*arguments) as process:
        assert archive.box.wait_count("search", FACES_A_COMMIT + 20)
        process.send_signal(signal.Signals[sent])
        out, _ = process.communicate()
    if sent == "SIGINT":
        assert (process.returncode, json.loads(out)["exit_code"]) == (130, 130)
    assert archive.box.wait_idle()
    before = archive.box.count("search")
    found = audited(archive)
    assert found.left == found.not_audited == 0
    assert 0 < found.searched <= 3 * FACES_A_COMMIT - FACES_A_COMMIT
    assert before + found.searched <= 3 * FACES_A_COMMIT + lost + 2  # those in flight


# Accepting


def test_people_who_are_accepted_are_no_finding_and_their_held_photo_is_due(
    archive: Archive,
) -> None:
    enrolled(
        archive,
        ("twin-001", "1.jpg", picture(1)),
        ("twin-002", "1b.jpg", like(1)),
        ("self-001", "2.jpg", picture(2)),
        ("self-001", "3.jpg", picture(3)),
    )
    audited(archive)
    token = archive.face("twin-001").face_token or ""
    with archive.writing() as ledger:
        held = FaceRecord(
            face_id=ledger.new_face_id(), user_id="twin-003", sha256=b"9" * 32, status=Status.HELD
        )
        why = Finding(
            kind=FindingKind.LOOKALIKE, other_token=token, other_user_id="twin-001", score=99.0
        )
        row = RowRecord(
            user_id="twin-003", path="/9.jpg", user_data="", face_id=held.face_id, run=1
        )
        searched = Searched(face_id=held.face_id, face_token=None, at=1, run=1, findings=[why])
        ledger.record(Changes(faces=[held], rows=[row], searched=[searched]))
    calls, told = len(archive.box.calls), Told()
    settings = AuditSettings(
        ledger=archive.ledger,
        accept=[["twin-001", "twin-002", "twin-003"], ["self-001", "self-001"]],
    )
    accepted = accept_pairs(settings, told)
    assert (accepted.pairs, accepted.known, accepted.released) == (4, 0, 1)
    assert "1 held photo due again" in told.text
    assert len(archive.box.calls) == calls
    assert archive.face("twin-003").status is Status.PENDING
    assert audited(archive).exit_code is ExitCode.DONE
    assert accept_pairs(settings, told).known == 4
    with read_ledger_of(archive) as ledger:
        events = [(who, event.detail) for event, who in ledger.history() if event.detail]
    assert ("twin-001", "twin-003") in events
    with archive.writing() as ledger:  # of what held it, nothing is left
        ledger.record(Changes(faces=[held], searched=[replace(searched, findings=[])]))
    assert accept_pairs(replace(settings, accept=[["self-001"] * 2]), told).released == 0
    own = replace(settings, accept=[["twin-003"] * 2])
    assert accept_pairs(own, told).released == 1
    with archive.writing() as ledger:
        ledger.record(Changes(faces=[held]))
    again = accept_pairs(own, told)
    assert (again.pairs, again.known, again.released) == (0, 1, 1)
    with read_ledger_of(archive) as ledger:
        later = [(who, event.detail) for event, who in ledger.history() if event.detail]
    assert sorted(later) == sorted([*events, ("twin-003", "twin-003")])


def test_accept_says_what_it_means_and_which_pair_a_held_photo_still_waits_for(
    archive: Archive,
) -> None:
    enrolled(archive, ("twin-001", "1.jpg", picture(1)), ("twin-002", "2.jpg", picture(2)))
    with archive.writing() as ledger:
        held = FaceRecord(
            face_id=ledger.new_face_id(), user_id="held-009", sha256=b"9" * 32, status=Status.HELD
        )
        row = RowRecord(
            user_id="held-009", path="/9.jpg", user_data="", face_id=held.face_id, run=1
        )
        why = [
            Finding(
                kind=FindingKind.LOOKALIKE,
                other_token=archive.face(user_id).face_token or "",
                other_user_id=user_id,
                score=99.0,
            )
            for user_id in ("twin-001", "twin-002")
        ]
        searched = Searched(face_id=held.face_id, face_token=None, at=1, run=1, findings=why)
        ledger.record(Changes(faces=[held], rows=[row], searched=[searched]))

    def said(*accept: str, shown: bool = True) -> str:
        told = Told()
        settings = AuditSettings(ledger=archive.ledger, accept=[accept], show_user_ids=shown)
        accept_pairs(settings, told)
        return told.text

    own = said("held-009", "held-009")
    assert "1 person accepted: photos of one person may differ." in own
    assert "look alike is no finding" not in own
    assert "--accept held-009,twin-001" in own
    assert "--accept held-009,twin-002" in own
    masked = said("held-009", "twin-001", shown=False)
    assert "1 pair of people accepted" in masked
    assert "--accept he***9,tw***2" in masked
    assert "--show-user-ids" in masked
    assert "twin-002" not in masked
    assert "held photo due again" not in masked
    released = said("twin-002", "held-009")
    assert "1 held photo due again" in released
    assert "still held" not in released


def test_the_command_says_what_is_wrong_with_accept_and_with_its_files(
    archive: Archive, tmp_path: Path
) -> None:
    enrolled(archive, ("000123", "1.jpg", picture(1)), ("b", "1b.jpg", like(1)))
    command = Command(tmp_path / "home", tmp_path, account_of(archive.box))
    ledger = ("--ledger", archive.ledger)
    calls = len(archive.box.calls)
    for arguments, said in (
        (("--accept", "123,b"), "The ledger has no 123, and no finding names it. Perhaps 000123"),
        (("--accept", "000123"), "--accept takes the ids of people who may look alike"),
        (("--accept", "b,"), "--accept takes the ids of people who may look alike"),
        (("--accept", "b,b", "--again"), "--accept makes no search."),
        (("--findings", "found.txt"), "must end in .csv, .xlsx, .jsonl or .parquet"),
        (("--summary", archive.ledger), "would overwrite the ledger"),
        (("--summary", "a.csv", "--findings", "a.csv"), "would overwrite what --"),
        (("--score", "40"), "must be between 50 and 100"),
    ):
        done = command("audit", *ledger, *arguments)
        assert (done.code, said in done.err) == (2, True), (arguments, done.err)
    assert len(archive.box.calls) == calls
    found = command("audit", *ledger, "--json", "--summary", "s.json", "--findings", "f.jsonl")
    assert found.code == 1, found.err
    counted = json.loads(found.out)
    assert counted == json.loads((tmp_path / "s.json").read_text(encoding="utf-8"))
    assert counted["findings"] == {
        "lookalike": 1,
        "unlike_before": 0,
        "unlike": 0,
        "not_itself": 0,
    }
    assert (counted["exit_code"], counted["reason"]) == (1, "SOME_ROWS_FAILED")
    assert (counted["searched"], counted["calls"]["search"]) == (2, 2)
    assert "000123" not in found.out
    accepted = command("audit", *ledger, "--accept", "b,000123")
    assert (accepted.code, accepted.out) == (
        0,
        "1 pair of people accepted: that they look alike is no finding.\n",
    )
    archive.box.script(["auth"] * 9, call="group_list")
    failed = command("audit", *ledger, "--json")
    assert failed.code == json.loads(failed.out)["exit_code"] == 3
    assert "credentials" in json.loads(failed.out)["message"]


def test_status_says_how_far_audits_are(archive: Archive) -> None:
    enrolled(archive, ("a", "1.jpg", picture(1)), ("b", "1b.jpg", like(1)))
    status, _ = read_status(archive.ledger)
    assert "Audits" not in "\n".join(status_lines(status, archive.ledger))
    assert status_json(status, archive.ledger)["not_audited"] == 2
    audited(archive)
    enrolled(archive, ("c", "2.jpg", picture(2)))
    status, _ = read_status(archive.ledger)
    lines = "\n".join(status_lines(status, archive.ledger))
    assert "1 finding, shown by `enroll audit`; 1 enrolled face not audited yet" in lines
    told = status_json(status, archive.ledger)
    assert (told["findings"]["lookalike"], told["not_audited"]) == (1, 1)
