"""The time as the ledger has it."""

from __future__ import annotations

import time


def now_ms() -> int:
    """UNIX time in ms."""
    return time.time_ns() // 1_000_000
