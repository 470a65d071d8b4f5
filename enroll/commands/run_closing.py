"""How a run ends: write its results, record its end, and choose the exit code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from enroll import clock
from enroll.commands.run_opening import Destination, Opened
from enroll.errors import EnrollError, ExitCode, LedgerMismatchError, LocalError, UsageError
from enroll.ledger import BlockList, FindingKind, Ledger, LedgerReader, RunEnd, SyncResult
from enroll.limiter.limits import LimiterState
from enroll.manifest.results import write_results
from enroll.model import Entry, Row, Status
from enroll.photos import PhotoStore
from enroll.runner.planner import WAITS_FOR_DOUBT
from enroll.session.tally import Ended, Tally
from enroll.settings import FailOn
from enroll.visible import path_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """The outcome of a run. `results` is None if none were to be written, or they could not be.

    `seconds` is how long the run took, from its start to its end on record, results included.
    `gauge` is the limiter's state at the end. `no_results` says why the results could not be
    written. `on_record` is None if every outcome is in the ledger; else it counts what the ledger
    holds, by status. `findings` counts what searches with photos have found wrong, also earlier
    ones.
    """

    place: Destination
    ended: Ended
    seconds: float
    exit_code: ExitCode
    results: Path | None
    results_written: bool
    gauge: LimiterState
    no_results: LocalError | None = None
    on_record: Mapping[Status, int] | None = None
    sync_result: SyncResult | None = None
    findings: Mapping[FindingKind, int] = field(default_factory=dict)


def close_run(
    opened: Opened, ended: Ended, gauge: LimiterState, sync_result: SyncResult | None
) -> Report:
    """Write the results and the end of the run, whatever it was; a full disk may prevent both."""
    given, ledger = opened.given, opened.held.ledger
    settings, results = given.settings, given.results
    written, no_results, stop, scan_cache = False, None, ended.stop, opened.scan_cache
    if isinstance(stop, UsageError) and not isinstance(stop, LedgerMismatchError):
        # The manifest was changed or removed; the other is found before anything is sent.
        stop = _nothing_is_lost(stop)
    says_so = not ended.tally.due and scan_cache.says(_state_of(results))
    if results is not None and not (says_so and not _settled_any(ended.tally)):
        try:
            lookup = results_lookup(ledger, opened.destination.store, opened.forgotten)
            written = write_results(given.manifest, results, lookup)
            scan_cache.results_are(_state_of(results))
        except EnrollError as error:
            results = None
            no_results = LocalError(str(error)) if stop else _nothing_is_lost(error)
    ended = replace(ended, stop=stop or no_results)
    code, at = exit_code(ended, settings.fail_on), clock.now_ms()
    try:
        ledger.end_run(opened.destination.run, _run_end(ended, code, gauge.limit, at=at))
    except LocalError as error:
        ended = replace(ended, stop=ended.stop or error)
        code = exit_code(ended, settings.fail_on)
    return Report(
        place=opened.destination,
        ended=ended,
        seconds=max(at - opened.began, 0) / 1000,
        exit_code=code,
        results=results,
        results_written=written,
        gauge=gauge,
        no_results=no_results,
        on_record=_on_record(ledger),
        sync_result=sync_result,
        findings=_findings(ledger),
    )


def _settled_any(tally: Tally) -> bool:
    return bool(tally.adopted or tally.not_applied or tally.surplus or tally.others_in_doubt)


def _state_of(results: Path | None) -> tuple[str, int, int] | None:
    """What shows that results are untouched: absolute path, size, modification time in ns."""
    if results is None or not results.is_file():
        return None
    found = results.stat()
    return path_text(results.absolute()), found.st_size, found.st_mtime_ns


def _nothing_is_lost(error: EnrollError) -> LocalError:
    """An error in manifest or results once faces may have been added: no longer wrong usage."""
    return LocalError(
        f"{error} What the run did is in the ledger: run the same command again. It adds nobody "
        "twice, and writes the results."
    )


def _on_record(ledger: Ledger) -> Mapping[Status, int] | None:
    """What the ledger holds, if it could not take every outcome."""
    if not ledger.holds_back:
        return None
    try:
        return ledger.status(runs=0).counts
    except LocalError:
        return {}


def _findings(ledger: Ledger) -> Mapping[FindingKind, int]:
    """What is wrong with faces; nothing of a ledger that cannot be written or read."""
    try:
        return {} if ledger.holds_back else ledger.audits().findings
    except LocalError:
        return {}


def results_lookup(
    ledger: LedgerReader, store: PhotoStore, forgotten: BlockList
) -> Callable[[Sequence[Row]], list[Entry | None]]:
    """Looks up the ledger's entries for rows of the manifest; people who are `forgotten` have
    none."""

    def known(rows: Sequence[Row]) -> list[Entry | None]:
        return ledger.entries_of([(row.user_id, store.locate(row.image)) for row in rows])

    def lookup(rows: Sequence[Row]) -> list[Entry | None]:
        free, withheld = forgotten.part(rows)
        if not withheld:
            return known(rows)
        entries = iter(known(free))
        kept_back = set(map(id, withheld))
        return [forgotten.entry(row) if id(row) in kept_back else next(entries) for row in rows]

    return lookup


def _run_end(ended: Ended, code: ExitCode, limit: int, *, at: int) -> RunEnd:
    reason = str(ended.stop) if ended.stop else ended.bound or ""
    return RunEnd(
        at=at,
        exit_code=int(code),
        reason=reason,
        calls={kind.value: count for kind, count in ended.tally.calls.items() if count},
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
        return ExitCode.UNREACHED if ended.away else ExitCode.ENDED_EARLY
    doubts = tally.statuses[Status.IN_DOUBT] + tally.codes[Status.PENDING, WAITS_FOR_DOUBT]
    if doubts or tally.undeleted or tally.behind:
        return ExitCode.IN_DOUBT
    bad = tally.bad + tally.not_renewed
    failed = {FailOn.ANY: bad, FailOn.NEW: tally.new_bad, FailOn.NONE: 0}[fail_on]
    return ExitCode.SOME_ROWS_FAILED if failed else ExitCode.DONE
