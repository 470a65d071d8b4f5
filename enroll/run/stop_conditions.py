"""Why a run is over: what stops it, which bound it has reached, or that all is done."""

from __future__ import annotations

from dataclasses import dataclass

from enroll.errors import EnrollError
from enroll.run.parts import Parts, Work
from enroll.run.rows_in_doubt import RowsInDoubt
from enroll.text.wording import amount, duration


@dataclass(frozen=True, slots=True)
class End:
    """Why a run is over: an error, or the sentence for a bound. Neither if all is done, or if a
    signal or a bug ended it."""

    stop: EnrollError | None = None
    bound: str | None = None


class StopConditions:
    """Looks at a run's parts for a reason to end it."""

    def __init__(self, work: Work, parts: Parts, in_doubt: RowsInDoubt) -> None:
        self._work = work
        self._parts = parts
        self._in_doubt = in_doubt

    def unrecorded(self) -> EnrollError | None:
        """Why something that happened to a row could not be recorded."""
        return self._parts.sender.unrecorded or self._in_doubt.stop

    def end(self, now: float, *, stop: EnrollError | None, interrupted: bool) -> End | None:
        """Why the run is over; None while it goes on. `stop` is what the loop itself met, and
        `interrupted` says that a signal came."""
        parts, work = self._parts, self._work
        stops = (
            stop,
            self.unrecorded(),
            parts.tasks.stop,
            parts.unknown_faces.stop,
            parts.sender.stop,
            parts.lookups.stop,
            parts.planner.stop,
            parts.reach.shortage.too_long(work.give_up_after, now),
        )
        first = next(filter(None, stops), None)
        bound = self._why_calls_end(now)
        if first or bound or interrupted or parts.tasks.bug:
            return End(stop=first, bound=bound)
        if self._in_doubt.rechecked and parts.all_settled:
            return End(bound=self._why_rows_are_left())
        if now >= work.until:
            after = duration(work.max_duration)
            return End(bound=f"--max-duration ({after}) was reached, and there is more to do")
        return None

    def _why_calls_end(self, now: float) -> str | None:
        """Which bound keeps all further calls from being made."""
        parts = self._parts
        more = parts.sender.under_way or parts.lookups.waiting
        if parts.limiter.spent and more and not (parts.in_flight or parts.sender.answered):
            why = "--max-calls was reached, and there is more to do"
            if parts.unknown_faces.being_learned:
                why += "; all of them were needed to find and list the library"
            return why
        since, patience = parts.reach.since, self._work.give_up_after
        if since is not None and now - since >= patience:
            because = parts.reach.because
            return f"The service could not be reached for {patience:,.0f} seconds ({because})"
        return None

    def _why_rows_are_left(self) -> str | None:
        """Which bound keeps a run that is done from the rest of its rows."""
        left, tally = self._parts.feed.left, self._parts.journal.tally
        if left:
            return f"--limit {self._work.limit} was reached; {amount(left, 'row')} left"
        if tally.left_out:
            left_out = amount(tally.left_out, "due row")
            return f"the trial of {amount(tally.sampled, 'row')} is done; {left_out} left"
        return None
