"""Put a whole photo archive into a FaceSearch face library: every row once, none lost.

The public names load on first use, so that `enroll --help` loads neither pandas nor SQLAlchemy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "1.0.0"

_HOMES = {
    "Row": "enroll.api.rows",
    "Settings": "enroll.api.options",
    "run": "enroll.api.enrolling",
    "sync": "enroll.api.enrolling",
    "plan": "enroll.api.enrolling",
    "verify": "enroll.api.maintaining",
    "audit": "enroll.api.searching",
    "accept": "enroll.api.searching",
    "adopt": "enroll.api.maintaining",
    "resolve": "enroll.api.maintaining",
    "remove": "enroll.api.maintaining",
    "forget": "enroll.api.maintaining",
    "readmit": "enroll.api.maintaining",
    "who": "enroll.api.searching",
    "Resemblance": "enroll.api.searching",
    "open_ledger": "enroll.api.reports",
    "Outcome": "enroll.api.reports",
    "RunReport": "enroll.api.reports",
    "NotDoneError": "enroll.api.reports",
    "Progress": "enroll.api.watching",
    "Step": "enroll.api.watching",
    "Credentials": "enroll.model",
    "Entry": "enroll.model",
    "Status": "enroll.model",
    "EnrollError": "enroll.errors",
    "ExitCode": "enroll.errors",
    "GuardError": "enroll.errors",
    "LedgerBusyError": "enroll.errors",
    "ServiceError": "enroll.errors",
    "UsageError": "enroll.errors",
}

if TYPE_CHECKING:
    from enroll.api.enrolling import plan, run, sync
    from enroll.api.maintaining import adopt, forget, readmit, remove, resolve, verify
    from enroll.api.options import Settings
    from enroll.api.reports import NotDoneError, Outcome, RunReport, open_ledger
    from enroll.api.rows import Row
    from enroll.api.searching import Resemblance, accept, audit, who
    from enroll.api.watching import Progress, Step
    from enroll.errors import (
        EnrollError,
        ExitCode,
        GuardError,
        LedgerBusyError,
        ServiceError,
        UsageError,
    )
    from enroll.model import Credentials, Entry, Status

__all__ = [
    "Credentials",
    "EnrollError",
    "Entry",
    "ExitCode",
    "GuardError",
    "LedgerBusyError",
    "NotDoneError",
    "Outcome",
    "Progress",
    "Resemblance",
    "Row",
    "RunReport",
    "ServiceError",
    "Settings",
    "Status",
    "Step",
    "UsageError",
    "__version__",
    "accept",
    "adopt",
    "audit",
    "forget",
    "open_ledger",
    "plan",
    "readmit",
    "remove",
    "resolve",
    "run",
    "sync",
    "verify",
    "who",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'enroll' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
