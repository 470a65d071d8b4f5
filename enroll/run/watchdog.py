"""Says what a run waits for when nothing has moved for a while, and when the service is away."""

from __future__ import annotations

from collections.abc import Iterator

from enroll.limiter.limits import Limiter
from enroll.run.feed import Feed
from enroll.run.reachability import Reachability
from enroll.run.reconcile import Reconciler
from enroll.run.sender import Calls
from enroll.run.unknown_faces import UnknownFaces
from enroll.tally import Observer, Tally
from enroll.text.wording import amount, duration

STILL_SECONDS = 60.0
"""After so long without any progress the observer hears what the run waits for."""

AWAY_SECONDS = 3.0
"""After so long without the service the observer hears of it: long enough for a hiccup to pass, and
within five seconds of the first call that could not leave, which was tried for one."""


class Watchdog:
    """Looks at a run's counts now and then, and barks when they stand still."""

    def __init__(self, observer: Observer, *, now: float) -> None:
        """`now` and all further times are monotonic seconds."""
        self._observer = observer
        self._moved_at = now
        self._counts: tuple[int, ...] = ()
        self._away_since: float | None = None
        self._short_since: float | None = None

    def heed(self, reach: Reachability, now: float) -> None:
        """Tell the observer that the service cannot be reached, and when it is there again; and
        once that this machine has no files or threads for the run."""
        short = reach.shortage.since
        if short not in (None, self._short_since) and now - short >= AWAY_SECONDS:
            self._short_since = short
            self._observer.waits(_short(reach))
        if reach.away and reach.since is not None and now - reach.since >= AWAY_SECONDS:
            self._away_since = reach.since
            self._observer.unreached(now - reach.since, reach.code, reach.because)
        elif self._away_since not in (None, reach.since):
            self._observer.reached()
            self._away_since = None

    def still(self, tally: Tally, now: float) -> bool:
        """Whether nothing has moved for a while, since the last time that this was so."""
        # No calls: the same look made over and over brings nobody further.
        settled = (tally.in_doubt_now, tally.adopted, tally.not_applied, tally.surplus)
        counts = (tally.done, tally.due, *settled)
        if counts != self._counts:
            self._counts, self._moved_at = counts, now
        if now - self._moved_at < STILL_SECONDS:
            return False
        self._moved_at = now
        return True

    def bark(
        self,
        feed: Feed,
        calls: Calls,
        doubts: Reconciler,
        unknown_faces: UnknownFaces,
        limiter: Limiter,
        reach: Reachability,
        *,
        now: float,
    ) -> None:
        """Tell the observer what the run waits for."""
        reasons = [*_calls(calls, limiter, reach, now), *_photos(feed), *_doubts(doubts, now)]
        reasons += ["the list of the library's faces"] * unknown_faces.being_learned
        self._observer.waits("; ".join(reasons) or "rows that wait for others of their person")


def _calls(calls: Calls, limiter: Limiter, reach: Reachability, now: float) -> Iterator[str]:
    if reach.shortage.since is not None:
        yield _short(reach)
    if calls.in_flight:
        yield f"{amount(calls.in_flight, 'call')} in flight"
    if calls.setbacks:
        yield f"{amount(calls.setbacks, 'row')} to be sent again ({reach.because})"
    gauge = limiter.gauge(now)
    if calls.ready and not calls.in_flight:
        because = f" ({gauge.cap})" if gauge.cap else ""
        yield f"a place in flight for {amount(calls.ready, 'row')}{because}"
    if gauge.closed:
        yield f"the pause that the service asks for, {duration(gauge.closed)} more"


def _short(reach: Reachability) -> str:
    return f"open files or threads ({reach.shortage.because.rstrip('.')})"


def _photos(feed: Feed) -> Iterator[str]:
    if feed.reading:
        yield f"{amount(feed.reading, 'photo')} being read"
    elif left := feed.waiting + feed.may_take:
        yield f"{amount(left, 'photo')} to be read"
    if not feed.scanned:
        yield "the manifest and the photos' folder"


def _doubts(doubts: Reconciler, now: float) -> Iterator[str]:
    if len(doubts):
        due = doubts.next_due()
        when = "" if due is None else f", the next look in {duration(max(due - now, 0.0))}"
        yield f"{amount(len(doubts), 'face')} in doubt to be settled{when}"
