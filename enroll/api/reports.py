"""What the functions for Python return: how a command ended, and what became of each row."""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, Generic, TypeVar

from enroll.addresses import ledger_named
from enroll.commands.run_closing import Report, results_lookup
from enroll.commands.run_input import ledger_path, named_library
from enroll.errors import EnrollError, ExitCode, ManifestError
from enroll.ledger import LedgerReader, empty_ledger, ledger_at, read_ledger
from enroll.manifest.manifest import open_manifest
from enroll.manifest.results import message_of
from enroll.manifest.scan import CHUNK_ROWS, choose_photo_store
from enroll.model import Entry, Status
from enroll.report.figures import RunEnding, in_json
from enroll.report.outcome import About, Ended, figures_of
from enroll.report.publishing import run_ending
from enroll.settings import RunSettings, find_ledger

R = TypeVar("R")
E = TypeVar("E", bound=Ended)


class NotDoneError(EnrollError):
    """A command ended, but not with everything done, or was cancelled before it began.

    `exit_code` is the `ExitCode` with which the command would have ended.
    """

    def __init__(self, sentence: str, exit_code: ExitCode) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Generic[R]):
    """How a command ended: its exit code, what it would have printed (`text`), and its `result`.

    `stop` is what ended it early, None if nothing did. `figures` are what the command prints with
    `--json`. `print(outcome)` shows text and stop.
    """

    exit_code: ExitCode
    text: str = field(repr=False)
    result: R = field(repr=False)
    stop: EnrollError | None = None
    figures: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return self.text if self.stop is None else f"{self.text}\n{self.stop}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """A notebook's cell shows the text."""
        printer.text(str(self))

    def to_dict(self) -> dict[str, Any]:
        """Its figures as plain values, without anything that names a person: the object that the
        command prints with `--json`."""
        return dict(self.figures)

    def raise_for_status(self) -> None:
        """Raise what stopped it, or `NotDoneError` if the exit code is not 0."""
        if self.stop is not None:
            raise self.stop
        if self.exit_code is not ExitCode.DONE:
            raise NotDoneError(self.text or self.exit_code.name, self.exit_code)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """How a run or a sync ended, or with `dry_run` what it would do.

    `print(report)` shows what the command prints. `results` is the results file, if one was
    written; `ledger` is where the ledger is, and `run` the run's number in it.
    """

    exit_code: ExitCode
    text: str = field(repr=False)
    ledger: Path | None
    run: int | None = None
    results: Path | None = None
    dry_run: bool = False
    stop: EnrollError | None = None
    _ending: RunEnding = field(repr=False)
    _rows: Callable[[], Iterator[Entry]] = field(repr=False)

    def __str__(self) -> str:
        return self.text

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """A notebook's cell shows the text."""
        printer.text(self.text)

    def rows(self) -> Iterator[Entry]:
        """The outcome of each row, in the order of the manifest; `pending` where there is none yet.

        Those of rows in memory are as they were when the run ended. Those of a manifest are read
        from the ledger now; raises `EnrollError` if the manifest has changed since.
        """
        return self._rows()

    def to_dict(self) -> dict[str, Any]:
        """The figures of `--summary` with the names that they have there, as values that fit into
        JSON; no user id and no photo's path. Times are ISO 8601 in UTC, durations seconds."""
        return in_json(self._ending)

    def raise_for_status(self) -> None:
        """Return if the run is done, with exit code 0. Raise what stopped it, else `NotDoneError`
        for bad rows, faces in doubt, or a run that ended early."""
        if self.stop is not None:
            raise self.stop
        if self.exit_code is not ExitCode.DONE:
            raise NotDoneError(_why(self), self.exit_code)


def _why(report: RunReport) -> str:
    figures = report.to_dict()
    if report.exit_code is ExitCode.SOME_ROWS_FAILED:
        codes = ", ".join(f"{count:,} {code}" for code, count in figures["errors"].items())
        return f"{figures['bad']:,} rows are not enrolled ({codes}). `report.rows()` has them."
    if report.exit_code is ExitCode.IN_DOUBT:
        return "Something is in doubt. Run again: it settles doubts, and adds nobody twice."
    return figures["message"] or report.exit_code.name


def outcome_of(
    about: About,
    result: E,
    *,
    text: str,
    started: float,
    exit_code: ExitCode | None = None,
) -> Outcome[E]:
    """The outcome of a command that has ended. `started` is UNIX seconds; `exit_code` takes the
    place of the result's."""
    return Outcome(
        exit_code=result.exit_code if exit_code is None else exit_code,
        text=text,
        result=result,
        stop=result.stop,
        figures=figures_of(about, result, started=started, exit_code=exit_code),
    )


def report_of(
    report: Report,
    settings: RunSettings,
    *,
    started: float,
    ended: float,
    text: str,
    rows: Callable[[], Iterator[Entry]],
) -> RunReport:
    """A run's report for Python. Times are UNIX seconds."""
    return RunReport(
        exit_code=report.exit_code,
        text=text,
        ledger=report.place.ledger,
        run=report.place.run,
        results=report.results,
        stop=report.ended.stop,
        _ending=run_ending(settings, report, started=started, ended=ended),
        _rows=rows,
    )


def outcomes(settings: RunSettings, *, sha256: str = "") -> Iterator[Entry]:
    """Each row of the manifest with what the ledger has of it. Raises EnrollError, also if the
    manifest has not the content of this hash."""
    manifest = open_manifest(settings.manifest, **settings.manifest_options)
    if sha256 and manifest.sha256 != sha256:
        raise ManifestError(
            f"{settings.manifest} was changed after the run, so it does not have its rows any more."
        )
    with closing(_ledger_of(settings)) as ledger:
        photos = choose_photo_store(settings.images, manifest, ledger)
        lookup = results_lookup(ledger, photos.store, ledger.block_list)
        for rows in photos.manifest.rows(CHUNK_ROWS):
            for row, entry in zip(rows, lookup(rows), strict=True):
                if entry is not None:
                    yield replace(entry, message=message_of(entry))
                    continue
                yield Entry(
                    user_id=row.user_id,
                    user_data=row.user_data,
                    image=photos.store.locate(row.image),
                    status=Status.PENDING,
                )


def _ledger_of(settings: RunSettings) -> LedgerReader:
    store = ledger_at(ledger_path(settings))
    return store.read() if store.exists() else empty_ledger(named_library(settings))


class KeptRows:
    """The outcomes of rows in memory, in a file without a name, as the rows' own file is gone."""

    def __init__(self, rows: Iterator[Entry]) -> None:
        """Raises OSError."""
        self._file: IO[str] = TemporaryFile("w+")  # noqa: SIM115  # closed by the next line
        weakref.finalize(self, self._file.close)
        for entry in rows:
            cells = [getattr(entry, name) for name in _FIELDS]
            self._file.write(json.dumps(cells) + "\n")
        self._file.flush()

    def __call__(self) -> Iterator[Entry]:
        at = 0
        while True:
            self._file.seek(at)  # another iteration may read in between
            line = self._file.readline()
            if not line:
                return
            at = self._file.tell()
            cells = dict(zip(_FIELDS, json.loads(line), strict=True))
            yield Entry(**{**cells, "status": Status(cells["status"])})


_FIELDS = tuple(Entry.__dataclass_fields__)


@contextmanager
def open_ledger(ledger: str | os.PathLike[str]) -> Iterator[LedgerReader]:
    """Open a ledger for reading, also while a run writes to it: `with open_ledger("staff") as
    ledger`. It is a `LedgerReader`.

    `ledger` is the file's path, or the group_id of a library whose ledger is in the default place.
    Raises `EnrollError` if there is none, or there are several.
    """
    named = ledger_named(ledger)
    if not named.is_file() and isinstance(ledger, str) and os.sep not in ledger:
        named = find_ledger(ledger=None, endpoint=None, group_id=ledger)
    with closing(read_ledger(named)) as reader:
        yield reader
