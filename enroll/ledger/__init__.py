"""The durable record of one library, whatever manifests fed it.

`Ledger` is what the driver needs of a database; a module beside `sqlite` that offers the same
makes another database usable. Nothing here imports SQLAlchemy, so that `enroll --help` is quick.
"""

from __future__ import annotations

from enroll.ledger.audited import Difference, DifferenceKind, MissingFace, Suspect
from enroll.ledger.followed import (
    Change,
    ChangeKind,
    Chosen,
    Counted,
    Followed,
    ReadFile,
    Signs,
    Target,
    UnreadFile,
)
from enroll.ledger.interface import Ledger, LedgerReader, Listing
from enroll.ledger.keeping import Following, Forgetting, Removals
from enroll.ledger.records import (
    INTERRUPTED,
    SURVEY,
    Changes,
    Comparison,
    ErrorCount,
    LedgerStatus,
    LibraryIdentity,
    RunEnd,
    RunPace,
    RunRecord,
    RunStart,
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
