"""Brings a ledger of an older schema up to the present one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from enroll.errors import LedgerMismatchError
from enroll.ledger.queries import translate_db_errors
from enroll.ledger.schema import SCHEMA_VERSION

STEPS: Mapping[int, Sequence[str]] = {
    1: (
        "ALTER TABLE library ADD COLUMN ceiling INTEGER",
        "ALTER TABLE library ADD COLUMN lag FLOAT",
        "ALTER TABLE run ADD COLUMN pace JSON",
        "ALTER TABLE face ADD COLUMN refused_under TEXT",
        "CREATE TABLE survey (only INTEGER NOT NULL CHECK (only = 1), fingerprint TEXT NOT NULL, "
        "manifest TEXT NOT NULL, parts INTEGER NOT NULL, results_path TEXT, results_size BIGINT, "
        "results_mtime_ns BIGINT, PRIMARY KEY (only))",
        "CREATE TABLE survey_part (number INTEGER NOT NULL, rows BLOB NOT NULL, digest BLOB, "
        "counts TEXT, PRIMARY KEY (number))",
    ),
    2: (
        "CREATE TABLE removal (face_token TEXT NOT NULL, face_id INTEGER NOT NULL, "
        "run INTEGER NOT NULL, PRIMARY KEY (face_token), "
        "FOREIGN KEY(face_id) REFERENCES face (face_id)) WITHOUT ROWID",
    ),
    3: (
        "ALTER TABLE face ADD COLUMN former_token TEXT",
        "ALTER TABLE face ADD COLUMN former_user_data TEXT",
        "CREATE UNIQUE INDEX face_with_former ON face (former_token) "
        "WHERE former_token IS NOT NULL",
        "CREATE TABLE leaver (user_id TEXT NOT NULL, since BIGINT NOT NULL, run INTEGER NOT NULL, "
        "PRIMARY KEY (user_id)) WITHOUT ROWID",
        "CREATE TABLE outgoing (face_id INTEGER NOT NULL, run INTEGER NOT NULL, "
        "PRIMARY KEY (face_id), FOREIGN KEY(face_id) REFERENCES face (face_id))",
        "ALTER TABLE library ADD COLUMN forget_key BLOB",
        "CREATE TABLE forgotten (digest BLOB NOT NULL, at BIGINT NOT NULL, run INTEGER NOT NULL, "
        "faces INTEGER NOT NULL, wiped_at BIGINT, lifted_at BIGINT, lifted_run INTEGER, "
        "PRIMARY KEY (digest)) WITHOUT ROWID",
        # Their parts are packed otherwise from now on.
        "DELETE FROM survey",
        "DELETE FROM survey_part",
    ),
    4: ("ALTER TABLE face ADD COLUMN time_used INTEGER",),
}
"""For each older version the statements that make the next one of it. A step is never changed once
it was published; a later one corrects it."""


def schema_version(connection: Connection) -> int:
    """The version of an open ledger. Its file's head may be behind: a run that upgraded it has
    written that to the -wal file first."""
    return int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())


def upgrade(connection: Connection, path: str) -> None:
    """Take every step that is missing, all in one transaction: a kill leaves all or none.

    The caller holds the ledger's lock. Raises LocalError where the disk will not do.
    """
    with translate_db_errors(path):
        version = schema_version(connection)
        connection.commit()
        if version >= SCHEMA_VERSION:
            return
        for older in range(version, SCHEMA_VERSION):
            for statement in STEPS[older]:
                connection.exec_driver_sql(statement)
        connection.exec_driver_sql(f"PRAGMA user_version={SCHEMA_VERSION}")
        connection.commit()


def refuse_older(connection: Connection, path: str) -> None:
    """Raise LedgerMismatchError for a ledger that is only to be read and has an older schema."""
    with translate_db_errors(path):
        version = schema_version(connection)
        connection.rollback()
    if version < SCHEMA_VERSION:
        raise LedgerMismatchError(
            f"The ledger {path} was written by an older version of enroll (schema {version}; this "
            f"one reads {SCHEMA_VERSION}), and is not changed by a command that only reads. The "
            "next `enroll run` brings it up to date."
        )
