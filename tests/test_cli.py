"""The command as a whole: what it leaves behind, and with which exit code it ends."""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from archive import QUICK_DOUBTS, Archive, let_nobody_look, nobody, portrait
from cases import cases
from moved_clock import standin
from real_command import SECONDS, Command, account_of

from enroll.commands import run
from enroll.errors import ExitCode
from enroll.facesearch import Call, FaceSearch
from enroll.ledger import read_ledger
from enroll.ledger.schema import SCHEMA_VERSION
from enroll.ledger.sqlite_lock import LedgerLock
from enroll.model import Credentials, Photo, SendAs
from enroll.photos import open_store, read_photo
from enroll.sandbox import Sandbox
from enroll.session import retry

pytestmark = pytest.mark.usefixtures("moved_clock")

RUN = ("run", "staff.csv", "--group-id", "staff")


def tokens(box: Sandbox) -> list[str]:
    return sorted(face.face_token for face in box.faces("staff"))


def test_a_run_enrolls_everybody_and_the_next_one_calls_and_writes_nothing(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2, 3))
    first = command.run(*RUN)
    assert (first.code, "Run 1: 3 rows enrolled" in first.out) == (0, True), first
    results = archive.folder / "staff.results.csv"
    assert sorted(line["face_token"] for line in archive.results()) == tokens(box)
    assert command.ledger.exists()
    written = results.stat().st_mtime_ns

    second = command.run(*RUN)
    assert (second.code, "nothing to do" in second.out) == (0, True), second
    assert (box.count("add"), box.count("list")) == (3, 1)
    assert results.stat().st_mtime_ns == written


def test_the_module_is_the_command(command: Command) -> None:
    done = command.run("--version")
    assert (done.code, done.out.startswith("enroll, version ")) == (0, True), done


def test_rejected_invalid_and_failed_rows_make_exit_code_1(
    archive: Archive, command: Command
) -> None:
    archive.photo("nobody.jpg", nobody())
    archive.manifest([("a1", "", "nobody.jpg"), ("a2", "", "missing.jpg"), ("ä", "", "x.jpg")])
    done = command(*RUN)
    assert done.code == ExitCode.SOME_ROWS_FAILED
    assert [line["status"] for line in archive.results()] == ["rejected", "failed", "invalid"]
    assert "Take a photo with the face clear and upright" in done.out


@pytest.mark.parametrize(("fail_on", "codes"), [("any", [1, 1]), ("new", [1, 0]), ("none", [0, 0])])
def test_fail_on_says_which_rows_make_exit_code_1(
    archive: Archive, command: Command, fail_on: str, codes: list[int]
) -> None:
    archive.photo("nobody.jpg", nobody())
    archive.manifest([("a1", "", "nobody.jpg")])
    assert [command(*RUN, "--fail-on", fail_on).code for _ in codes] == codes


@pytest.mark.parametrize("send_as", ["file", "image"])
def test_a_photo_goes_as_a_file_or_as_text(
    box: Sandbox, archive: Archive, command: Command, send_as: str
) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN, "--send-as", send_as).code == 0
    assert len(box.faces("staff")) == 1


@cases(
    ("arguments", "sentence"),
    [
        (["run", "nothere.csv", "--group-id", "staff"], "There is no manifest at nothere.csv"),
        (["run", "staff.csv"], "--group-id is needed"),
        (["run"], "Missing argument 'MANIFEST'"),
        ([*RUN, "--on-code", "X=perhaps"], "'perhaps' is not one of 'reject', 'retry', 'stop'."),
        ([*RUN, "--on-code", "X"], "'X' is not of the form CODE=RULE"),
        ([*RUN, "--on-code", "INVALID_OUTER_ID=reject"], "it always stops the run"),
        ([*RUN, "--on-code", "HTTP_302=retry"], "it always stops the run"),
        ([*RUN, "--on-code", "HTTP_502=retry"], "HTTP_502 cannot be overridden"),
        ([*RUN, "--on-code", "TIMEOUT=reject"], "TIMEOUT cannot be overridden"),
        (
            [*RUN, "--on-code", "HTTP_429=stop"],
            "the service refused the call because of the account's limit",
        ),
        ([*RUN, "--on-code", "odd=reject"], "'odd' is not an error code"),
        ([*RUN, "--on-code", "X=stop", "--on-code", "X=retry"], "X is given twice"),
        ([*RUN, "--retry", "NO_FACE_FOUND,no-face"], "'no-face' is not an error code"),
        ([*RUN, "--retry", ""], "'' is not an error code"),
        ([*RUN, "--columns", "image=A,image=B"], "image is given twice"),
        ([*RUN, "--columns", "user_data=IMAGE"], "cannot be both user_data and image"),
        (
            [*RUN, "--columns", "photo=X"],
            "'photo' is not one of 'user_id', 'user_data', 'image', 'photo_base64'.",
        ),
        ([*RUN, "--columns", "image=PHOTO"], "has no column 'PHOTO'"),
        ([*RUN, "--endpoint", "http://192.0.2.1"], "--allow-http"),
        ([*RUN, "--images", "nothere"], "does not exist. Correct --images"),
        ([*RUN, "--images", "staff.csv"], "staff.csv is not a folder. Correct --images"),
        ([*RUN, "--rate", "0.00001"], "0.00001 is out of range: it must be at least 0.001."),
        ([*RUN, "--timeout", "0"], "0 is out of range: it must be between 0.1 and 86400."),
        ([*RUN, "--max-duration", "0h"], "0h is out of range: it must be more than 0 and at most"),
        (
            [*RUN, "--max-in-flight", "05000"],
            "05000 is out of range: it must be between 1 and 1000; auto is also allowed.",
        ),
        (["history", "--since", "23.11.2026"], "Write it like 2026-11-23 or 2026-11-23T08:30:00."),
        ([*RUN, "--results", "staff.csv"], "would overwrite the manifest"),
        (["export", "out.txt"], "must end in .csv, .xlsx, .jsonl or .parquet"),
        (["frobnicate"], "No such command 'frobnicate'"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_2(
    box: Sandbox, archive: Archive, command: Command, arguments: list[str], sentence: str
) -> None:
    archive.manifest(archive.portraits(1))
    if arguments[0] == "export":
        assert command(*RUN, "--limit", "1").code == 0
    calls = box.count("add")
    done = command(*arguments)
    assert (done.code, done.out) == (ExitCode.USAGE, "")
    assert sentence in done.err
    assert "Traceback" not in done.err
    assert box.count("add") == calls


def test_a_new_ledger_for_a_library_with_faces_has_to_be_wanted(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN).code == 0
    archive.manifest(archive.portraits(2))
    done = command(*RUN, "--ledger", "other.sqlite")
    assert done.code == ExitCode.USAGE
    assert "--allow-nonempty" in done.err
    assert not (archive.folder / "other.sqlite").exists()
    assert len(box.faces("staff")) == 1
    assert command(*RUN, "--ledger", "other.sqlite", "--allow-nonempty").code == 0
    assert len(box.faces("staff")) == 2


def test_a_file_that_is_no_ledger_is_refused_and_left_alone(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    other = archive.folder / "payroll.sqlite"
    connection = sqlite3.connect(other)
    connection.execute("create table wages (person text)")
    connection.close()
    before = other.read_bytes()
    adopt = ("adopt", *RUN[1:])
    for arguments in (RUN, adopt, ("status",), ("history",), ("export", "-"), ("plan", RUN[1])):
        done = command(*arguments, "--ledger", other)
        assert (done.code, "is not a ledger of enroll" in done.err) == (ExitCode.USAGE, True), done
    assert other.read_bytes() == before
    assert [path.name for path in archive.folder.glob("payroll*")] == ["payroll.sqlite"]
    assert box.count("add") == 0


def test_another_librarys_ledger_is_refused(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    box.create_library("guests")
    assert command(*RUN).code == 0
    for name in ("run", "plan"):
        done = command(name, "staff.csv", "--group-id", "guests", "--ledger", command.ledger)
        assert done.code == ExitCode.USAGE
        assert "belongs to the library staff" in done.err
    assert box.faces("guests") == []


def test_the_ledger_of_a_library_that_was_made_anew_is_refused(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN).code == 0
    with standin() as anew:
        anew.create_library("staff")
        command.environ.update(account_of(anew))
        done = command(*RUN)
        assert (done.code, "the one there now was created at" in done.err) == (2, True), done
        assert "A stand-in without --store forgets its libraries" in done.err
        assert anew.faces("staff") == []


def test_a_ledger_of_a_newer_version_is_refused(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN).code == 0
    connection = sqlite3.connect(command.ledger)
    connection.execute(f"pragma user_version={SCHEMA_VERSION + 1}")
    connection.close()
    for arguments in (RUN, ("status",)):
        done = command(*arguments)
        assert done.code == ExitCode.USAGE, done
        assert "a newer version of enroll" in done.err
        assert f"schema {SCHEMA_VERSION + 1}; this one knows schemas up to" in done.err


def test_a_wrong_key_stops_with_exit_code_3(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    command.environ["ENROLL_API_SECRET"] = "wrong"
    done = command(*RUN)
    assert done.code == ExitCode.SERVICE
    used = f"key {command.environ['ENROLL_API_KEY'][:4]}… (ENROLL_API_KEY and ENROLL_API_SECRET)"
    assert f"Check the credentials that were used, {used}, and this machine's clock." in done.err
    assert box.count("add") == 0


@pytest.mark.parametrize(
    "arguments",
    [
        RUN,
        (*RUN[:2], "--group-id", "other", "--create-library"),
        ("sync", *RUN[1:]),
        ("adopt", *RUN[1:]),
        ("verify",),
        ("audit",),
        ("remove", "--run", "1"),
        ("forget", "--user-id", "person-0001"),
        ("library", "list"),
        ("library", "create", "--group-id", "new"),
        ("library", "delete", "--group-id", "staff"),
    ],
)
def test_every_command_says_where_it_calls_and_with_what_before_the_first_call(
    box: Sandbox, archive: Archive, command: Command, arguments: tuple[str, ...]
) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN).code == 0
    keys = archive.folder / "keys"
    keys.write_text(f'api_key = "{box.api_key}"\napi_secret = "wrong"\n')
    keys.chmod(0o600)
    done = command(*arguments, "--credentials", keys)
    used = f"key {box.api_key[:4]}… ({keys})"
    endpoint, account, *_ = done.err.splitlines()
    assert endpoint == f"Endpoint  {box.endpoint} (ENROLL_ENDPOINT)"
    assert account == f"Account   {used}"
    assert f"Check the credentials that were used, {used}, and" in done.err
    waits = arguments[0] in ("run", "sync") and "other" not in arguments  # with a known ledger
    assert ("Waiting for other credentials" in done.err) == waits
    assert (done.code, box.api_key in done.err) == (ExitCode.SERVICE, False)


def test_credentials_that_are_refused_on_the_way_are_named(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    box.script(["auth"] * 9, call="add")
    done = command(*RUN)
    assert done.code == ExitCode.SERVICE
    assert f"used, key {box.api_key[:4]}… (ENROLL_API_KEY and ENROLL_API_SECRET), and" in (
        done.out + done.err
    )


def test_a_missing_library_stops_with_exit_code_3_and_names_those_there_are(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    done = command("run", "staff.csv", "--group-id", "stuff")
    assert done.code == ExitCode.SERVICE
    assert "it has staff" in done.err
    assert "enroll library create --group-id stuff" in done.err


def test_a_code_that_is_to_stop_the_run_stops_it_and_the_rows_stay_due(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2, 3))
    box.script(["unknown-code"])
    done = command(*RUN, "--max-in-flight", "1", "--on-code", "FACE_LEFT_THE_BUILDING=stop")
    assert (
        done.code,
        "then stopped: The service stopped the run: FACE_LEFT_THE_BUILDING" in done.out,
    ) == (3, True)
    assert box.count("add") == 1
    assert {line["status"] for line in archive.results()} == {"pending"}
    assert command(*RUN).code == 0


def test_rows_in_doubt_make_exit_code_4_and_are_not_sent_again(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN).code == 0
    archive.manifest(archive.portraits(1, 2))
    let_nobody_look(box)
    box.script(["500-after"], user_id="person-0002")
    for _ in range(2):
        assert command(*RUN, *QUICK_DOUBTS).code == ExitCode.IN_DOUBT
        assert [line["status"] for line in archive.results()] == ["enrolled", "in_doubt"]
    assert box.count("add") == 2


def test_a_ledger_that_another_run_holds_is_exit_code_5(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN).code == 0
    with LedgerLock(command.ledger):
        done = command.run(*RUN)
    assert done.code == ExitCode.LEDGER_BUSY
    assert "Another run holds the ledger" in done.err
    assert "process " in done.err
    assert box.count("group_list") == 1


def test_a_limit_is_exit_code_6_and_the_next_run_goes_on(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1, 2, 3))
    done = command(*RUN, "--limit", "2")
    assert done.code == ExitCode.ENDED_EARLY
    assert "--limit 2 was reached; 1 row left" in done.out
    assert [line["status"] for line in archive.results()].count("pending") == 1
    assert command(*RUN, "--limit", "2").code == 0
    assert (box.count("add"), len(tokens(box))) == (3, 3)


def test_a_service_that_cannot_be_reached_is_exit_code_9_before_the_run(
    archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.manifest(archive.portraits(1))
    monkeypatch.setattr(retry, "FIRST_PAUSE_SECONDS", 0.01)
    done = command(*RUN, "--endpoint", "http://127.0.0.1:1", "--give-up-after", "1")
    assert done.code == ExitCode.UNREACHED
    assert "no connection to 127.0.0.1:1" in done.err


def test_a_photos_folder_that_went_away_is_exit_code_7_and_rows_stay_due(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    rows = archive.portraits(1, 2)
    archive.manifest(rows[:1])
    assert command(*RUN, "--images", ".").code == 0
    names = [(user_id, name, Path(image).name) for user_id, name, image in rows]
    archive.manifest(names[:1])
    assert command(*RUN, "--images", "photos").code == 0
    archive.manifest(names)
    (archive.folder / "photos").rename(archive.folder / "unmounted")
    done = command(*RUN)
    assert (done.code, "Mount the share again" in done.err) == (ExitCode.LOCAL, True), done
    (archive.folder / "unmounted").rename(archive.folder / "photos")
    assert command(*RUN).code == 0
    assert box.count("add") == 2


@pytest.mark.parametrize(
    ("option", "sentence", "code"),
    [
        ("--ledger", "The ledger's folder", ExitCode.LOCAL),
        ("--results", "cannot be written", ExitCode.USAGE),
        ("--log-file", "Name another with --log-file", ExitCode.USAGE),
    ],
)
def test_a_place_that_cannot_be_written_stops_a_run_before_its_first_photo(
    box: Sandbox, archive: Archive, command: Command, option: str, sentence: str, code: ExitCode
) -> None:
    archive.manifest(archive.portraits(1))
    (archive.folder / "file").write_text("not a folder")
    done = command(*RUN, option, "file/below.csv")
    assert (done.code, sentence in done.out + done.err) == (code, True), done
    assert len(box.faces("staff")) == 0


@pytest.mark.parametrize("blocks", [0, 120, 180])
def test_a_disk_that_fills_up_is_exit_code_7_and_costs_no_face(
    box: Sandbox, archive: Archive, command: Command, blocks: int
) -> None:
    rows = archive.portraits(*range(1, 9))
    archive.manifest(rows[:1])
    assert command(*RUN).code == 0
    archive.manifest(rows)
    # No file may become longer than so many blocks of 512 bytes.
    full = {resource.RLIMIT_FSIZE: (blocks * 512, blocks * 512)}
    done = command.run(*RUN, *QUICK_DOUBTS, "--max-in-flight", "2", limits=full)
    assert done.code == ExitCode.LOCAL, done
    assert "cannot be" in done.out + done.err
    assert command(*RUN, *QUICK_DOUBTS).code == ExitCode.DONE
    people = [face.user_id for face in box.faces("staff")]
    assert len(people) == len(set(people))
    for line in archive.results():
        assert line["status"] == "enrolled"
        assert line["face_token"] in tokens(box)


def test_what_is_printed_onto_a_full_disk_is_exit_code_7(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN).code == 0
    for arguments in (["status"], ["history"], ["export", "-"], ["plan", "staff.csv"]):
        with (
            Path("/dev/full").open("w") as full,
            command.started(*arguments, stdout=full) as process,
        ):
            _, err = process.communicate(timeout=SECONDS)
        assert (process.returncode, "No space left" in err) == (ExitCode.LOCAL, True), err


def test_a_log_file_on_a_full_disk_ends_no_run(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN, "--log-file", "/dev/full").code == 0


@pytest.mark.parametrize("progress", ["--progress", "--no-progress"])
def test_readers_of_its_output_that_go_away_end_no_run(
    box: Sandbox, archive: Archive, command: Command, progress: str
) -> None:
    archive.manifest([*archive.portraits(1, 2), ("bad id", "", "x.jpg")])
    with command.started(*RUN, progress, "--log-format", "text") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        process.stderr.close()
        assert process.wait(SECONDS) == ExitCode.SOME_ROWS_FAILED
    assert [line["status"] for line in archive.results()] == ["enrolled", "enrolled", "invalid"]
    assert len(tokens(box)) == 2


def test_an_error_that_nobody_reads_keeps_its_exit_code(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1))
    with command.started("run", "staff.csv", "--group-id", "stuff") as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(SECONDS) == ExitCode.SERVICE


def test_a_run_without_standard_streams_writes_into_none_of_its_files(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    archive.manifest([*archive.portraits(1, 2), ("bad id", "", "x.jpg")])
    closed = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
    assert command.run(*RUN, wrapped=closed).code == ExitCode.SOME_ROWS_FAILED
    assert len(tokens(box)) == 2
    for path in (command.ledger, command.ledger.with_name("staff.sqlite.lock")):
        assert b"enrolled, then" not in path.read_bytes()
        assert b"Line " not in path.read_bytes()
    ledger = read_ledger(command.ledger)
    assert ledger.status().runs[0].end is not None
    ledger.close()


def test_a_manifests_name_that_is_no_text_can_be_printed(
    archive: Archive, command: Command
) -> None:
    manifest = archive.manifest(archive.portraits(1)).rename(archive.folder / "caf\udce9.csv")
    done = command.run("plan", manifest)
    assert (done.code, "caf\\xe9.csv" in done.out) == (0, True), done


def test_a_bug_is_one_sentence_and_a_file_for_its_owner(
    archive: Archive, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.manifest(archive.portraits(1))

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr(run, "enroll_manifest", broken)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    done = command(*RUN)
    assert done.code == ExitCode.BUG
    assert "a bug in enroll" in done.err
    (told,) = tmp_path.glob("enroll-bug-*")
    assert str(told) in done.err
    assert "nobody thought of this" in told.read_text()
    assert told.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def buggy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A bug in every run."""

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr(run, "enroll_manifest", broken)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


@pytest.mark.usefixtures("buggy")
def test_a_bugs_traceback_is_in_the_log_and_without_a_terminal_on_stderr(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    done = command(*RUN, "--log-file", "log.txt")
    assert done.err.startswith("Traceback (most recent call last):")
    assert done.err.splitlines()[-1].startswith("Error: This is a bug in enroll")
    log = (archive.folder / "log.txt").read_text()
    assert "error: This is a bug in enroll" in log
    assert "ZeroDivisionError: nobody thought of this" in log
    assert "Traceback (most recent call last):" in log


@pytest.mark.parametrize("left", ["", '{"event": "ended"}\n', '{"event": "cut o'])
def test_a_log_that_ends_within_a_line_spoils_no_other(
    archive: Archive, command: Command, left: str
) -> None:
    log = archive.folder / "log.jsonl"
    log.write_text(left)
    log.chmod(0o600)
    command("run", "none.csv", "--group-id", "a", "--log-file", "log.jsonl", "--log-format", "json")
    lines = log.read_text().splitlines()
    assert lines[: len(left.splitlines())] == left.splitlines()
    added = [json.loads(line) for line in lines[len(left.splitlines()) :]]
    assert [one["event"] for one in added] == ["error"]


@pytest.mark.usefixtures("buggy")
def test_a_bugs_traceback_is_in_one_line_where_lines_are_json(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    done = command(*RUN, "--log-file", "log.jsonl", "--log-format", "json")
    log = (archive.folder / "log.jsonl").read_text()
    for lines in (done.err, log):
        *_, last = map(json.loads, lines.splitlines())
        assert (last["event"], last["exit_code"]) == ("error", ExitCode.BUG)
        assert "ZeroDivisionError: nobody thought of this" in last["traceback"]


@pytest.mark.usefixtures("buggy")
def test_on_a_terminal_a_bug_is_a_sentence(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1))
    terminal, end = os.openpty()
    with os.fdopen(end, "w") as stderr:
        assert command.within(RUN, sys.stdout, stderr) == ExitCode.BUG
        stderr.flush()
        said = os.read(terminal, 10_000).decode()
    os.close(terminal)
    assert "a bug in enroll" in said
    assert "Traceback" not in said


def test_a_bug_on_a_full_disk_is_told_on_the_terminal(
    archive: Archive, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.manifest(archive.portraits(1))
    monkeypatch.setattr(run, "enroll_manifest", None)
    monkeypatch.setattr(tempfile, "tempdir", "/dev/full")
    done = command(*RUN)
    assert done.code == ExitCode.BUG
    assert "TypeError: 'NoneType' object is not callable" in done.err
    assert "Please report it with the lines above." in done.err


def test_a_library_that_is_not_there_is_not_shown(box: Sandbox, command: Command) -> None:
    done = command("library", "show", "--group-id", "nobody")
    assert done.code == ExitCode.SERVICE
    assert done.err.splitlines()[-1] == (
        "Error: The account has no library nobody. `enroll library list` shows its libraries."
    )


def test_a_call_that_the_service_refuses_is_not_a_service_that_cannot_be_used(
    box: Sandbox, command: Command
) -> None:
    done = command("library", "create", "--group-id", "guests", "--name", "x" * 61)
    assert done.code == ExitCode.SERVICE
    assert "Error: The service refused the call: BAD_ARGUMENTS: group_name. Correct" in done.err


def test_a_library_is_made_listed_and_shown(box: Sandbox, command: Command) -> None:
    done = command("library", "create", "--group-id", "guests", "--name", "Day guests")
    assert (done.code, "The library guests was created" in done.out) == (0, True), done
    listed = command("library", "list")
    assert listed.code == 0
    assert [line.split()[0] for line in listed.out.splitlines()] == ["group_id", "staff", "guests"]
    assert "Day guests" in listed.out
    shown = command("library", "show", "--group-id", "guests")
    assert shown.code == 0, shown
    told = dict(line.split(maxsplit=1) for line in shown.out.splitlines() if " " in line)
    assert (told["group_id"], told["group_name"]) == ("guests", "Day guests")
    one = json.loads(command("library", "show", "--group-id", "guests", "--json").out)
    assert one.keys() == {"group_id", "group_name", "group_data", "model_version", "add_time"}
    assert (one["add_time"], one["model_version"]) == (told["add_time"], told["model_version"])
    assert one in json.loads(command("library", "list", "--json").out)["libraries"]
    again = command("library", "create", "--group-id", "guests")
    assert (again.code, "already has a library guests" in again.err) == (ExitCode.USAGE, True)
    assert len(box.faces("guests")) == 0


def test_a_stand_in_says_how_to_use_it_and_can_be_used(command: Command, archive: Archive) -> None:
    archive.photo("1.jpg", portrait(1))
    archive.manifest([("a1", "", "1.jpg")])
    with command.started("sandbox", "--port", 0, "--library", "visitors") as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(7)]
        user = Command(home=command.home, folder=command.folder)
        for line in said:
            if line.startswith("  export "):
                name, _, value = line.removeprefix("  export ").strip().partition("=")
                user.environ[name] = value
        assert "visitors" in user("library", "list").out
        assert user("run", "staff.csv", "--group-id", "visitors").code == 0
        process.terminate()
        out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, err) == (0, "")
    assert out == "The stand-in has stopped. Calls: 1 add, 2 group_list, 1 list.\n"


def test_a_stand_in_shows_faces_late_and_carries_calls_out_late_when_told_to(
    command: Command, archive: Archive
) -> None:
    archive.photo("1.jpg", portrait(1))
    archive.manifest([("a1", "", "1.jpg")])
    options = ["--search-lag", "600", "--late-after", "0.1", "--fault", "add:late=1"]
    with command.started("sandbox", "--port", 0, "--library", "visitors", *options) as process:
        assert process.stdout is not None
        said = [process.stdout.readline() for _ in range(7)]
        told = dict(
            line.removeprefix("  export ").strip().split("=", 1)
            for line in said
            if line.startswith("  export ")
        )
        credentials = Credentials(told["ENROLL_API_KEY"], told["ENROLL_API_SECRET"])
        short, service = (
            FaceSearch(told["ENROLL_ENDPOINT"], credentials, timeout=timeout)
            for timeout in (3.0, SECONDS)
        )
        photo = read_photo(str(archive.folder / "1.jpg"), open_store(archive.folder))
        assert isinstance(photo, Photo)
        call = Call.add(
            group_id="visitors",
            user_id="a1",
            user_data="",
            send_as=SendAs.FILE,
            multi_oriented_detection=False,
        )
        added = short.make(call, photo)
        search = Call.search(group_id="visitors", send_as=SendAs.FILE)
        found = service.make(search, photo)
        counted = service.make(Call.free(group_id="visitors", check_empty=True))
        short.close()
        service.close()
    assert added.code == "TIMEOUT"
    assert found.payload["results"] == []  # not shown
    assert counted.code == "NOT_EMPTY"  # and there all the same


def test_a_stand_ins_wrong_options_are_named(command: Command) -> None:
    done = command("sandbox", "--fault", "plague=0.5")
    assert (done.code, "the kinds are" in done.err) == (ExitCode.USAGE, True), done
    libraries = [word for number in range(11) for word in ("--library", f"l{number}")]
    done = command("sandbox", "--port", 0, *libraries)
    assert (done.code, "at most 10 libraries" in done.err) == (ExitCode.USAGE, True), done


def test_a_store_that_another_stand_in_has_open_is_named_and_not_the_port(
    command: Command,
) -> None:
    store = command.folder / "service.sqlite"
    with standin(store=store):
        for arguments in (["sandbox", "--port", 0, "--store", store], ["demo", store.parent]):
            done = command(*arguments)
            assert done.code == ExitCode.USAGE, done
            assert f"The store {store} is in use by another stand-in. Name another" in done.err
    done = command("sandbox", "--port", 0, "--store", command.folder / "nowhere" / "a.sqlite")
    assert (done.code, "a.sqlite cannot be opened: No such file" in done.err) == (2, True), done


def test_a_demo_keeps_to_its_folder_and_adds_nothing_the_second_time(
    command: Command, archive: Archive
) -> None:
    first = command("demo", "rehearsal")
    assert first.code == 0, first
    assert "now holds 60 faces" in first.out
    second = command("demo", "rehearsal")
    assert second.code == 0, second
    assert "now holds 60 faces" in second.out
    assert [path.name for path in archive.folder.iterdir()] == ["rehearsal"]
    assert not command.state.exists()


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash here")
def test_bash_completes_commands_options_and_their_values(command: Command) -> None:
    script = """
        eval "$(_ENROLL_COMPLETE=bash_source enroll)"
        complete_words() {
            COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
            _enroll_completion enroll
            echo "${COMPREPLY[@]}"
        }
        complete_words enroll hist
        complete_words enroll run --lookal
        complete_words enroll run --lookalikes ""
    """
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", script],
        env={**command.environ, "PATH": path},
        text=True,
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.stdout.splitlines(), done.stderr) == (
        ["history", "--lookalikes", "off warn hold"],
        "",
    )
