"""One run from beginning to end: manifest, opening calls, ledger, driver, results."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from enroll import __version__, cores
from enroll.blocklist import BlockList
from enroll.calling.asking import Asking
from enroll.calling.deleting import settle_deleting
from enroll.calling.libraries import provide_library
from enroll.calling.opening import (
    CLOCK_SLACK_SECONDS,
    Account,
    Connection,
    clock_sentence,
    find_library,
    is_empty,
)
from enroll.calling.patience import Patience
from enroll.calling.restored import requeue_deleted
from enroll.calling.upkeep import ADOPT, run_start
from enroll.clock import now_ms
from enroll.cores import OneCore
from enroll.driver.deciding import WAITS_FOR_DOUBT
from enroll.driver.journey import Policy
from enroll.driver.run import Driver, Executors, Work
from enroll.driver.strangers import Trust
from enroll.driver.trial import Sample
from enroll.errors import EnrollError, ExitCode, LedgerMismatchError, LocalError, UsageError
from enroll.ledger import SURVEY, Followed, Ledger, LibraryIdentity, RunEnd, RunStart
from enroll.ledger.files import (
    check_is_ledger,
    check_library,
    ledger_exists,
    open_ledger,
    recall_survey,
)
from enroll.ledger.lock import LedgerLock
from enroll.ledger.survey import Surveyor, fingerprint
from enroll.model import Credentials, Entry, Library, Row, Status
from enroll.output.outputs import InUse, Output, check_output, try_folder
from enroll.output.texts import amount
from enroll.photo import check_installed, locate, marks
from enroll.places.ceiling import MOST_IN_FLIGHT, throttle_for
from enroll.places.throttle import Gauge, Metered, Paced, Throttle
from enroll.preparation import Precheck
from enroll.rows.manifest import Manifest, open_manifest, recall_manifest
from enroll.rows.photofolder import in_utf8, photos_folder
from enroll.rows.results import default_results_path, write_results
from enroll.rows.scan import CHUNK_ROWS, Scan
from enroll.rows.source import Source
from enroll.settings import FailOn, RunSettings, default_ledger_path, host_of
from enroll.tally import Ended, Observer, Quiet, Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run goes, known before its first photo is sent.

    `images_inherited`: an earlier run decided where the photos' folder is. `notes`
    are sentences for the user, `urgent` those among them that somebody has to see. `unforgotten`
    are people of whom `enroll forget` has not deleted everything yet.
    """

    endpoint: str
    library: Library
    ledger: Path
    images: Path
    new_ledger: bool
    run: int
    notes: Sequence[str]
    images_inherited: bool = False
    urgent: Sequence[str] = ()
    unforgotten: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How a run went. `results` is None when none were to be written, or could not be.

    `gauge` is how its calls stood at the end.
    `no_results` says why they could not be. `on_record` is None when every outcome is in the
    ledger; else what the ledger holds, its entries by status.
    """

    place: Place
    ended: Ended
    exit_code: ExitCode
    results: Path | None
    results_written: bool
    gauge: Gauge
    no_results: LocalError | None = None
    on_record: Mapping[Status, int] | None = None
    followed: Followed | None = None


@dataclass(frozen=True, slots=True)
class Held:
    """A ledger that is held before the service is called, and may be open by then."""

    lock: LedgerLock
    ledger: Ledger | None = None


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

    Before it is `opened` it may hear that the service is waited for.
    """

    attended = False
    """Whether somebody sits before it, to be told at once what seems to be a mistake."""

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
    executors: Callable[[int], Executor] = ThreadPoolExecutor,
    core: OneCore | None = None,
    night: Night | None = None,
) -> Report:
    """Enroll what the manifest says and is not enrolled yet; what `enroll run` does.

    `read_credentials` is called at the start, and again when the service refuses a signature.
    `executors(n)` makes an executor for up to n tasks at once, which need not begin with n
    threads. `core` keeps the calling thread on one core meanwhile, and the executors' threads if
    these join it. `night` is what makes a sync of it. Raises EnrollError where nothing could be
    begun; what stops a run later is in `Report.ended`.
    """
    began = time.monotonic()
    watching = screen or Unwatched()
    check_installed(settings.preparation)
    until = began + (math.inf if settings.max_duration is None else settings.max_duration)
    manifest = recall_or_open(settings)
    results = results_path(settings)
    if results is not None:
        _check_results(settings, results)
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
    )
    with ExitStack() as stack:
        held = None if night is None else night.begin(stack, manifest)
        connection = account.open()
        stack.callback(connection.close)
        tally = Tally()
        ledger, place, standing = _open(stack, settings, manifest, connection, tally, held=held)
        survey = standing.survey
        scan = Scan(
            manifest.rows(CHUNK_ROWS),
            str(place.images),
            at_once=settings.readers,
            blocked=standing.blocked,
        )
        stack.callback(scan.close)
        tally.unscanned = manifest.rows_at_most
        throttle = _throttle(settings, ledger, tally)
        pools = Executors(
            calls=executors(settings.max_in_flight or MOST_IN_FLIGHT),
            readers=executors(settings.readers),
            # A manifest is read in one piece, in this process.
            scanner=ThreadPoolExecutor(1, initializer=cores.use_all),
            reading_at_once=settings.readers,
        )
        for pool in (pools.calls, pools.readers, pools.scanner):
            # Not waited for: a call that outlasts --drain ends by its own deadline.
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        driver = Driver(
            replace(_work(settings, place), trust=standing.trust, until=until),
            ledger=ledger,
            service=connection.service,
            scan=scan,
            survey=survey,
            throttle=throttle,
            executors=pools,
            observer=watching,
            rotation=connection,
            tally=tally,
        )
        interrupt = driver.interrupt if night is None else night.softened(driver.interrupt)
        watching.opened(place, interrupt)

        def first() -> None:
            if night is not None:
                before = tally.calls.total()
                night.accept(ledger, connection, tally, place.run)
                if isinstance(throttle, Metered):
                    throttle.left_elsewhere(tally.calls.total() - before)

        with core or nullcontext():
            ended = driver.drive(core, first=first, began=began)
        if night is not None:
            ended = replace(night.end(ended), seconds=time.monotonic() - began)
        tally.undeleted = len(ledger.removals.intended())
        made_good = standing.trust is not Trust.LESS or standing.lock.made_good
        if driver.library_known and ended.stop is None and made_good:
            standing.lock.began(standing.began)  # what a ledger lacked that was put back is in it
        watching.closed()
        gauge = throttle.gauge(time.monotonic())
        report = _close(settings, ledger, manifest, place, ended, results, gauge, standing)
        return report if night is None else replace(report, followed=night.followed())


@dataclass(frozen=True, slots=True)
class _Standing:
    """How far the ledger is believed to know the library, its lock, when this run began (UNIX
    ms), what the last scan of this manifest found, and who was forgotten."""

    trust: Trust
    lock: LedgerLock
    began: int
    survey: Surveyor
    blocked: BlockList


def _throttle(settings: RunSettings, ledger: Ledger, tally: Tally) -> Throttle:
    """What bounds the run's calls; `tally` has those that were made already."""
    throttle = throttle_for(settings.max_in_flight, known=ledger.ceiling)
    if settings.rate is not None:
        throttle = Paced(throttle, rate=settings.rate)
    if settings.max_calls is not None:
        throttle = Metered(throttle, left=settings.max_calls - tally.calls.total())
    return throttle


def _work(settings: RunSettings, place: Place) -> Work:
    return Work(
        run=place.run,
        group_id=settings.group_id,
        images=str(place.images),
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
        timeout=settings.timeout,
        max_duration=settings.max_duration or math.inf,
        reread=settings.checksum,
    )


def results_path(settings: RunSettings) -> Path | None:
    """Where a run's results go, None for nowhere."""
    if not settings.write_results:
        return None
    return settings.results or default_results_path(settings.manifest)


def ledger_path(settings: RunSettings) -> Path:
    """The ledger's absolute path. Raises UsageError where there is no place for it."""
    named = settings.ledger or default_ledger_path(settings.endpoint, settings.group_id)
    return named.absolute()


def _check_results(settings: RunSettings, results: Path) -> None:
    """Raise UsageError for results that must not or cannot be written; hours before they are."""
    output = Output(path=results, option="--results")
    manifests = [settings.manifest]
    check_output(
        output,
        InUse(ledger=ledger_path(settings), manifests=manifests, files=settings.in_use),
    )
    try_folder(output)


def _open(
    stack: ExitStack,
    settings: RunSettings,
    manifest: Manifest,
    connection: Connection,
    tally: Tally,
    *,
    held: Held | None,
) -> tuple[Ledger, Place, _Standing]:
    """Lock the ledger, prove the library, open the ledger, record that the run begins.

    For a new ledger the library is proved first: a run that cannot begin leaves nothing behind.
    """
    path = ledger_path(settings)
    new, empty = not ledger_exists(path), False
    if new:
        library, made = _library(settings, connection, tally, ledger=None)
        empty = _proved_empty(settings, connection, tally, f"there is no ledger ({path})")
        make_folder(path.parent)
    else:
        held = held or hold_ledger(stack, path)
        library, made = _library(settings, connection, tally, ledger=path)
    lock, ledger = _opened(stack, path, held, identity_of(settings, library), empty=empty)
    if ledger.unfinished(ADOPT) and not settings.allow_nonempty:
        raise UsageError(
            f"The adoption of the library {settings.group_id} into {path} was not finished: "
            "enrolling now may add people twice. Run the same `enroll adopt` again, or add to "
            "the library all the same with --allow-nonempty."
        )
    put_back = bool(not new and lock.last_run and not ledger.has_run(lock.last_run))
    lacking = lock if put_back and not settings.allow_nonempty else None
    found = _catch_up(settings, connection, tally, ledger, path, lacking=lacking)
    if not (new or put_back or ledger.knows_a_face()):
        empty = _proved_empty(settings, connection, tally, f"the ledger {path} knows none of them")
        if empty:
            ledger.begins(empty=True)
    if put_back:
        ledger.begins(empty=False)
    photos = photos_folder(settings.images, manifest, ledger)
    images, notes = photos.path, [*made, *photos.notes, *found]
    offset = connection.service.clock_offset
    urgent = list(manifest.notes[:1]) if manifest.encoding_was_guessed else []
    if abs(offset) > CLOCK_SLACK_SECONDS:
        notes = [*notes, clock_sentence(offset)]
        urgent.append(clock_sentence(offset))
    urgent += [*found, *unforgotten_notes(ledger)]
    due_rules = [settings.due_rules(), marks(settings.preparation)]
    blocked = ledger.block_list
    key = _manifest_key(settings, manifest.sha256)
    mark = fingerprint(*key, str(images), due_rules, blocked.mark)
    start = _run_start(settings, manifest, {**photos.record(), SURVEY: mark})
    run = ledger.start_run(
        start, images=str(images), given=photos.named, clock_offset=connection.service.clock_offset
    )
    trust = Trust.LESS if put_back else Trust.UNLESS_SEEN
    if empty or settings.allow_nonempty:
        trust = Trust.WHOLE
    if trust is not Trust.LESS:
        lock.began(start.at)
    place = Place(
        endpoint=settings.endpoint,
        library=library,
        ledger=path,
        images=images,
        new_ledger=new,
        run=run,
        notes=[
            *manifest.notes,
            *notes,
            *retry_notes(settings, ledger),
            *unforgotten_notes(ledger),
        ],
        images_inherited=photos.inherited,
        urgent=urgent,
        unforgotten=ledger.forgetting.unfinished(),
    )
    survey = Surveyor(
        ledger.surveys,
        recalled=ledger.surveys.survey(),
        manifest=json.dumps([key, manifest.remembered()]),
        mark=mark,
    )
    return ledger, place, _Standing(trust, lock, start.at, survey, blocked)


def _catch_up(
    settings: RunSettings,
    connection: Connection,
    tally: Tally,
    ledger: Ledger,
    path: Path,
    *,
    lacking: LedgerLock | None,
) -> list[str]:
    """Find out what became of deletions that were begun, and, where the ledger lacks a run that its
    lock remembers, of faces that were deleted since its copy was taken; sentences about it."""
    if lacking is None and not ledger.removals.intended():
        return []
    with Asking(
        connection,
        tally,
        at_once=settings.max_in_flight,
        known=ledger.ceiling,
        most_calls=settings.max_calls,
    ) as asking:
        said = [settle_deleting(ledger, asking, settings.group_id)]
        if lacking is not None:
            said += requeue_deleted(
                path, ledger, lacking, asking, settings.group_id, options=settings.record()
            )
    return [sentence for sentence in said if sentence]


def hold_ledger(stack: ExitStack, path: Path) -> Held:
    """Lock a ledger that is there. Raises LedgerBusyError, and for a file that is none."""
    check_is_ledger(path)  # before a lock is made beside a file that is something else
    return Held(stack.enter_context(LedgerLock(path)))


def _opened(
    stack: ExitStack, path: Path, held: Held | None, identity: LibraryIdentity, *, empty: bool
) -> tuple[LedgerLock, Ledger]:
    """The ledger of this library, whether it was held or not, and open or not."""
    held = held or Held(stack.enter_context(LedgerLock(path)))
    if held.ledger is not None:
        check_library(path, held.ledger.identity(), identity)
        return held.lock, held.ledger
    ledger = open_ledger(path, identity, began_empty=empty)
    stack.callback(ledger.close)
    return held.lock, ledger


def _library(
    settings: RunSettings, connection: Connection, tally: Tally, *, ledger: Path | None
) -> tuple[Library, Sequence[str]]:
    """The library, made first where that is wanted, and what there is to say of it."""
    if not settings.create_library:
        return find_library(connection, settings.group_id, tally, ledger=ledger), []
    library, made = provide_library(
        connection, settings.group_id, tally, ledger=ledger, most_calls=settings.max_calls
    )
    return library, [f"The account had no library {library.group_id}; it was made."] * made


def _manifest_key(settings: RunSettings, sha256: str) -> list[Any]:
    """What a manifest's rows depend on, beside the photos' folder."""
    columns = [list(pair) for pair in sorted(settings.columns.items())]
    return [
        __version__,
        sha256,
        columns,
        settings.encoding,
        settings.sheet,
    ]  # as JSON gives it back


def recall_or_open(settings: RunSettings) -> Manifest:
    """The manifest, by what the ledger remembers of a file of the same content if it does."""
    source = Source.of(settings.manifest, settings.sheet)
    try:
        path = ledger_path(settings)
        known = recall_survey(path) if ledger_exists(path) else None
    except EnrollError:
        known = None  # what is wrong with the ledger is said when it is opened
    if known is not None:
        key, remembered = json.loads(known.manifest)
        if key == _manifest_key(settings, source.sha256):
            return recall_manifest(source, remembered)
    return open_manifest(
        settings.manifest, columns=settings.columns, encoding=settings.encoding, source=source
    )


def _proved_empty(
    settings: RunSettings, connection: Connection, tally: Tally, because: str
) -> bool:
    """Whether the library holds no face. Raises UsageError for one that does, unless allowed."""
    if settings.max_calls is not None and tally.calls.total() >= settings.max_calls:
        return False  # this run has no call left for it, nor for a photo
    empty = is_empty(connection, settings.group_id, tally)
    if not (empty or settings.allow_nonempty):
        raise UsageError(
            f"The library {settings.group_id} already holds faces, and {because}: enrolling into "
            "it may add people twice. Take them into the ledger with `enroll adopt`, name the "
            "ledger that knows them with --ledger, or add to them all the same with "
            "--allow-nonempty."
        )
    return empty


def identity_of(settings: RunSettings, library: Library) -> LibraryIdentity:
    """What the ledger knows a library by."""
    return LibraryIdentity(
        host=host_of(settings.endpoint), group_id=library.group_id, add_time=library.add_time
    )


def retry_notes(settings: RunSettings, ledger: Ledger) -> list[str]:
    """What to say where no row ended with a code that is to be retried: a slip of the pen."""
    if not settings.retry:
        return []
    known = sorted({error.code for error in ledger.status(runs=0).errors})
    there = f"it has {', '.join(known)}" if known else "it has none"
    return [
        f"No entry of the ledger ended with {code}, which --retry names; {there}."
        for code in sorted(settings.retry.difference(known))
    ]


def unforgotten_notes(ledger: Ledger) -> list[str]:
    """What to say where a person is to be forgotten and not everything is gone yet."""
    unfinished = ledger.forgetting.unfinished()
    if not unfinished:
        return []
    are = "is" if unfinished == 1 else "are"
    return [
        f"{amount(unfinished, 'person', 'people')} {are} to be forgotten, and not everything of "
        "theirs is gone yet: the same `enroll forget` goes on."
    ]


def make_folder(folder: Path) -> None:
    """Make the folder that a ledger is to lie in. Raises LocalError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise LocalError(
            f"The ledger's folder {folder} cannot be made: {error.strerror}. Choose a writable "
            "place with --ledger."
        ) from error


def _run_start(settings: RunSettings, manifest: Manifest, found: Mapping[str, object]) -> RunStart:
    return run_start(
        {**settings.record(), **found},
        manifest=in_utf8(manifest.path.absolute()),
        manifest_sha256=manifest.sha256,
    )


def _close(
    settings: RunSettings,
    ledger: Ledger,
    manifest: Manifest,
    place: Place,
    ended: Ended,
    results: Path | None,
    gauge: Gauge,
    standing: _Standing,
) -> Report:
    """Write results and the run's end, whatever it was; a disk that is full ends both."""
    written, no_results, stop, survey = False, None, ended.stop, standing.survey
    if isinstance(stop, UsageError) and not isinstance(stop, LedgerMismatchError):
        # The manifest was changed or removed; the other is found before anything is sent.
        stop = _nothing_is_lost(stop)
    says_so = not ended.tally.due and survey.says(_state_of(results))
    if results is not None and not (says_so and not _settled_any(ended.tally)):
        try:
            lookup = results_lookup(ledger, place.images, standing.blocked)
            written = write_results(manifest, results, lookup)
            survey.results_are(_state_of(results))
        except EnrollError as error:
            results = None
            no_results = LocalError(str(error)) if stop else _nothing_is_lost(error)
    ended = replace(ended, stop=stop or no_results)
    code = exit_code(ended, settings.fail_on)
    try:
        ledger.end_run(place.run, _run_end(ended, code, gauge.limit))
    except LocalError as error:
        ended = replace(ended, stop=ended.stop or error)
        code = exit_code(ended, settings.fail_on)
    return Report(
        place=place,
        ended=ended,
        exit_code=code,
        results=results,
        results_written=written,
        gauge=gauge,
        no_results=no_results,
        on_record=_on_record(ledger),
    )


def _settled_any(tally: Tally) -> bool:
    return bool(tally.adopted or tally.not_applied or tally.surplus or tally.others_in_doubt)


def _state_of(results: Path | None) -> tuple[str, int, int] | None:
    """What tells results that nobody has touched: absolute path, size, modification time (ns)."""
    if results is None or not results.is_file():
        return None
    found = results.stat()
    return in_utf8(results.absolute()), found.st_size, found.st_mtime_ns


def _nothing_is_lost(error: EnrollError) -> LocalError:
    """A fault in manifest or results when faces may have been added: no wrong usage any more."""
    return LocalError(
        f"{error} What the run did is in the ledger: run the same command again, which adds "
        "nobody twice and writes the results."
    )


def _on_record(ledger: Ledger) -> Mapping[Status, int] | None:
    """What the ledger holds, where it could not take every outcome."""
    if not ledger.holds_back:
        return None
    try:
        return ledger.status(runs=0).counts
    except LocalError:
        return {}


def results_lookup(
    ledger: Ledger, images: Path, blocked: BlockList
) -> Callable[[Sequence[Row]], list[Entry | None]]:
    """For rows of the manifest their entries in the ledger; who is `blocked` has none there."""
    root = str(images)

    def known(rows: Sequence[Row]) -> list[Entry | None]:
        return ledger.entries_of([(row.user_id, locate(root, row.image)) for row in rows])

    def lookup(rows: Sequence[Row]) -> list[Entry | None]:
        free, withheld = blocked.part(rows)
        if not withheld:
            return known(rows)
        entries = iter(known(free))
        kept_back = set(map(id, withheld))
        return [blocked.entry(row) if id(row) in kept_back else next(entries) for row in rows]

    return lookup


def _run_end(ended: Ended, code: ExitCode, limit: int) -> RunEnd:
    reason = str(ended.stop) if ended.stop else ended.bound or ""
    return RunEnd(
        at=now_ms(),
        exit_code=int(code),
        reason=reason,
        calls={kind.value: count for kind, count in ended.tally.calls.items()},
        rows={status.value: n for status, n in ended.tally.statuses.items() if n},
        limit=limit,
    )


def exit_code(ended: Ended, fail_on: FailOn) -> ExitCode:
    """The first that applies, in the order of docs/exit-codes.md."""
    tally = ended.tally
    if ended.signal is not None:
        return ExitCode(128 + ended.signal)
    if ended.stop is not None:
        return ended.stop.exit_code
    if ended.bound is not None:
        return ExitCode.ENDED_EARLY
    doubts = tally.statuses[Status.IN_DOUBT] + tally.codes[Status.PENDING, WAITS_FOR_DOUBT]
    if doubts or tally.undeleted:
        return ExitCode.IN_DOUBT
    bad = tally.bad + tally.not_renewed
    failed = {FailOn.ANY: bad, FailOn.NEW: tally.new_bad, FailOn.NONE: 0}[fail_on]
    return ExitCode.SOME_ROWS_FAILED if failed else ExitCode.DONE
