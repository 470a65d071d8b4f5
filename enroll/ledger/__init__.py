"""The durable record of one library, whatever manifests fed it: the door of the package.

`ledger_at` gives the place of a ledger, which can be asked whether it exists, opened for a run or
for reading, and held. Everything else uses the protocols and values named here. Nothing here
imports SQLAlchemy before a ledger is used, so that `enroll --help` is quick.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from enroll.addresses import LedgerAddress
from enroll.errors import UsageError
from enroll.ledger.blocklist import WITHHELD, BlockList
from enroll.ledger.diff_records import (
    Diagnosis,
    DiffCounts,
    ReadFile,
    RowDiff,
    RowDiffKind,
    SyncResult,
    UnreadFile,
)
from enroll.ledger.port import (
    Deletions,
    Findings,
    Ledger,
    LedgerAudit,
    LedgerHold,
    LedgerOriginal,
    LedgerReader,
    LedgerStore,
    LedgerTables,
    Listing,
    NewLedger,
)
from enroll.ledger.records import (
    COPIED_TO,
    COPY,
    INTERRUPTED,
    RESTORED,
    RUN,
    AuditCounts,
    Changes,
    Chosen,
    DifferenceKind,
    ErrorCount,
    Finding,
    FindingKind,
    LedgerStatus,
    LibraryDifference,
    LibraryIdentity,
    MissingFace,
    Pair,
    Point,
    RunEnd,
    RunPace,
    RunRecord,
    RunStart,
    Searched,
    Target,
    UnknownFace,
    check_library,
    check_not_copied,
    copied_to,
    iso_time,
    shown_path,
)
from enroll.ledger.scan_cache import (
    CachedScan,
    KeptPart,
    Packed,
    Part,
    PartCounts,
    ScanCache,
    ScanCacheStore,
    content_of,
    digest_of,
    fingerprint,
    pack,
    unpack,
)

__all__ = [
    "COPIED_TO",
    "COPY",
    "INTERRUPTED",
    "RESTORED",
    "RUN",
    "WITHHELD",
    "AuditCounts",
    "BlockList",
    "CachedScan",
    "Changes",
    "Chosen",
    "Deletions",
    "Diagnosis",
    "DiffCounts",
    "DifferenceKind",
    "ErrorCount",
    "Finding",
    "FindingKind",
    "Findings",
    "KeptPart",
    "Ledger",
    "LedgerAudit",
    "LedgerHold",
    "LedgerOriginal",
    "LedgerReader",
    "LedgerStatus",
    "LedgerStore",
    "LedgerTables",
    "LibraryDifference",
    "LibraryIdentity",
    "Listing",
    "MissingFace",
    "NewLedger",
    "Packed",
    "Pair",
    "Part",
    "PartCounts",
    "Point",
    "ReadFile",
    "RowDiff",
    "RowDiffKind",
    "RunEnd",
    "RunPace",
    "RunRecord",
    "RunStart",
    "ScanCache",
    "ScanCacheStore",
    "Searched",
    "SyncResult",
    "Target",
    "UnknownFace",
    "UnreadFile",
    "check_library",
    "check_not_copied",
    "content_of",
    "copied_to",
    "digest_of",
    "empty_ledger",
    "empty_listing",
    "fingerprint",
    "iso_time",
    "ledger_at",
    "pack",
    "read_ledger",
    "shown_path",
    "unpack",
]


def ledger_at(name: Path) -> LedgerStore:
    """The ledger that --ledger names. The adapter is chosen here, and nowhere else.

    Raises UsageError for an address that is none, or where the package for it is missing.
    """
    if isinstance(name, LedgerAddress):
        if find_spec("psycopg") is None:
            raise UsageError(
                "A ledger in PostgreSQL needs the package psycopg: run `pip install "
                "'enroll[postgres]'`."
            )
        from enroll.ledger.postgres_store import PostgresStore

        return PostgresStore(name)
    from enroll.ledger.sqlite_store import SqliteStore

    return SqliteStore(name)


def read_ledger(name: Path) -> LedgerReader:
    """The ledger of this name, open for reading, also while a run writes it.

    Raises LedgerMismatchError where there is none that this version reads, LocalError where it
    cannot be read.
    """
    return ledger_at(name).read()


def empty_ledger(identity: LibraryIdentity) -> Ledger:
    """A ledger that knows nothing, in memory: to compare with where there is none yet."""
    from enroll.ledger import sqlite_store

    return sqlite_store.empty_ledger(identity)


def empty_listing() -> Listing:
    """A listing of a library, in memory."""
    from enroll.ledger import sqlite_store

    return sqlite_store.empty_listing()
