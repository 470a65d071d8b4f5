"""Calls a second by the time of day, as `--rate` may say them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from enroll import clock
from enroll.errors import UsageError

DAY = 24 * 60
"""Minutes of a day."""

LEAST_RATE = 0.001
"""The lowest rate, in calls a second."""


@dataclass(frozen=True, slots=True)
class Window:
    """A part of each day, in minutes since midnight: from `start` until before `end`, past midnight
    if `end` is not later. `rate` is calls a second."""

    start: int
    end: int
    rate: float

    @property
    def minutes(self) -> int:
        """How long it lasts."""
        return (self.end - self.start) % DAY or DAY

    def holds(self, minute: int) -> bool:
        """Whether a minute of the day is in it."""
        return (minute - self.start) % DAY < self.minutes

    def __str__(self) -> str:
        return f"{_clock_time(self.start)}-{_clock_time(self.end)}={self.rate:g}"


@dataclass(frozen=True, slots=True)
class Timetable:
    """How many calls may leave a second, by local time; `otherwise` outside of the windows, None
    for as many as there are. Windows do not overlap."""

    windows: Sequence[Window]
    otherwise: float | None = None

    def __post_init__(self) -> None:
        """Raise UsageError for windows that overlap."""
        for number, one in enumerate(self.windows):
            for other in self.windows[:number]:
                if one.holds(other.start) or other.holds(one.start):
                    raise UsageError(f"{other} and {one} overlap.")

    @classmethod
    def of(cls, text: str) -> Timetable:
        """Read `08:00-18:00=5,else=50`. Raises UsageError for what is none."""
        windows, otherwise = [], None
        for part in text.split(","):
            found = _PART.fullmatch(part.strip())
            rate = float(found["rate"]) if found else 0.0
            if found is None or not LEAST_RATE <= rate < float("inf"):
                raise UsageError(
                    f"{part.strip()!r} is not a part of a timetable such as "
                    f"08:00-18:00=5,else=50, with rates of at least {LEAST_RATE}."
                )
            if found["start"] is None:
                if otherwise is not None:
                    raise UsageError("else is given twice.")
                otherwise = rate
            else:
                start, end = (_minute(found[name]) for name in ("start", "end"))
                windows.append(Window(start, end % DAY, rate))
        if not windows:
            raise UsageError("A timetable needs a time, such as 08:00-18:00=5,else=50.")
        return cls(tuple(windows), otherwise)

    def at(self, moment: float) -> float | None:
        """The rate at a time (UNIX seconds), None for no limit."""
        local = datetime.fromtimestamp(moment)  # the local time is meant
        minute = local.hour * 60 + local.minute
        return next((one.rate for one in self.windows if one.holds(minute)), self.otherwise)

    @property
    def mean(self) -> float | None:
        """The mean rate of a day, None if there is a time without a limit."""
        left = DAY - sum(one.minutes for one in self.windows)
        if left and self.otherwise is None:
            return None
        calls = sum(one.minutes * one.rate for one in self.windows)
        return (calls + left * (self.otherwise or 0.0)) / DAY

    def __str__(self) -> str:
        rest = [] if self.otherwise is None else [f"else={self.otherwise:g}"]
        return ",".join([*map(str, self.windows), *rest])


def rate_at(rate: float | Timetable) -> Callable[[float], float | None]:
    """The calls a second at a time (monotonic seconds)."""
    if isinstance(rate, Timetable):
        return lambda now: rate.at(clock.time() + now - clock.monotonic())
    return lambda now: rate


_TIME = r"(?:[01]?\d|2[0-3]):[0-5]\d"
_PART = re.compile(
    rf"(?:(?P<start>{_TIME})\s*-\s*(?P<end>{_TIME}|24:00)|else)\s*=\s*(?P<rate>\d+(?:\.\d*)?|\.\d+)"
)


def _minute(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _clock_time(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"
