"""The loop of a run, and the only user of its ledger.

A turn takes the steps of a row's way in their order, for many rows at once: hear answers, read
ahead, plan, record intents, commit, reconcile, and send.

Tasks given to the executors are one step each (read the next rows, read one photo, make one
call), return a value and never wait long. A row that waits lies in a heap of due times and holds
no thread and no place.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from enroll import clock
from enroll.errors import EnrollError, LocalError
from enroll.expiry import ClockOffsets
from enroll.ledger import Ledger, ScanCache
from enroll.limiter.limits import Limiter
from enroll.limiter.waiting import View
from enroll.manifest.scan import Scan
from enroll.model import Candidate, FaceRecord, SendAs, Status
from enroll.photos import PhotoStore
from enroll.run.feed import Feed, Sample
from enroll.run.health import CredentialRefresh, Reachability, Share, Unchanging
from enroll.run.job import Job, People
from enroll.run.journal import COMMIT_SECONDS, Journal
from enroll.run.lookups import Lookups, LookupSigner
from enroll.run.planner import Planner
from enroll.run.progress import Progress, Watchdog
from enroll.run.reconcile import Reconciler
from enroll.run.reconcile_rules import Doubt
from enroll.run.sender import Sender, Signer
from enroll.run.tasks import Tasks
from enroll.run.transitions import Policy
from enroll.run.unknown_faces import Trust, UnknownFaces
from enroll.session.tally import Ended, Observer, Tally
from enroll.settings import DEFAULT_PREPARATION, Preparation
from enroll.text.wording import amount, duration
from enroll.threads import OneCore

BATCH_SECONDS = 0.02
"""How long answers and photos that were read may wait for others to be worked on with them: a
query for thirty costs little more than one for one."""

AHEAD_BYTES = 64 * 1024 * 1024
"""Photos in memory that have not left, from which on no more are read: of the largest that the
service takes, 32, beside those that are being read. What is in flight comes on top."""

TICK_SECONDS = 0.25
"""How often the observer hears that time passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a run is to do, as far as the driver cares.

    `store` has the photos, `limit` is the most rows to process, `sample` what draws the rows of a
    trial; `give_up_after`, `drain` and `settle_after` are seconds; `until` is when the run is to
    end, on the monotonic clock, `max_duration` the seconds that this comes from; with `reread` no
    photo is trusted to be unchanged; `trust` says how far the ledger knows the library;
    `preparation` how photos are made fit.
    """

    run: int
    group_id: str
    store: PhotoStore
    policy: Policy
    send_as: SendAs = SendAs.FILE
    preparation: Preparation = DEFAULT_PREPARATION
    limit: int | None = None
    sample: Sample | None = None
    give_up_after: float = 7200.0
    drain: float = 25.0
    settle_after: float = 10.0
    max_duration: float = math.inf
    until: float = math.inf
    reread: bool = False
    trust: Trust = Trust.WHOLE


class Service(Signer, LookupSigner, Protocol):
    """Signs every call that a run makes once it is open."""

    @property
    def most_clock_offset(self) -> float:
        """The highest offset that any call so far may have been signed with, in seconds."""

    @property
    def clock_offsets(self) -> ClockOffsets:
        """How the service's clock was judged so far."""

    def let_go(self) -> None:
        """Close connections that rest, for others to be opened."""


@dataclass(frozen=True, slots=True)
class End:
    """Why a run is over: what stopped it, or which bound was reached. Neither where all is done,
    or where a signal or a bug ended it."""

    stop: EnrollError | None = None
    bound: str | None = None


class Driver:
    """Carries one run out. Made for one call of `drive`; `interrupt` may come from a signal."""

    def __init__(
        self,
        work: Work,
        *,
        ledger: Ledger,
        service: Service,
        tasks: Tasks,
        scan: Scan,
        scan_cache: ScanCache,
        limiter: Limiter,
        observer: Observer,
        refresh: CredentialRefresh | None = None,
        tally: Tally | None = None,
    ) -> None:
        """`refresh` are the service's credentials, where they may be exchanged.

        `tally` may have counted calls already that were made before.
        """
        self.tally = tally or Tally()
        self._work = work
        self._ledger = ledger
        self._service = service
        self._limiter = limiter
        self._observer = observer
        self._journal = Journal(
            ledger,
            work.run,
            self.tally,
            observer,
            scan_cache,
            offsets=lambda: service.clock_offsets,
        )
        self._progress = Progress(self._journal)
        self._people = People()
        refresh = refresh or Unchanging()
        self._reach = Reachability(make_room=service.let_go)
        share = Share(work.store, ledger)
        self._tasks = tasks
        self._feed = Feed(
            scan,
            self._journal,
            tasks,
            scan_cache=scan_cache,
            share=share,
            policy=work.policy,
            preparation=work.preparation,
            limit=work.limit,
            reread=work.reread,
            sample=work.sample,
        )
        self._sender = Sender(
            service,
            tasks,
            self._journal,
            limiter,
            reach=self._reach,
            group_id=work.group_id,
            send_as=work.send_as,
            policy=work.policy,
            refresh=refresh,
        )
        self._lookups = Lookups(
            service,
            tasks,
            self._journal,
            limiter,
            reach=self._reach,
            group_id=work.group_id,
            send_as=work.send_as,
            preparation=replace(work.preparation, convert=True, accept_truncated=True),
            refresh=refresh,
        )
        self._doubts = Reconciler(self._lookups, self._journal, settle_after=work.settle_after)
        self._unknown_faces = UnknownFaces(self._lookups, self._journal, trust=work.trust)
        self._planner = Planner(
            self._journal,
            self._people,
            share,
            tasks=tasks,
            unknown_faces=self._unknown_faces,
            policy=work.policy,
        )
        self._doubtful: dict[int, Job] = {}  # those whose face is being settled, by face
        self._left_in_doubt: set[int] = set()  # faces that no row has waited for
        self._rechecked = False
        self._ticked = self._beaten = self._worked = self._scanned_at = 0.0
        self._core: OneCore | None = None
        self._watchdog = Watchdog(observer, now=clock.monotonic())
        self._stop: EnrollError | None = None
        self._signal: int | None = None
        self._bound: str | None = None

    def interrupt(self, signal_number: int) -> None:
        """Stop feeding, let calls in flight end and record them. Safe in a signal handler."""
        self._signal = signal_number
        self._tasks.wake()

    @property
    def library_known(self) -> bool:
        """Whether the whole library was seen, and holds no face that the ledger does not know."""
        return self._unknown_faces.all_known()

    def drive(self, core: OneCore | None = None, *, began: float | None = None) -> Ended:
        """Enroll what is due, on one `core` while nobody else wants it.

        The run is told to have taken all the time since it `began` (monotonic). Raises only bugs;
        what stopped the run is in the value.
        """
        began = clock.monotonic() if began is None else began
        self._core = core
        try:
            self._watchdog = Watchdog(self._observer, now=clock.monotonic())
            self._settle_what_was_left()
            if self._feed.begin_early():
                self._unknown_faces.learn()  # at once: their photos will have been read by then
            while (end := self._end(clock.monotonic())) is None:
                self._turn()
            self._stop, self._bound = end.stop, end.bound
        except EnrollError as error:
            self._stop = error
        except KeyboardInterrupt:  # who uses the library need not install a handler
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
        )

    def _turn(self) -> None:
        now = clock.monotonic()
        self._tasks.give_again(now)
        if self._work_due(now) <= now:
            self._worked = now
            self._work_through()
            now = clock.monotonic()
            if self._end(now) is not None:
                return  # before anything more leaves
        self._sender.send(now)
        if now - self._beaten >= TICK_SECONDS:  # here, where every place is taken that can be
            self._beaten = now
            self._progress.beat(self._view(now), now)
        self._listen(self._patience())

    def _work_due(self, now: float) -> float:
        """When the next work is to be done: at once where a place would stay empty for it or an
        answer was no success, else with what comes within BATCH_SECONDS."""
        sender, feed = self._sender, self._feed
        if sender.urgent or not (sender.answered or feed.read):
            return now
        if sender.hungry(now):
            return now
        return self._worked + BATCH_SECONDS

    def _work_through(self) -> None:
        """All of a row's way that costs a query, for many at once: only the call is left out."""
        self._hear_answers()
        self._read_ahead()
        self._plan()
        self._sender.arm()
        self._commit_when_due(clock.monotonic())
        self._reconcile()

    def _hear_answers(self) -> None:
        """Record what calls have come to. They bear face tokens: each is heard whatever became of
        the others."""
        answered = self._sender.take_answers()
        if not answered:
            return
        try:
            self._sender.look_up(answered)
        except LocalError as error:
            self._stop = self._stop or error
        for job, answer in answered:
            try:
                if self._sender.hear(job, answer):
                    self._leave_sender(job)
            except EnrollError as error:
                self._stop = self._stop or error

    def _leave_sender(self, job: Job) -> None:
        """No further call is made for a job's face: it is in doubt, or it has its outcome."""
        if job.face.open:
            self._look_for(job)
            return
        self._ends(job)
        if job.face.status is Status.ENROLLED:
            self._doubts.enrolled(job.face)

    def _ends(self, job: Job) -> None:
        """Record a job's outcome; the other rows of its person may go on."""
        face = job.face
        job.drop_photo(self._tasks)
        self._journal.ends(job.due, face.status, face.code, face.message)
        self._person_is_free(face.user_id)

    def _person_is_free(self, user_id: str) -> None:
        for job in self._people.free(user_id):
            self._feed.read_later(job)

    def _read_ahead(self) -> None:
        """Scan the manifest and have photos read, as long as there is room."""
        feed = self._feed
        if self._unknown_faces.known or not feed.began_early:  # else first calls come first
            feed.scan_on()
        feed.feed(self._people, room=self._room())
        if feed.scanned and not self._scanned_at:
            self._scanned_at = clock.monotonic()

    def _plan(self) -> None:
        """Take the first steps of rows whose photos were read."""
        if self._unknown_faces.known:
            for job in self._planner.plan(self._feed.read):
                if job.face.open:  # the library may hold it
                    self._look_for(job)
                else:
                    self._sender.take(job)
        elif self._feed.read:
            self._unknown_faces.learn()

    def _commit_when_due(self, now: float) -> None:
        if self._sender.starving(now) or self._journal.late(now, most=self._limiter.limit):
            self._commit()
        elif self._sender.may_send(now) and not self._journal.alive(now):
            self._commit()  # calls leave only beside a young sign of life

    def _commit(self) -> None:
        self._journal.commit()
        self._sender.committed()

    def _reconcile(self) -> None:
        """Look for faces in doubt, and let their rows go on that are settled."""
        self._doubts.work(idle=self._only_doubts_left())
        self._go_on_with_settled()
        if not self._rechecked and self._all_settled():
            self._recheck()
        self.tally.in_doubt_now = len(self._doubts)

    def _view(self, now: float) -> View:
        feed = self._feed
        return View(
            gauge=self._limiter.gauge(now),
            away=self._reach.away,
            refused=self.tally.refused > 0,
            ready=self._sender.ready + self._lookups.ready,
            photos=feed.reading + feed.waiting + feed.may_take,
            scanned=feed.scanned,
            doubts=len(self._doubts),
        )

    def _room(self) -> int:
        """How many more photos to have read, so that no place in flight waits for one.

        Rows that wait for their back-off hold a photo, too: while the service is away they must
        not pile up.
        """
        at_once, feed = self._tasks.readers, self._feed
        if feed.bytes_read + self._sender.bytes_ahead >= AHEAD_BYTES:
            return 0
        ahead = feed.reading + len(feed.read) + self._sender.backlog + self._sender.setbacks
        return min(self._limiter.limit + at_once - ahead, at_once - feed.reading)

    def _end(self, now: float) -> End | None:
        """Why the run is over; None while it goes on."""
        parts = (
            self._tasks.stop,
            self._unknown_faces.stop,
            self._sender.stop,
            self._lookups.stop,
            self._planner.stop,
        )
        stop = self._stop or next(filter(None, parts), None)
        stop = stop or self._reach.shortage.too_long(self._work.give_up_after, now)
        bound = self._why_calls_end(now)
        if stop or bound or self._signal or self._tasks.bug:
            return End(stop=stop, bound=bound)
        if self._rechecked and self._all_settled():
            return End(bound=self._why_rows_are_left())
        if now >= self._work.until:
            after = duration(self._work.max_duration)
            return End(bound=f"--max-duration ({after}) was reached, and there is more to do")
        return None

    def _why_calls_end(self, now: float) -> str | None:
        """Which bound keeps all further calls from being made."""
        more = self._sender.under_way or self._lookups.waiting
        if self._limiter.spent and more and not (self._in_flight() or self._sender.answered):
            why = "--max-calls was reached, and there is more to do"
            if self._unknown_faces.being_learned:
                why += "; all of them were needed to find and list the library"
            return why
        since, patience = self._reach.since, self._work.give_up_after
        if since is not None and now - since >= patience:
            because = self._reach.because
            return f"The service could not be reached for {patience:,.0f} seconds ({because})"
        return None

    def _why_rows_are_left(self) -> str | None:
        """Which bound keeps a run that is done from the rest of its rows."""
        left = self._feed.left
        if left:
            return f"--limit {self._work.limit} was reached; {amount(left, 'row')} left"
        if self.tally.left_out:
            left_out = amount(self.tally.left_out, "due row")
            return f"the trial of {amount(self.tally.sampled, 'row')} is done; {left_out} left"
        return None

    def _all_settled(self) -> bool:
        """Whether every row has its outcome, and no face is being looked for."""
        return self._all_fed() and not (self._people or len(self._doubts))

    def _in_flight(self) -> int:
        return self._sender.in_flight + self._lookups.in_flight

    def _all_fed(self) -> bool:
        """Whether every row that this run may process is planned."""
        feed = self._feed
        return feed.scanned and not (feed.reading or feed.read or feed.waiting or feed.may_take)

    def _only_doubts_left(self) -> bool:
        return self._all_fed() and not (self._sender.backlog or self._sender.under_way)

    def _patience(self) -> float:
        """Seconds until something is to be done even if no task ends."""
        now = clock.monotonic()
        moments = [
            now + TICK_SECONDS,
            self._work_due(now) if self._sender.answered or self._may_plan() else None,
            self._sender.next_due(),
            self._doubts.next_due(),
            self._limiter.opens_at(now),
            self._tasks.next_due(),
        ]
        if self._journal.since is not None:
            moments.append(self._journal.since + COMMIT_SECONDS)
        return max(min(moment for moment in moments if moment is not None) - now, 0.0)

    def _may_plan(self) -> bool:
        return self._unknown_faces.known and self._planner.may_plan(self._feed.read)

    def _listen(self, patience: float) -> None:
        """Wait for a task to end, then hear all that have ended."""
        self._tasks.hear(patience, self._reach)
        self._go_on_with_settled()
        now = clock.monotonic()
        if now - self._ticked >= TICK_SECONDS:
            self._ticked = now
            self._watchdog.heed(self._reach, now)
            self._observer.ticked(self.tally)
            if self._core is not None:
                self._core.heed(now)
            if self._watchdog.still(self.tally, now):
                self._watchdog.bark(
                    self._feed,
                    self._sender,
                    self._doubts,
                    self._unknown_faces,
                    self._limiter,
                    self._reach,
                    now=now,
                )

    # Doubts

    def _settle_what_was_left(self) -> None:
        """Earlier runs' doubts come first, whatever manifest they came from."""
        for face in self._ledger.open_faces():
            if face.open:
                self._people.occupy(face.user_id)
                self._doubts.take(Doubt(face=face))

    def _recheck(self) -> None:
        """Look once more for what landed after its face had been sent again."""
        self._rechecked = True
        for face in self._ledger.open_faces():
            if face.recheck and not face.open and face.status is not Status.PENDING:
                self._doubts.take(Doubt(face=face, recheck=True))

    def _look_for(self, job: Job) -> None:
        """Have a job's face looked for in the library; its photo is read again when it is needed,
        as many may wait."""
        job.drop_photo(self._tasks)
        self._doubtful[job.face.face_id] = job
        self._doubts.take(Doubt(face=job.face))

    def _go_on_with_settled(self) -> None:
        for face in self._doubts.take_settled():
            try:
                self._go_on(face)
            except EnrollError as error:
                self._stop = self._stop or error
            self._person_is_free(face.user_id)

    def _go_on(self, face: FaceRecord) -> None:
        """Nothing more is done about a doubt: its row has its outcome, or is sent again."""
        job = self._doubtful.pop(face.face_id, None)
        if job is None:  # an earlier run's: its row comes up by itself
            if face.status is Status.PENDING:
                self._planner.was_looked_for(face)
            elif face.open:
                self._left_in_doubt.add(face.face_id)
            return
        if face.status is Status.PENDING or _stands_as_before(face, job.due):
            if job.tries < self._work.policy.attempts:
                self._planner.was_looked_for(face)
                self._feed.read_later(job)
                return
            status = Status.FAILED if face.status is Status.PENDING else face.status
            face = replace(face, status=status, code=job.face.code, message=job.face.message)
            self._journal.face(face)
        self._journal.ends(job.due, face.status, face.code, face.message)

    # The end

    def _wind_down(self) -> None:
        """Hear the calls in flight, take back what has not left, and commit."""
        until = clock.monotonic() + self._work.drain
        try:
            while self._in_flight() and (left := until - clock.monotonic()) > 0:
                self._listen(min(TICK_SECONDS, left))
            self._hear_answers()
            self._watchdog.heed(self._reach, clock.monotonic())  # all may have been done in a tick
            for job in self._sender.withdraw():
                self._ends(job)
            self._leave_in_doubt(self._doubts.left())
            self._feed.count_repeats()
            self.tally.statuses[Status.PENDING] += self.tally.due - self.tally.done
            if not (self._stop or self._signal or self._bound or self._tasks.failed):
                self._journal.close_accounts(self._left_in_doubt)
            self._progress.remember(self._limiter.gauge(clock.monotonic()))
            self._journal.commit()
        except LocalError as error:
            self._stop = self._stop or error

    def _leave_in_doubt(self, faces: Sequence[FaceRecord]) -> None:
        """Count the rows of faces that will not be settled in this run."""
        left = {face.face_id: face for face in faces if face.open}
        parked = (job.due for job in self._people.parked())
        waiting = [*parked, *self._feed.undecided(left)]
        rows = [(left[due.face_id], due) for due in waiting if due.face_id in left]
        for face_id in left.keys() & self._doubtful.keys():
            rows.append((left[face_id], self._doubtful.pop(face_id).due))
        for face, due in rows:
            self._journal.ends(due, face.status, face.code, face.message)


def _stands_as_before(face: FaceRecord, due: Candidate) -> bool:
    """Whether a face that was to be added again was not."""
    return due.renews and face.face_token is not None and face.user_data != due.row.user_data
