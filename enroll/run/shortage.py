"""Whether this machine has files and threads for a run: since when it has none, and why."""

from __future__ import annotations

from dataclasses import dataclass

from enroll.errors import ShortageError


@dataclass(slots=True)
class Shortage:
    """Hears what could not be opened or started. `since` is monotonic seconds, None while all is
    well; `because` is the last of the sentences."""

    since: float | None = None
    because: str = ""

    def met(self, because: str, now: float) -> None:
        """There was no file or thread left for something."""
        self.since = now if self.since is None else self.since
        self.because = because

    def passed(self) -> None:
        """Something had all that it needed."""
        self.since = None

    def too_long(self, most: float, now: float) -> ShortageError | None:
        """What to stop the run with when nothing has left for `most` seconds."""
        if self.since is None or now - self.since < most:
            return None
        return ShortageError(self.because)
