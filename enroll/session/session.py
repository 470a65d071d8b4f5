"""What `verify` and `remove` work with: a ledger that is read, its library proved, and a person."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from enroll import __version__, clock
from enroll.allowed import refuse
from enroll.errors import ExitCode
from enroll.expiry import DEFAULT_TIMEOUT
from enroll.ledger import (
    Ledger,
    LedgerAudit,
    LibraryIdentity,
    RunEnd,
    RunStart,
    check_library,
    ledger_at,
)
from enroll.model import Credentials, Event, EventKind, SendAs
from enroll.session.account import Account, find_library
from enroll.session.caller import Caller
from enroll.session.tally import Tally
from enroll.settings import DEFAULT_ENDPOINT, FILES, files_record, host_of
from enroll.text.files import InUse, Output, check_output, try_folder

COMMAND = "command"
"""Among the options of a run on record: the command, where it is another than `run`."""

ADOPT = "adopt"
"""The command whose being unfinished keeps a run from adding everybody once more."""


@dataclass(slots=True, kw_only=True)
class CommandRecord:
    """The command's number in the ledger, when it began (UNIX ms), and with which exit code it will
    end."""

    run: int
    began: int
    exit_code: ExitCode = ExitCode.DONE

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
    ledger: Ledger,
    *,
    options: Mapping[str, Any],
    tally: Tally,
    images: Path | None = None,
    given: bool = False,
    manifest: str = "",
    manifest_sha256: str = "",
    clock_offset: float = 0.0,
) -> Iterator[CommandRecord]:
    """Record that a command begins and, whatever it comes to, how it ends.

    `options` name the `command` and hold what a run's do, `timeout` above all. `images` is the
    photos' folder if the command has one, `given` says that it was named; else both stay as
    they are. What a dead run left is in doubt from then on.
    """
    start = run_start(options, manifest=manifest, manifest_sha256=manifest_sha256)
    run = ledger.start_run(
        start,
        images=ledger.images if images is None else str(images),
        given=bool(ledger.images_given) if images is None else given,
        clock_offset=clock_offset,
    )
    work = CommandRecord(run=run, began=start.at)
    reason = ""
    try:
        yield work
    except BaseException as error:  # an interruption, too
        work.exit_code = _exit_code(error)
        reason = str(error)
        raise
    finally:
        ledger.end_run(
            run,
            RunEnd(
                at=clock.now_ms(),
                exit_code=int(work.exit_code),
                reason=reason,
                calls={kind.value: count for kind, count in tally.calls.items()},
                rows={},
                limit=0,
            ),
        )


def _exit_code(error: BaseException) -> ExitCode:
    if isinstance(error, KeyboardInterrupt):
        return ExitCode.INTERRUPTED
    return ExitCode(getattr(error, "exit_code", ExitCode.BUG))


def run_start(options: Mapping[str, Any], *, manifest: str, manifest_sha256: str) -> RunStart:
    """Who begins what, here and now."""
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
        manifest=manifest,
        manifest_sha256=manifest_sha256,
        options=options,
    )


S = TypeVar("S", bound="SessionSettings")


class Prompt(Protocol):
    """Whom a command tells what it finds, and asks before it changes anything."""

    def connecting(self, endpoint: str, credentials: str) -> None:
        """The first call is signed next: where it goes, and in words with which credentials."""

    def say(self, *lines: str) -> None:
        """Show lines."""

    def progress(self, done: int, what: str) -> None:
        """So many of something are done; told often."""

    def confirm(self, question: str) -> bool:
        """Whether a person agrees. Raises UsageError where nobody can be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """Which ledger and library; docs/reference.md describes the options.

    `endpoint` None is the one of the ledger's last run, `group_id` None the ledger's,
    `max_in_flight` None as many as the account takes. `timeout` is seconds. `in_use` are files
    that the command must not take the place of, by what they are in words.
    """

    ledger: Path
    endpoint: str | None = None
    group_id: str | None = None
    max_in_flight: int | None = None
    timeout: float = DEFAULT_TIMEOUT
    ca_bundle: Path | None = None
    allow_http: bool = False
    in_use: Mapping[str, Path] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raise UsageError for what the command line refuses, with the same sentence."""
        refuse(self)

    @property
    def output(self) -> Output | None:
        """A file that the command writes, if it writes one."""
        return None

    def record(self) -> dict[str, Any]:
        """What the ledger keeps of the command that changes it: its name, and how."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySettings(SessionSettings):
    """What `enroll verify` is to do; `differences` is a CSV to write them to."""

    deep: bool = False
    remove_surplus: bool = False
    requeue_missing: bool = False
    differences: Path | None = None

    @property
    def output(self) -> Output | None:
        if self.differences is None:
            return None
        return Output(path=self.differences, option="--differences")

    def record(self) -> dict[str, Any]:
        return {
            COMMAND: "verify",
            "remove_surplus": self.remove_surplus,
            "requeue_missing": self.requeue_missing,
            FILES: files_record({"the differences": self.differences}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Session(Generic[S]):
    """The ledger as it is read, the library that it was proved to be of, and how to ask it."""

    settings: S
    prompt: Prompt
    audit: LedgerAudit
    caller: Caller
    identity: LibraryIdentity
    endpoint: str
    send_as: SendAs

    @property
    def group_id(self) -> str:
        """The library's name."""
        return self.identity.group_id


@contextmanager
def open_session(
    settings: S, read_credentials: Callable[[], Credentials], prompt: Prompt
) -> Iterator[Session[S]]:
    """Open the ledger for reading and prove that the library is its own. Raises EnrollError."""
    with ExitStack() as stack:
        audit = ledger_at(settings.ledger).audit()
        stack.callback(audit.close)
        if (output := settings.output) is not None:
            manifests = audit.manifests()
            check_output(
                output,
                InUse(ledger=settings.ledger, manifests=manifests, files=settings.in_use),
            )
            try_folder(output)
        known = audit.identity()
        last = next(iter(audit.status(runs=1).runs), None)
        options = {} if last is None else last.start.options
        endpoint = settings.endpoint or options.get("endpoint") or DEFAULT_ENDPOINT
        connection = Account(
            endpoint=endpoint,
            read_credentials=read_credentials,
            timeout=settings.timeout,
            ca_bundle=settings.ca_bundle,
            allow_http=settings.allow_http,
            announce=prompt.connecting,
        ).open()
        stack.callback(connection.close)
        tally = Tally()
        library = find_library(connection, settings.group_id or known.group_id, tally)
        identity = LibraryIdentity(
            host=host_of(endpoint), group_id=library.group_id, add_time=library.add_time
        )
        check_library(settings.ledger, known, identity)
        caller = stack.enter_context(
            Caller(connection, tally, at_once=settings.max_in_flight, known=audit.ceiling)
        )
        yield Session(
            settings=settings,
            prompt=prompt,
            audit=audit,
            caller=caller,
            identity=identity,
            endpoint=endpoint,
            send_as=SendAs(options.get("send_as") or SendAs.FILE),
        )


@contextmanager
def changing(session: Session[Any]) -> Iterator[tuple[Ledger, CommandRecord]]:
    """The ledger, held by us and open for writing; what was read before may have changed since.

    Raises LedgerBusyError while a run goes on.
    """
    settings: SessionSettings = session.settings
    options = {
        **settings.record(),
        "group_id": session.group_id,
        "endpoint": session.endpoint,
        "timeout": settings.timeout,
        "send_as": session.send_as.value,
    }
    with ExitStack() as stack:
        stack.enter_context(ledger_at(settings.ledger).hold())
        ledger = ledger_at(settings.ledger).open(session.identity)
        stack.callback(ledger.close)
        session.audit.refresh()
        offset = session.caller.clock_offset
        tally = session.caller.tally
        yield (
            ledger,
            stack.enter_context(
                command_record(ledger, options=options, tally=tally, clock_offset=offset)
            ),
        )
