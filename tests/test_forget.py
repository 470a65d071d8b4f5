"""enroll forget: faces and data of a person go, nothing stays, and nobody adds them again."""

from __future__ import annotations

import gzip
import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archive import GROUP, Archive, Told, let_nobody_look, read_csv
from moved_clock import standin
from real_command import Command, account_of

from enroll.commands.adopt import AdoptSettings, adopt
from enroll.commands.forget import ForgetSettings, Forgotten, forget, readmit
from enroll.commands.forget_search import Trace, find_traces
from enroll.commands.plan import make_plan
from enroll.commands.run import Screen, enroll_manifest
from enroll.commands.run_closing import Report
from enroll.commands.run_opening import Destination as Opened
from enroll.errors import ExitCode, GuardError, LocalError, ServiceError, UsageError
from enroll.ledger import BlockList, Changes, read_ledger, unpack
from enroll.ledger import forget as ledger_forget
from enroll.ledger.forget import SqlForgetting, _plain
from enroll.model import RawAnswer, Row, RowRecord, Status
from enroll.sandbox import Limits, Sandbox
from enroll.session.deletions import ROUNDS
from enroll.session.retry import COMMAND
from enroll.settings import Bound
from enroll.text.files import TABLES
from enroll.text.logs import several
from enroll.text.tables import new_table

TRIES = int(COMMAND.unknown)


ADA = "ada-8400123"
"""A user_id that is nowhere part of anything else."""

HERS = (ADA, "Ada Lovelace", "ada-portrait")
"""What must not stay anywhere: her id, her name, her photo."""


pytestmark = pytest.mark.usefixtures("short_back_off")


@pytest.fixture
def box() -> Iterator[Sandbox]:
    limits = Limits(max_libraries=1000)
    with standin(detect=False, fault_lag=600.0, limits=limits) as running:
        running.create_library(GROUP)
        yield running


@pytest.fixture
def archive(box: Sandbox, tmp_path: Path) -> Archive:
    """Two people and Ada, enrolled by run 1."""
    there = Archive(tmp_path, box)
    there.people(1, 2)
    there.photo("ada-portrait.jpg", 99)
    there.rows.append((ADA, "Ada Lovelace", "ada-portrait.jpg"))
    there.run()
    return there


def forgotten(
    archive: Archive, *people: str, told: Told | None = None, **changed: Any
) -> Forgotten:
    settings = ForgetSettings(ledger=archive.ledger, people=people or (ADA,))
    return forget(replace(settings, **changed), lambda: archive.credentials, told or Told())


def readmitted(archive: Archive, *people: str, told: Told | None = None) -> None:
    readmit(ForgetSettings(ledger=archive.ledger, readmitted=people or (ADA,)), told or Told())


def there(archive: Archive) -> list[str]:
    """Whose faces the library holds."""
    return sorted(face.user_id for face in archive.box.faces(GROUP))


def in_bytes(ledger: Path, *words: str) -> list[tuple[str, str]]:
    """Which words can be read in the files of a ledger, whatever SQLite thinks of them."""
    return [
        (path.name, word)
        for path in ledger.parent.glob(f"{ledger.name}*")
        for word in words
        if word.encode() in path.read_bytes()
    ]


def line_of(archive: Archive, user_id: str = ADA) -> dict[str, str]:
    """What the results say of a person."""
    (line,) = [
        line
        for line in read_csv(archive.folder / "staff.results.csv")
        if line["user_id"] == user_id
    ]
    return line


def rows(report: Report) -> dict[Status, int]:
    return {status: count for status, count in report.ended.tally.statuses.items() if count}


def test_a_persons_faces_and_data_are_gone_and_others_stay(archive: Archive) -> None:
    assert len(in_bytes(archive.ledger, *HERS)) >= len(HERS)  # else this could not fail
    told = Told()
    found = forgotten(archive, told=told)
    assert (found.exit_code, found.gone, found.left) == (ExitCode.DONE, 1, {})
    assert there(archive) == ["u1", "u2"]
    assert in_bytes(archive.ledger, *HERS) == []
    assert sorted(entry.user_id for entry in archive.entries()) == ["u1", "u2"]
    assert "Delete 1 face of 1 person" in told.questions[0]
    assert "1 face deleted from the library staff." in told.text
    assert ADA not in told.text + told.questions[0]


def test_nothing_is_done_without_consent(archive: Archive) -> None:
    told = Told(agrees=False)
    assert forgotten(archive, told=told).exit_code is ExitCode.INTERRUPTED
    assert told.said[-1] == "Nothing was deleted, and nobody is withheld."
    reader = read_ledger(archive.ledger)
    (last,) = reader.status(runs=1).runs
    reader.close()
    assert last.end is not None
    assert last.end.exit_code == ExitCode.INTERRUPTED
    assert last.end.reason == "answered with no, so nothing was deleted"
    assert there(archive) == [ADA, "u1", "u2"]
    assert rows(archive.run()) == {Status.ENROLLED: 3}


def test_more_people_are_forgotten_than_a_statement_takes_parameters(archive: Archive) -> None:
    with archive.writing() as ledger:
        raw = ledger._connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        raw.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 50)
        people = [f"one{number}" for number in range(60)]
        ledger.forgetting.block(people, at=1, run=1)
        ledger.forgetting.wipe(people)
        assert ledger.forgetting.unfinished() == 60
        ledger.forgetting.scrub(people, at=2)
        assert ledger.forgetting.unfinished() == 0


def test_a_log_that_others_hold_open_is_emptied_too(archive: Archive) -> None:
    with closing(sqlite3.connect(archive.ledger)) as looking:
        looking.execute("SELECT count(*) FROM face").fetchone()
        forgotten(archive)
        assert archive.ledger.with_name("ledger.sqlite-wal").exists()
        assert in_bytes(archive.ledger, *HERS) == []


def test_a_log_that_cannot_be_emptied_is_said_and_the_same_command_does_it_later(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_forget, "LOG_SECONDS", 0)
    with closing(sqlite3.connect(archive.ledger, isolation_level=None)) as looking:
        looking.execute("BEGIN")
        looking.execute("SELECT count(*) FROM face").fetchone()
        with pytest.raises(LocalError, match="Another program reads the ledger"):
            forgotten(archive)
    reader = read_ledger(archive.ledger)
    assert reader.status().unfinished == 1
    reader.close()
    assert forgotten(archive).exit_code is ExitCode.DONE
    assert in_bytes(archive.ledger, *HERS) == []
    reader = read_ledger(archive.ledger)
    assert (reader.status().forgotten, reader.status().unfinished) == (1, 0)
    reader.close()


def test_what_an_earlier_change_left_in_the_file_goes_too(archive: Archive) -> None:
    with closing(sqlite3.connect(archive.ledger)) as database:
        database.execute("PRAGMA secure_delete=OFF")
        database.execute(
            "INSERT INTO raw_answer VALUES ('ODD', 1, 400, ?, 1, 1)", ("her ghost " * 2000,)
        )
        database.commit()
        database.execute("DELETE FROM raw_answer")
        database.commit()
    assert in_bytes(archive.ledger, "her ghost")
    forgotten(archive)
    assert in_bytes(archive.ledger, "her ghost") == []


def test_superseded_and_surplus_faces_go_too(archive: Archive) -> None:
    archive.surplus(ADA, archive.add(ADA, "ada-portrait.jpg"))
    archive.photo("ada-portrait.jpg", 200)
    archive.run(allow_nonempty=True)
    stranger = archive.add(ADA, "1.jpg")  # of which the ledger knows nothing
    assert there(archive).count(ADA) == 4
    assert forgotten(archive).gone == 4
    assert stranger not in archive.in_library()
    assert there(archive) == ["u1", "u2"]
    assert in_bytes(archive.ledger, *HERS) == []


def test_a_face_of_hers_that_is_on_record_as_anothers_goes_and_the_other_stays(
    archive: Archive,
) -> None:
    archive.surplus("u2", archive.add(ADA, "ada-portrait.jpg"))
    assert forgotten(archive).gone == 2
    assert there(archive) == ["u1", "u2"]
    assert archive.face("u2").status is Status.ENROLLED
    assert in_bytes(archive.ledger, *HERS) == []


def test_tomorrows_list_does_not_enroll_them_again_and_records_nothing(archive: Archive) -> None:
    archive.run()
    forgotten(archive)
    for _ in range(3):  # compared again, from the scan cache of the first, then of the second
        before = archive.box.count("add")
        report = archive.run()
        assert rows(report) == {Status.ENROLLED: 2, Status.WITHHELD: 1}
        assert report.exit_code is ExitCode.DONE
        assert archive.box.count("add") == before
        assert in_bytes(archive.ledger, *HERS) == []
    line = line_of(archive)
    assert (line["status"], line["error"], line["face_token"]) == ("withheld", "FORGOTTEN", "")
    assert "--readmit" in line["message"]
    assert line_of(archive, "u1")["status"] == "enrolled"
    with closing(sqlite3.connect(archive.ledger)) as database:
        (packed,) = database.execute("SELECT rows FROM scan_cache_part").fetchone()
    assert set(unpack(packed, first_line=2).user_ids) == {"u1", "u2"}


def test_a_survey_from_before_does_not_hide_that_somebody_is_withheld(archive: Archive) -> None:
    archive.run()
    with archive.writing() as ledger:  # as a command leaves it that dies when she is blocked
        ledger.forgetting.block([ADA], at=1, run=1)
    with closing(sqlite3.connect(archive.ledger)) as database:
        assert database.execute("SELECT count(*) FROM scan_cache").fetchone() == (1,)
    report = archive.run()
    assert rows(report) == {Status.ENROLLED: 2, Status.WITHHELD: 1}
    assert line_of(archive)["status"] == "withheld"
    assert any("not completely forgotten" in note for note in report.place.notes)


def test_whoever_is_readmitted_is_enrolled_again(archive: Archive) -> None:
    forgotten(archive)
    archive.run()
    calls = len(archive.box.calls)
    told = Told()
    readmitted(archive, ADA, "u1", told=told)
    assert len(archive.box.calls) == calls
    assert "No longer withheld: ad***3." in told.text
    assert (
        "Nothing to do, because not withheld: 1 person (--show-user-ids names them)." in told.text
    )
    assert archive.run().ended.tally.enrolled_now == 1
    assert there(archive) == [ADA, "u1", "u2"]
    assert line_of(archive)["status"] == "enrolled"
    assert forgotten(archive).gone == 1  # and again
    assert rows(archive.run()) == {Status.ENROLLED: 2, Status.WITHHELD: 1}


def test_an_id_that_nobody_has_is_said_and_withheld_all_the_same(archive: Archive) -> None:
    told = Told()
    assert forgotten(archive, "eve-77", told=told).gone == 0
    assert "has no face of ev***7" in told.text
    archive.rows.append(("eve-77", "", "1.jpg"))
    assert rows(archive.run()) == {Status.ENROLLED: 3, Status.WITHHELD: 1}


def test_faces_of_somebody_whom_the_ledger_does_not_know_go_from_the_library(
    archive: Archive,
) -> None:
    archive.add("eve-77", "1.jpg")
    assert forgotten(archive, "eve-77").gone == 1
    assert there(archive) == [ADA, "u1", "u2"]
    assert "1 face deleted" in history(archive, "eve-77")[0]


def history(archive: Archive, user_id: str | None = None) -> list[str]:
    """The details of what the history says of forgetting."""
    reader = read_ledger(archive.ledger)
    try:
        return [
            f"{event.kind} {event.detail}"
            for event, _ in reader.history(user_id=user_id)
            if event.kind in ("forgotten", "readmitted")
        ]
    finally:
        reader.close()


def test_the_history_proves_it_without_naming_anybody(archive: Archive) -> None:
    forgotten(archive)
    with closing(sqlite3.connect(archive.ledger)) as database:
        key, digest = database.execute(
            "SELECT forget_key, digest FROM library, forgotten"
        ).fetchone()
    assert BlockList(key=key).digest(ADA) == digest
    assert history(archive) == [f"forgotten 1 face deleted; hash {digest.hex()[:16]}"]
    assert history(archive, ADA) == history(archive)
    assert history(archive, "u1") == []
    assert not archive.history()[:-1]  # no event of hers is left
    readmitted(archive)
    assert len(history(archive)) == 2


def test_the_face_of_a_doubt_is_found_and_deleted(archive: Archive) -> None:
    archive.doubt(ADA)
    assert forgotten(archive).exit_code is ExitCode.DONE
    assert there(archive) == ["u1", "u2"]
    assert in_bytes(archive.ledger, *HERS) == []


def test_a_doubt_that_may_still_come_true_is_kept_until_it_cannot(archive: Archive) -> None:
    face = archive.doubt(ADA)
    archive.record(replace(face, expires=4e9))
    told = Told()
    found = forgotten(archive, told=told)
    assert found.exit_code is ExitCode.IN_DOUBT
    assert "may still be applied for" in told.text
    assert there(archive) == ["u1", "u2"]  # what could be seen is gone
    assert archive.face(ADA).status is Status.IN_DOUBT
    assert make_plan(archive.settings(), rate=1.0).faults[Status.WITHHELD, "FORGOTTEN"] == 1
    archive.record(replace(archive.face(ADA), expires=0.0))
    assert forgotten(archive).exit_code is ExitCode.DONE
    assert in_bytes(archive.ledger, *HERS) == []


def test_where_the_library_cannot_be_listed_doubts_are_settled_by_search(archive: Archive) -> None:
    archive.doubt(ADA)
    archive.box.script(["auth"] * 9, call="list")
    told = Told()
    assert forgotten(archive, told=told).exit_code is ExitCode.DONE
    assert "cannot be listed" in told.text
    assert there(archive) == ["u1", "u2"]


def test_a_doubt_that_no_look_settles_is_said_and_what_it_takes_is_kept(archive: Archive) -> None:
    archive.doubt(ADA)
    let_nobody_look(archive.box)
    told = Told()
    found = forgotten(archive, ADA, "u2", told=told)
    assert found.exit_code is ExitCode.IN_DOUBT
    assert list(found.left) == [ADA]  # the other is forgotten all the same
    assert "  ad***3: the library can neither be listed nor searched" in told.text
    assert there(archive) == [ADA, "u1"]
    assert sorted(entry.user_id for entry in archive.entries()) == [ADA, "u1"]
    archive.box.script([None], call="list")
    archive.box.script([None], call="search")


def test_a_photo_that_is_gone_leaves_a_doubt_open_where_nothing_can_be_listed(
    archive: Archive,
) -> None:
    archive.doubt(ADA)
    (archive.folder / "ada-portrait.jpg").unlink()
    archive.box.script(["auth"] * 9, call="list")
    assert "photo to search with is gone" in forgotten(archive).left[ADA]


def test_a_refusal_leaves_faces_and_data_and_the_person_is_withheld(archive: Archive) -> None:
    archive.box.script(["auth"], call="delete")
    with pytest.raises(ServiceError):
        forgotten(archive)
    assert there(archive) == [ADA, "u1", "u2"]
    assert rows(archive.run()) == {Status.ENROLLED: 2, Status.WITHHELD: 1}
    assert line_of(archive)["face_token"] == ""
    assert forgotten(archive).exit_code is ExitCode.DONE
    assert there(archive) == ["u1", "u2"]


def test_an_answer_to_delete_that_stays_open_keeps_the_data(archive: Archive) -> None:
    archive.box.script(["500"] * 3, call="delete")
    archive.box.script(["500"] * 99, call="face_info")
    found = forgotten(archive)
    assert found.exit_code is ExitCode.IN_DOUBT
    assert archive.face(ADA).status is Status.ENROLLED
    archive.box.script([None] * 99, call="face_info")


def test_anothers_photo_events_and_rows_stay(archive: Archive) -> None:
    archive.rows.append(("u3", "name 3", "ada-portrait.jpg"))  # the same photo, of somebody else
    archive.run()
    forgotten(archive)
    with closing(sqlite3.connect(archive.ledger)) as database:
        assert database.execute("SELECT count(*) FROM photo").fetchone() == (3,)
        assert database.execute("SELECT count(*) FROM event").fetchone() == (3,)
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert archive.run().ended.tally.unchanged == 3


def test_others_messages_and_raw_answers_that_name_them_are_redacted(archive: Archive) -> None:
    odd = RowRecord(
        user_id="u9",
        path="/elsewhere.jpg",
        user_data="",
        status=Status.FAILED,
        code="PHOTO_MISSING",
        message="There is 'ADA-portrait.jpg', and ada-portrait.jpg.",
    )
    raw = RawAnswer(code="ODD", number=1, http_status=400, raw=f'{{"u":"{ADA}"}}', at=1, run=1)
    with archive.writing() as ledger:
        ledger.record(Changes(rows=[odd], raw=[raw]))
    forgotten(archive)
    assert in_bytes(archive.ledger, *HERS) == []
    (kept,) = [entry for entry in archive.entries() if entry.user_id == "u9"]
    assert "forgotten" in kept.message


def test_a_status_in_a_message_of_others_names_nobody_whose_id_is_the_same(
    archive: Archive,
) -> None:
    said = "HTTP 500 without an error code of the service"
    others = [
        RowRecord(
            user_id=user_id,
            path=f"/{user_id}.jpg",
            user_data="",
            status=Status.FAILED,
            code="HTTP_500",
            message=message,
        )
        for user_id, message in (("u8", said), ("u9", f"{said}, of 500"))
    ]
    with archive.writing() as ledger:
        ledger.record(Changes(rows=others))
        ledger.forgetting.block(["500"], at=1, run=1)
        ledger.forgetting.wipe(["500"])
    kept = {entry.user_id: entry.message for entry in archive.entries()}
    assert kept["u8"] == said
    assert "forgotten" in kept["u9"]


def test_plan_and_adopt_withhold_them_too(archive: Archive, tmp_path: Path) -> None:
    forgotten(archive)
    report = tmp_path / "plan.csv"
    plan = make_plan(archive.settings(), rate=1.0, report=report)
    assert (plan.rows, plan.enrolled, plan.due) == (3, 2, 0)
    assert plan.faults[Status.WITHHELD, "FORGOTTEN"] == 1
    assert [(line["user_id"], line["status"]) for line in read_csv(report)] == [(ADA, "withheld")]
    archive.add(ADA, "ada-portrait.jpg")
    told = Told()
    adopt(AdoptSettings(run=archive.settings()), lambda: archive.credentials, told)
    assert "1 line withheld" in told.text
    assert in_bytes(archive.ledger, *HERS) == []


@pytest.mark.parametrize("suffix", TABLES)
def test_people_are_found_in_every_table_that_is_written(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"results{suffix}"
    with new_table(path, ["user_id", "image"]) as table:
        table.write([("a&b", "x.jpg"), ("0012", "photos/0013.jpg"), *[("z", "z")] * 30_000])
    (found,) = find_traces({path: "the results"}, ["a&b", "0012", "0013", "29999", "amp"])
    assert found == Trace(path, "the results", frozenset({"a&b", "0012", "0013"}))


def test_a_table_that_cannot_be_looked_into_is_said(tmp_path: Path) -> None:
    path = tmp_path / "results.parquet"
    path.write_bytes(b"PAR1")
    (found,) = find_traces({path: "the results"}, ["z"])
    assert (found.people, bool(found.because)) == (frozenset(), True)


def test_files_that_still_name_them_are_said_with_a_remedy(
    archive: Archive, tmp_path: Path
) -> None:
    log = archive.folder / "run.log"
    log.write_text(f"{ADA}: enrolled\n")
    clean = archive.folder / "other.log"
    clean.write_text(f"x{ADA}y\n")
    archive.run(written={"the log file": log, "the summary": clean})
    archive.run(results=archive.folder / "mine.csv", written={"the log file": tmp_path / "gone"})
    packed = archive.folder / f"{ADA}.txt.gz"
    packed.write_bytes(gzip.compress(f"user_id\n{ADA}\n".encode("utf-16")))
    told = Told()
    forgotten(archive, told=told)
    named = {line.split(" (")[0].strip() for line in told.said if line.startswith("  ")}
    names = ("staff.csv", "staff.results.csv", "mine.csv", "run.log")
    assert named == {str(archive.folder / name) for name in names}
    assert "remove the rows" in told.text

    told = Told()
    archive.photo("1.jpg", 5)
    ids = archive.folder / f"{ADA}.txt"
    ids.write_text(f"{ADA}\n")
    forgotten(archive, user_ids=ids, told=told)
    assert f"{archive.folder}/ad***3.txt (the user ids" in told.text
    assert ADA not in told.text
    told = Told()
    forgotten(archive, user_ids=ids, told=told, show_user_ids=True)
    assert str(ids) in told.text


def test_the_command_and_what_status_says(archive: Archive, tmp_path: Path) -> None:
    environ = {
        "ENROLL_API_KEY": archive.box.api_key,
        "ENROLL_API_SECRET": archive.box.api_secret,
        "ENROLL_ENDPOINT": archive.box.endpoint,
    }
    command = Command(home=tmp_path / "home", folder=archive.folder, environ=environ)
    ledger = ("--ledger", archive.ledger)
    assert command("forget", *ledger).code == ExitCode.USAGE
    assert command("forget", *ledger, "--user-id", ADA, "--readmit", ADA).code == ExitCode.USAGE
    assert command("forget", *ledger, "--user-id", "").code == ExitCode.USAGE
    done = command("forget", *ledger, "--user-id", ADA)
    assert (done.code, "Agree with --yes" in done.err) == (ExitCode.USAGE, True)
    done = command("forget", *ledger, "--user-id", ADA, "--user-id", "u2", "--yes")
    assert (done.code, done.told) == (0, "")
    assert "2 people forgotten" in done.out
    assert ADA not in done.out
    done = command("run", "staff.csv", "--group-id", GROUP, *ledger, "--log-file", "run.log")
    assert done.code == 0
    assert "withheld  2" in done.out
    assert ADA not in done.out + done.err + (archive.folder / "run.log").read_text()
    assert "2 people, withheld by runs" in command("status", *ledger).out
    told = json.loads(command("status", *ledger, "--json").out)
    assert told["forgotten"] == {"people": 2, "unfinished": 0}
    assert "forgotten" in command("history", *ledger, "--user-id", ADA).out
    assert command("forget", *ledger, "--readmit", ADA).code == 0
    assert command("run", "staff.csv", "--group-id", GROUP, *ledger).code == 0
    assert there(archive) == [ADA, "u1"]


def test_a_hash_needs_its_key() -> None:
    one, other = BlockList(key=b"1" * 32), BlockList(key=b"2" * 32)
    assert one.digest(ADA) != other.digest(ADA)
    listed = BlockList(key=one.key, digests=frozenset([one.digest(ADA)]))
    assert listed.holds(ADA)
    assert not listed.holds("u1")
    rows = [Row(line=n, user_id=u, user_data="", image="") for n, u in enumerate(("u1", ADA, "u2"))]
    assert listed.part(rows) == ([rows[0], rows[2]], [rows[1]])
    assert one.part(rows) == (rows, ())
    assert listed.mark != one.mark


# And the nightly sync


def test_a_sync_neither_adds_nor_counts_who_was_forgotten_though_the_list_still_names_them(
    archive: Archive,
) -> None:
    archive.sync()
    forgotten(archive)
    adds = archive.box.count("add")
    report = archive.sync(max_changes=Bound(0), max_removals=Bound(0))
    assert report.exit_code is ExitCode.DONE
    assert report.ended.tally.statuses[Status.WITHHELD] == 1
    assert report.sync_result is not None
    assert report.sync_result.counted.joiners == 0
    assert (there(archive), archive.box.count("add")) == (["u1", "u2"], adds)


def test_nothing_stays_of_who_has_left_or_was_being_given_another_text(archive: Archive) -> None:
    archive.sync()
    archive.photo("second.jpg", 55)
    archive.rows.append((ADA, "Ada Lovelace", "second.jpg"))
    archive.sync()
    del archive.rows[-1]
    archive.rows[2] = (ADA, "Ada King", "ada-portrait.jpg")
    archive.box.script(["unknown-code"], user_id=ADA)
    archive.sync()  # the second face is to go when the first stands
    del archive.rows[2]
    archive.sync(grace=2.0)
    with closing(sqlite3.connect(archive.ledger)) as ledger:
        assert ledger.execute("SELECT count(*) FROM absence").fetchone() == (1,)
    assert forgotten(archive).exit_code is ExitCode.DONE
    assert there(archive) == ["u1", "u2"]
    assert in_bytes(archive.ledger, *HERS, "Ada King") == []


def test_a_quiet_run_says_that_somebody_is_not_forgotten_to_the_end(archive: Archive) -> None:
    with archive.writing() as ledger:
        ledger.forgetting.block([ADA], at=1, run=1)
        ledger.commit()
    archive.run()
    seen: list[str] = []

    class Watching(Screen):
        def opened(self, place: Opened, interrupt: Callable[[int], None]) -> None:
            seen.extend(place.urgent)

    enroll_manifest(archive.settings(), lambda: archive.credentials, screen=Watching())
    assert ["1 person is not completely forgotten" in note for note in seen] == [True]


def test_an_id_that_nobody_can_have_is_refused_unless_a_row_has_it(archive: Archive) -> None:
    with pytest.raises(UsageError, match="Correct the id"):
        forgotten(archive, ADA, "bad id!")
    assert ADA in there(archive)
    archive.rows.append(("bad id!", "Ada B.", "ada-portrait.jpg"))
    archive.run()
    assert in_bytes(archive.ledger, "bad id!")
    assert forgotten(archive, "bad id!").exit_code is ExitCode.DONE
    assert not in_bytes(archive.ledger, "bad id!", "Ada B.")


@pytest.mark.parametrize("typed", ["u1", "U1", "00u1"])
def test_an_id_that_is_nearly_one_that_the_ledger_knows_is_said(
    archive: Archive, typed: str
) -> None:
    told = Told()
    forgotten(archive, typed, told=told, show_user_ids=True)
    assert (f"Similar to {typed}, except for leading zeros, case or blanks: u1." in told.text) is (
        typed != "u1"
    )


def test_blanks_around_an_id_are_none_of_it_wherever_it_is_given(archive: Archive) -> None:
    command = Command(archive.folder / "home", archive.folder, account_of(archive.box))
    ledger = ("--ledger", str(archive.ledger), "--yes")
    done = command("forget", *ledger, "--user-id", f" {ADA} ")
    assert done.code == 0, done
    assert ADA not in there(archive)
    assert command("forget", *ledger, "--readmit", f" {ADA}").code == 0
    assert rows(archive.run())[Status.ENROLLED] == 3


def test_what_an_earlier_command_has_deleted_is_counted_and_a_repetition_says_so(
    archive: Archive,
) -> None:
    archive.box.script(["500-after"], call="delete")
    archive.box.script(["auth"], call="face_info")
    with pytest.raises(ServiceError):
        forgotten(archive)
    told = Told()
    assert forgotten(archive, told=told).in_all == 1
    assert "1 since these people were withheld" in told.text
    again = Told()
    assert forgotten(archive, told=again).gone == 0
    assert "Already withheld, and searched for again:" in again.text


def test_figures_count_those_who_are_not_forgotten_to_the_end(archive: Archive) -> None:
    with archive.writing() as ledger:
        ledger.forgetting.block([ADA], at=0, run=1)
    assert archive.run().place.unforgotten == 1


def test_a_path_that_only_a_refused_night_has_seen_is_forgotten_too(archive: Archive) -> None:
    (archive.folder / "1.jpg").rename(archive.folder / "eve-portrait.jpg")
    archive.rows[0] = ("u1", "name 1", "eve-portrait.jpg")
    gone = archive.rows.pop()
    with pytest.raises(GuardError):
        archive.sync(max_removals=Bound(0))
    archive.rows.append(gone)
    settings = ForgetSettings(ledger=archive.ledger, people=["u1"], timeout=5.0)
    assert forget(settings, lambda: archive.credentials, Told()).exit_code is ExitCode.DONE
    for path in archive.folder.glob("ledger.sqlite*"):
        assert b"eve-portrait" not in path.read_bytes(), path


def _list_of(archive: Archive, *people: str) -> Path:
    path = archive.folder / "ids.txt"
    path.write_text("".join(f"{one}\n" for one in people), encoding="utf-8")
    return path


def test_the_same_forget_goes_on_though_one_of_its_people_had_an_id_that_nobody_can_have(
    archive: Archive,
) -> None:
    archive.photo("odd.jpg", 80)
    archive.rows.append(("anna bell", "Anna", "odd.jpg"))  # the service would take no such id
    archive.sync()
    archive.box.script(["500"] * ROUNDS, call="delete")  # u1 cannot be finished tonight
    first = forgotten(archive, "u1", "anna bell")
    assert set(first.left) == {"u1"}
    again = forgotten(archive, "u1", "anna bell")  # as it was told to do
    assert again.exit_code is ExitCode.DONE


def test_people_with_nearly_the_same_id_are_looked_for_in_one_go(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = 300
    with closing(sqlite3.connect(archive.ledger)) as raw, raw:
        raw.executemany(
            "INSERT INTO row VALUES (?, ?, '', NULL, NULL, 'invalid', 'X', '', 1)",
            [(f"000{number}", f"/p/{number}.jpg") for number in range(1000, 1000 + people)],
        )
    asked = 0

    def plain(user_id: str) -> str:
        nonlocal asked
        asked += 1
        return _plain(user_id)

    monkeypatch.setattr(ledger_forget, "_plain", plain)
    with archive.writing() as ledger:
        found = ledger.forgetting.unknown_people([str(n) for n in range(1000, 1000 + people)])
    assert len(found) == people and all(len(others) == 1 for others in found.values())
    assert asked <= 10 * people


@pytest.mark.parametrize("from_file", [False, True])
def test_who_stands_in_the_ledger_with_a_blank_before_the_id_can_be_forgotten(
    archive: Archive, from_file: bool
) -> None:
    archive.photo("odd.jpg", 80)
    archive.rows.append((" grace", "Grace Hopper", "odd.jpg"))
    archive.sync()
    assert " grace" in [entry.user_id for entry in archive.entries()]
    command = Command(archive.folder / "home", archive.folder, account_of(archive.box))
    whom = (
        ("--user-ids", str(_list_of(archive, " grace"))) if from_file else ("--user-id", " grace")
    )
    done = command("forget", "--ledger", str(archive.ledger), "--yes", *whom)
    assert done.code == 0, done
    assert "Grace Hopper" not in [entry.user_data for entry in archive.entries()]


def test_faces_that_are_known_to_be_gone_are_counted_though_forget_could_not_go_on(
    archive: Archive,
) -> None:
    archive.add("x9", "1.jpg")
    archive.add("x9", "2.jpg")  # of somebody whom the ledger does not know
    archive.box.script(["500-after", "unknown-code"], call="delete")
    archive.box.script(["stale"] + ["500"] * TRIES, call="face_info")
    with pytest.raises(ServiceError):
        forgotten(archive, "x9", max_in_flight=1)
    assert "x9" not in there(archive)
    again = forgotten(archive, "x9")
    assert again.in_all >= 1


def test_a_repeated_forget_of_an_id_with_a_blank_does_not_forget_who_has_it_without(
    archive: Archive,
) -> None:
    archive.photo("odd.jpg", 80)
    archive.rows.append((" u1", "Grace Hopper", "odd.jpg"))
    archive.sync()
    settings = ForgetSettings(ledger=archive.ledger, people=(" u1",))
    for _ in range(2):
        forget(settings, lambda: archive.credentials, Told())
    assert "u1" in there(archive)


def test_a_forget_that_died_before_the_file_was_rewritten_goes_on_with_the_same_person(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.photo("odd.jpg", 80)
    archive.rows.append((" u1", "Grace Hopper", "odd.jpg"))
    archive.sync()
    settings = ForgetSettings(ledger=archive.ledger, people=(" u1",))

    def dies(*args: object, **named: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(SqlForgetting, "scrub", dies)
        with pytest.raises(KeyboardInterrupt):
            forget(settings, lambda: archive.credentials, Told())
    forget(settings, lambda: archive.credentials, Told())
    with archive.writing() as ledger:
        assert ledger.forgetting.unfinished() == 0
    assert "u1" in there(archive)


@pytest.mark.parametrize(
    ("people", "shown", "text"),
    [
        (["123456", "65432100"], False, "12***6, 65***0"),
        (["ada", "123456", "bob"], False, "12***6 and 2 more (--show-user-ids names them)"),
        (["ada"], False, "1 person (--show-user-ids names them)"),
        (["ada", "bob"], False, "2 people (--show-user-ids names them)"),
        (["ada", "123456", "bob"], True, "ada, 123456 and 1 more"),
        (["123456", "123457", "123458"], False, "12***6, 12***7 and 1 more"),
    ],
)
def test_several_people_are_named_or_counted(people: list[str], shown: bool, text: str) -> None:
    assert several(people, most=2, shown=shown) == text


def test_those_who_are_not_forgotten_are_told_by_their_reason(archive: Archive) -> None:
    archive.people(1, 2)  # ids that a mask leaves without a name
    archive.run()
    archive.box.script(["500-before"] * 40, call="delete")
    told = Told()
    found = forgotten(archive, "u1", "u2", told=told)
    assert len(found.left) == 2
    assert told.text.count("  2 people (--show-user-ids names them): it is not known whether") == 1
    assert "***" not in told.text.replace("***.jpg", "")
