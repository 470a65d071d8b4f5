"""`enroll ledger copy`: take a ledger to another place, where it goes on."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from enroll import clock
from enroll.errors import ExitCode, LedgerMismatchError, LocalError, UsageError
from enroll.ledger import (
    COPIED_TO,
    COPY,
    RESTORED,
    LedgerHold,
    LedgerOriginal,
    LedgerStore,
    RunEnd,
    RunRecord,
    check_not_copied,
    copied_to,
    ledger_at,
)
from enroll.session.session import Prompt, SessionSettings, command_start, run_defaults
from enroll.settings import files_record


@dataclass(frozen=True, slots=True, kw_only=True)
class CopySettings(SessionSettings):
    """What `enroll ledger copy` is to do: copy `ledger` to the place `to`."""

    command: ClassVar[str] = COPY

    to: Path

    @property
    def files(self) -> dict[str, str]:
        """Where it goes."""
        return files_record({COPIED_TO: self.to})


def copy_ledger(settings: CopySettings, prompt: Prompt) -> int:
    """Copy every row of a ledger to another place, compare them all, and let only the copy go on;
    the number of rows. Raises EnrollError, and leaves a whole copy or none.

    The ledger is marked as copied just before the copy is there: at no moment can both be written.
    Where that was the last that happened, the next call with the same settings goes on.
    """
    source, target = ledger_at(settings.ledger), ledger_at(settings.to)
    source.check()
    with source.hold() as held, closing(source.original()) as original:
        before = next((run for run in original.runs(1) if run.start.command == COPY), None)
        if before is None:
            _refuse_existing(target, settings.to)
        elif copied_to(before) != settings.files[COPIED_TO]:
            check_not_copied(settings.ledger, [before])
        with target.hold() as hold:
            if before is not None and target.exists():
                return _finish(original, target, before, settings, prompt)
            _refuse_existing(target, settings.to)
            _pass_on_memory(original, held, hold, again=before is not None and not _cut_off(before))
            return _copy(original, target, held, settings, prompt)


def _cut_off(before: RunRecord) -> bool:
    return before.end is None


def _refuse_existing(target: LedgerStore, to: Path) -> None:
    if target.exists():
        raise UsageError(
            f"There is something at {to} already, and nothing is ever overwritten. Name a place "
            "where there is nothing yet, or move it elsewhere."
        )


def _pass_on_memory(
    original: LedgerOriginal, held: LedgerHold, hold: LedgerHold, *, again: bool
) -> None:
    """Let the copy's place remember the last run that the copy has; or that the copy is an old one,
    if the ledger is, or has gone on there before."""
    restored = bool(held.last_run) and not original.has_run(held.last_run)
    runs = [run.start.at for run in original.runs(2) if run.start.command != COPY]
    hold.remember_run(RESTORED if restored or again else next(iter(runs), 0))


def _copy(
    original: LedgerOriginal,
    target: LedgerStore,
    held: LedgerHold,
    settings: CopySettings,
    prompt: Prompt,
) -> int:
    rows = original.count_rows()
    with closing(target.new()) as new:
        done = original.copy_to(new, partial(prompt.progress, what="rows copied", of=rows))
        new.seal()
        compared = partial(prompt.progress, what="rows compared", of=rows)
        if differing := original.differing(new, compared):
            raise LocalError(
                f"The copy differs from {settings.ledger} in {', '.join(differing)}, so it was "
                "thrown away, and the ledger stays as it was. Please report it."
            )
        identity = original.identity()
        defaults = run_defaults(original, endpoint=None)
        start = command_start(settings, defaults, group_id=identity.group_id)
        original.leave(start)
        new.publish()
    _end(original, f"{done:,} rows were copied")
    held.remember_run(start.at)  # which an old copy of this ledger lacks
    return done


def _end(original: LedgerOriginal, reason: str) -> None:
    original.end_leaving(
        RunEnd(
            at=clock.now_ms(), exit_code=ExitCode.DONE, reason=reason, calls={}, rows={}, limit=0
        )
    )


def _finish(
    original: LedgerOriginal,
    target: LedgerStore,
    before: RunRecord,
    settings: CopySettings,
    prompt: Prompt,
) -> int:
    """The copy was made by an earlier command: see that it is whole."""
    rows = original.count_rows()
    with closing(target.original()) as copy:
        compared = partial(prompt.progress, what="rows compared", of=rows)
        same = not original.differing(copy, compared)
        runs = [run for run in original.runs(2) if run.start.command != COPY]
        goes_on = copy.identity() == original.identity() and all(
            copy.has_run(run.start.at) for run in runs
        )
    if _cut_off(before) and (same or goes_on):
        _end(original, "the rows were copied by a command that was cut off")
    if not same:
        raise LedgerMismatchError(
            f"{settings.to} has rows that {settings.ledger} lacks, or lacks some: if it is the "
            "copy that was made before, it has gone on since, so use it. Nothing was changed."
        )
    return rows
