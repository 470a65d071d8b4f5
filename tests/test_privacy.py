"""What must not be seen, and by whom: secrets, user ids, files."""

from __future__ import annotations

import base64
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archive import QUICK_DOUBTS, Archive, let_nobody_look, nobody
from real_command import Command

from enroll.facesearch import client
from enroll.facesearch.signing import sign
from enroll.model import Credentials
from enroll.sandbox import Sandbox

RUN = ("run", "staff.csv", "--group-id", "staff")

ALL_TROUBLE = [
    "500-after", "502", "not-json", "cut", "no-token-after", "reset", "unknown-code", "html-403",
    "429", "refused", "endless",
]  # fmt: skip
"""One answer of each kind that a row gets over."""


def signature_part(key: str) -> bytes:
    """What every `sign` of this key has in common, whatever its times."""
    return base64.b64encode(f"={key}".encode())[: (1 + len(key)) // 3 * 4]


def files_below(*folders: Path) -> Iterator[Path]:
    for folder in folders:
        yield from (path for path in folder.rglob("*") if path.is_file())


def test_the_part_of_a_signature_that_is_searched_for_is_in_a_signature() -> None:
    # Else the tests below could not fail.
    signed = sign(Credentials("a-key", "a-secret"), issued=1, expires=2, nonce=3)
    assert signature_part("a-key") in signed.encode()


@pytest.mark.parametrize("log_format", ["text", pytest.param("json", marks=pytest.mark.thorough)])
def test_no_key_secret_or_signature_is_printed_logged_or_kept(
    box: Sandbox, archive: Archive, command: Command, log_format: str
) -> None:
    rows = archive.portraits(*range(1, 13))
    archive.photo("nobody.jpg", nobody())
    archive.manifest(rows[:1])
    assert command(*RUN).code == 0
    archive.manifest([*rows, ("a1", "", "nobody.jpg"), ("a2", "", "missing.jpg")])
    box.script(ALL_TROUBLE)
    let_nobody_look(box)
    shown = ("--log-format", log_format, "--log-file", "run.log", "--show-user-ids")
    assert command(*RUN, *shown, "--max-in-flight", "2", *QUICK_DOUBTS).code == 4
    said = [command("status", "--json"), command("history"), command("export", "a.csv")]
    box.script(["auth"])
    archive.manifest([*rows, *archive.portraits(20)])
    said += [command(*RUN, *shown), command.run(*RUN, "--endpoint", box.endpoint + "/deeper")]
    box.script(["redirect"], call="group_list")
    said += [command(*RUN, *shown)]
    command.environ["ENROLL_API_SECRET"] = secret = "not-the-secret-but-as-secret"
    said += [command(*RUN, *shown)]
    assert [done.code for done in said[3:]] == [3, 3, 3, 3]

    text = "".join(done.out + done.err for done in said).encode()
    for path in files_below(archive.folder, command.home):
        text += path.read_bytes()
    assert b"in_doubt" in text
    for word in (box.api_key, box.api_secret, secret):
        assert word.encode() not in text
    assert signature_part(box.api_key) not in text


def test_no_key_secret_or_signature_is_in_a_bugs_traceback(
    box: Sandbox,
    archive: Archive,
    command: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive.manifest(archive.portraits(1))

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("nobody thought of this")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(client, "classify", broken)
    done = command(*RUN)
    assert done.code == 70, done
    (told,) = tmp_path.glob("enroll-bug-*")
    text = told.read_bytes() + (done.out + done.err).encode()
    assert b"ZeroDivisionError" in text
    for word in (box.api_key.encode(), box.api_secret.encode(), signature_part(box.api_key)):
        assert word not in text


def test_credentials_that_the_file_gets_wrong_are_not_printed(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    del command.environ["ENROLL_API_KEY"], command.environ["ENROLL_API_SECRET"]
    file = archive.folder / "credentials"
    file.write_text("api_key = 'hidden-one'\napi_secrte = 'hidden-two'\n")
    file.chmod(0o600)
    done = command(*RUN, "--credentials", file)
    assert (done.code, "has no api_secret" in done.err) == (2, True), done
    assert "hidden" not in done.out + done.err


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_user_ids_paths_and_messages_are_masked_in_log_lines(
    archive: Archive, command: Command, log_format: str
) -> None:
    archive.photo("photos/8400123.jpg", nobody())
    archive.manifest([("8400123", "Ada", "photos/8400123.jpg"), ("77", "", "photos/77.jpg")])
    masked = ("--log-format", log_format, "--log-file", "run.log")
    done = command(*RUN, *masked)
    assert done.code == 1
    log = (archive.folder / "run.log").read_text()
    for text in (done.err, log):
        assert "84***3" in text
        assert "NO_FACE_FOUND" in text
        assert "8400123" not in text
        assert "Ada" not in text
        assert "77.jpg" not in text

    (archive.folder / "run.log").unlink()
    shown = command(*RUN, *masked, "--show-user-ids", "--retry", "NO_FACE_FOUND")
    log = (archive.folder / "run.log").read_text()
    for text in (shown.err, log):
        assert "8400123" in text
        assert "***" not in text
    if log_format == "json":
        assert "photos/8400123.jpg" in log


def test_the_summary_names_no_person(archive: Archive, command: Command) -> None:
    archive.manifest([("8400123", "Ada", "photos/8400123.jpg")])
    done = command(*RUN)
    assert "PHOTO_MISSING" in done.out
    assert "8400123" not in done.out


def test_every_file_that_is_written_is_its_owners_alone(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1))
    mine = set(files_below(archive.folder))
    assert command.run(*RUN, "--log-file", "run.log").code == 0
    for name in ("all.csv", "all.jsonl"):
        assert command("export", name).code == 0
    assert command("status").code == 0
    written = {path: path.stat().st_mode & 0o777 for path in files_below(archive.folder.parent)}
    ours = {path.name for path in written if path not in mine}
    assert ours >= {"staff.sqlite", "staff.sqlite.lock", "staff.results.csv", "run.log", "all.csv"}
    assert {mode for path, mode in written.items() if path not in mine} == {0o600}


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_no_link_is_followed_to_where_a_log_is_written(
    archive: Archive, command: Command, link: Callable[[Path, Path], None]
) -> None:
    archive.manifest(archive.portraits(1))
    victim = archive.folder / "victim"
    victim.write_bytes(b"a file of somebody's")
    link(victim, archive.folder / "run.log")
    done = command(*RUN, "--log-file", "run.log")
    assert done.code == 2
    assert "run.log is a symbolic link" in done.err or "(a hard link)" in done.err
    assert victim.read_bytes() == b"a file of somebody's"


def test_a_log_may_go_where_the_systems_own_links_lead(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1))
    done = command.run(*RUN, "--log-file", "/dev/stdout")
    assert done.code == 0
    assert " info: " in done.out


def test_a_log_that_everybody_may_write_is_refused(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1))
    log = archive.folder / "run.log"
    log.touch()
    log.chmod(0o666)
    done = command(*RUN, "--log-file", "run.log")
    assert done.code == 2
    assert "The log file run.log can be written by others (mode 0666)" in done.err
    assert log.read_bytes() == b""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file to another user")
def test_a_log_and_a_ledger_of_another_user_are_refused(
    archive: Archive, command: Command, box: Sandbox
) -> None:
    archive.manifest(archive.portraits(1))
    assert command(*RUN, "--log-file", "run.log").code == 0
    os.chown(archive.folder / "run.log", 54_321, -1)
    done = command(*RUN, "--log-file", "run.log")
    assert done.code == 2
    assert "The log file run.log belongs to user 54321" in done.err
    os.chown(command.ledger, 54_321, -1)
    done = command(*RUN)
    assert done.code == 2
    assert "belongs to user 54321" in done.err
    assert box.count("add") == 1


def test_files_that_others_can_read_and_that_name_people_are_remarked_on(
    archive: Archive, command: Command
) -> None:
    archive.manifest(archive.portraits(1))
    done = command(*RUN)
    assert "Others on this machine" not in done.out + done.err
    command.ledger.chmod(0o640)
    (archive.folder / "staff.results.csv").chmod(0o644)
    done = command(*RUN)
    assert done.code == 0
    said = done.out + done.err
    assert (
        f"Others on this machine can read the ledger {command.ledger}, which names people. Run"
        in said
    )
    assert "results file" in said
    assert f"`chmod 600 {command.ledger}`" in said


def test_every_folder_that_is_made_is_its_owners_alone(archive: Archive, command: Command) -> None:
    archive.manifest(archive.portraits(1))
    before = os.umask(0)
    try:
        assert command(*RUN).code == 0
    finally:
        os.umask(before)
    made = [command.home / "state", *(path for path in command.state.rglob("*") if path.is_dir())]
    assert {path.stat().st_mode & 0o777 for path in [*made, command.state]} == {0o700}


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="asks Linux for the limit")
def test_no_command_leaves_a_core_dump(command: Command) -> None:
    allowing = ("sh", "-c", 'ulimit -S -c "$(ulimit -H -c)"; exec "$@"', "sh")
    with command.started("sandbox", "--port", "0", wrapped=allowing) as process:
        assert process.stdout is not None
        assert "The stand-in listens" in process.stdout.readline()
        limits = Path(f"/proc/{process.pid}/limits").read_text()
    (cores,) = [line.split()[4] for line in limits.splitlines() if "core file" in line]
    assert cores == "0"
