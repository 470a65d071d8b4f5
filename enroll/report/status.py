"""What `enroll status` shows, as text and as JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Any

from enroll.ledger import (
    RUN,
    FindingKind,
    LedgerStatus,
    RunRecord,
    copied_to,
    iso_time,
    ledger_at,
)
from enroll.text.remedies import sentence
from enroll.text.wording import amount, counted, duration, error_table, facts, one_line, pace_words
from enroll.visible import path_text

RUNS_WATCHED = 3
"""Runs that are shown to somebody who watches."""


class RunState(StrEnum):
    """The state of a run, as far as its ledger can tell."""

    UNDER_WAY = "under_way"
    ENDED = "ended"
    CUT_OFF = "cut_off"
    """Its end is not on record and it does not hold the ledger: it was killed, or power or disk
    failed."""


def read_status(path: Path) -> tuple[LedgerStatus, str | None]:
    """The present status, and who holds the ledger (as `holder_of` has it)."""
    store, looked_at = ledger_at(path), None
    while True:
        # Opened for each look: a reader sees the ledger as it was at its first look.
        with closing(store.read()) as reader:
            status = reader.status()
        holder = store.holder()
        latest = next(iter(status.runs), None)
        if holder is not None or latest is None or latest.end is not None:
            return status, holder
        if latest.run == looked_at:
            return status, holder
        looked_at = latest.run  # once more: it may have ended between the two looks


def status_lines(
    status: LedgerStatus, path: Path, *, holder: str | None = None, watched: bool = False
) -> list[str]:
    """The status as lines, with a blank line between its parts. If it is `watched`, the latest
    runs come before the errors."""
    shown = status.runs[:RUNS_WATCHED] if watched else status.runs
    counts = {name.value: count for name, count in status.counts.items()}
    identity = status.identity
    errors = [(one.status.value, one.code, one.count, one.message) for one in status.errors]
    runs = [_run_line(run, holder) for run in shown]
    parts = [
        facts(
            [
                ("Library", f"{identity.group_id} at {identity.host}, created {identity.add_time}"),
                ("Ledger", str(path)),
                *_copied(status),
                ("Photos", status.photo_root or "no run yet"),
                *_ceiling(status),
                *_forgotten(status),
                *_audits(status),
            ]
        ),
        counted(counts) if counts else ["  Nothing is recorded yet."],
        _below("Errors, how many entries, and what to do", error_table(errors)),
        _below("Undocumented answers, as received", _answers(status)),
    ]
    parts.insert(2 if watched else len(parts), _below("Runs, the latest first", runs))
    return [line for part in parts for line in [*part, ""] if part][:-1]


def _below(heading: str, lines: list[str]) -> list[str]:
    return [heading, *lines] if lines else []


_OF_ITS_CALL = re.compile(r'"(?:request_id|time_used)"\s*:\s*(?:"[^"]*"|\d+)')
"""What differs between two equal answers."""


def _answers(status: LedgerStatus) -> list[str]:
    """Each undocumented answer once."""
    shown: dict[tuple[str, int, str], str] = {}
    for one in status.raw:
        line = f"  {one.code}, HTTP {one.http_status}: {one_line(one.raw)}"
        shown.setdefault((one.code, one.http_status, _OF_ITS_CALL.sub("", one.raw)), line)
    return list(shown.values())


def _copied(status: LedgerStatus) -> Iterator[tuple[str, str]]:
    if (place := copied_to(next(iter(status.runs), None))) is not None:
        yield "Copied to", f"{place}: the ledger goes on there, and can only be read here"


def _ceiling(status: LedgerStatus) -> Iterator[tuple[str, str]]:
    if status.ceiling is not None:
        yield "Account", f"takes {amount(status.ceiling, 'call')} at a time, as last found"


def _forgotten(status: LedgerStatus) -> Iterator[tuple[str, str]]:
    if status.forgotten:
        left = f", {status.unfinished:,} of them not completely: run the same `enroll forget` again"
        people = amount(status.forgotten, "person", "people")
        yield "Forgotten", f"{people}, withheld by runs{left if status.unfinished else ''}"


def _audits(status: LedgerStatus) -> Iterator[tuple[str, str]]:
    found = sum(status.audits.findings.values())
    if found or status.audits.audited:
        left = f"{amount(status.not_audited, 'enrolled face')} not audited yet"
        yield "Audits", f"{amount(found, 'finding')}, shown by `enroll audit`; {left}"


def _state(run: RunRecord, holder: str | None) -> RunState:
    if run.end is not None:
        return RunState.ENDED
    ours = f": process {run.start.pid} on {run.start.host},"
    if holder is not None and (not holder or holder.startswith(ours)):
        return RunState.UNDER_WAY
    return RunState.CUT_OFF


def _run_line(run: RunRecord, holder: str | None) -> str:
    began = f"  {run.run:>4}  {iso_time(run.start.at)}  {run.start.user}@{run.start.host}"
    if run.start.command != RUN:
        began += f"  {run.start.command}"
    if run.end is None:
        if _state(run, holder) is RunState.UNDER_WAY:
            pace = "" if run.pace is None else f"; {pace_words(run.pace)}"
            return f"{began}  in progress (process {run.start.pid}){pace}"
        return (
            f"{began}  cut off: killed, ended by a second signal, or power or disk failed; run it "
            "again to settle what it left"
        )
    calls = ", ".join(f"{count:,} {kind}" for kind, count in run.end.calls.items()) or "no calls"
    took = duration((run.end.at - run.start.at) / 1000)
    reason = f": {run.end.reason.splitlines()[0]}" if run.end.reason else ""
    return f"{began}  exit code {run.end.exit_code} after {took}, {calls}{reason}"


def status_json(status: LedgerStatus, path: Path, *, holder: str | None = None) -> dict[str, Any]:
    """The status as plain values; keys are stable, times are ISO 8601 in UTC."""
    identity = status.identity
    return {
        "ledger": path_text(path),
        "library": {
            "host": identity.host,
            "group_id": identity.group_id,
            "add_time": identity.add_time,
        },
        "images": status.photo_root,
        "ceiling": status.ceiling,
        "forgotten": {"people": status.forgotten, "unfinished": status.unfinished},
        "findings": {kind.value: status.audits.findings.get(kind, 0) for kind in FindingKind},
        "not_audited": status.not_audited,
        "counts": {name.value: count for name, count in status.counts.items()},
        "errors": [
            {
                "status": one.status.value,
                "code": one.code,
                "count": one.count,
                "message": sentence(one.code, one.status, one.message),
            }
            for one in status.errors
        ],
        "answers": [
            {
                "code": one.code,
                "http_status": one.http_status,
                "raw": one.raw,
                "at": iso_time(one.at),
                "run": one.run,
            }
            for one in status.raw
        ],
        "runs": [_run_json(run, holder) for run in status.runs],
    }


def _run_json(run: RunRecord, holder: str | None) -> dict[str, Any]:
    start, end = run.start, run.end
    return {
        "run": run.run,
        "state": _state(run, holder).value,
        "started_at": iso_time(start.at),
        "ended_at": "" if end is None else iso_time(end.at),
        "host": start.host,
        "user": start.user,
        "pid": start.pid,
        "version": start.version,
        "manifest": start.manifest,
        "manifest_sha256": start.manifest_sha256,
        "options": dict(start.options),
        "exit_code": None if end is None else end.exit_code,
        "reason": "" if end is None else end.reason,
        "calls": {} if end is None else dict(end.calls),
        "rows": {} if end is None else dict(end.rows),
        "limit": None if end is None else end.limit,
        "pace": None if run.pace is None else asdict(run.pace),
    }
