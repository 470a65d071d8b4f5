"""How a run goes, from tick to tick: told to the display, and to the ledger for other processes."""

from __future__ import annotations

from enroll.ledger import RunPace
from enroll.limiter.limits import Gauge
from enroll.limiter.waiting import View, Waits, in_words
from enroll.run.journal import Recorder

REMEMBER_SECONDS = 5.0
"""How often the ceiling that was found goes into the ledger: what a killed run would lose."""


class Pulse:
    """Keeps `Tally.pace` up to date, and the ledger's record of it."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._waits = Waits()
        self._remembered = recorder.ledger.ceiling
        self._remembered_at = float("-inf")

    def beat(self, view: View, now: float) -> None:
        """Look at the run; `now` is monotonic seconds. What is written goes with other commits."""
        tally, gauge = self._recorder.tally, view.gauge
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
        self._recorder.ledger.note_pace(tally.pace)
        if now - self._remembered_at >= REMEMBER_SECONDS:
            self.remember(gauge)
            self._remembered_at = now

    def remember(self, gauge: Gauge) -> None:
        """Have the ceiling written with the next commit, if it is another."""
        if gauge.ceiling not in (None, self._remembered):
            self._recorder.ledger.remember_ceiling(gauge.ceiling)
            self._remembered = gauge.ceiling
