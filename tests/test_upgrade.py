"""A ledger of an older schema: brought up to date by what writes, refused by what only reads."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from enroll.errors import ExitCode, LedgerMismatchError
from enroll.ledger import LibraryIdentity, RunPace
from enroll.ledger.files import audit_ledger, open_ledger, read_ledger, scratch_ledger
from enroll.ledger.schema import APPLICATION_ID, SCHEMA_VERSION, metadata
from enroll.ledger.upgrade import STEPS
from enroll.model import Status

STAFF = LibraryIdentity(host="host", group_id="staff", add_time="2026-01-01T00:00:00Z")

VERSION_1 = """
CREATE TABLE library (
	only INTEGER NOT NULL CHECK (only = 1), host TEXT NOT NULL, group_id TEXT NOT NULL,
	add_time TEXT NOT NULL, images TEXT NOT NULL, images_given BOOLEAN NOT NULL,
	began_empty BOOLEAN NOT NULL, PRIMARY KEY (only)
);
CREATE TABLE photo (
	path TEXT NOT NULL, size BIGINT NOT NULL, mtime_ns BIGINT NOT NULL, ctime_ns BIGINT NOT NULL,
	sha256 BLOB NOT NULL, PRIMARY KEY (path)
) WITHOUT ROWID;
CREATE TABLE face (
	face_id INTEGER NOT NULL, user_id TEXT NOT NULL, sha256 BLOB NOT NULL, status TEXT NOT NULL,
	face_token TEXT, attempts INTEGER NOT NULL, first_attempt_at BIGINT, code TEXT NOT NULL,
	message TEXT NOT NULL, request_id TEXT NOT NULL, sent_sha256 BLOB, prepared TEXT NOT NULL,
	user_data TEXT NOT NULL, multi_oriented_detection BOOLEAN NOT NULL, expires FLOAT,
	recheck BOOLEAN NOT NULL, enrolled_at BIGINT, run INTEGER NOT NULL, PRIMARY KEY (face_id),
	UNIQUE (user_id, sha256), UNIQUE (face_token)
);
CREATE INDEX face_to_recheck ON face (face_id) WHERE recheck;
CREATE INDEX face_not_enrolled ON face (status) WHERE status != 'enrolled';
CREATE TABLE raw_answer (
	code TEXT NOT NULL, number INTEGER NOT NULL, http_status INTEGER NOT NULL, raw TEXT NOT NULL,
	at BIGINT NOT NULL, run INTEGER NOT NULL, PRIMARY KEY (code, number)
);
CREATE TABLE run (
	run INTEGER NOT NULL, started_at BIGINT NOT NULL, host TEXT NOT NULL, user TEXT NOT NULL,
	pid INTEGER NOT NULL, version TEXT NOT NULL, manifest TEXT NOT NULL,
	manifest_sha256 TEXT NOT NULL, options JSON NOT NULL, alive_at BIGINT NOT NULL,
	clock_offset FLOAT NOT NULL, ended_at BIGINT, exit_code INTEGER, reason TEXT, calls JSON,
	rows JSON, "limit" INTEGER, PRIMARY KEY (run)
);
CREATE TABLE surplus (
	face_token TEXT NOT NULL, face_id INTEGER NOT NULL, found_at BIGINT NOT NULL,
	run INTEGER NOT NULL, PRIMARY KEY (face_token), FOREIGN KEY(face_id) REFERENCES face (face_id)
);
CREATE TABLE "row" (
	user_id TEXT NOT NULL, path TEXT NOT NULL, user_data TEXT NOT NULL, face_id INTEGER,
	sha256 BLOB, status TEXT, code TEXT NOT NULL, message TEXT NOT NULL, run INTEGER NOT NULL,
	PRIMARY KEY (user_id, path), CHECK ((face_id IS NULL) <> (status IS NULL)),
	FOREIGN KEY(face_id) REFERENCES face (face_id)
) WITHOUT ROWID;
CREATE INDEX row_without_face ON "row" (status) WHERE face_id IS NULL;
CREATE TABLE event (
	event INTEGER NOT NULL, at BIGINT NOT NULL, kind TEXT NOT NULL, run INTEGER NOT NULL,
	face_id INTEGER NOT NULL, face_token TEXT, detail TEXT NOT NULL, PRIMARY KEY (event),
	FOREIGN KEY(run) REFERENCES run (run), FOREIGN KEY(face_id) REFERENCES face (face_id)
);
"""

ROWS = """
INSERT INTO library VALUES (1, 'host', 'staff', '2026-01-01T00:00:00Z', '/p', 1, 1);
INSERT INTO photo VALUES ('/p/1.jpg', 10, 20, 30, x'01');
INSERT INTO face VALUES (1, 'u1', x'01', 'enrolled', 't1', 1, 5, '', '', 'r1', NULL, '', 'Ann', 0,
    NULL, 0, 6, 1);
INSERT INTO face VALUES (2, 'u2', x'02', 'rejected', NULL, 1, 5, 'NO_FACE_FOUND', 'none', 'r2',
    NULL, '', 'Bob', 0, NULL, 0, NULL, 1);
INSERT INTO raw_answer VALUES ('ODD', 1, 418, 'tea', 7, 1);
INSERT INTO run VALUES (1, 1000, 'h', 'u', 1, '0', '/m.csv', '00', '{"timeout": 60}', 2000, 0.5,
    3000, 1, '', '{"add": 2}', '{"enrolled": 1}', 8);
INSERT INTO surplus VALUES ('t9', 1, 8, 1);
INSERT INTO "row" VALUES ('u1', '/p/1.jpg', 'Ann', 1, x'01', NULL, '', '', 1);
INSERT INTO "row" VALUES ('u3', '/p/3.jpg', 'Eve', NULL, NULL, 'failed', 'PHOTO_MISSING', 'm', 1);
INSERT INTO event VALUES (1, 6, 'enrolled', 1, 1, 't1', '');
"""


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A ledger of version 1, with something in every table."""
    path = tmp_path / "ledger.sqlite"
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(VERSION_1 + ROWS)
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.execute("PRAGMA user_version = 1")
    return path


def contents(path: Path) -> dict[str, list[tuple[object, ...]]]:
    """The lines of every table that there is."""
    with closing(sqlite3.connect(path)) as database:
        there = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        return {
            name: database.execute(f'SELECT * FROM "{name}" ORDER BY 1, 2').fetchall()
            for name in metadata.tables
            if name in there
        }


def test_opened_for_writing_it_has_all_its_rows_and_the_new_columns(old: Path) -> None:
    before = contents(old)
    ledger = open_ledger(old, STAFF)
    assert ledger.ceiling is None
    ledger.remember_ceiling(17)
    ledger.commit()
    ledger.close()
    after = contents(old)
    # A new column is the last of its table.
    for name, lines in before.items():
        wide = len(lines[0])
        assert lines
        assert [line[:wide] for line in after[name]] == lines
    with closing(sqlite3.connect(old)) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    reader = read_ledger(old)
    assert reader.ceiling == 17
    assert reader.status().counts[Status.ENROLLED] == 1
    assert [run.pace for run in reader.status().runs] == [None]
    reader.close()


def test_an_upgraded_ledger_has_the_columns_of_a_new_one(old: Path, tmp_path: Path) -> None:
    open_ledger(old, STAFF).close()
    new = tmp_path / "new.sqlite"
    open_ledger(new, STAFF).close()

    def columns(path: Path) -> dict[str, list[tuple[str, str, int]]]:
        with closing(sqlite3.connect(path)) as database:
            return {
                name: database.execute(
                    f"SELECT name, type, \"notnull\" FROM pragma_table_info('{name}')"
                ).fetchall()
                for name in metadata.tables
            }

    assert columns(old) == columns(new)


@pytest.mark.parametrize(
    "read", [read_ledger, audit_ledger, lambda path: scratch_ledger(path, STAFF)]
)
def test_opened_for_reading_it_is_refused_and_left_as_it_is(
    old: Path, read: Callable[[Path], object]
) -> None:
    before = contents(old)
    with pytest.raises(LedgerMismatchError, match="next `enroll run` brings it up to date") as told:
        read(old)
    assert told.value.exit_code is ExitCode.USAGE
    assert contents(old) == before


def test_another_librarys_ledger_is_not_upgraded(old: Path) -> None:
    before = contents(old)
    other = LibraryIdentity(host="host", group_id="others", add_time=STAFF.add_time)
    with pytest.raises(LedgerMismatchError, match="is of the library staff"):
        open_ledger(old, other)
    assert contents(old) == before


def test_a_reader_sees_an_upgrade_that_is_not_in_the_files_head_yet(old: Path) -> None:
    ledger = open_ledger(old, STAFF)
    assert int.from_bytes(old.read_bytes()[60:64], "big") == 1  # it is in the -wal file
    read_ledger(old).close()
    ledger.close()


def test_there_is_a_step_from_every_older_version() -> None:
    assert sorted(STEPS) == list(range(1, SCHEMA_VERSION))


def test_how_a_run_goes_is_seen_by_another_process(old: Path) -> None:
    pace = RunPace(limit=17, in_flight=16, ceiling=16, calls=100, refused=1, waits_for="photos")
    ledger = open_ledger(old, STAFF)
    with closing(sqlite3.connect(old)) as database:
        start = ledger.status().runs[0].start
        run = ledger.start_run(start, images="/p", given=True)
        ledger.note_pace(pace)
        ledger.commit()
        reader = read_ledger(old)
        assert reader.status().runs[0].run == run
        assert reader.status().runs[0].pace == pace
        reader.close()
        assert database.execute("SELECT count(*) FROM run").fetchone() == (2,)
    ledger.close()
