"""Prints and logs the summary when a run has ended."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from enroll.commands.run_closing import Report
from enroll.commands.sync_guards import strange_lines, sync_lines
from enroll.errors import ExitCode
from enroll.limiter.limits import LimiterState
from enroll.manifest.suspects import suspect_notes
from enroll.model import CallKind, Status
from enroll.report.figures import log_fields, remarks
from enroll.runner.sample import trial_lines
from enroll.session.tally import SHARED_SHOWN, Tally
from enroll.text.logs import log, mask
from enroll.text.wording import (
    amount,
    counted,
    doubtful_lines,
    duration,
    error_table,
    facts,
    percent,
)

ENOUGH_MOMENTS = 20
"""Samples, four a second, from which on the summary says what a run waited for."""

LEAST_SHARE = 5
"""Percent of a run's time from which on a reason is shown."""


def summary_lines(report: Report, *, show_user_ids: bool = False, brief: bool = False) -> list[str]:
    """The lines that are printed when a run has ended; `brief` ones without how its calls went."""
    parts = _parts(report, show_user_ids, brief)
    return [line for part in parts for line in [*part, ""] if part][:-1]


def urgent_lines(report: Report, *, show_user_ids: bool = False) -> list[str]:
    """What somebody has to see even if a run did all that was asked."""
    tally = report.ended.tally
    strange = [] if report.sync_result is None else strange_lines(report.sync_result)
    return [
        *_mistakes(tally, urgent=True),
        *remarks(report, urgent=True),
        *strange,
        *_swapped(tally, show_user_ids),
        *_shared(tally, show_user_ids),
    ]


def needs_a_person(report: Report) -> bool:
    """Whether the run did not end well, or found something that a person has to look at."""
    return report.exit_code is not ExitCode.DONE or bool(urgent_lines(report))


def _parts(report: Report, show_user_ids: bool, brief: bool) -> Iterator[list[str]]:
    ended, tally = report.ended, report.ended.tally
    yield [_headline(report)]
    statuses = {status.value: tally.statuses[status] for status in Status if tally.statuses[status]}
    yield [
        *(counted(statuses) if statuses else [_no_rows(tally)]),
        *_not_reached(tally),
    ]
    yield list(_unrecorded(report))
    errors = [
        (status.value, str(code), count, tally.examples.get(code, ""))
        for (status, code), count in tally.codes.most_common()
    ]
    if errors:
        yield ["What went wrong, how often, and what to do", *error_table(errors)]
    yield list(trial_lines(ended))
    if report.sync_result is not None:
        yield [*sync_lines(report.sync_result), *strange_lines(report.sync_result)]
    yield list(doubtful_lines(tally.warnings, "sent anyway"))
    yield [
        *_mistakes(tally),
        *remarks(report),
        *_swapped(tally, show_user_ids),
        *_shared(tally, show_user_ids),
    ]
    yield facts(
        [
            *([] if brief else _calls(report)),
            ("Ledger", str(report.place.ledger)),
            ("Results", _results(report)),
        ]
    )


def _calls(report: Report) -> Iterator[tuple[str, str]]:
    tally = report.ended.tally
    made = ((kind, count) for kind, count in tally.calls.items() if count)
    calls = ", ".join(f"{count:,} {kind.value}" for kind, count in made)
    share = percent(tally.refused, tally.calls.total())
    refused = f"; {tally.refused:,} ({share}) refused by the service's limit"
    yield "Calls", f"{calls or 'none'}{refused if tally.refused else ''}"
    if tally.calls[CallKind.ADD]:
        yield "Limit", _limit(report.gauge)
    yield from _latency(tally)
    yield "Time", f"{duration(report.seconds)}{_waited(tally)}"


def _limit(gauge: LimiterState) -> str:
    """The limit that was found, else the highest number of calls in flight."""
    if gauge.spacing is not None:
        return f"the account takes {gauge.spacing:.1f} calls a second"
    if gauge.ceiling is not None:
        return f"the account takes {amount(gauge.ceiling, 'call')} at a time"
    return f"at most {amount(gauge.limit, 'call')} in flight"


def _latency(tally: Tally) -> Iterator[tuple[str, str]]:
    """How long an `add` call took: in the service, by its own measurement, and as a whole."""
    told = []
    for took, by in ((tally.service_took, "in the service"), (tally.calls_took, "as a whole")):
        median, most = took.quantile(0.5), took.quantile(0.95)
        if median is not None and most is not None:
            told.append(f"{_seconds(median)} (95 % within {_seconds(most)}) {by}")
    if told:
        yield "Latency", f"half of the calls within {', '.join(told)}"


def _seconds(seconds: float) -> str:
    """`12 ms`, `310 ms`, `1.9 s`."""
    return f"{seconds * 1000:.0f} ms" if seconds < 0.9995 else f"{seconds:.1f} s"


def _waited(tally: Tally) -> str:
    """Shares of the run's time by what it waited for, largest first."""
    moments = tally.waited.total()
    if moments < ENOUGH_MOMENTS:
        return ""
    shares = [(what, 100 * n / moments) for what, n in tally.waited.most_common() if what]
    told = [f"{what} {share:.0f} %" for what, share in shares if share >= LEAST_SHARE]
    return f"; waited for {', '.join(told)} of it" if told else ""


def _no_rows(tally: Tally) -> str:
    return "  The manifest has no rows." if tally.scanned else "  The manifest was not read."


def _mistakes(tally: Tally, *, urgent: bool = False) -> Iterator[str]:
    """What is probably a mistake in the manifest."""
    yield from suspect_notes(tally.suspects, urgent=urgent)
    if _has_no_rows(tally):
        yield "The manifest has no rows: if it is an export, that has probably failed."


def _has_no_rows(tally: Tally) -> bool:
    return tally.scanned and not tally.statuses.total()


def _not_reached(tally: Tally) -> Iterator[str]:
    """That the table lacks rows, because the run ended before it had compared them all."""
    if tally.statuses.total() and tally.not_reached:
        rows = amount(tally.not_reached, "row")
        yield f"  and at most {rows} not compared with the ledger before the run ended"


def _headline(report: Report) -> str:
    ended, tally = report.ended, report.ended.tally
    done = f"Run {report.place.run}: {amount(tally.enrolled_now, 'row')} enrolled"
    if tally.renewed:
        done += f", {tally.renewed:,} enrolled again with another user_data"
    if ended.signal is not None:
        return f"{done}, then interrupted. Run the same command again to continue."
    if ended.stop is not None:
        return f"{done}, then stopped: {ended.stop}"
    if ended.bound is not None:
        return f"{done}, then ended early: {ended.bound}. Run the same command again to continue."
    if not tally.done and report.sync_result is not None and report.sync_result.deleted:
        return f"Run {report.place.run}: {amount(report.sync_result.deleted, 'face')} deleted."
    if not tally.done:
        return f"Run {report.place.run}: {_nothing_added(tally)}"
    return f"{done}, {amount(tally.enrolled_before, 'row')} enrolled before."


def _nothing_added(tally: Tally) -> str:
    if tally.undeleted:
        faces, were = amount(tally.undeleted, "face"), "was" if tally.undeleted == 1 else "were"
        return f"no face was added; it is not known whether {faces} {were} deleted."
    if _has_no_rows(tally):
        return "nothing to do; the manifest has no rows."
    return "nothing to do; no photo was read and no face was added."


def _unrecorded(report: Report) -> Iterator[str]:
    """That the ledger does not have all of these counts, and what it has."""
    if report.on_record is None:
        return
    held = ", ".join(f"{count:,} {status}" for status, count in report.on_record.items())
    yield (
        "Not all of this is on record: the ledger could not record the last outcomes. It holds, "
        f"of all manifests: {held or 'nothing that can be read now'}. The next run searches the "
        "library for the rest before it sends anything."
    )


def _swapped(tally: Tally, show_user_ids: bool) -> Iterator[str]:
    if not tally.swapped:
        return
    hint = "" if show_user_ids else " (--show-user-ids names them)"
    pairs = amount(len(tally.swapped), "pair")
    yield f"{pairs} of people whose photos were probably swapped: both are held{hint}."
    for pair in tally.swapped[:SHARED_SHOWN]:
        yield f"  {' and '.join(pair if show_user_ids else map(mask, pair))}"
    if len(tally.swapped) > SHARED_SHOWN:
        yield f"  and {len(tally.swapped) - SHARED_SHOWN:,} more"


def _shared(tally: Tally, show_user_ids: bool) -> Iterator[str]:
    if not tally.shared:
        return
    hint = "" if show_user_ids else " (--show-user-ids names the people)"
    yield f"{amount(tally.shared, 'photo')} enrolled under more than one user_id: check them{hint}."
    for photo in tally.shared_examples:
        path, names = photo.path, list(photo.user_ids)
        if not show_user_ids:
            # A photo is often called by its person's id; the longest first, which may hold another.
            for user_id in sorted(photo.user_ids, key=len, reverse=True):
                path = path.replace(user_id, mask(user_id))
            names = [mask(user_id) for user_id in photo.user_ids]
        others = photo.people - len(names)
        more = f" and {amount(others, 'other')}" if others > 0 else ""
        yield f"  {path}: {', '.join(names)}{more}"
    if tally.shared > len(tally.shared_examples):
        yield f"  and {tally.shared - len(tally.shared_examples):,} more"


def _results(report: Report) -> str:
    if report.no_results is not None and str(report.no_results) not in _headline(report):
        return f"not written: {report.no_results}"
    if report.results is None:
        return "not written"
    return f"{report.results.absolute()}{'' if report.results_written else ' (unchanged)'}"


def log_summary(report: Report, *, urgent: bool = False) -> None:
    """Log how a run ended, with its figures as fields; an `urgent` line also with --quiet."""
    level = logging.WARNING if urgent else logging.INFO
    log("run_ended", _headline(report), log_fields(report), level=level)
