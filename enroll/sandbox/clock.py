"""The stand-in's clock, which may be wrong on purpose."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(slots=True)
class Clock:
    """UNIX seconds as the stand-in believes them: `source()` plus `skew` seconds."""

    source: Callable[[], float] = time.time
    skew: float = 0.0

    def now(self) -> float:
        """UNIX seconds."""
        return self.source() + self.skew


def iso(seconds: float) -> str:
    """UNIX seconds as ISO 8601 text in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
