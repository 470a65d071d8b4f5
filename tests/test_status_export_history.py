"""`enroll status`, `enroll export` and `enroll history`: what a ledger holds."""

from __future__ import annotations

import codecs
import csv
import io
import json
import os
import signal
import subprocess
import termios
from pathlib import Path

import pytest
from archive import QUICK_DOUBTS, Archive, nobody, portrait, read_csv
from cases import cases
from real_command import SECONDS, Command

from enroll.facesearch.answers import SERVICE_CODES
from enroll.ledger import (
    ErrorCount,
    LedgerStatus,
    LibraryIdentity,
    RunEnd,
    RunPace,
    RunRecord,
    RunStart,
    read_ledger,
)
from enroll.model import RawAnswer, Status
from enroll.report.export import write_export
from enroll.report.status import RunState, status_json, status_lines
from enroll.sandbox import Sandbox
from enroll.text.remedies import UNKNOWN_CODE, sentence

pytestmark = pytest.mark.usefixtures("moved_clock")

RUN = ("run", "staff.csv", "--group-id", "staff")

START = RunStart(
    at=1_735_787_045_000,
    host="desk",
    user="ada",
    pid=42,
    version="1.0.0",
    manifest="/a/staff.csv",
    manifest_sha256="0" * 64,
    options={"group_id": "staff"},
)

END = RunEnd(
    at=1_735_787_105_000,
    exit_code=3,
    reason="No key.",
    calls={"add": 1_200, "group_list": 1},
    rows={"enrolled": 1_200},
    limit=8,
)

LIBRARY = LibraryIdentity(host="a.example", group_id="staff", add_time="2025-01-01T00:00:00Z")


@pytest.fixture
def enrolled(box: Sandbox, archive: Archive, command: Command) -> Command:
    """The command after a run with one enrolled, one rejected and one invalid row."""
    archive.photo("nobody.jpg", nobody())
    archive.manifest([*archive.portraits(1), ("a2", "=1+1", "nobody.jpg"), ("a 3", "", "x.jpg")])
    assert command(*RUN).code == 1
    return command


def test_status_shows_counts_errors_and_runs() -> None:
    status = LedgerStatus(
        identity=LIBRARY,
        photo_root="/photos",
        counts={Status.ENROLLED: 1_200, Status.FAILED: 1},
        errors=[
            ErrorCount(status=Status.FAILED, code="PHOTO_MISSING", count=1, message="x"),
            ErrorCount(status=Status.REJECTED, code="UNHEARD_OF", count=12, message="What now?"),
        ],
        runs=[
            RunRecord(run=2, start=START, end=None),
            RunRecord(run=1, start=START, end=END),
        ],
    )
    held = ": process 42 on desk, since 2025-01-02 03:04:04 UTC"
    assert status_lines(status, Path("a.sqlite"), holder=held) == [
        "Library  staff at a.example, created 2025-01-01T00:00:00Z",
        "Ledger   a.sqlite",
        "Photos   /photos",
        "",
        "  enrolled  1,200",
        "  failed        1",
        "",
        "Errors, how many entries, and what to do",
        "  failed    PHOTO_MISSING   1  Check the path in the manifest, and --images.",
        f"  rejected  UNHEARD_OF     12  {UNKNOWN_CODE} It said: What now?",
        "",
        "Runs, the latest first",
        "     2  2025-01-02T03:04:05Z  ada@desk  in progress (process 42)",
        "     1  2025-01-02T03:04:05Z  ada@desk  exit code 3 after 1 min, 1,200 add, "
        "1 group_list: No key.",
    ]


def test_equal_undocumented_answers_are_shown_once() -> None:
    texts = [
        '{"time_used": 3, "error_message": "NEW_CODE", "request_id": "a1"}',
        '{"time_used": 4, "error_message": "NEW_CODE", "request_id": "b2"}',
        '{"time_used": 4, "error_message": "NEW_CODE: odd", "request_id": "b2"}',
    ]
    raw = [
        RawAnswer(code="NEW_CODE", number=number, http_status=400, raw=text, at=0, run=1)
        for number, text in enumerate(texts)
    ]
    status = LedgerStatus(identity=LIBRARY, photo_root="/p", counts={}, raw=raw)
    lines = status_lines(status, Path("a.sqlite"))
    assert lines[lines.index("Undocumented answers, as received") + 1 :] == [
        f"  NEW_CODE, HTTP 400: {text}" for text in (texts[0], texts[2])
    ]
    assert len(status_json(status, Path("a.sqlite"))["answers"]) == 3


def test_a_watched_status_begins_with_counts_and_runs_and_stays_on_the_screen(
    archive: Archive, command: Command
) -> None:
    archive.manifest([(f"a{number}", "", f"{number}.jpg") for number in range(3)])
    for _ in range(5):
        assert command(*RUN).code == 1
    whole = command("status").out
    terminal, end = os.openpty()
    termios.tcsetwinsize(end, (12, 70))
    shown = ""
    decoder = codecs.getincrementaldecoder("utf-8")()  # a character may come in pieces
    with command.started("status", "--watch", stdout=end) as process:
        os.close(end)  # so that reading fails once the command has ended
        while "shows the rest." not in shown:
            shown += decoder.decode(os.read(terminal, 4096))
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0
    os.close(terminal)
    lines = shown.rpartition("Library")[2].splitlines()
    assert len(lines) == 11
    assert lines.index("  failed  3") < lines.index("Runs, the latest first")
    assert "Errors, how many entries" in whole
    assert "Errors, how many entries" not in shown


def test_a_watched_status_shows_what_has_happened_since(archive: Archive, command: Command) -> None:
    archive.manifest([("a", "", "a.jpg")])
    assert command(*RUN).code == 1
    with command.started("status", "--watch", "--json", stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert len(json.loads(process.stdout.readline())["runs"]) == 1
        assert command(*RUN).code == 1
        lines = (json.loads(process.stdout.readline()) for _ in range(5))
        assert any(len(line["runs"]) == 2 for line in lines)
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        assert process.wait(SECONDS) == 0


def test_status_of_an_empty_ledger_says_so() -> None:
    lines = status_lines(LedgerStatus(identity=LIBRARY, photo_root="", counts={}), Path("a.sqlite"))
    assert lines[2:] == ["Photos   no run yet", "", "  Nothing is recorded yet."]


@pytest.mark.parametrize(
    ("holder", "state"),
    [
        (None, RunState.CUT_OFF),
        (": process 42 on desk, since 2025-01-02 03:04:04 UTC", RunState.UNDER_WAY),
        ("", RunState.UNDER_WAY),  # a full disk: who holds the lock could not write it down
        (": process 43 on desk, since 2025-01-02 04:04:04 UTC", RunState.CUT_OFF),
        (": process 42 on chair, since 2025-01-02 04:04:04 UTC", RunState.CUT_OFF),
    ],
)
def test_a_run_without_an_end_is_under_way_only_while_it_holds_the_ledger(
    holder: str | None, state: RunState
) -> None:
    runs = [RunRecord(run=1, start=START, end=None)]
    status = LedgerStatus(identity=LIBRARY, photo_root="/p", counts={}, runs=runs)
    (run,) = status_json(status, Path("a.sqlite"), holder=holder)["runs"]
    assert run["state"] == state
    last = status_lines(status, Path("a.sqlite"), holder=holder)[-1]
    assert ("run it again to settle what it left" in last) == (state is RunState.CUT_OFF)


def test_status_tells_a_killed_run_from_one_under_way(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    box.script(["late"])
    linked = archive.folder / "link.sqlite"
    linked.symlink_to(command.ledger)
    look = ("status", "--ledger", linked)
    with command.started(*RUN) as process:
        assert box.wait_count("add", 1)
        assert f"in progress (process {process.pid})" in command(*look).out
        assert json.loads(command(*look, "--json").out)["runs"][0]["state"] == "under_way"
        process.kill()
        process.wait()
    assert (
        "cut off: killed, ended by a second signal, or power or disk failed" in command(*look).out
    )
    assert json.loads(command(*look, "--json").out)["runs"][0]["state"] == "cut_off"


def test_status_as_json_has_stable_keys() -> None:
    runs = [RunRecord(run=2, start=START, end=None), RunRecord(run=1, start=START, end=END)]
    told = status_json(
        LedgerStatus(identity=LIBRARY, photo_root="/p", counts={Status.FAILED: 1}, runs=runs),
        Path("a.sqlite"),
        holder="",
    )
    assert list(told) == [
        "ledger", "library", "images", "ceiling", "forgotten", "findings", "not_audited",
        "counts", "errors", "answers", "runs",
    ]  # fmt: skip
    assert told["library"] == {
        "host": "a.example", "group_id": "staff", "add_time": "2025-01-01T00:00:00Z",
    }  # fmt: skip
    under_way, ended = told["runs"]
    assert list(under_way) == list(ended) == [
        "run", "state", "started_at", "ended_at", "host", "user", "pid", "version", "manifest",
        "manifest_sha256", "options", "exit_code", "reason", "calls", "rows", "limit",
        "pace",
    ]  # fmt: skip
    assert (under_way["ended_at"], under_way["exit_code"]) == ("", None)
    assert (under_way["state"], ended["state"]) == ("under_way", "ended")
    assert (ended["ended_at"], ended["calls"]["add"]) == ("2025-01-02T03:05:05Z", 1_200)
    assert json.loads(json.dumps(told)) == told


def test_status_tells_how_a_run_under_way_goes_and_what_the_account_takes() -> None:
    pace = RunPace(limit=17, in_flight=16, ceiling=16, calls=1000, refused=4, waits_for="photos")
    status = LedgerStatus(
        identity=LIBRARY,
        photo_root="/p",
        counts={},
        ceiling=16,
        runs=[
            RunRecord(run=2, start=START, end=None, pace=pace),
            RunRecord(run=1, start=START, end=END, pace=pace),
        ],
    )
    lines = status_lines(status, Path("a.sqlite"), holder="")
    assert "Account  takes 16 calls at a time, as last found" in lines
    assert [line for line in lines if "waits for" in line] == [
        line for line in lines if line.endswith("; limit 16, 0.4 % refused, waits for photos")
    ]
    assert sum("waits for" in line for line in lines) == 1
    told = status_json(status, Path("a.sqlite"), holder="")
    assert told["ceiling"] == told["runs"][0]["pace"]["ceiling"] == 16


def test_status_of_a_real_ledger_agrees_with_its_run(enrolled: Command) -> None:
    done = enrolled("status", "--json")
    assert done.code == 0
    told = json.loads(done.out)
    assert told["counts"] == {"enrolled": 1, "rejected": 1, "invalid": 1}
    assert {(one["status"], one["code"], one["count"]) for one in told["errors"]} == {
        ("rejected", "NO_FACE_FOUND", 1),
        ("invalid", "USER_ID_CHARACTER", 1),
    }
    (run,) = told["runs"]
    assert (run["run"], run["exit_code"], run["rows"]) == (1, 1, told["counts"])
    assert run["calls"] == {"group_list": 1, "list": 1, "add": 2}
    assert run["options"]["group_id"] == "staff"
    text = enrolled("status", "--ledger", enrolled.ledger).out
    assert text.startswith("Library  staff at 127.0.0.1")


def test_a_ledger_that_is_not_there_is_said(command: Command, archive: Archive) -> None:
    os.mkfifo(archive.folder / "pipe")
    for arguments in (["status"], ["history"], ["export", "-"]):
        done = command(*arguments)
        assert (done.code, "There is no ledger below" in done.err) == (2, True), done
        done = command(*arguments, "--ledger", "nothere.sqlite")
        assert (done.code, "There is no ledger at nothere.sqlite" in done.err) == (2, True), done
        done = command(*arguments, "--ledger", ".")
        assert done.err == "Error: . is a folder, not a ledger. Correct --ledger.\n"
        assert done.code == 2
        done = command(*arguments, "--ledger", "pipe")  # which nobody writes to
        assert (done.code, "pipe is not a file" in done.err) == (2, True), done


def test_a_damaged_ledger_is_not_said_to_be_whole(enrolled: Command) -> None:
    whole = enrolled.ledger.read_bytes()
    enrolled.ledger.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))
    for arguments in (["status"], ["export", "-"]):
        done = enrolled(*arguments, "--ledger", enrolled.ledger)
        assert (done.code, "is damaged" in done.err) == (7, True), done
        assert "Nothing that it recorded is lost" not in done.err


def test_an_export_has_a_line_an_entry(box: Sandbox, archive: Archive, enrolled: Command) -> None:
    done = enrolled("export", "all.csv")
    assert (done.code, done.out) == (0, "3 entries written to all.csv.\n")
    lines = {line["user_id"]: line for line in read_csv(archive.folder / "all.csv")}
    (face,) = box.faces("staff")
    one = lines["person-0001"]
    assert (one["status"], one["face_token"], one["run"]) == ("enrolled", face.face_token, "1")
    assert (one["image"], one["user_data"], one["attempts"]) == ("photos/1.jpg", "Name 1", "1")
    assert (lines["a2"]["error"], lines["a2"]["user_data"]) == ("NO_FACE_FOUND", "'=1+1")
    assert lines["a 3"]["error"] == "USER_ID_CHARACTER"

    assert enrolled("export", "all.jsonl").code == 0
    told = map(json.loads, (archive.folder / "all.jsonl").read_text().splitlines())
    assert {one["user_id"]: one["user_data"] for one in told}["a2"] == "=1+1"


def test_an_export_can_be_of_some_statuses(archive: Archive, enrolled: Command) -> None:
    out = enrolled("export", "-", "--status", "rejected", "--status", "invalid").out
    assert [line["status"] for line in csv.DictReader(io.StringIO(out))] == ["rejected", "invalid"]
    enrolled.environ["ENROLL_STATUS"] = "enrolled"
    assert enrolled("export", "some.csv").out == "1 entry written to some.csv.\n"
    wrong = enrolled("export", "-", "--status", "done")
    assert (wrong.code, "'in_doubt'" in wrong.err) == (2, True)


def test_a_raw_export_leaves_formulas_as_they_are(enrolled: Command) -> None:
    assert ",=1+1," in enrolled("export", "-", "--raw").out
    assert ",'=1+1," in enrolled("export", "-").out


def test_an_export_of_what_failed_is_a_manifest_for_the_same_ledger(
    box: Sandbox, archive: Archive, enrolled: Command
) -> None:
    assert enrolled("export", "rejects.csv", "--status", "rejected").code == 0
    archive.photo("nobody.jpg", portrait(2))
    assert enrolled("run", "rejects.csv", "--group-id", "staff").code == 0
    assert {face.user_data for face in box.faces("staff")} == {"Name 1", "=1+1"}


def test_a_whole_export_is_a_manifest_without_its_superseded_and_mended_faces(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    rows = [*archive.portraits(1, 2, 3), ("a4", "", "nobody.jpg")]
    archive.photo("nobody.jpg", nobody())
    archive.manifest(rows)
    assert command(*RUN).code == 1
    archive.photo("photos/2.jpg", portrait(5))  # supersedes
    archive.photo("nobody.jpg", portrait(4))  # mends
    assert command(*RUN).code == 0
    assert command("export", "all.csv").code == 0
    found = sorted(line["status"] for line in read_csv(archive.folder / "all.csv"))
    assert found == [*["enrolled"] * 4, "rejected", "superseded"]
    calls = box.count("add")
    done = command("run", "all.csv", "--group-id", "staff")
    assert (done.code, box.count("add") - calls) == (0, 0), done
    assert "2 lines without a photo, of faces that no row points to any longer, do not count" in (
        done.err
    )
    assert len(archive.results("all.results.csv")) == 4


def test_every_entry_of_an_interrupted_and_resumed_ledger_is_exported_once(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2, 3))
    assert command(*RUN, "--limit", "1").code == 6
    assert command(*RUN).code == 0
    ledger = read_ledger(command.ledger)
    try:
        assert write_export(ledger.entries(), archive.folder / "all.csv") == 3
    finally:
        ledger.close()
    lines = read_csv(archive.folder / "all.csv")
    assert sorted(line["face_token"] for line in lines) == sorted(
        face.face_token for face in box.faces("staff")
    )
    assert sorted(line["run"] for line in lines) == ["1", "2", "2"]


def history_of(command: Command, *arguments: object) -> list[dict[str, str]]:
    done = command("history", *arguments)
    assert done.code == 0, done
    return list(csv.DictReader(io.StringIO(done.out)))


def test_history_tells_what_changed_in_the_library(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2))
    box.script(["500-before"], user_id="person-0002")
    assert command(*RUN, *QUICK_DOUBTS).code == 0
    archive.photo("photos/1.jpg", portrait(3))
    assert command(*RUN).code == 0
    archive.photo("photos/1.jpg", portrait(1))
    assert command(*RUN).code == 0

    told = history_of(command)
    assert list(told[0]) == ["at", "event", "run", "user_id", "face_token", "detail"]
    first = history_of(command, "--user-id", "person-0001")
    assert [(one["event"], one["run"]) for one in first] == [
        ("enrolled", "1"),
        ("enrolled", "2"),
        ("superseded", "2"),
        ("restored", "3"),
        ("superseded", "3"),
    ]
    old, new = first[0]["face_token"], first[1]["face_token"]
    assert [one["face_token"] for one in first] == [old, new, old, old, new]
    doubt, settled, enrolled = history_of(command, "--user-id", "person-0002")
    assert (doubt["event"], doubt["face_token"], bool(doubt["detail"])) == ("in_doubt", "", True)
    assert (settled["event"], enrolled["event"]) == ("not_applied", "enrolled")
    assert [one["run"] for one in history_of(command, "--run", "2")] == ["2", "2"]
    assert len(history_of(command, "--since", told[0]["at"])) == len(told)
    assert history_of(command, "--since", "2100-01-01") == []
    (command.folder / "enroll.toml").write_text("since = 2100-01-01T08:30:00\n")
    assert history_of(command) == []


def test_a_history_that_nobody_reads_to_its_end_is_no_error(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN).code == 0
    for arguments in (["history"], ["export", "-"], ["status"]):
        reading, writing = os.pipe()
        os.close(reading)
        with command.started(*arguments, stdout=writing) as process:
            os.close(writing)
            _, err = process.communicate(timeout=60)
        assert (process.returncode, err) == (0, "")


def test_a_code_of_the_service_is_told_as_a_sentence_and_an_unknown_one_word_for_word(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.photo("nobody.jpg", nobody())
    archive.manifest([("a1", "", "nobody.jpg"), *archive.portraits(1)])
    box.script(["unknown-code"], user_id="person-0001")
    assert command("run", "staff.csv", "--group-id", "staff").code == 1
    noface, unknown = (row["message"] for row in archive.results())
    assert noface == "The service finds no face in the photo."
    assert unknown.startswith("FACE_LEFT_THE_BUILDING")
    status = json.loads(command("status", "--json").out)
    for name in ("out.csv", "out.jsonl", "out.parquet"):
        assert command("export", name, "--status", "rejected").code == 0
    (line,) = (archive.folder / "out.jsonl").read_text(encoding="utf-8").splitlines()
    table = pytest.importorskip("pyarrow.parquet").read_table(archive.folder / "out.parquet")
    assert {
        read_csv(archive.folder / "out.csv")[0]["message"],
        json.loads(line)["message"],
        table.to_pylist()[0]["message"],
        next(one["message"] for one in status["errors"] if one["code"] == "NO_FACE_FOUND"),
    } == {noface}


@cases("code", SERVICE_CODES)
def test_every_code_of_the_service_has_a_sentence(code: str) -> None:
    plain = sentence(code, "rejected", code)
    assert sentence(code, "rejected", "") == plain
    assert (plain[0].isupper(), plain[-1], " " in plain, code in plain) == (True, ".", True, False)
    assert sentence(code, "rejected", f"{code}: user_id") == f"{plain[:-1]}: user_id"
    assert sentence(code, "rejected", "Said otherwise.") == "Said otherwise."
    assert sentence(code, "in_doubt", code) == code
