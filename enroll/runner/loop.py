"""The loop of a run, and the only user of its ledger.

Each turn takes the steps in the order in which a row goes through them, for many rows at once:
handle answers, read ahead, plan, record intents, commit, reconcile, send. With `--lookalikes` a
search is made between plan and intent.

A task given to an executor is one step (read the next rows, read one photo, make one call),
returns a value and never waits long. A row that waits is in a heap of due times and holds no
thread and no slot.
"""

from __future__ import annotations

import signal
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass

from enroll import clock
from enroll.engine import Engine
from enroll.errors import EnrollError, LocalError
from enroll.ledger import Ledger, ScanCache
from enroll.limiter.limits import Limiter
from enroll.limiter.waiting import View
from enroll.manifest.scan import Scan
from enroll.model import Status
from enroll.runner.comparer import Comparer
from enroll.runner.feed import Feed
from enroll.runner.health import CredentialWait, PhotoRootCheck, Reachability
from enroll.runner.job import Job, People, Work
from enroll.runner.journal import COMMIT_SECONDS, Journal
from enroll.runner.lookups import Lookups
from enroll.runner.planner import Planner
from enroll.runner.progress import Progress, Watchdog, what_it_waits_for
from enroll.runner.reconcile import Reconciler
from enroll.runner.sender import Sender
from enroll.runner.tasks import Calls, Tasks
from enroll.runner.unknown_faces import UnknownFaces
from enroll.session.account import OTHER_CREDENTIALS, Connection
from enroll.session.tally import Ended, Observer
from enroll.text.wording import amount, duration
from enroll.threads import OneCore

BATCH_SECONDS = 0.02
"""How long an answer or a photo may wait to be worked on together with others: a query for thirty
costs little more than a query for one."""

AHEAD_BYTES = 64 * 1024 * 1024
"""Once so many bytes of photos wait to be sent, no more are read: 32 of the largest photos that the
service takes. Photos that are being read or sent come on top."""

TICK_SECONDS = 0.25
"""How often the observer is called while nothing happens."""


@dataclass(frozen=True, slots=True)
class End:
    """Why a run is over: an error, or the sentence for a bound. Neither if all that it may process
    is done, or if a signal or a bug ended it. `away` says that the bound is on how long the service
    may be out of reach."""

    stop: EnrollError | None = None
    bound: str | None = None
    away: bool = False


class Driver:
    """Carries out one run: call `drive` once. `interrupt` may come from a signal handler."""

    def __init__(
        self,
        work: Work,
        connection: Connection,
        ledger: Ledger,
        *,
        engine: Engine,
        scanner: Executor,
        scan: Scan,
        scan_cache: ScanCache,
        limiter: Limiter,
        observer: Observer,
    ) -> None:
        """`scanner` reads the manifest, in one piece."""
        service = connection.service
        self.tally = connection.tally  # counts the opening calls, too
        self._work = work
        self._limiter = limiter
        self._observer = observer
        self._tasks = tasks = Tasks(engine, scanner=scanner)
        self._reach = reach = Reachability(make_room=service.let_go)
        self._people = people = People()
        self._journal = journal = Journal(
            ledger,
            work.run,
            self.tally,
            observer,
            scan_cache,
            offsets=lambda: service.clock.offsets,
        )
        self._photo_root = photo_root = PhotoRootCheck(work.store, ledger)
        self._feed = Feed(work, scan, journal, tasks=tasks, people=people, photo_root=photo_root)
        credential_wait = CredentialWait(
            work.credentials_grace, on_wait=lambda: observer.waits(OTHER_CREDENTIALS)
        )
        calls = Calls(service, tasks, limiter, reach)
        self._sender = Sender(
            work, connection, journal, calls=calls, credential_wait=credential_wait
        )
        self._comparer = Comparer(
            work, connection, journal, calls=calls, credential_wait=credential_wait
        )
        self._lookups = Lookups(work, connection, journal, tasks=tasks, calls=calls)
        self._reconciler = Reconciler(self._lookups, journal, settle_after=work.settle_after)
        self._unknown_faces = UnknownFaces(self._lookups, journal, trust=work.trust)
        self._planner = Planner(
            work,
            journal,
            self._feed,
            people=people,
            photo_root=photo_root,
            tasks=tasks,
            unknown_faces=self._unknown_faces,
            reconciler=self._reconciler,
        )
        self._progress = Progress(journal)
        self._watchdog = Watchdog(observer, now=clock.monotonic())
        self._core: OneCore | None = None
        self._ticked = self._beaten = self._worked = self._scanned_at = 0.0
        self._stop: EnrollError | None = None
        self._signal: int | None = None
        self._bound: str | None = None
        self._away = False

    def interrupt(self, signal_number: int) -> None:
        """Start nothing more; calls in flight end and are recorded. Safe in a signal handler."""
        self._signal = signal_number
        self._tasks.wake()

    @property
    def library_known(self) -> bool:
        """Whether the whole library was seen, and holds no face that the ledger does not know."""
        return self._unknown_faces.all_known()

    def photos_gone(self) -> LocalError | None:
        """The photos' share is gone, although no row that is due needs it: to ask in the end."""
        return self._photo_root.lost() if self._feed.scanned else None

    def drive(self, core: OneCore | None = None, *, began: float) -> Ended:
        """Enroll what is due, on one `core` while nobody else wants it.

        The run's seconds count from `began` (monotonic). Raises only bugs; what stopped the run is
        in the value.
        """
        self._core = core
        try:
            self._watchdog = Watchdog(self._observer, now=clock.monotonic())
            self._planner.take_earlier()
            if self._feed.begin_early():
                self._unknown_faces.learn()  # meanwhile their photos are read
            while (end := self._end(clock.monotonic())) is None:
                self._turn()
            self._stop, self._bound, self._away = end.stop, end.bound, end.away
        except EnrollError as error:
            self._stop = error
        except KeyboardInterrupt:  # a caller from Python need not install a handler
            self._signal = signal.SIGINT
        self._wind_down()
        if self._tasks.bug is not None:
            raise self._tasks.bug
        return Ended(
            tally=self.tally,
            seconds=clock.monotonic() - began,
            scanned_after=self._scanned_at - began if self._scanned_at else 0.0,
            stop=self._stop or self._tasks.stop,
            signal=self._signal,
            bound=self._bound,
            away=self._away,
        )

    def _turn(self) -> None:
        now = clock.monotonic()
        self._tasks.repeat_due(now)
        if self._work_due(now) <= now:
            self._worked = now
            self._work_through()
            now = clock.monotonic()
            if self._end(now) is not None:
                return  # before anything more leaves
        self._sender.send(now)
        self._comparer.send(now, reading=self._feed.reading)  # after those that are compared
        if now - self._beaten >= TICK_SECONDS:  # here, when every slot is taken that can be
            self._beaten = now
            self._progress.beat(self._view(now))
        if self._journal.since is None:  # else the next commit comes at once
            self._journal.ledger.rest()
        self._listen(self._patience())

    def _work_due(self, now: float) -> float:
        """When to work next: at once if a slot would stay empty otherwise or an answer was no
        success, else together with what comes within BATCH_SECONDS."""
        sender, feed = self._sender, self._feed
        if sender.urgent or not (self._answered or feed.read):
            return now
        if sender.hungry(now):
            return now
        return self._worked + BATCH_SECONDS

    def _work_through(self) -> None:
        """Take every step that costs a query, for many rows at once: all but the call."""
        self._hear_answers()
        self._read_ahead()
        self._plan()
        self._sender.arm()
        self._commit_when_due(clock.monotonic())
        self._reconcile()

    def _hear_answers(self) -> None:
        """Record what calls have come to, and finish the jobs for which no further one is made."""
        compared = self._comparer.hear_all()
        for job in compared:
            if job.compared:
                self._sender.take(job)
        held = [job for job in compared if not job.compared]
        for job in [*held, *self._sender.hear_all()]:
            try:
                self._leave_sender(job)
            except EnrollError as error:
                self._stop = self._stop or error

    def _leave_sender(self, job: Job) -> None:
        """No further call is made for a job's face: it is in doubt, or it has its outcome."""
        self._comparer.left(job)
        if job.face.open:
            self._planner.look_for(job)
            return
        self._journal.compared(job.face, job.findings)
        self._ends(job)
        if job.face.status is Status.ENROLLED:
            self._reconciler.enrolled(job.face)

    def _ends(self, job: Job) -> None:
        """Record a job's outcome, and let the other rows of its person go on."""
        job.drop_photo(self._tasks)
        self._journal.ends(job.due, job.face)
        self._feed.free_person(job.face.user_id)

    def _read_ahead(self) -> None:
        """Scan the manifest and have photos read, as long as there is room."""
        feed = self._feed
        if self._unknown_faces.complete or not feed.began_early:  # else first calls come first
            feed.scan_on()
        feed.feed(room=self._room())
        if feed.scanned and not self._scanned_at:
            self._scanned_at = clock.monotonic()

    def _plan(self) -> None:
        """Take the first steps of rows whose photos were read."""
        if self._unknown_faces.complete:
            for job in self._planner.plan():
                if self._comparer.wants(job):
                    self._comparer.take(job)
                else:
                    self._sender.take(job)
        elif self._feed.read:
            self._unknown_faces.learn()

    def _commit_when_due(self, now: float) -> None:
        if self._sender.starving(now) or self._journal.late(now, most=self._limiter.limit):
            self._commit()
        elif self._sender.may_send(now) and not self._journal.alive(now):
            self._commit()  # calls leave only while the last sign of life is recent

    def _commit(self) -> None:
        self._journal.commit()
        self._sender.committed()

    def _reconcile(self) -> None:
        """Look for faces in doubt, and let the rows of settled ones go on."""
        sender, planner = self._sender, self._planner
        # Without a row on its way no further face will be enrolled.
        coming = sender.under_way or self._comparer.under_way
        idle = self._feed.all_planned and not coming
        self._reconciler.work(idle=idle)
        planner.go_on()
        if self._all_settled and not planner.rechecked:
            planner.recheck()
        self.tally.in_doubt_now = len(self._reconciler)

    def _view(self, now: float) -> View:
        feed = self._feed
        return View(
            gauge=self._limiter.gauge(now),
            away=self._reach.away,
            refused=self.tally.refused > 0,
            ready=self._sender.ready + self._comparer.ready + self._lookups.ready,
            photos=feed.reading + feed.waiting + feed.may_take,
            scanned=feed.scanned,
            doubts=len(self._reconciler),
        )

    def _room(self) -> int:
        """How many more photos to have read, so that no slot waits for one.

        Rows that wait for their back-off hold a photo, too, and must not pile up while the service
        is away.
        """
        at_once, feed = self._tasks.readers, self._feed
        sender, comparer = self._sender, self._comparer
        if feed.bytes_read + sender.bytes_ahead + comparer.bytes_ahead >= AHEAD_BYTES:
            return 0
        ahead = feed.reading + len(feed.read) + sender.backlog + sender.setbacks + comparer.backlog
        return min(self._limiter.limit + at_once - ahead, at_once - feed.reading)

    @property
    def _in_flight(self) -> int:
        return self._sender.in_flight + self._comparer.in_flight + self._lookups.in_flight

    @property
    def _answered(self) -> int:
        """Calls that have ended and whose answers are not recorded."""
        return self._sender.answered + self._comparer.answered

    @property
    def _all_settled(self) -> bool:
        """Whether every row has its outcome, and no face is being looked for."""
        return self._feed.all_planned and not (self._people or len(self._reconciler))

    def _end(self, now: float) -> End | None:
        """Why the run is over; None while it goes on."""
        tasks, work = self._tasks, self._work
        stops = (
            self._stop,
            self._unrecorded,
            tasks.stop,
            tasks.fault,
            self._unknown_faces.stop,
            self._sender.stop,
            self._comparer.stop,
            self._lookups.stop,
            self._planner.stop,
            self._reach.shortage.too_long(work.give_up_after, now),
        )
        stop = next(filter(None, stops), None)
        bound, away = self._why_calls_end(), self._why_we_give_up(now)
        if stop or bound or away or self._signal is not None or tasks.bug:
            return End(stop, bound or away, away=bool(away) and not bound)
        if self._planner.rechecked and self._all_settled:
            return End()
        if now >= work.until:
            after = duration(work.max_duration)
            return End(bound=f"--max-duration ({after}) was reached, and there is more to do")
        return None

    @property
    def _unrecorded(self) -> EnrollError | None:
        """Why something that happened to a row could not be recorded."""
        sender, comparer = self._sender, self._comparer
        return sender.unrecorded or comparer.unrecorded or self._planner.unrecorded

    def _why_calls_end(self) -> str | None:
        """Which bound keeps all further calls from being made."""
        if self._limiter.spent and self._calls_left and not (self._in_flight or self._answered):
            why = "--max-calls was reached, and there is more to do"
            if self._unknown_faces.being_learned:
                why += "; all of them were needed to find and list the library"
            return why
        return None

    @property
    def _calls_left(self) -> bool:
        """Whether there are calls to make, apart from looks for which it is too early."""
        return bool(self._sender.under_way or self._comparer.under_way or self._lookups.waiting)

    def _why_we_give_up(self, now: float) -> str | None:
        """That the service has been out of reach for as long as it may be."""
        since, patience = self._reach.since, self._work.give_up_after
        if since is not None and now - since >= patience:
            because = self._reach.because
            return f"The service could not be reached for {duration(patience)} ({because})"
        return None

    def _why_rows_are_left(self) -> str | None:
        """Which bound keeps a run that is done from the rest of its rows, all others counted."""
        limit, left = self._work.limit, self.tally.due - self.tally.done
        if limit is not None and left:
            return f"--limit {limit} was reached; {amount(left, 'row')} left"
        if self.tally.left_out:
            left_out = amount(self.tally.left_out, "due row")
            return f"the trial of {amount(self.tally.sampled, 'row')} is done; {left_out} left"
        return None

    def _patience(self) -> float:
        """Seconds until something is to be done even if no task ends."""
        now = clock.monotonic()
        moments = [
            now + TICK_SECONDS,
            self._work_due(now) if self._answered or self._planner.may_plan else None,
            self._sender.due_at(),
            self._comparer.due_at(),
            self._reconciler.due_at(),
            self._limiter.opens_at(now),
            self._tasks.due_at(),
        ]
        if self._journal.since is not None:
            moments.append(self._journal.since + COMMIT_SECONDS)
        return max(min(moment for moment in moments if moment is not None) - now, 0.0)

    def _listen(self, patience: float) -> None:
        """Wait for a task to end, then handle all that have ended."""
        self._tasks.hear(patience, self._reach)
        if self._reach.since is not None and not (self._calls_left or self._in_flight):
            self._reach.rest()
        self._planner.go_on()
        now = clock.monotonic()
        if now - self._ticked >= TICK_SECONDS:
            self._ticked = now
            self._watchdog.heed(self._reach, now)
            self._observer.ticked(self.tally)
            if self._core is not None:
                self._core.heed(now)
            if self._watchdog.note(self.tally, now):
                self._observer.waits(self._what_it_waits_for(now))

    def _what_it_waits_for(self, now: float) -> str:
        return what_it_waits_for(
            sender=self._sender,
            comparer=self._comparer,
            feed=self._feed,
            reconciler=self._reconciler,
            unknown_faces=self._unknown_faces,
            reach=self._reach,
            gauge=self._limiter.gauge(now),
            now=now,
        )

    def _wind_down(self) -> None:
        """Wait for the calls in flight, take back what was not sent, and commit."""
        until = clock.monotonic() + self._work.drain
        with suppress(LocalError):  # the last commit tries again
            self._journal.ledger.rest()
        try:
            while self._in_flight and (left := until - clock.monotonic()) > 0:
                self._listen(min(TICK_SECONDS, left))
            self._hear_answers()
            self._stop = self._stop or self._unrecorded
            self._watchdog.heed(self._reach, clock.monotonic())  # all may have been done in a tick
            self._comparer.withdraw()
            for job in self._sender.withdraw():
                self._ends(job)
            self._planner.leave()
            self.tally.in_doubt_now = 0  # they are counted by their rows
            self._observer.ticked(self.tally)
            self._feed.count_repeats()
            self.tally.statuses[Status.PENDING] += self.tally.due - self.tally.done
            if not self._feed.scanned:
                self.tally.not_reached = max(self.tally.rows - self.tally.statuses.total(), 0)
            if not (self._stop or self._signal or self._bound or self._tasks.failed):
                self._bound = self._why_rows_are_left()
                if not self._bound:
                    self._journal.close_accounts(self._planner.unclaimed)
            self._progress.remember(self._limiter.gauge(clock.monotonic()))
            self._journal.commit()
        except LocalError as error:
            self._stop = self._stop or error
