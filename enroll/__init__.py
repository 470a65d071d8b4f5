"""Put a whole photo archive into a FaceSearch face library: every row once, none lost.

The public names load on first use, so that `enroll --help` loads neither pandas nor SQLAlchemy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Credentials": "enroll.model",
    "Entry": "enroll.model",
    "Status": "enroll.model",
    "RunSettings": "enroll.settings",
    "read_credentials": "enroll.credentials",
    "Report": "enroll.commands.run_closing",
    "enroll_manifest": "enroll.commands.run",
    "sync_manifest": "enroll.commands.sync",
    "SyncSettings": "enroll.settings",
    "GuardError": "enroll.errors",
    "read_ledger": "enroll.ledger",
    "EnrollError": "enroll.errors",
    "ExitCode": "enroll.errors",
}

if TYPE_CHECKING:
    from enroll.commands.run import enroll_manifest
    from enroll.commands.run_closing import Report
    from enroll.commands.sync import sync_manifest
    from enroll.credentials import read_credentials
    from enroll.errors import EnrollError, ExitCode, GuardError
    from enroll.ledger import read_ledger
    from enroll.model import Credentials, Entry, Status
    from enroll.settings import RunSettings, SyncSettings

__all__ = [
    "Credentials",
    "EnrollError",
    "Entry",
    "ExitCode",
    "GuardError",
    "Report",
    "RunSettings",
    "Status",
    "SyncSettings",
    "__version__",
    "enroll_manifest",
    "read_credentials",
    "read_ledger",
    "sync_manifest",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'enroll' has no attribute {name!r}")
