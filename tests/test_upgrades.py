"""Schemas of the ledger: the released ones are frozen, and an older ledger is upgraded whole or not
at all. As a program: print the schema of a new ledger, for `tests/ledgers/schema_N.sql`."""

from __future__ import annotations

import json
import logging
import shutil
import sqlite3
import stat
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from archive import Archive
from ledger_rows import STAFF
from real_command import Command
from sqlalchemy import Connection

from enroll.errors import ExitCode, LedgerBusyError, LedgerMismatchError, LocalError
from enroll.ledger import schema
from enroll.ledger import sqlite_upgrades as upgrades
from enroll.ledger.sqlite_store import SqliteStore
from enroll.sandbox import Sandbox
from enroll.text.logs import LOGGER

LEDGERS = Path(__file__).with_name("ledgers")
PORTRAITS = Path(__file__).parents[1] / "enroll/cli/portraits"


def ddl_of(path: Path) -> str:
    """What a ledger's file is made of, each table with its indexes and triggers."""
    with closing(sqlite3.connect(path)) as database:
        marks = [
            f"PRAGMA {name} = {database.execute(f'PRAGMA {name}').fetchone()[0]}"
            for name in ("application_id", "user_version")
        ]
        made = database.execute(
            "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL "
            "ORDER BY tbl_name, type = 'table' DESC, type, name"
        )
        statements = [*marks, *(sql for (sql,) in made)]
    lines = [[line.strip() for line in sql.splitlines()] for sql in statements]
    return "".join("\n".join(filter(None, sql)) + ";\n" for sql in lines)


def structure(path: Path) -> dict[str, object]:
    """Tables, columns, keys, indexes and triggers, however the statements were written."""
    found: dict[str, object] = {}
    with closing(sqlite3.connect(path)) as database:
        for kind, name, table, sql in database.execute(
            "SELECT type, name, tbl_name, sql FROM sqlite_master"
        ).fetchall():
            if kind == "table":
                columns = database.execute(f'PRAGMA table_xinfo("{name}")').fetchall()
                keys = database.execute(f'PRAGMA foreign_key_list("{name}")').fetchall()
                found[name] = sorted(column[1:] for column in columns), sorted(keys)
            elif sql is not None:
                found[name] = table, " ".join(sql.split())
    return found


def content(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table."""
    with closing(sqlite3.connect(path)) as database:
        names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        return {
            name: sorted(database.execute(f'SELECT * FROM "{name}"').fetchall(), key=repr)
            for (name,) in names
        }


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as database:
        return int(database.execute("PRAGMA user_version").fetchone()[0])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


def ledger_of_1_0(path: Path, **replaced: str) -> Path:
    """The ledger that version 1.0.0 has written, with some texts replaced."""
    dump = (LEDGERS / "ledger_1.sql").read_text(encoding="utf-8")
    for old, new in {"archive": "/archive", "created": "2026-11-30T18:40:24.275Z"}.items():
        dump = dump.replace(new, replaced.get(old, new))
    path.touch(mode=0o600)
    with closing(sqlite3.connect(path)) as database:
        database.executescript(dump)
    return path


# A released schema stays as it is


def test_a_new_ledger_has_the_schema_that_was_released(path: Path) -> None:
    SqliteStore(path).open(STAFF).close()
    released = (LEDGERS / f"schema_{schema.SCHEMA_VERSION}.sql").read_text(encoding="utf-8")
    assert ddl_of(path).split() == released.split(), (
        "A released schema never changes: see CONTRIBUTING.md, 'Changing the schema'."
    )


def test_every_schema_has_a_step_to_the_next() -> None:
    assert len(upgrades.STEPS) == schema.SCHEMA_VERSION - 1


def test_the_ledger_of_1_0_becomes_like_a_new_one(path: Path) -> None:
    before = content(ledger_of_1_0(path))
    SqliteStore(path).audit().close()
    new = path.with_name("new.sqlite")
    SqliteStore(new).open(STAFF).close()
    assert structure(path) == structure(new)
    assert sum(map(len, before.values())) > 50
    assert {name: len(rows) for name, rows in content(path).items()} == {
        name: len(before.get(name, ())) for name in content(new)
    }


def test_the_ledger_of_1_0_can_be_read_and_goes_on(
    box: Sandbox, archive: Archive, command: Command
) -> None:
    for number in (*range(5), 9):
        shutil.copy(PORTRAITS / f"{number:02}.jpg", archive.folder / f"{number}.jpg")
    shutil.copy(archive.folder / "3.jpg", archive.folder / "4.jpg")
    archive.manifest([(f"p{n}", f"Person {n}", f"{n}.jpg") for n in (*range(5), 9)])
    command.ledger.parent.mkdir(parents=True)
    done = command("library", "list", "--json")
    (created,) = [one["add_time"] for one in json.loads(done.out)["libraries"]]
    ledger_of_1_0(command.ledger, archive=str(archive.folder), created=created)
    status = json.loads(command("status", "--json").out)
    assert status["counts"]["enrolled"] == 7
    assert command("export", "all.csv").code == 0
    done = command("run", "staff.csv", "--group-id", "staff")
    assert (done.code, "1 row enrolled, 5 rows enrolled before" in done.out) == (0, True), done
    assert box.count("add") == 1


# Ledgers of other programs' versions


def marked(path: Path, **marks: int) -> bytes:
    """A ledger with other marks in its head; its bytes."""
    SqliteStore(path).open(STAFF).close()
    with closing(sqlite3.connect(path)) as database:
        for name, mark in marks.items():
            database.execute(f"PRAGMA {name} = {mark}")
        database.execute("PRAGMA journal_mode = DELETE")
    return path.read_bytes()


NEWER = schema.SCHEMA_VERSION + 1


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        ({"user_version": NEWER}, f"newer version of enroll \\(schema {NEWER}.*Use that version"),
        ({"user_version": 0}, "is not a ledger of enroll"),
        *(
            (
                {"application_id": schema.DEVELOPMENT_ID, "user_version": version},
                "development version of enroll, before 1.0.*`enroll export`.*`enroll adopt`",
            )
            for version in (1, 2, 11)
        ),
    ],
)
def test_a_ledger_of_another_version_is_refused_and_left_as_it_is(
    path: Path, marks: dict[str, int], said: str
) -> None:
    before = marked(path, **marks)
    store = SqliteStore(path)
    for opens in (
        partial(store.open, STAFF),
        partial(store.scratch, STAFF),
        store.read,
        store.audit,
        store.check,
    ):
        with pytest.raises(LedgerMismatchError, match=said) as refused:
            opens()
        assert refused.value.exit_code is ExitCode.USAGE
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_newer_schema_that_only_the_journal_knows_of_is_refused_too(path: Path) -> None:
    store = SqliteStore(path)
    store.open(STAFF).close()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA journal_mode = WAL")
        newer.execute(f"PRAGMA user_version = {NEWER}")
        assert int.from_bytes(path.read_bytes()[60:64], "big") < NEWER
        for opens in (partial(store.open, STAFF), store.read):
            with pytest.raises(LedgerMismatchError, match="newer version"):
                opens()


# An upgrade, by a step that only these tests have

SIZES = 2_000


def to_schema_2(connection: Connection) -> None:
    """Add a column, replace a table to which others refer, and write more than fits in memory."""
    connection.exec_driver_sql("PRAGMA cache_size = 5")
    connection.exec_driver_sql("ALTER TABLE photo ADD COLUMN checked INTEGER")
    connection.exec_driver_sql("UPDATE photo SET checked = size")
    of_run = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = 'run'").scalar()
    connection.exec_driver_sql("CREATE TABLE run_2 AS SELECT * FROM run")
    connection.exec_driver_sql("DROP TABLE run")
    connection.exec_driver_sql(str(of_run))
    connection.exec_driver_sql("INSERT INTO run SELECT * FROM run_2")
    connection.exec_driver_sql("DROP TABLE run_2")
    connection.exec_driver_sql("CREATE TABLE size (number INTEGER PRIMARY KEY, text TEXT)")
    numbers = "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n LIMIT ?)"
    connection.exec_driver_sql(
        f"INSERT INTO size {numbers} SELECT i, hex(randomblob(200)) FROM n", (SIZES,)
    )


@pytest.fixture
def schema_2(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process knows schema 2."""
    learn(monkeypatch, to_schema_2)


def learn(monkeypatch: pytest.MonkeyPatch, *steps: upgrades.Step) -> None:
    monkeypatch.setattr(schema, "SCHEMA_VERSION", 2)
    monkeypatch.setattr(upgrades, "STEPS", steps)


UPGRADING = """
import sys
from pathlib import Path

import test_upgrades
from enroll.ledger import schema
from enroll.ledger import sqlite_upgrades as upgrades
from enroll.ledger.sqlite_store import SqliteStore

def pause(when):
    if when == sys.argv[2]:
        print(when, flush=True)
        sys.stdin.read()

def step(connection):
    test_upgrades.to_schema_2(connection)
    pause("amid")

schema.SCHEMA_VERSION = 2
upgrades.STEPS = [step]
SqliteStore(Path(sys.argv[1])).audit()
pause("after")
"""


@pytest.mark.parametrize(("when", "version"), [("amid", 1), ("after", 2)])
def test_a_killed_upgrade_leaves_the_old_schema_or_the_new_one(
    path: Path, when: str, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(ledger_of_1_0(path))
    store = SqliteStore(path)
    with subprocess.Popen(
        [sys.executable, "-c", UPGRADING, str(path), when],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent,
    ) as upgrading:
        assert upgrading.stdout is not None
        assert upgrading.stdout.readline() == f"{when}\n"
        learn(monkeypatch, to_schema_2)
        if version == 1:
            # Others read the ledger as it will be, and cannot upgrade it meanwhile.
            with closing(store.read()) as reader:
                assert reader.identity().group_id == "staff"
            with pytest.raises(LedgerBusyError, match=f"process {upgrading.pid} "):
                store.audit()
        upgrading.kill()
    assert version_of(path) == version
    assert (content(path) == before) is (version == 1)
    copy = path.with_name(f"{path.name}.before-upgrade")
    assert (version_of(copy), content(copy), stat.S_IMODE(copy.stat().st_mode)) == (
        1,
        before,
        0o600,
    )
    store.audit().close()
    assert version_of(path) == 2
    after = content(path)
    assert [row[-1] for row in after["photo"]] == [row[1] for row in before["photo"]]
    assert (after["face"], after["event"]) == (before["face"], before["event"])
    assert (len(after["run"]), len(after["size"])) == (6, SIZES)
    names = {one.name.removeprefix(path.name) for one in path.parent.iterdir()}
    assert names == {"", ".before-upgrade", ".lock"}


@pytest.mark.usefixtures("schema_2")
def test_a_reader_sees_an_older_ledger_as_it_will_be_and_leaves_it_as_it_is(path: Path) -> None:
    ledger_of_1_0(path)
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
    before = path.read_bytes()
    store = SqliteStore(path)
    for opens in (store.read, partial(store.scratch, STAFF)):
        with closing(opens()) as reader:
            found = reader._connection.exec_driver_sql("SELECT checked > 0 FROM photo").scalars()
            assert list(found) == [1] * 8
            assert reader.identity().group_id == "staff"
    assert [one.name for one in path.parent.iterdir()] == [path.name]
    assert path.read_bytes() == before


@pytest.mark.usefixtures("schema_2")
def test_an_upgrade_is_reported_once_with_its_copy(path: Path) -> None:
    ledger_of_1_0(path)
    logged: list[logging.LogRecord] = []

    def note(record: logging.LogRecord) -> bool:
        logged.append(record)
        return True

    LOGGER.addFilter(note)
    for _ in range(2):
        SqliteStore(path).audit().close()
    LOGGER.removeFilter(note)
    (record,) = logged
    assert "from schema 1 to 2. A copy of it as it was is" in record.getMessage()
    assert f"{path}.before-upgrade" in record.getMessage()


def grow(connection: Connection) -> None:
    pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
    connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 5}")  # a full disk
    to_schema_2(connection)


def break_reference(connection: Connection) -> None:
    to_schema_2(connection)
    connection.exec_driver_sql("DELETE FROM run")


def free(_: object) -> SimpleNamespace:
    return SimpleNamespace(free=100_000)


@pytest.mark.parametrize(
    ("steps", "error", "said"),
    [
        ([grow], LocalError, "database or disk is full"),
        ([break_reference], AssertionError, "broke a reference"),
        ([], LocalError, r"no room to upgrade the ledger .*needs 1 MB, and 0 MB are free"),
    ],
)
def test_an_upgrade_that_fails_changes_nothing(
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    steps: Sequence[upgrades.Step],
    error: type[Exception],
    said: str,
) -> None:
    before = content(ledger_of_1_0(path))
    with monkeypatch.context() as patch:
        learn(patch, *steps)
        if not steps:
            patch.setattr(shutil, "disk_usage", free)
        with pytest.raises(error, match=said):
            SqliteStore(path).audit()
    assert (version_of(path), content(path)) == (1, before)
    SqliteStore(path).audit().close()  # the version that knows schema 1 goes on


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        SqliteStore(Path(folder) / "new.sqlite").open(STAFF).close()
        sys.stdout.write(ddl_of(Path(folder) / "new.sqlite"))
