"""The tables of a ledger. A change here is a new SCHEMA_VERSION, and a step in `upgrades`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Connection,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable, ExecutableDDLElement

from enroll.model import Status

SCHEMA_VERSION = 1
"""Kept in SQLite's `user_version`. `tests/ledgers/schema_1.sql` holds what each number means."""

COPIED = 1_000_000
"""Added to the `user_version` of a ledger that was copied to another place: versions that do not
know such ledgers take it for one of a newer version, and leave it alone."""

APPLICATION_ID = 0x656E726F
"""Kept in SQLite's `application_id`: "enro", so that `file` and we know a ledger by its head."""

DEVELOPMENT_ID = 0x656E726C
"""The `application_id` of the ledgers before 1.0, "enrl", whose schemas 1 to 11 were others."""

DIALECTS: dict[str, Dialect] = {"sqlite": sqlite.dialect()}
"""The databases' own SQL, by name, with parameters by position: an adapter adds its own."""

metadata = MetaData()

library = Table(
    "library",
    metadata,
    Column("only", Integer, CheckConstraint("only = 1"), primary_key=True),
    Column("host", Text, nullable=False),
    Column("group_id", Text, nullable=False),
    Column("add_time", Text, nullable=False),
    Column("photo_root", Text, nullable=False),
    Column("photo_root_named", Boolean, nullable=False),
    Column("began_empty", Boolean, nullable=False),
    Column("ceiling", Integer),
    Column("lag", Float),
    Column("forget_key", LargeBinary(32)),
)

photo = Table(
    "photo",
    metadata,
    Column("path", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("ctime_ns", BigInteger, nullable=False),
    Column("sha256", LargeBinary(32), nullable=False),
    sqlite_with_rowid=False,
)

face = Table(
    "face",
    metadata,
    Column("face_id", Integer, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("sha256", LargeBinary(32), nullable=False),
    Column("status", Text, nullable=False),
    Column("face_token", Text, unique=True),
    Column("attempts", Integer, nullable=False),
    Column("first_attempt_at", BigInteger),
    Column("code", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("sent_sha256", LargeBinary(32)),
    Column("prepared", Text, nullable=False),
    Column("user_data", Text, nullable=False),
    Column("multi_oriented_detection", Boolean, nullable=False),
    Column("expires", Float),
    Column("recheck", Boolean, nullable=False),
    Column("enrolled_at", BigInteger),
    Column("run", Integer, nullable=False),
    Column("refused_under", Text),
    Column("former_token", Text),
    Column("former_user_data", Text),
    Column("time_used", Integer),
    UniqueConstraint("user_id", "sha256"),
)

# Nearly every face is enrolled: an index on the others answers `status` and finds what is open.
Index("face_not_enrolled", face.c.status, sqlite_where=face.c.status != Status.ENROLLED.value)

Index("face_to_recheck", face.c.face_id, sqlite_where=face.c.recheck)

# Few faces are being added again, or have just been.
Index(
    "face_with_former",
    face.c.former_token,
    unique=True,
    sqlite_where=face.c.former_token.is_not(None),
)

surplus = Table(
    "surplus",
    metadata,
    Column("face_token", Text, primary_key=True),
    Column("face_id", Integer, ForeignKey("face.face_id"), nullable=False),
    Column("found_at", BigInteger, nullable=False),
    Column("run", Integer, nullable=False),
)

# A line is a face that is about to be deleted, from before the call until it is known to be gone.
deletion = Table(
    "deletion",
    metadata,
    Column("face_token", Text, primary_key=True),
    Column("face_id", Integer, ForeignKey("face.face_id"), nullable=False),
    Column("run", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# A line is a person who is in no manifest of the last syncs, and since when (UNIX ms).
absence = Table(
    "absence",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("since", BigInteger, nullable=False),
    Column("run", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# A line is a face of somebody in the manifest that a sync is to delete once all rows of this person
# are enrolled.
face_to_delete = Table(
    "face_to_delete",
    metadata,
    Column("face_id", Integer, ForeignKey("face.face_id"), primary_key=True),
    Column("run", Integer, nullable=False),
)

# A line is a face with whose photo an audit has searched the library, as long as it has this token.
audited = Table(
    "audited",
    metadata,
    Column("face_token", Text, primary_key=True),
    Column("run", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# A line is what the last search with a face's photo has found wrong. The face had `face_token`, or
# none because it is held; the other face is named as the library has named it, and its
# `other_face_id` is NULL where the ledger did not know the token.
finding = Table(
    "finding",
    metadata,
    Column("face_id", Integer, ForeignKey("face.face_id"), primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("other_token", Text, primary_key=True),
    Column("other_user_id", Text, nullable=False),
    Column("other_face_id", Integer),
    Column("score", Float),
    Column("face_token", Text),
    Column("at", BigInteger, nullable=False),
    Column("run", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# A line is two people who may look alike, in the order of their ids; or one person twice, whose own
# photos may differ.
accepted = Table(
    "accepted",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("other_user_id", Text, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("run", Integer, nullable=False),
    CheckConstraint("user_id <= other_user_id"),
    sqlite_with_rowid=False,
)

raw_answer = Table(
    "raw_answer",
    metadata,
    Column("code", Text, primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("http_status", Integer, nullable=False),
    Column("raw", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
    Column("run", Integer, nullable=False),
)

row = Table(
    "row",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("user_data", Text, nullable=False),
    Column("face_id", Integer, ForeignKey("face.face_id")),
    Column("sha256", LargeBinary(32)),
    Column("status", Text),
    Column("code", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("run", Integer, nullable=False),
    CheckConstraint("(face_id IS NULL) <> (status IS NULL)"),
    sqlite_with_rowid=False,
)

Index("row_without_face", row.c.status, sqlite_where=row.c.face_id.is_(None))

run = Table(
    "run",
    metadata,
    Column("run", Integer, primary_key=True),
    Column("started_at", BigInteger, nullable=False),
    Column("host", Text, nullable=False),
    Column("user", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("manifest_sha256", Text, nullable=False),
    Column("options", JSON, nullable=False),
    Column("command", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("timeout", Float, nullable=False),
    Column("send_as", Text, nullable=False),
    Column("settle_after", Float),
    Column("scan_mark", Text, nullable=False),
    Column("photo_root", Text, nullable=False),
    Column("photo_root_named", Boolean, nullable=False),
    Column("files", JSON, nullable=False),
    Column("alive_at", BigInteger, nullable=False),
    Column("least_clock_offset", Float, nullable=False),
    Column("most_clock_offset", Float, nullable=False),
    Column("ended_at", BigInteger),
    Column("exit_code", Integer),
    Column("reason", Text),
    Column("calls", JSON),
    Column("rows", JSON),
    Column("limit", Integer),
    Column("pace", JSON(none_as_null=True)),
)

event = Table(
    "event",
    metadata,
    Column("event", Integer, primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("kind", Text, nullable=False),
    Column("run", Integer, ForeignKey("run.run"), nullable=False),
    Column("face_id", Integer, ForeignKey("face.face_id"), nullable=False),
    Column("face_token", Text),
    Column("detail", Text, nullable=False),
)

# People who were forgotten: a keyed hash of each, and nothing else of them.
forgotten = Table(
    "forgotten",
    metadata,
    Column("digest", LargeBinary(32), primary_key=True),
    Column("at", BigInteger, nullable=False),
    Column("run", Integer, nullable=False),
    Column("faces", Integer, nullable=False),
    Column("wiped_at", BigInteger),
    Column("lifted_at", BigInteger),
    Column("lifted_run", Integer),
    sqlite_with_rowid=False,
)

# What the last whole scan of a manifest found; derived, and dropped whenever it might be wrong.
scan_cache = Table(
    "scan_cache",
    metadata,
    Column("only", Integer, CheckConstraint("only = 1"), primary_key=True),
    Column("fingerprint", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("parts", Integer, nullable=False),
    Column("results_path", Text),
    Column("results_size", BigInteger),
    Column("results_mtime_ns", BigInteger),
)

scan_cache_part = Table(
    "scan_cache_part",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("first_line", Integer, nullable=False),
    Column("rows", LargeBinary, nullable=False),
    Column("digest", LargeBinary),
    Column("counts", Text),
)

# What the last sync has found of the manifest of the cached scan, as long as that is kept: how many
# people are in it. All of them have exactly the faces that it lists, except those in `to_compare`.
compared_scan = Table(
    "compared_scan",
    metadata,
    Column("only", Integer, CheckConstraint("only = 1"), primary_key=True),
    Column("people", Integer, nullable=False),
)

# A line is a person who differed then, or who has a row or face that was written since.
to_compare = Table(
    "to_compare",
    metadata,
    Column("user_id", Text, primary_key=True),
    sqlite_with_rowid=False,
)

_NOTE_CHANGE = """
CREATE TRIGGER {table}_{word} AFTER {word} ON {table}
WHEN EXISTS (SELECT 1 FROM compared_scan)
AND NOT EXISTS (SELECT 1 FROM to_compare WHERE user_id = {which}.user_id)
BEGIN INSERT INTO to_compare VALUES ({which}.user_id); END
"""

_NOT_AUDITED = """
CREATE TRIGGER face_token_{word} AFTER {word} ON face
WHEN old.face_token IS NOT NULL {changed}
BEGIN DELETE FROM audited WHERE face_token = old.face_token; END
"""

TRIGGERS = [
    *(
        _NOTE_CHANGE.format(table=table, word=word, which=which)
        for table in ("face", "row")
        for word, which in (("INSERT", "new"), ("UPDATE", "new"), ("DELETE", "old"))
    ),
    _NOT_AUDITED.format(word="UPDATE", changed="AND old.face_token IS NOT new.face_token"),
    _NOT_AUDITED.format(word="DELETE", changed=""),
]
"""They keep `to_compare` and `audited`, whoever writes: what the former misses, the next sync would
not compare."""

scratch_metadata = MetaData()
"""What a command works with beside the ledger: temporary tables, which live in a file of SQLite's
own that is never synced."""


def _temporary(name: str, metadata: MetaData, *columns: Column[Any]) -> Table:
    return Table(name, metadata, *columns, prefixes=["TEMPORARY"], sqlite_with_rowid=False)


# What a run is looking at.
scan = _temporary(
    "scan",
    scratch_metadata,
    Column("user_id", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("user_data", Text, nullable=False),
    Column("line", Integer, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("size", BigInteger),
    Column("mtime_ns", BigInteger),
    Column("ctime_ns", BigInteger),
)

due = Table(
    "due",
    scratch_metadata,
    Column("place", Integer, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("user_data", Text, nullable=False),
    Column("line", Integer, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("status", Text, nullable=False),
    Column("code", Text, nullable=False),
    Column("face_id", Integer),
    Column("renews", Boolean, nullable=False),
    Column("was_there", Boolean, nullable=False),
    Column("changed", Boolean, nullable=False),
    prefixes=["TEMPORARY"],
)

early = _temporary(
    "early",
    scratch_metadata,
    Column("user_id", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("lines", Integer, nullable=False),
)

# A line is a row whose enrolled face is to be added again with the row's text.
renewal = _temporary(
    "renewal",
    scratch_metadata,
    Column("user_id", Text, primary_key=True),
    Column("path", Text, primary_key=True),
)

# The manifest of a sync, and how the ledger differs from it.
manifest_row = _temporary(
    "manifest_row",
    scratch_metadata,
    Column("user_id", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("user_data", Text, nullable=False),
    Column("line", Integer, nullable=False),
    Column("lines", Integer, nullable=False),
    Column("size", BigInteger),
    Column("mtime_ns", BigInteger),
    Column("ctime_ns", BigInteger),
    Column("sha256", LargeBinary(32)),
    Column("face_id", Integer),
    Column("unusable", Boolean, nullable=False),
    Column("change", Text, nullable=False),
)

# A line is a person who has a face and is not in the manifest, since when, and the sync that
# found it, if it was an earlier one.
unlisted_person = _temporary(
    "unlisted_person",
    scratch_metadata,
    Column("user_id", Text, primary_key=True),
    Column("since", BigInteger, nullable=False),
    Column("run", Integer),
    Column("fresh", Boolean, nullable=False),
)

# A line is a face of somebody in the manifest to which none of their rows leads. No earlier sync
# found those that are `fresh`; another command put others in the place of `superseded` ones.
unmatched_face = Table(
    "unmatched_face",
    scratch_metadata,
    Column("face_id", Integer, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("enrolled", Boolean, nullable=False),
    Column("superseded", Boolean, nullable=False),
    Column("fresh", Boolean, nullable=False),
    prefixes=["TEMPORARY"],
)

# A line is a person to compare, in a sync that does not compare everybody.
compared_person = _temporary(
    "compared_person",
    scratch_metadata,
    Column("user_id", Text, primary_key=True),
)

# A line is a face that was chosen to be deleted.
chosen_face = _temporary(
    "chosen_face",
    scratch_metadata,
    Column("face_token", Text, primary_key=True),
    Column("face_id", Integer, nullable=False),
    Column("user_id", Text, nullable=False),
)

listing_metadata = MetaData()
"""What a library was seen to hold, and what is to be adopted from it; temporary in the same way."""

listed = _temporary(
    "listed",
    listing_metadata,
    Column("face_token", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("user_data", Text, nullable=False),
    Column("add_time", BigInteger, nullable=False),
)

Index("listed_person", listed.c.user_id)

absent = _temporary(
    "absent",
    listing_metadata,
    Column("face_token", Text, primary_key=True),
    Column("asked", Boolean, nullable=False),
)

adoptable_row = _temporary(
    "adoptable_row",
    listing_metadata,
    Column("user_id", Text, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("user_data", Text, nullable=False),
    Column("image", Text, nullable=False),
    Column("line", Integer, nullable=False),
)


def create_tables(connection: Connection, tables: MetaData) -> None:
    """Create those tables and indexes that are missing."""
    for statement in _statements_creating(tables, DIALECTS[connection.dialect.name]):
        connection.exec_driver_sql(statement)


@cache
def _statements_creating(tables: MetaData, dialect: Dialect) -> Sequence[str]:
    """Compiled once a process: SQLAlchemy's `create_all` compiles them each time."""
    wanted: list[ExecutableDDLElement] = []
    for table in tables.sorted_tables:
        wanted.append(CreateTable(table, if_not_exists=True))
        wanted += (CreateIndex(index, if_not_exists=True) for index in table.indexes)
    return [str(one.compile(dialect=dialect)) for one in wanted]
