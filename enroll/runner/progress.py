"""How a run goes: reported from tick to tick, and what it waits for when nothing moves."""

from __future__ import annotations

from collections.abc import Iterator

from enroll import clock
from enroll.ledger import Point, RunPace
from enroll.limiter.limits import LimiterState
from enroll.limiter.waiting import View, Waits, in_words
from enroll.runner.comparer import Comparer
from enroll.runner.feed import Feed
from enroll.runner.health import Reachability
from enroll.runner.journal import Journal
from enroll.runner.reconcile import Reconciler
from enroll.runner.sender import Sender
from enroll.runner.unknown_faces import UnknownFaces
from enroll.session.tally import Observer, Tally
from enroll.text.wording import amount, duration

POINTS = 100
"""Of a run's course on record: a chart needs no more, and each commit writes them."""


class Course:
    """How a run went over time, in no more than POINTS points: the longer it lasts, the further
    they are apart."""

    def __init__(self) -> None:
        self._began = clock.monotonic()
        self._every = 0.5
        self._points: list[Point] = []
        self._in_flight: list[int] = []

    def note(self, in_flight: int, *, calls: int, refused: int) -> None:
        """Note how it goes now."""
        self._in_flight.append(in_flight)
        at = clock.monotonic() - self._began
        if at < (self._points[-1][0] if self._points else 0.0) + self._every:
            return
        self._points.append(self._now(calls, refused))
        self._in_flight.clear()
        if len(self._points) >= POINTS:
            self._every *= 2
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [
                (at, round((flight + before[1]) / 2, 1), calls, refused)
                for before, (at, flight, calls, refused) in pairs
            ]

    def points(self, *, calls: int, refused: int) -> list[Point]:
        """The course up to now."""
        return [*self._points, self._now(calls, refused)] if self._in_flight else [*self._points]

    def _now(self, calls: int, refused: int) -> Point:
        mean = sum(self._in_flight) / len(self._in_flight)
        return round(clock.monotonic() - self._began, 1), round(mean, 1), calls, refused


class Progress:
    """Keeps `Tally.pace` up to date, and the ledger's record of it."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waits = Waits()
        self._course = Course()
        self._remembered = journal.ledger.ceiling

    def beat(self, view: View) -> None:
        """Note how the run goes, and the ceiling if it is another. The next commit writes both, so
        that nobody reads two different ones."""
        tally, gauge = self._journal.tally, view.gauge
        calls, refused = tally.calls.total(), tally.refused
        self._course.note(gauge.taken, calls=calls, refused=refused)
        tally.pace = RunPace(
            limit=gauge.limit,
            in_flight=gauge.taken,
            ceiling=gauge.ceiling,
            spacing=gauge.spacing,
            calls=calls,
            refused=refused,
            waits_for=self._waits.see(in_words(view)),
        )
        tally.waited = self._waits.all
        course = self._course.points(calls=calls, refused=refused)
        self._journal.ledger.note_pace(tally.pace, course)
        self.remember(gauge)

    def remember(self, gauge: LimiterState) -> None:
        """Have the ceiling written with the next commit, if it is another."""
        if gauge.ceiling not in (None, self._remembered):
            self._journal.ledger.remember_ceiling(gauge.ceiling)
            self._remembered = gauge.ceiling


STILL_SECONDS = 60.0
"""How long a run may stand still before it reports what it waits for."""

AWAY_SECONDS = 3.0
"""How long the service may be away before that is reported: longer than a hiccup, and within five
seconds of the first call that could not leave, which was tried for one second."""


class Watchdog:
    """Reports when a run has stood still for a while, or cannot reach the service."""

    def __init__(self, observer: Observer, *, now: float) -> None:
        """`now` and all further times are monotonic seconds."""
        self._observer = observer
        self._moved_at = now
        self._counts: tuple[int, ...] = ()
        self._away_since: float | None = None
        self._short_since: float | None = None

    def heed(self, reach: Reachability, now: float) -> None:
        """Notify the observer when the service cannot be reached and when it is back, and once
        when this machine has no files or threads left for the run."""
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

    def note(self, tally: Tally, now: float) -> bool:
        """Note how far the run is. Returns whether to report that nothing has moved for a while,
        counted from the last report."""
        # Calls do not count: repeating the same look is no progress.
        settled = (tally.in_doubt_now, tally.adopted, tally.not_applied, tally.surplus)
        counts = (tally.done, tally.due, *settled)
        if counts != self._counts:
            self._counts, self._moved_at = counts, now
        if now - self._moved_at < STILL_SECONDS:
            return False
        self._moved_at = now
        return True


def what_it_waits_for(
    *,
    sender: Sender,
    comparer: Comparer,
    feed: Feed,
    reconciler: Reconciler,
    unknown_faces: UnknownFaces,
    reach: Reachability,
    gauge: LimiterState,
    now: float,
) -> str:
    """What a run waits for that has stood still, in words that follow "Waiting for"."""
    reasons = [*_calls(sender, comparer, reach, gauge), *_photos(feed), *_in_doubt(reconciler, now)]
    reasons += ["the list of the library's faces"] * unknown_faces.being_learned
    return "; ".join(reasons) or "rows that wait for another photo of the same person"


def _calls(
    sender: Sender, comparer: Comparer, reach: Reachability, gauge: LimiterState
) -> Iterator[str]:
    in_flight = sender.in_flight + comparer.in_flight
    setbacks, ready = sender.setbacks + comparer.setbacks, sender.ready + comparer.ready
    if reach.shortage.since is not None:
        yield _short(reach)
    if in_flight:
        yield f"{amount(in_flight, 'call')} in flight"
    if setbacks:
        yield f"{amount(setbacks, 'row')} to be sent again ({reach.because})"
    if ready and not in_flight:
        because = f" ({gauge.cap})" if gauge.cap else ""
        yield f"a slot for {amount(ready, 'row')}{because}"
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


def _in_doubt(reconciler: Reconciler, now: float) -> Iterator[str]:
    if len(reconciler):
        due = reconciler.due_at()
        when = "" if due is None else f", the next look in {duration(max(due - now, 0.0))}"
        yield f"{amount(len(reconciler), 'face')} in doubt to be settled{when}"
