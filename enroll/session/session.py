"""How a command opens: its ledger held or read, its library proved, the command on record."""

from __future__ import annotations

import getpass
import os
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from enroll import __version__, clock
from enroll.allowed import check_settings
from enroll.errors import ExitCode, name_run
from enroll.expiry import DEFAULT_SETTLE_AFTER
from enroll.ledger import (
    Ledger,
    LedgerAudit,
    LedgerHold,
    LedgerReader,
    LibraryIdentity,
    RunEnd,
    RunStart,
    check_library,
    check_not_copied,
    ledger_at,
)
from enroll.model import CallKind, Credentials, Event, EventKind, Library, SendAs
from enroll.session.account import Connection, connect, find_library
from enroll.session.caller import Caller
from enroll.settings import DEFAULT_ENDPOINT, CallSettings, RunSettings, host_of
from enroll.text.files import InUse, Output, check_new_file
from enroll.timetable import Timetable

ADOPT = "adopt"
"""The command whose being unfinished keeps a run from adding everybody once more."""


@dataclass(frozen=True, slots=True)
class Held:
    """A ledger that nobody else writes meanwhile, open for writing."""

    lock: LedgerHold
    ledger: Ledger


@contextmanager
def hold_ledger(
    path: Path, library: LibraryIdentity, *, began_empty: bool = False
) -> Iterator[Held]:
    """Hold the ledger of this library, creating it if there is none.

    `began_empty` means for a new ledger that its library holds no face. As long as the service has
    not been asked when the library was created, `add_time` is empty and not compared;
    `check_library` compares it later.
    Raises LedgerBusyError while another command holds it, LedgerMismatchError for another
    library's ledger or none, and LocalError.
    """
    store = ledger_at(path)
    if store.exists():
        store.check()  # before a lock is made beside a file that is something else
    with store.hold() as lock, closing(store.open(library, began_empty=began_empty)) as ledger:
        yield Held(lock, ledger)


def known_library(path: Path, *, group_id: str | None) -> LibraryIdentity:
    """The library that a ledger is of, by the name that is given if one is: `hold_ledger` refuses
    another one's. Raises LedgerMismatchError where there is no ledger."""
    with closing(ledger_at(path).read()) as reader:
        known = reader.identity()
    return replace(known, group_id=group_id or known.group_id)


def identity_of(connection: Connection, library: Library) -> LibraryIdentity:
    """What a ledger knows a library by."""
    host = host_of(connection.endpoint)
    return LibraryIdentity(host=host, group_id=library.group_id, add_time=library.add_time)


def prove_library(
    connection: Connection,
    *,
    ledger: Path,
    known: LibraryIdentity,
    group_id: str | None = None,
) -> LibraryIdentity:
    """The account's library, which must be the one that the ledger is of.

    `group_id` is its name if one is given, `known` what the ledger has on record. Raises
    LedgerMismatchError for another one, and as `find_library`.
    """
    library = find_library(connection, group_id or known.group_id)
    identity = identity_of(connection, library)
    check_library(ledger, known, identity)
    return identity


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDefaults:
    """The defaults that a command takes from the ledger's last run.

    `settle_after` is in seconds; `least_clock_offset` is the run's lowest estimate of the service's
    clock minus ours, in seconds.
    """

    endpoint: str
    send_as: SendAs
    settle_after: float
    least_clock_offset: float


def run_defaults(ledger: LedgerReader, *, endpoint: str | None) -> RunDefaults:
    """Read them from the ledger; `endpoint` is the one that was named, if any was."""
    runs = ledger.runs()
    last = runs[0].start if runs else None
    settle_after = (run.start.settle_after for run in runs)
    return RunDefaults(
        endpoint=endpoint or (last and last.endpoint) or DEFAULT_ENDPOINT,
        send_as=SendAs.FILE if last is None else last.send_as,
        # Of the last run that has it: `verify` and its like have none.
        settle_after=next(
            (seconds for seconds in settle_after if seconds is not None), DEFAULT_SETTLE_AFTER
        ),
        least_clock_offset=runs[0].offsets.least if runs else 0.0,
    )


@dataclass(slots=True, kw_only=True)
class CommandRecord:
    """The command's number in the ledger, when it began (UNIX ms), and with which exit code and for
    which reason it will end."""

    run: int
    began: int
    exit_code: ExitCode = ExitCode.DONE
    reason: str = ""

    def decline(self, *, dry_run: bool) -> None:
        """Record that a person answered no, or was never asked, so that the command does not look
        like one that did something."""
        self.exit_code = ExitCode.DONE if dry_run else ExitCode.INTERRUPTED
        why = "a dry run" if dry_run else "answered with no"
        self.reason = f"{why}, so nothing was deleted"

    def event(
        self, kind: EventKind, face_id: int, face_token: str | None, detail: str = ""
    ) -> Event:
        """What happened to a face just now."""
        return Event(
            at=clock.now_ms(),
            kind=kind,
            run=self.run,
            face_id=face_id,
            face_token=face_token,
            detail=detail,
        )


@contextmanager
def command_record(
    ledger: Ledger, start: RunStart, *, connection: Connection | None = None
) -> Iterator[CommandRecord]:
    """Record that a command begins and, whatever it comes to, how it ends.

    Its calls are made through `connection`, None if it makes none. What a dead run left is in doubt
    from then on.
    """
    run = ledger.start_run(
        start, offsets=None if connection is None else connection.service.clock.offsets
    )
    work = CommandRecord(run=run, began=start.at)
    calls = Counter[CallKind]() if connection is None else connection.tally.calls
    try:
        yield work
    except BaseException as error:  # an interruption, too
        name_run(error, run)
        work.exit_code = _exit_code(error)
        work.reason = str(error)
        raise
    finally:
        ledger.end_run(
            run,
            RunEnd(
                at=clock.now_ms(),
                exit_code=int(work.exit_code),
                reason=work.reason,
                calls={kind.value: count for kind, count in calls.items()},
                rows={},
                limit=0,
            ),
        )


def _exit_code(error: BaseException) -> ExitCode:
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    return ExitCode(getattr(error, "exit_code", ExitCode.BUG))


def run_start(settings: RunSettings, *, command: str = "") -> RunStart:
    """The start of a run, or of another `command` with a run's settings, here and now."""
    return _start(
        command or settings.command,
        settings.record(),
        endpoint=settings.endpoint,
        timeout=settings.timeout,
        send_as=settings.send_as,
        settle_after=settings.settle_after,
        files=settings.files,
    )


def command_start(settings: SessionSettings, defaults: RunDefaults, *, group_id: str) -> RunStart:
    """The start of a command that changes the ledger of this library, here and now."""
    options = {
        **settings.record(),
        "group_id": group_id,
        "endpoint": defaults.endpoint,
        "timeout": settings.timeout,
        "send_as": defaults.send_as.value,
    }
    return _start(
        settings.command,
        options,
        endpoint=defaults.endpoint,
        timeout=settings.timeout,
        send_as=defaults.send_as,
        settle_after=None,
        files=settings.files,
    )


def _start(
    command: str,
    options: Mapping[str, Any],
    *,
    endpoint: str,
    timeout: float,
    send_as: SendAs,
    settle_after: float | None,
    files: Mapping[str, str],
) -> RunStart:
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # no such user: a container's bare number
        user = str(os.getuid())
    return RunStart(
        at=clock.now_ms(),
        host=socket.gethostname(),
        user=user,
        pid=os.getpid(),
        version=__version__,
        options={"command": command, **options},
        command=command,
        endpoint=endpoint,
        timeout=timeout,
        send_as=send_as,
        settle_after=settle_after,
        files=files,
    )


S = TypeVar("S", bound="SessionSettings")


class Prompt(Protocol):
    """Shows what a command finds, and asks a person before it changes anything."""

    def connecting(self, endpoint: str, credentials: str) -> None:
        """Show, before the first call is signed, where it goes and with which credentials."""

    def say(self, *lines: str) -> None:
        """Show lines."""

    def progress(self, done: int, what: str, *, of: int | None = None) -> None:
        """Show that `done` of something (`what`) are done, `of` so many if that is known; called
        often."""

    def confirm(self, question: str, *, changes: bool = True) -> bool:
        """Whether a person agrees to what `changes` something, or only takes long. Raises
        UsageError if nobody can be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings(CallSettings):
    """Which ledger and library to use; docs/reference.md describes the options.

    `endpoint` None is that of the ledger's last run, `group_id` None that of the ledger, and
    `max_in_flight` None as many as the account allows. `max_calls` bounds the calls of a command
    that makes as many as there are faces, and `rate` those of a second; None is no bound.
    `timeout` is in seconds. `summary` is a file for figures. `in_use` are files that the command
    must not replace, by a description of each.
    """

    command: ClassVar[str]
    """The command's name on record."""

    ledger: Path
    endpoint: str | None = None
    group_id: str | None = None
    max_in_flight: int | None = None
    max_calls: int | None = None
    rate: float | Timetable | None = None
    summary: Path | None = None
    in_use: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise UsageError for what the command line refuses, with the same message."""
        check_settings(self)

    @property
    def tables(self) -> Mapping[str, Path | None]:
        """The tables that the command writes, by their options."""
        return {}

    @property
    def outputs(self) -> Sequence[Output]:
        """The files that the command writes."""
        named = [Output(path=path, option=one) for one, path in self.tables.items() if path]
        if self.summary is not None:
            named.append(Output(path=self.summary, option="--summary", content="JSON"))
        return named

    @property
    def files(self) -> dict[str, str]:
        """What the ledger keeps of the command's files; see `files_record`."""
        return {}

    def record(self) -> dict[str, Any]:
        """The command's own options, as the ledger keeps them for people to read."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Generic[S]):
    """The ledger as it is read, the library that it was proved to be of, and how to ask it."""

    settings: S
    prompt: Prompt
    audit: LedgerAudit
    caller: Caller
    identity: LibraryIdentity
    defaults: RunDefaults

    @property
    def group_id(self) -> str:
        """The library's name."""
        return self.identity.group_id


def check_outputs(settings: SessionSettings, ledger: LedgerReader) -> None:
    """Raise UsageError for a file that the command must not or cannot write."""
    if not settings.outputs:
        return
    manifests = ledger.manifests()
    for output in settings.outputs:
        others = {f"what {one.option} names,": one.path for one in settings.outputs}
        del others[f"what {output.option} names,"]
        in_use = InUse(
            ledger=settings.ledger,
            manifests=manifests,
            results=ledger.results(),
            files={**settings.in_use, **others},
        )
        check_new_file(output, in_use)


@contextmanager
def open_session(
    settings: S, read_credentials: Callable[[], Credentials], prompt: Prompt
) -> Iterator[Session[S]]:
    """Open the ledger for reading and prove that the library is its own. Raises EnrollError."""
    with ExitStack() as stack:
        audit = stack.enter_context(closing(ledger_at(settings.ledger).audit()))
        check_not_copied(settings.ledger, audit.runs(1))
        check_outputs(settings, audit)
        defaults = run_defaults(audit, endpoint=settings.endpoint)
        connection = stack.enter_context(
            connect(
                settings,
                read_credentials,
                endpoint=defaults.endpoint,
                announce=prompt.connecting,
            )
        )
        identity = prove_library(
            connection,
            ledger=settings.ledger,
            known=audit.identity(),
            group_id=settings.group_id,
        )
        caller = stack.enter_context(
            Caller(
                connection,
                identity.group_id,
                concurrency=settings.max_in_flight,
                known=audit.ceiling,
                max_calls=settings.max_calls,
                rate=settings.rate,
            )
        )
        yield Session(
            settings=settings,
            prompt=prompt,
            audit=audit,
            caller=caller,
            identity=identity,
            defaults=defaults,
        )


@contextmanager
def changing(session: Session[Any]) -> Iterator[tuple[Ledger, CommandRecord]]:
    """The ledger, held by us and open for writing; what was read before may have changed since.

    Raises LedgerBusyError while a run goes on.
    """
    settings: SessionSettings = session.settings
    with hold_ledger(settings.ledger, session.identity) as held:
        session.audit.refresh()
        start = command_start(settings, session.defaults, group_id=session.group_id)
        with command_record(held.ledger, start, connection=session.caller.connection) as work:
            yield held.ledger, work
