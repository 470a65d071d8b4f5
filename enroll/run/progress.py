"""How a run goes, from tick to tick: told to the display, and to the ledger for other processes."""

from __future__ import annotations

from enroll.ledger import RunPace
from enroll.limiter.limits import LimiterState
from enroll.limiter.waiting import View, Waits, in_words
from enroll.run.journal import Journal

REMEMBER_SECONDS = 5.0
"""How often the ceiling that was found goes into the ledger: what a killed run would lose."""


class Progress:
    """Keeps `Tally.pace` up to date, and the ledger's record of it."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waits = Waits()
        self._remembered = journal.ledger.ceiling
        self._remembered_at = float("-inf")

    def beat(self, view: View, now: float) -> None:
        """Look at the run; `now` is monotonic seconds. What is written goes with other commits."""
        tally, gauge = self._journal.tally, view.gauge
        tally.pace = RunPace(
            limit=gauge.limit,
            in_flight=gauge.taken,
            ceiling=gauge.ceiling,
            spacing=gauge.spacing,
            calls=tally.calls.total(),
            refused=tally.refused,
            waits_for=self._waits.see(in_words(view)),
        )
        tally.waited = self._waits.all
        self._journal.ledger.note_pace(tally.pace)
        if now - self._remembered_at >= REMEMBER_SECONDS:
            self.remember(gauge)
            self._remembered_at = now

    def remember(self, gauge: LimiterState) -> None:
        """Have the ceiling written with the next commit, if it is another."""
        if gauge.ceiling not in (None, self._remembered):
            self._journal.ledger.remember_ceiling(gauge.ceiling)
            self._remembered = gauge.ceiling
