"""`enroll run`: enroll a manifest's photos, from the opening calls to the results."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

from enroll import clock, threads
from enroll.commands.run_closing import Report, close_run
from enroll.commands.run_input import RunInput, named_library, prepare
from enroll.commands.run_opening import Destination, Opened, begin_run, hold_known, other_calls
from enroll.engine.threads import Executors, ThreadEngine
from enroll.errors import EnrollError, LocalError, UsageError
from enroll.facesearch import FaceSearch
from enroll.ledger import Ledger, SyncResult, empty_ledger
from enroll.limiter.adaptive import MOST_IN_FLIGHT, limiter_for
from enroll.limiter.limits import CallBudget, Limiter, RateLimiter
from enroll.manifest.embedded import EMBEDDED_ROOT
from enroll.manifest.scan import CHUNK_ROWS, Scan, Scanned, in_parts, photo_root
from enroll.manifest.suspects import Suspects
from enroll.model import Credentials
from enroll.photos import PhotoCode, PhotoStore, marks
from enroll.resources import Concurrency, share_out
from enroll.runner.job import Trust, Work
from enroll.runner.loop import Driver
from enroll.runner.sample import Sample
from enroll.runner.transitions import Policy
from enroll.session.account import Patience, connect
from enroll.session.caller import Caller
from enroll.session.session import Held
from enroll.session.tally import Ended, Observer
from enroll.settings import EngineName, Precheck, RunSettings
from enroll.threads import OneCore, Threads
from enroll.timetable import rate_at

if TYPE_CHECKING:  # an extra
    from enroll.engine.dask import DaskEngine
    from enroll.engine.workers import Workers


class Screen(Observer):
    """An observer of a run that also learns where it goes, and how it can be stopped.

    Before `opened`, it learns where calls go, and perhaps that the service is being waited for.
    """

    attended = False
    """Whether somebody is watching who should learn at once of what seems to be a mistake."""

    def connecting(self, endpoint: str, credentials: str) -> None:
        """Called before the first call is signed: where it goes, and a description of the
        credentials."""

    def opened(self, destination: Destination, interrupt: Callable[[int], None]) -> None:
        """The run begins; `interrupt(signal number)` ends it gracefully."""

    def closed(self) -> None:
        """No call will follow; results are written next."""


Pool = Callable[[int], Executor]
"""Makes an executor for up to that many tasks at a time within this process."""


def enroll_manifest(
    settings: RunSettings,
    read_credentials: Callable[[], Credentials],
    *,
    screen: Screen | None = None,
    core: OneCore | None = None,
) -> Report:
    """Enroll the rows of the manifest that are not enrolled yet; what `enroll run` does.

    `read_credentials` is called at the start, and again when the service refuses a signature.
    `core` keeps the calling thread, and those that read photos and make calls, on one core. Raises
    EnrollError if the run could not begin; what stops it later is in `Report.ended`.
    """
    return enroll_in_pools(settings, read_credentials, pool=pool_on(core), screen=screen, core=core)


def pool_on(core: OneCore | None) -> Pool:
    """Makes threads, on that core if there is one."""
    joining = None if core is None else core.join
    return lambda count: Threads(count, initializer=joining)


def enroll_in_pools(
    settings: RunSettings,
    read_credentials: Callable[[], Credentials],
    *,
    pool: Pool,
    screen: Screen | None = None,
    core: OneCore | None = None,
) -> Report:
    """The same with other pools: tests hold tasks back with them, and watch them. On other machines
    people would be added twice: a task that a dead worker had begun would be carried out once more.
    """
    given = prepare(settings)
    with open_run(given, read_credentials, pool=pool, screen=screen) as run:
        ended = run.drive(core)
        if ended.stop is None and ended.signal is None:
            ended = replace(ended, stop=run.photos_gone())
        return run.close(ended)


class Run:
    """A run that is on record, with its ledger held and its library proved.

    `drive` once, or not at all, then `close`.
    """

    def __init__(
        self,
        opened: Opened,
        *,
        executors: Executors,
        workers: Workers | None,
        screen: Screen,
    ) -> None:
        """`workers` are those of Dask, if this process does not do everything itself."""
        self.given = opened.given
        self.tally = opened.connection.tally
        self.signal: int | None = None
        """The signal that has interrupted it."""
        self._opened = opened
        self._executors = executors
        self._screen = screen
        self._workers = workers
        self._driver: Driver | None = None

    @property
    def ledger(self) -> Ledger:
        """The ledger, which this run holds."""
        return self._opened.held.ledger

    @property
    def number(self) -> int:
        """The run's number in the ledger."""
        return self._opened.destination.run

    def interrupt(self, signal_number: int) -> None:
        """Start nothing more; what is in flight ends. Safe in a signal handler."""
        self.signal = signal_number
        if self._driver is not None:
            self._driver.interrupt(signal_number)

    def caller(self) -> Caller:
        """Makes calls outside of the loop, before or after it, which count with the run's."""
        return other_calls(self.given.settings, self._opened.connection, self.ledger)

    def drive(
        self,
        core: OneCore | None = None,
        *,
        quiet: Mapping[int, Scanned] | None = None,
        suspects: Suspects | None = None,
    ) -> Ended:
        """Enroll what is due, on one `core` while nobody else wants it; `quiet` is as for `Scan`,
        and so are `suspects`.
        Raises only bugs."""
        given, opened = self.given, self._opened
        service, store = opened.connection.service, opened.destination.store
        scan = Scan(
            in_parts(given.manifest.rows(CHUNK_ROWS)),
            store,
            concurrency=opened.concurrency.readers,
            forgotten=opened.forgotten,
            renews=given.settings.renews,
            quiet=quiet,
            suspects=opened.suspects or suspects,
        )
        self.tally.rows = self.tally.unscanned = given.manifest.rows_at_most
        engine = self._engine(service, store, core)
        driver = self._driver = Driver(
            _work(opened),
            opened.connection,
            self.ledger,
            engine=engine,
            scanner=self._executors.scanner,
            scan=scan,
            scan_cache=opened.scan_cache,
            limiter=self._limiter,
            observer=self._screen,
        )
        if self.signal is not None:
            driver.interrupt(self.signal)
        try:
            with core or nullcontext():
                return driver.drive(core, began=given.began)
        finally:
            engine.close()
            scan.close()

    def _engine(
        self, service: FaceSearch, store: PhotoStore, core: OneCore | None
    ) -> ThreadEngine | DaskEngine:
        if self._workers is None:
            return ThreadEngine(service, store, self._executors)
        from enroll.engine.dask import DaskEngine  # noqa: PLC0415  # an extra

        joining = None if core is None else core.join
        return DaskEngine(
            service,
            store,
            self._executors,
            self._workers,
            suspects=self.ledger.photos_failed_with(PhotoCode.WORKERS_LOST),
            joining=joining,
        )

    def photos_gone(self) -> EnrollError | None:
        """Why the run that has been driven is not done: the photos' share is gone."""
        return None if self._driver is None else self._driver.photos_gone()

    def ended(self, *, stop: EnrollError | None = None, signal: int | None = None) -> Ended:
        """How it has ended now, if the loop has not run or is over."""
        seconds = clock.monotonic() - self.given.began
        return Ended(tally=self.tally, seconds=seconds, stop=stop, signal=signal)

    def close(self, ended: Ended, *, sync_result: SyncResult | None = None) -> Report:
        """Write results and the end; `sync_result` is what a sync has done, for the report."""
        held, trust = self._opened.held, self._opened.trust
        with suppress(LocalError):  # a ledger that is lost has stopped the run
            self.tally.undeleted = len(self.ledger.deletions.intended())
        known = self._driver is not None and self._driver.library_known
        if known and ended.stop is None and (trust is not Trust.LESS or held.lock.caught_up):
            # What a ledger lacked that was put back is in it.
            held.lock.remember_run(self._opened.began)
        self._opened.connection.close()  # what is written next needs open files
        self._screen.closed()
        gauge = self._limiter.gauge(clock.monotonic())
        return close_run(self._opened, ended, gauge, sync_result)

    @cached_property
    def _limiter(self) -> Limiter:
        """What bounds the driver's calls, by those that were made before."""
        settings = self.given.settings
        limiter: Limiter = limiter_for(
            settings.max_in_flight, known=self.ledger.ceiling, most=self._opened.concurrency.calls
        )
        if settings.rate is not None:
            limiter = RateLimiter(limiter, rate=rate_at(settings.rate))
        if settings.max_calls is not None:
            limiter = CallBudget(limiter, left=settings.max_calls - self.tally.calls.total())
        return limiter


@contextmanager
def open_run(
    given: RunInput,
    read_credentials: Callable[[], Credentials],
    *,
    pool: Pool,
    screen: Screen | None = None,
    held: Held | None = None,
) -> Iterator[Run]:
    """Hold the ledger, prove the library, finish what a dead run left, record that a run begins.

    `held` is the ledger where it is held already. A ledger that is not there is made once its
    library is proved: a run that cannot begin leaves nothing behind. Raises EnrollError.
    """
    settings, watching = given.settings, screen or Screen()
    with ExitStack() as stack:
        held = held or hold_known(stack, given)
        connection = stack.enter_context(
            connect(
                settings,
                read_credentials,
                endpoint=settings.endpoint,
                announce=watching.connecting,
                patience=Patience(
                    seconds=settings.give_up_after,
                    until=given.until,
                    # A first run more likely has the wrong ones.
                    credentials=settings.credentials_grace if held and not watching.attended else 0,
                    attended=watching.attended,
                    observer=watching,
                ),
            )
        )
        concurrency = share_out(
            calls=settings.max_in_flight or MOST_IN_FLIGHT, readers=settings.reading
        )
        workers = _workers(stack, given, connection.service, held, concurrency)
        executors = _executors(stack, concurrency, pool)
        opened = begin_run(stack, given, connection, held=held, concurrency=concurrency)
        run = Run(opened, executors=executors, workers=workers, screen=watching)
        watching.opened(opened.destination, run.interrupt)
        yield run


def _executors(stack: ExitStack, concurrency: Concurrency, pool: Pool) -> Executors:
    executors = Executors(
        calls=pool(concurrency.calls),
        readers=pool(concurrency.readers),
        # A manifest is read in one piece, in this process.
        scanner=Threads(1, initializer=threads.use_all),
        reading_at_once=concurrency.readers,
    )
    for executor in (executors.calls, executors.readers, executors.scanner):
        # Not waited for: a call that outlasts --drain ends by its own deadline.
        stack.callback(executor.shutdown, wait=False, cancel_futures=True)
    return executors


def _workers(
    stack: ExitStack,
    given: RunInput,
    service: FaceSearch,
    held: Held | None,
    concurrency: Concurrency,
) -> Workers | None:
    """The workers of Dask, if those do the work. Raises LocalError where none of them can, before
    anything is recorded."""
    settings = given.settings
    if settings.engine is EngineName.THREADS:
        return None
    from enroll.engine.cluster import open_cluster  # noqa: PLC0415  # an extra
    from enroll.engine.station import Posting  # noqa: PLC0415
    from enroll.engine.workers import mustered  # noqa: PLC0415

    cluster = stack.enter_context(open_cluster(settings.scheduler))
    with ExitStack() as reading:
        ledger = (
            held.ledger
            if held
            else reading.enter_context(closing(empty_ledger(named_library(settings))))
        )
        root = photo_root(settings.images, given.manifest, ledger)
    if root == EMBEDDED_ROOT:
        raise UsageError(
            f"{given.manifest.path} holds its photos itself, and Dask's workers read photos from "
            "where they are. Leave out --engine dask."
        )
    local, preparation = cluster.workers, settings.preparation
    posting = Posting(
        root=root,
        way=service.way,
        calls=concurrency.calls,
        readers=concurrency.readers,
        memory=None if local is None else local.share_of(settings.memory, preparation.max_pixels),
        preparation=preparation,
    )
    return stack.enter_context(mustered(cluster, posting))


def _work(opened: Opened) -> Work:
    given, settings = opened.given, opened.given.settings
    return Work(
        run=opened.destination.run,
        group_id=settings.group_id,
        store=opened.destination.store,
        fault_of=given.manifest.fault_of,
        policy=Policy(
            attempts=settings.attempts,
            multi_oriented_detection=settings.multi_oriented_detection,
            retry_codes=settings.retry,
            on_code=settings.on_code,
            marks=marks(settings.preparation),
            holds_precheck_faults=settings.precheck == Precheck.HOLD,
        ),
        preparation=settings.preparation,
        send_as=settings.send_as,
        limit=settings.limit,
        sample=None if settings.sample is None else Sample(settings.sample, settings.seed),
        give_up_after=settings.give_up_after,
        credentials_grace=settings.credentials_grace,
        drain=settings.drain,
        settle_after=settings.settle_after,
        max_duration=settings.max_duration or math.inf,
        until=given.until,
        reread=settings.checksum,
        trust=opened.trust,
        lookalikes=settings.lookalikes,
    )
