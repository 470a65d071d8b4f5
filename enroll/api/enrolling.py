"""`run`, `sync` and `plan` for Python: what the commands of these names do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any, Generic, TypeVar, Unpack

from enroll import clock
from enroll.api.options import (
    CredentialsLike,
    PathLike,
    PlanOptions,
    RunOptions,
    Settings,
    SyncOptions,
    names_of,
    place_of_ledger,
    reader,
    run_settings,
    taken_with_credentials,
)
from enroll.api.reports import KeptRows, Outcome, RunReport, outcome_of, outcomes, report_of
from enroll.api.rows import Rows, is_path, manifest_of
from enroll.api.watching import Hooks, OnProgress, OnRow, Watch
from enroll.commands.plan import make_plan
from enroll.commands.plan_report import Plan, plan_lines
from enroll.commands.run import enroll_manifest
from enroll.commands.run_closing import Report
from enroll.commands.sync import sync_manifest
from enroll.commands.sync_compare import preview
from enroll.commands.sync_guards import difference_lines, strange_lines
from enroll.errors import ExitCode
from enroll.ledger import read_ledger
from enroll.model import Entry
from enroll.report.figures import RunEnding
from enroll.report.outcome import of_run_settings
from enroll.report.summary import log_summary, summary_lines
from enroll.settings import RunSettings, SyncSettings


def run(
    rows: Rows,
    *,
    group_id: str | None = None,
    ledger: PathLike | None = None,
    credentials: CredentialsLike = None,
    settings: Settings | None = None,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
    on_row: OnRow | None = None,
    cancel: Event | None = None,
    show_user_ids: bool = False,
    **options: Unpack[RunOptions],
) -> RunReport:
    """Enroll the rows that are not enrolled yet, as `enroll run` does. The same rows again add
    nobody twice, and continue where an earlier run ended.

    `rows` is the path of a manifest, an iterable of `Row`, or a DataFrame. `group_id` is the
    library, which has to be given here or in `settings`, the defaults for all that is not given.
    `ledger` is the ledger's file, by default that of the library in the state folder, and
    `credentials` are key and secret or where to read them. With `dry_run`, nothing is sent, and
    the report's text is the plan.

    `on_progress` gets a `Progress` a few times a second, `on_row` the `Entry` of each row that has
    an outcome in this run, without its token. They are called in this thread, and what they raise
    ends the run and is raised here. Setting `cancel` ends the run gracefully, as Ctrl-C does.
    Log lines mask user ids, unless `show_user_ids`.

    Further options are those of `enroll run --help`, text is read as on the command line, and times
    are in seconds:

    - rows: `columns`, `delimiter`, `encoding`, `header_row`, `id_from`, `limit`, `sample`, `seed`,
      `sheet`
    - photos: `accept_truncated`, `checksum`, `convert`, `images`, `lookalikes`, `max_bytes`,
      `max_pixels`, `max_side`, `memory`, `min_face`, `multi_oriented_detection`, `photo`,
      `precheck`, `readers`, `retry`
    - library and calls: `allow_http`, `allow_nonempty`, `attempts`, `ca_bundle`, `create_library`,
      `credentials_grace`, `endpoint`, `max_calls`, `max_in_flight`, `on_code`, `rate`, `send_as`,
      `settle_after`, `timeout`
    - who does the work: `engine`, `scheduler`
    - the end: `drain`, `fail_on`, `give_up_after`, `max_duration`, `results` (a file to write; by
      default one beside a manifest, and none for rows in memory)

    Raises EnrollError if the run cannot begin: UsageError for wrong arguments or rows,
    ServiceError, LedgerBusyError while another run has the ledger. What ends it later is in the
    report.
    """
    given = {"group_id": group_id, "ledger": ledger, **options}
    with _wanted(RunSettings, rows, given, credentials, settings, dry=dry_run) as wanted:
        if dry_run:
            return _planned(wanted)
        hooks = Hooks(on_progress=on_progress, on_row=on_row, cancel=cancel)
        return _enroll(enroll_manifest, wanted, hooks, show_user_ids=show_user_ids)


def sync(
    rows: Rows,
    *,
    group_id: str | None = None,
    ledger: PathLike | None = None,
    credentials: CredentialsLike = None,
    settings: Settings | None = None,
    dry_run: bool = False,
    on_progress: OnProgress | None = None,
    on_row: OnRow | None = None,
    cancel: Event | None = None,
    show_user_ids: bool = False,
    **options: Unpack[SyncOptions],
) -> RunReport:
    """Make the library match the rows, as `enroll sync` does: new people are added, changed photos
    and texts are replaced, and people absent for longer than `grace` days are removed.

    The arguments are those of `run`, without `limit`, `sample` and `seed`; and `grace`; the bounds
    `max_changes`, `max_missing` and `max_removals` (a number of people, or a share such as "1%");
    and `differences`, a file for them. With `dry_run`, the report's text is the difference.

    Raises as `run`, and GuardError, a dry run too, if the difference is too large; nothing is done
    then.
    """
    given = {"group_id": group_id, "ledger": ledger, **options}
    with _wanted(SyncSettings, rows, given, credentials, settings, dry=dry_run) as wanted:
        if dry_run:
            return _compared(wanted, show_user_ids=show_user_ids)
        act = partial(sync_manifest, show_user_ids=show_user_ids)
        hooks = Hooks(on_progress=on_progress, on_row=on_row, cancel=cancel)
        return _enroll(act, wanted, hooks, show_user_ids=show_user_ids)


def plan(
    rows: Rows,
    *,
    group_id: str | None = None,
    ledger: PathLike | None = None,
    settings: Settings | None = None,
    full: bool = False,
    report: PathLike | None = None,
    orphans: PathLike | None = None,
    duplicates: PathLike | None = None,
    **options: Unpack[PlanOptions],
) -> Outcome[Plan]:
    """Find out what a run would do with the rows, as `enroll plan` does. No call is made, and
    nothing is written but the tables `report` (each photo), `orphans` (photos that no row uses)
    and `duplicates` (rows with the same photo), if they are given.

    The outcome's `result` has the numbers: `due` rows, `calls`, `faults` by status and code,
    `seconds` that the calls take, and others. With `full`, every due photo is prepared as for a
    call; with `sample`, that many of them, drawn at random.

    Further options are those of `run`: `accept_truncated`, `checksum`, `columns`, `convert`,
    `delimiter`, `encoding`, `endpoint`, `header_row`, `id_from`, `images`, `lookalikes`,
    `max_bytes`, `max_in_flight`, `max_pixels`, `max_side`, `memory`, `min_face`,
    `multi_oriented_detection`, `photo`, `precheck`, `rate`, `readers`, `retry`, `seed`, `send_as`,
    `sheet`. Raises EnrollError.
    """
    given = {"group_id": group_id, "ledger": ledger, **options}
    with _wanted(RunSettings, rows, given, None, settings, dry=True) as wanted:
        tables = {"report": report, "orphans": orphans, "duplicates": duplicates}
        paths = {name: None if path is None else Path(path) for name, path in tables.items()}
        planned = _plan(wanted, full=full, **paths)
        return outcome_of(
            of_run_settings(wanted.settings, command="plan"),
            planned,
            text=_plan_text(wanted, planned),
            started=wanted.began,
        )


S = TypeVar("S", bound=RunSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted(Generic[S]):
    """What a command is to do. `in_memory`: its manifest is there only until it ends. `began` is
    UNIX seconds."""

    settings: S
    credentials: CredentialsLike
    in_memory: bool
    began: float


@contextmanager
def _wanted(
    kind: type[S],
    rows: Rows,
    given: Mapping[str, Any],
    credentials: CredentialsLike,
    settings: Settings | None,
    *,
    dry: bool,
) -> Iterator[Wanted[S]]:
    """The settings, with a manifest of the rows. One that is compared only is not beside the
    ledger, so that it disturbs no run."""
    began = clock.time()
    values, credentials = taken_with_credentials(
        kind.command, settings, given, credentials, names=names_of(kind)
    )
    place = None if dry else place_of_ledger(values)
    with manifest_of(rows, ledger=place, images=values.get("images")) as (manifest, images):
        yield Wanted(
            settings=run_settings(
                kind,
                values | {"images": images},
                manifest,
                credentials=credentials,
                settings=settings,
                in_memory=not is_path(rows),
            ),
            credentials=credentials,
            in_memory=not is_path(rows),
            began=began,
        )


def _enroll(
    act: Callable[..., Report],
    wanted: Wanted[Any],
    hooks: Hooks,
    *,
    show_user_ids: bool,
) -> RunReport:
    """Enroll, and raise what a callback has raised."""
    settings = wanted.settings
    with closing(Watch(settings, hooks, show_user_ids=show_user_ids)) as watch:
        watch.check()
        report = act(settings, reader(wanted.credentials), screen=watch)
        log_summary(report)
        if watch.error is not None:
            raise watch.error
    rows: Callable[[], Iterator[Entry]]
    if wanted.in_memory:
        rows = KeptRows(outcomes(settings))
    else:
        rows = partial(outcomes, settings, sha256=_sha256(report))
    return report_of(
        report,
        settings,
        started=wanted.began,
        ended=clock.time(),
        text="\n".join(summary_lines(report, show_user_ids=show_user_ids)),
        rows=rows,
    )


def _sha256(report: Report) -> str:
    """The manifest's, as the run has recorded it."""
    with closing(read_ledger(report.place.ledger)) as ledger:
        found = (one.start for one in ledger.runs(5) if one.run == report.place.run)
        return next((start.manifest_sha256 or "" for start in found), "")


def _plan(wanted: Wanted[Any], **given: Any) -> Plan:
    return make_plan(wanted.settings, rate=wanted.settings.rate, **given)


def _plan_text(wanted: Wanted[Any], planned: Plan) -> str:
    text = "\n".join(plan_lines(planned))
    if not wanted.in_memory:
        return text
    return text.replace(str(wanted.settings.manifest), "rows in memory", 1)


def _planned(wanted: Wanted[RunSettings]) -> RunReport:
    return _dry_run(wanted, _plan_text(wanted, _plan(wanted)), counts=None)


def _compared(wanted: Wanted[SyncSettings], *, show_user_ids: bool) -> RunReport:
    """Raises GuardError if the difference is too large."""
    lines: list[str] = []
    counts: Mapping[str, int] = {}
    for found in preview(wanted.settings, show_user_ids=show_user_ids):
        counts = found.figures()
        lines += [*found.notes, *difference_lines(found.counted), *strange_lines(found)]
    return _dry_run(wanted, "\n".join(lines), counts=counts)


def _dry_run(wanted: Wanted[Any], text: str, *, counts: Mapping[str, int] | None) -> RunReport:
    settings = wanted.settings
    about = of_run_settings(settings)
    rows: Callable[[], Iterator[Entry]] = partial(outcomes, settings)
    if wanted.in_memory:
        rows = KeptRows(rows())
    return RunReport(
        exit_code=ExitCode.DONE,
        text=text,
        ledger=about.ledger,
        dry_run=True,
        _ending=RunEnding(
            about=about,
            exit_code=ExitCode.DONE,
            message="",
            started=wanted.began,
            ended=clock.time(),
            counts=counts,
        ),
        _rows=rows,
    )
