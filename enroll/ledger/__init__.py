"""The durable record of one library, whatever manifests fed it.

`Ledger` is what the driver needs of a database; a module beside `sqlite` that offers the same
makes another database usable. Nothing here imports SQLAlchemy, so that `enroll --help` is quick.
"""

from __future__ import annotations

from enroll.ledger.port import Following, Forgetting, Ledger, LedgerReader, Listing, Removals
from enroll.ledger.records import (
    INTERRUPTED,
    SURVEY,
    Change,
    ChangeKind,
    Changes,
    Chosen,
    Comparison,
    Counted,
    Difference,
    DifferenceKind,
    ErrorCount,
    Followed,
    LedgerStatus,
    LibraryIdentity,
    MissingFace,
    ReadFile,
    RunEnd,
    RunPace,
    RunRecord,
    RunStart,
    Signs,
    Suspect,
    Target,
    UnreadFile,
)

__all__ = [
    "INTERRUPTED",
    "SURVEY",
    "Change",
    "ChangeKind",
    "Changes",
    "Chosen",
    "Comparison",
    "Counted",
    "Difference",
    "DifferenceKind",
    "ErrorCount",
    "Followed",
    "Following",
    "Forgetting",
    "Ledger",
    "LedgerReader",
    "LedgerStatus",
    "LibraryIdentity",
    "Listing",
    "MissingFace",
    "ReadFile",
    "Removals",
    "RunEnd",
    "RunPace",
    "RunRecord",
    "RunStart",
    "Signs",
    "Suspect",
    "Target",
    "UnreadFile",
]
