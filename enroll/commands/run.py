"""One run from beginning to end: manifest, opening calls, ledger, driver, results."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from typing import Protocol

from enroll import clock
from enroll.allowed import GROUP_ID_NEEDED
from enroll.commands.run_closing import Report, close_run
from enroll.commands.run_opening import (
    Held,
    Place,
    check_results,
    open_run,
    recall_or_open,
    results_path,
)
from enroll.engine import threads
from enroll.engine.threads import OneCore, Threads
from enroll.errors import UsageError
from enroll.facesearch.answers import why_fixed
from enroll.ledger import Followed, Ledger
from enroll.limiter.adaptive import MOST_IN_FLIGHT, limiter_for
from enroll.limiter.limits import CallBudget, Limiter, RateLimiter
from enroll.manifest.manifest import Manifest
from enroll.manifest.scan import CHUNK_ROWS, Scan
from enroll.model import Credentials
from enroll.photos import check_installed, marks
from enroll.resources import Share, file_limit, share_out
from enroll.run.feed import Sample
from enroll.run.loop import Driver, Executors, Work
from enroll.run.transitions import Policy
from enroll.run.unknown_faces import Trust
from enroll.session.account import Account, Connection, Patience
from enroll.session.tally import Ended, Observer, Quiet, Tally
from enroll.settings import Precheck, RunSettings


class Night(Protocol):
    """What a sync does besides a run: it judges first, and deletes last."""

    def begin(self, stack: ExitStack, manifest: Manifest) -> Held | None:
        """Before any call: hold the ledger, if there is one, and judge the difference. Raises
        GuardError."""

    def accept(self, ledger: Ledger, connection: Connection, tally: Tally, run: int) -> None:
        """The run has begun: remember what it is to do, and delete what is due already. What is
        raised stops the run."""

    def softened(self, interrupt: Callable[[int], None]) -> Callable[[int], None]:
        """What a signal is to be given to, for it to end the run and the deletions softly."""

    def end(self, ended: Ended) -> Ended:
        """Delete what is to go, if the run came to its end; how it has ended then."""

    def followed(self) -> Followed:
        """What became of the difference."""


class Screen(Observer):
    """Who watches a run: an observer that is also told where it goes, and how it can be stopped.

    Before it is `opened` it hears where the calls go, and may hear that the service is waited for.
    """

    attended = False
    """Whether somebody sits before it, to be told at once what seems to be a mistake."""

    def connecting(self, endpoint: str, credentials: str) -> None:
        """The first call is signed next: where it goes, and in words with which credentials."""

    def opened(self, place: Place, interrupt: Callable[[int], None]) -> None:
        """The run begins; `interrupt(signal number)` ends it softly."""

    def closed(self) -> None:
        """The driver has ended; results are written next."""


class Unwatched(Quiet, Screen):
    """Nobody watches."""


def enroll_manifest(
    settings: RunSettings,
    read_credentials: Callable[[], Credentials],
    *,
    screen: Screen | None = None,
    core: OneCore | None = None,
    night: Night | None = None,
) -> Report:
    """Enroll what the manifest says and is not enrolled yet; what `enroll run` does.

    `read_credentials` is called at the start, and again when the service refuses a signature.
    `core` keeps the calling thread on one core meanwhile, and those that read photos and make
    calls. `night` is what makes a sync of it. Raises EnrollError where nothing could be begun; what
    stops a run later is in `Report.ended`.
    """
    joining = None if core is None else core.join
    return enroll_in_pools(
        settings,
        read_credentials,
        pool=lambda count: Threads(count, initializer=joining),
        screen=screen,
        core=core,
        night=night,
    )


def enroll_in_pools(
    settings: RunSettings,
    read_credentials: Callable[[], Credentials],
    *,
    pool: Callable[[int], Executor],
    screen: Screen | None = None,
    core: OneCore | None = None,
    night: Night | None = None,
) -> Report:
    """The same. `pool(n)` makes what carries out up to n tasks at once within this process: tests
    hold tasks back with it, and watch them. On other machines people would be added twice: a task
    that a dead worker had begun would be carried out once more.
    """
    began = clock.monotonic()
    _refuse(settings)
    watching = screen or Unwatched()
    check_installed(settings.preparation)
    until = began + (math.inf if settings.max_duration is None else settings.max_duration)
    manifest = recall_or_open(settings, until=until)
    results = results_path(settings)
    if results is not None:
        check_results(settings, results)
    account = Account(
        endpoint=settings.endpoint,
        read_credentials=read_credentials,
        timeout=settings.timeout,
        ca_bundle=settings.ca_bundle,
        allow_http=settings.allow_http,
        patience=Patience(
            seconds=settings.give_up_after,
            until=until,
            attended=watching.attended,
            observer=watching,
        ),
        announce=watching.connecting,
    )
    with ExitStack() as stack:
        held = None if night is None else night.begin(stack, manifest)
        connection = account.open()
        stack.callback(connection.close)
        share = share_out(calls=settings.max_in_flight or MOST_IN_FLIGHT, readers=settings.readers)
        pools = Executors(
            calls=pool(share.calls),
            readers=pool(share.readers),
            # A manifest is read in one piece, in this process.
            scanner=Threads(1, initializer=threads.use_all),
            reading_at_once=share.readers,
        )
        for executor in (pools.calls, pools.readers, pools.scanner):
            # Not waited for: a call that outlasts --drain ends by its own deadline.
            stack.callback(executor.shutdown, wait=False, cancel_futures=True)
        tally = Tally()
        ledger, place, standing = open_run(stack, settings, manifest, connection, tally, held=held)
        survey = standing.survey
        place = _with_bounds(place, settings, share)
        scan = Scan(
            manifest.rows(CHUNK_ROWS),
            place.store,
            at_once=share.readers,
            blocked=standing.blocked,
        )
        stack.callback(scan.close)
        tally.unscanned = manifest.rows_at_most
        limiter = _limiter(settings, ledger, tally, share)
        driver = Driver(
            replace(_work(settings, place), trust=standing.trust, until=until),
            ledger=ledger,
            service=connection.service,
            scan=scan,
            survey=survey,
            limiter=limiter,
            executors=pools,
            observer=watching,
            refresh=connection,
            tally=tally,
        )
        interrupt = driver.interrupt if night is None else night.softened(driver.interrupt)
        watching.opened(place, interrupt)

        def first() -> None:
            if night is not None:
                before = tally.calls.total()
                night.accept(ledger, connection, tally, place.run)
                if isinstance(limiter, CallBudget):
                    limiter.left_elsewhere(tally.calls.total() - before)

        with core or nullcontext():
            ended = driver.drive(core, first=first, began=began)
        if night is not None:
            ended = replace(night.end(ended), seconds=clock.monotonic() - began)
        tally.undeleted = len(ledger.removals.intended())
        made_good = standing.trust is not Trust.LESS or standing.lock.caught_up
        if driver.library_known and ended.stop is None and made_good:
            # What a ledger lacked that was put back is in it.
            standing.lock.remember_run(standing.began)
        connection.close()  # no call will follow, and what is written next needs open files
        watching.closed()
        gauge = limiter.gauge(clock.monotonic())
        report = close_run(settings, ledger, manifest, place, ended, results, gauge, standing)
        return report if night is None else replace(report, followed=night.followed())


def _refuse(settings: RunSettings) -> None:
    """Raise UsageError for what a run cannot do, as the command line does."""
    if not settings.group_id:
        raise UsageError(GROUP_ID_NEEDED)
    for reason in filter(None, map(why_fixed, settings.on_code)):
        raise UsageError(f"Invalid value for '--on-code': {reason}")


def _with_bounds(place: Place, settings: RunSettings, share: Share) -> Place:
    """Where a run goes, and that less of it goes at a time than was asked for."""
    wanted = settings.max_in_flight
    if wanted is None or wanted <= share.calls:
        return place
    note = (
        f"--max-in-flight {wanted:,} is more than this command may have connections: of "
        f"{file_limit():,.0f} open files (ulimit -n) there are {share.calls:,} for calls. Raise "
        "that limit for more."
    )
    return replace(place, notes=[*place.notes, note], urgent=[*place.urgent, note])


def _limiter(settings: RunSettings, ledger: Ledger, tally: Tally, share: Share) -> Limiter:
    """What bounds the run's calls; `tally` has those that were made already."""
    limiter = limiter_for(settings.max_in_flight, known=ledger.ceiling, most=share.calls)
    if settings.rate is not None:
        limiter = RateLimiter(limiter, rate=settings.rate)
    if settings.max_calls is not None:
        limiter = CallBudget(limiter, left=settings.max_calls - tally.calls.total())
    return limiter


def _work(settings: RunSettings, place: Place) -> Work:
    return Work(
        run=place.run,
        group_id=settings.group_id,
        store=place.store,
        policy=Policy(
            attempts=settings.attempts,
            multi_oriented_detection=settings.multi_oriented_detection,
            retry_codes=settings.retry,
            on_code=settings.on_code,
            marks=marks(settings.preparation),
            holds_doubtful=settings.precheck == Precheck.HOLD,
        ),
        preparation=settings.preparation,
        send_as=settings.send_as,
        limit=settings.limit,
        sample=None if settings.sample is None else Sample(settings.sample, settings.seed),
        give_up_after=settings.give_up_after,
        drain=settings.drain,
        settle_after=settings.settle_after,
        max_duration=settings.max_duration or math.inf,
        reread=settings.checksum,
    )
