"""`enroll ledger copy`: every row arrives as it was, whole or not at all, and only one ledger goes
on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archive import Archive
from ledger_rows import STAFF, START, enroll, face
from postgres_server import new_schema
from real_command import Command
from sqlalchemy import JSON, BigInteger, Boolean, Column, Float, Integer, LargeBinary, Text
from test_upgrades import LEDGERS, content, ddl_of, ledger_of_1_0

from enroll.addresses import ledger_named
from enroll.cli import exit_code_of
from enroll.errors import LedgerMismatchError
from enroll.ledger import Changes, LedgerStore, ledger_at, schema
from enroll.ledger import copying as rows_of
from enroll.model import Status

FILE, DATABASE = "a file", "a database"

PLACES: dict[str, Callable[[Path], Path]] = {
    FILE: lambda folder: folder / "copy.sqlite",
    DATABASE: lambda folder: ledger_named(new_schema()),
}


@pytest.fixture(params=PLACES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return PLACES[request.param](tmp_path)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine remembers of ledgers in a database is the test's own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def copied(source: Path, target: Path, *, code: int = 0) -> None:
    assert exit_code_of(["ledger", "copy", str(source), str(target)]) == code


def copied_rows(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of a file's tables, but the record that it was copied."""
    found = content(path)
    place = [column.name for column in schema.run.columns].index("command")
    found["run"] = [one for one in found["run"] if one[place] != "ledger copy"]
    return found


# Every row


HOSTILE = ("NUL \0, \U0010ffff, \U0010ffff0", "ümlaut 北京", "=1+1\r\n\x1b[2J", " ", "%s \\N \\.")

BYTES = (bytes(range(32)), b"\\x00'\"\t\n" * 4, bytes(32), b"\xff" * 32, b"\0" + b"a" * 31)


def value(column: Column[Any], number: int) -> object:
    """A value of a column's kind, another one for each of five numbers."""
    if column.nullable and number == 4:
        return None
    if isinstance(column.type, Integer):
        return 2**62 + number if isinstance(column.type, BigInteger) else number + 1
    of_kind: dict[type, object] = {
        Boolean: number % 2,
        Float: (0.1, 1e300, -1.5, 2.0, 1 / 3)[number],
        JSON: json.dumps({"a": [HOSTILE[number], "\udc80", 1.0]}),
        LargeBinary: BYTES[number],
        Text: f"{number}{HOSTILE[number]}",
    }
    return of_kind[type(column.type)]


def filled(path: Path) -> Path:
    """A ledger with five rows in every table, or one where only one may be, of values that it could
    hold at most."""
    ledger_at(path).open(STAFF).close()
    with closing(sqlite3.connect(path)) as file, file:
        for table in schema.metadata.sorted_tables:
            if table is schema.library:
                file.execute("UPDATE library SET ceiling = 7, lag = 1.5, began_empty = 1")
                continue
            for number in range(1 if "only" in table.c else 5):
                row = {one.name: value(one, number) for one in table.columns}
                row |= {"only": 1} if "only" in table.c else {}
                if table is schema.row:
                    pointing = number % 2 == 0
                    row["face_id"] = number + 1 if pointing else None
                    row["status"] = None if pointing else row["status"] or "pending"
                elif table is schema.accepted:
                    row["other_user_id"] = row["user_id"]
                elif table is schema.run:
                    row |= {"send_as": "file", "pace": '{"limit": 1, "in_flight": 1}'}
                marks = ", ".join("?" * len(row))
                file.execute(
                    f'INSERT OR IGNORE INTO "{table.name}" VALUES ({marks})', tuple(row.values())
                )
    return path


def test_every_row_of_every_table_comes_back_from_a_database_as_it_was(tmp_path: Path) -> None:
    source = filled(tmp_path / "ledger.sqlite")
    before = content(source)
    assert {name for name, rows in before.items() if not rows} == set()
    database, back = ledger_named(new_schema()), tmp_path / "back.sqlite"
    copied(source, database)
    copied(database, back)
    assert copied_rows(back) == before == copied_rows(source)
    assert ddl_of(back) == (LEDGERS / "schema_1.sql").read_text(encoding="utf-8")
    assert back.stat().st_mode & 0o777 == 0o600
    other, last = ledger_named(new_schema()), tmp_path / "folder" / "last.sqlite"
    copied(back, other)
    copied(other, last)
    assert copied_rows(last) == before


def test_the_next_event_and_run_have_the_numbers_after_the_last(
    tmp_path: Path, target: Path
) -> None:
    source = tmp_path / "ledger.sqlite"
    with closing(ledger_at(source).open(STAFF)) as ledger:
        ledger.start_run(START)
        ledger.record(Changes(faces=[face(1, Status.SENDING), face(2, Status.SENDING)]))
        ledger.commit()
        ledger.start_run(replace(START, at=2_000))
    copied(source, target)
    with closing(ledger_at(target).open(STAFF)) as ledger:
        assert ledger.start_run(replace(START, at=3_000)) == 3
        assert ledger.new_face_id() == 3
        ledger.record(Changes(faces=[face(3, Status.SENDING)]))
        ledger.commit()
        ledger.start_run(replace(START, at=4_000))
        runs = [event.run for event, _ in ledger.history()]
    assert runs == [2, 2, 4]


def test_a_doubt_keeps_its_expiry(tmp_path: Path, target: Path) -> None:
    source = tmp_path / "ledger.sqlite"
    doubt = replace(face(1, Status.IN_DOUBT), expires=1234.5)
    with closing(ledger_at(source).open(STAFF, began_empty=True)) as ledger:
        ledger.start_run(START)
        ledger.record(Changes(faces=[doubt]))
        ledger.commit()
    copied(source, target)
    with closing(ledger_at(target).open(STAFF)) as ledger:
        assert ledger.open_faces() == [doubt]
        assert ledger.began_empty


def test_a_ledger_of_1_0_arrives_with_all_its_rows(tmp_path: Path, target: Path) -> None:
    source = ledger_of_1_0(tmp_path / "ledger.sqlite")
    before = content(source)
    copied(source, target)
    back = tmp_path / "back.sqlite"
    copied(target, back)
    assert copied_rows(back) == before


# One ledger goes on


def test_a_run_goes_on_with_the_copy_and_is_refused_with_the_original(
    archive: Archive, command: Command, tmp_path: Path, target: Path
) -> None:
    archive.manifest(archive.portraits(0, 1, 2))
    run = ("run", "staff.csv", "--group-id", "staff")
    assert command(*run).code == 0
    before = command("status", "--json").out
    done = command("ledger", "copy", command.ledger, target)
    assert done.code == 0, done.err
    assert f"The ledger is now {target}" in " ".join(done.out.split())
    adds = archive.box.count("add")
    done = command(*run, "--ledger", target)
    assert (done.code, archive.box.count("add")) == (0, adds), done.err
    for words in (
        run,
        ("sync", *run[1:]),
        ("plan", *run[1:]),
        ("verify",),
        ("remove", "--run", "1"),
    ):
        done = command(*words)
        assert (done.code, str(target) in done.err) == (2, True), done
    assert archive.box.count("add") == adds
    done = command("status")
    assert (done.code, f"Copied to  {target}" in done.out) == (0, True), done
    counts = json.loads(before)["counts"]
    assert json.loads(command("status", "--json").out)["counts"] == counts
    assert command("export", tmp_path / "all.csv").code == 0


def runs_since(store: LedgerStore) -> bool:
    """Whether a run with this ledger would take it for an old copy."""
    with store.hold() as hold, closing(store.open(STAFF)) as ledger:
        return hold.last_run != 0 and not ledger.has_run(hold.last_run)


def made(path: Path) -> Path:
    """A ledger with a run and a face, which its hold remembers."""
    store = ledger_at(path)
    with store.hold() as hold, closing(store.open(STAFF)) as ledger:
        ledger.start_run(START)
        enroll(ledger, 1)
        hold.remember_run(START.at)
    return path


def test_a_copy_is_taken_for_an_old_one_only_if_the_ledger_was(
    tmp_path: Path, target: Path
) -> None:
    good = made(tmp_path / "good.sqlite")
    copied(good, target)
    assert not runs_since(ledger_at(target))
    back = tmp_path / "back.sqlite"
    copied(target, back)
    assert not runs_since(ledger_at(back))

    old = made(tmp_path / "old.sqlite")
    with ledger_at(old).hold() as hold:
        hold.remember_run(2_000)
    place = PLACES[DATABASE if str(target).startswith("postgresql") else FILE](tmp_path / "of_old")
    copied(old, place)
    shutil.rmtree(tmp_path / "state", ignore_errors=True)  # on another machine
    assert runs_since(ledger_at(place))


def test_what_a_place_remembers_of_another_ledger_does_not_count(tmp_path: Path) -> None:
    source, target = made(tmp_path / "ledger.sqlite"), tmp_path / "copy.sqlite"
    with ledger_at(target).hold() as hold:
        hold.remember_run(99_000)
    copied(source, target)
    assert not runs_since(ledger_at(target))


def test_a_backup_from_before_in_place_of_the_original_is_an_old_copy(
    tmp_path: Path, target: Path
) -> None:
    source = made(tmp_path / "ledger.sqlite")
    backup = source.read_bytes()
    copied(source, target)
    source.write_bytes(backup)
    assert runs_since(ledger_at(source))


def test_a_copy_that_is_gone_can_be_made_again_and_is_an_old_one(tmp_path: Path) -> None:
    source, target = made(tmp_path / "ledger.sqlite"), tmp_path / "copy.sqlite"
    copied(source, target)
    target.unlink()
    copied(source, target)
    assert runs_since(ledger_at(target))


def test_a_version_that_does_not_know_copies_takes_the_original_for_a_newer_one(
    tmp_path: Path,
) -> None:
    source = made(tmp_path / "ledger.sqlite")
    copied(source, tmp_path / "copy.sqlite")
    version = int.from_bytes(source.read_bytes()[60:64], "big")
    assert version == 1_000_000 + schema.SCHEMA_VERSION


# What is refused


def test_nothing_is_copied_over_what_is_there(
    tmp_path: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = made(tmp_path / "ledger.sqlite")
    copied(source, source, code=2)
    made(target)
    copied(source, target, code=2)
    assert "is ever overwritten" in " ".join(capsys.readouterr().err.split())
    note = tmp_path / "note.txt"
    note.write_text("mine")
    copied(source, note, code=2)
    assert note.read_text() == "mine"
    assert not (tmp_path / "note.txt.lock").exists()
    copied(tmp_path / "nothing.sqlite", tmp_path / "copy2.sqlite", code=2)
    copied(note, tmp_path / "copy2.sqlite", code=2)
    ledger_at(source).open(STAFF).close()


def test_an_empty_file_is_filled(tmp_path: Path) -> None:
    source, target = made(tmp_path / "ledger.sqlite"), tmp_path / "copy.sqlite"
    target.touch()
    copied(source, target)
    ledger_at(target).open(STAFF).close()


def test_neither_ledger_may_be_held(
    tmp_path: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = made(tmp_path / "ledger.sqlite")
    for held in (source, target):
        with ledger_at(held).hold():
            copied(source, target, code=5)
        assert f"process {os.getpid()} on" in " ".join(capsys.readouterr().err.split())
    assert not ledger_at(target).exists()
    copied(source, target)


def test_a_copied_ledger_is_copied_nowhere_else(
    tmp_path: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = made(tmp_path / "ledger.sqlite")
    copied(source, target)
    copied(source, tmp_path / "second.sqlite", code=2)
    assert str(target) in " ".join(capsys.readouterr().err.split())
    copied(source, target)  # once more: it is seen to be the same
    with closing(ledger_at(target).open(STAFF)) as ledger:
        ledger.start_run(replace(START, at=2_000))
    copied(source, target, code=2)
    assert "has gone on since" in " ".join(capsys.readouterr().err.split())


def test_a_copy_that_differs_is_thrown_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source, target = made(tmp_path / "ledger.sqlite"), tmp_path / "copy.sqlite"
    fill = rows_of.fill

    def loses(connection: object, table: str, rows: list[tuple[object, ...]]) -> None:
        fill(connection, table, rows[:-1] if table == "photo" else rows)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr("enroll.ledger.sqlite_store.fill", loses)
        copied(source, target, code=7)
    assert "differs from" in " ".join(capsys.readouterr().err.split())
    assert {one.name for one in tmp_path.iterdir() if one.name.startswith("copy")} == {
        "copy.sqlite.lock"
    }
    copied(source, target)


# Kills


KILLS = {
    "while it fills": ("fill", 8, False),
    "before the original is marked": ("leave", 1, False),
    "before the copy is there": ("publish", 1, False),
    "when the copy is there": ("publish", 1, True),
}
"""The call of which number, and whether SIGKILL comes after it."""

KILLED = """
import json, os, signal, sys
from enroll.cli import exit_code_of
from enroll.ledger import postgres_store as postgres
from enroll.ledger import sqlite_store as store

CLASSES = (store.SqliteOriginal, store.NewSqliteLedger, postgres.PostgresOriginal,
           postgres.NewPostgresLedger)

def dies(kind, name, number, after):
    real, calls = getattr(kind, name), []
    def call(*given):
        calls.append(given)
        last = len(calls) == number
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        real(*given)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
    setattr(kind, name, call)

ended = []
for source, target, name, number, after in json.loads(sys.argv[1]):
    child = os.fork()
    if not child:
        for kind in CLASSES:
            if hasattr(kind, name):
                dies(kind, name, number, after)
        os._exit(exit_code_of(["ledger", "copy", source, target]))
    ended.append(os.waitpid(child, 0)[1])
print(json.dumps(ended))
"""


def opens(path: Path) -> bool:
    """Whether a run could write this ledger."""
    try:
        ledger_at(path).open(STAFF).close()
    except LedgerMismatchError:
        return False
    return True


def until_free(path: Path) -> None:
    """A server notices after a moment that its client is gone."""
    ends = time.monotonic() + 60
    while ledger_at(path).holder() is not None:
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.mark.parametrize("kind", [DATABASE, pytest.param(FILE, marks=pytest.mark.thorough)])
def test_a_kill_leaves_all_or_nothing_and_the_same_command_goes_on(
    tmp_path: Path, kind: str
) -> None:
    """From a file into a database, and back."""
    first = filled(tmp_path / "first.sqlite")
    before = content(first)
    pairs = []
    for number in range(len(KILLS)):
        file, database = tmp_path / f"{number}.sqlite", ledger_named(new_schema())
        shutil.copy(first, file)
        if kind == FILE:
            copied(file, database)
            file = tmp_path / f"{number}.back.sqlite"
        pairs.append((database, file) if kind == FILE else (file, database))
    jobs = [(*map(str, pair), *kill) for pair, kill in zip(pairs, KILLS.values(), strict=True)]
    found = subprocess.run(
        [sys.executable, "-c", KILLED, json.dumps(jobs)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(found.stdout) == [signal.SIGKILL] * len(KILLS), found.stderr
    wrong = []
    for (source, target), (name, (_, _, there)) in zip(pairs, KILLS.items(), strict=True):
        until_free(source)
        until_free(target)
        is_there, source_opens = ledger_at(target).exists(), opens(source)
        if is_there is not there or source_opens is not (name in list(KILLS)[:2]):
            wrong.append(
                f"{name}: the copy is there: {is_there}, the original goes on: {source_opens}"
            )
        copied(source, target)
        if opens(source) or not opens(target) or runs_since(ledger_at(target)):
            wrong.append(f"{name}: after the second command")
        back = tmp_path / f"{target.name[:8]}.seen.sqlite"
        copied(target, back)
        if copied_rows(back) != before:
            wrong.append(f"{name}: other rows")
        back.unlink()
    assert wrong == []
