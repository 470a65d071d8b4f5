"""What would become of photos, counted: of all that are due, or of those that a sample drew."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from enroll.model import Fault, Status
from enroll.photos import Glance
from enroll.run.feed import Spread


@dataclass(slots=True)
class Portion:
    """Photos to which the same is done: how many, their bytes, and how many are sent."""

    photos: int = 0
    before: int = 0
    after: int = 0


@dataclass(slots=True, kw_only=True)
class Outlook:
    """Counts of a manifest's lines. `faults` counts by status and code, with one message each.

    `calls` of `add` and `content` (bytes; about so many, where only heads were looked at) are what
    a run would send; `portions` are the photos by what is done to them, in words, none for nothing;
    `doubtful` are lines that would be sent though something is amiss with the face, by its code.
    """

    due: int = 0
    calls: int = 0
    content: int = 0
    faults: Counter[tuple[Status, str]] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    portions: dict[str, Portion] = field(default_factory=dict)
    doubtful: Counter[str] = field(default_factory=Counter)

    def fault(self, status: Status, fault: Fault, lines: int) -> None:
        """Count lines that would not be sent."""
        self.faults[status, fault.code] += lines
        self.examples.setdefault(fault.code, fault.message)

    def sent(self, look: Glance, lines: int) -> None:
        """Count lines whose photo would be sent."""
        self.due += lines
        self.calls += 1
        self.content += look.to_send
        portion = self.portions.setdefault(", ".join(look.edits), Portion())
        portion.photos += 1
        portion.before += look.size
        portion.after += look.to_send
        if look.doubt is not None:
            self.doubtful[look.doubt.code] += lines


@dataclass(slots=True, kw_only=True)
class Drawn(Outlook):
    """The same of `size` rows that were drawn by chance from `of`, each counted once; `bytes_each`
    are those that would be sent of each, 0 where it is refused."""

    size: int
    of: int
    bytes_each: Spread = field(default_factory=Spread)
