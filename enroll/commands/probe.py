"""`enroll probe`: tests an account in a library of its own, which it removes again."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Protocol

from enroll.commands.probe_calls import MOST_CALLS, ProbeCalls, RawCall, as_jpeg, median, padded
from enroll.commands.probe_facts import Prober
from enroll.commands.probe_notes import Fact, Observed, Outcome
from enroll.commands.probe_rules import LONGEST_ID, Photos
from enroll.errors import EnrollError, ExitCode, ServiceError, UsageError
from enroll.facesearch.answers import LIBRARY_CODES
from enroll.model import CallKind, Credentials, Library, Unusable, Verdict
from enroll.photos import open_store, read_photo
from enroll.session.account import Patience, connect, list_libraries
from enroll.settings import DEFAULT_ENDPOINT, CallSettings, Preparation
from enroll.text.wording import amount

PREFIX = "enroll-probe-"
_NAME = re.compile(r"enroll-probe-(\d{8}T\d{6}Z)-[0-9a-f]{8,18}\+?")
"""A probe's library. The character at the end breaks a rule on purpose."""
_MADE_BY = re.compile(r"made by enroll probe ([0-9a-f]{12}) (\d+)(?: .*)?")
_TIME = "%Y%m%dT%H%M%SZ"

OLD_SECONDS = 3600.0
"""No probe takes as long: an older library of another machine's probe has been left by it."""

MOST_LIBRARIES = 10
"""Libraries of an account, by the vendor's page."""

PATIENCE_SECONDS = 10.0
"""How long the first call waits for a service that is away or has no slot for it."""

LONGEST_SIDE = 1024
"""Pixels of the photo of --portrait: large enough for any face, and small enough to be padded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeSettings(CallSettings):
    """Which account to test, and with which portraits: JPEGs of two faces and of nobody. `portrait`
    is a file that takes the place of both faces."""

    portraits: Sequence[bytes] = field(repr=False)
    nobody: bytes = field(repr=False)
    endpoint: str = DEFAULT_ENDPOINT
    portrait: Path | None = None


class ProbePrompt(Protocol):
    """Shows what a probe finds, asks a person before it begins, and passes signals on."""

    def connecting(self, endpoint: str, credentials: str) -> None:
        """Show, before the first call is signed, where it goes and with which credentials."""

    def say(self, *lines: str) -> None:
        """Show lines."""

    def confirm(self, question: str) -> bool:
        """Ask a person. Raises UsageError if there is nobody to ask."""

    def soften(self, interrupt: Callable[[int], None]) -> None:
        """From now on pass the first signal to `interrupt`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """What a probe found: the facts in the order of the checks.

    `calls` counts all that may have reached the service, `seconds` is what half of the answered
    ones took at most. `cleaned` are libraries of earlier probes that it removed. `left` says why
    its own library may still be there; empty if it was removed. `signal` interrupted it.
    """

    stop: ClassVar[EnrollError | None] = None

    endpoint: str
    group_id: str
    facts: Sequence[Fact]
    observed: Observed
    calls: int
    seconds: float | None
    time: datetime
    clock_offset: float
    cleaned: Sequence[str] = ()
    left: str = ""
    signal: int | None = None

    def count(self, outcome: Outcome) -> int:
        """How many facts have this outcome."""
        return sum(fact.outcome is outcome for fact in self.facts)

    @property
    def exit_code(self) -> ExitCode:
        """0 if every fact holds, 1 if some differ, 4 if some were not checked; first of all 128 and
        the signal, and 3 if the library may still be there."""
        if self.signal is not None:
            return ExitCode(128 + self.signal)
        if self.left:
            return ExitCode.SERVICE
        if self.count(Outcome.DIFFERS):
            return ExitCode.SOME_ROWS_FAILED
        return ExitCode.IN_DOUBT if self.count(Outcome.UNCHECKED) else ExitCode.DONE

    def figures(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "endpoint": self.endpoint,
            "group_id": self.group_id,
            "time": self.time.isoformat(),
            "calls": self.calls,
            "holds": self.count(Outcome.HOLDS),
            "differs": self.count(Outcome.DIFFERS),
            "unchecked": self.count(Outcome.UNCHECKED),
            "facts": [asdict(fact) for fact in self.facts],
            "cleaned": list(self.cleaned),
            "left": self.left,
        }


def probe_account(
    settings: ProbeSettings, read_credentials: Callable[[], Credentials], prompt: ProbePrompt
) -> ProbeReport | None:
    """Test an account if a person agrees; None if not.

    Raises UsageError for a photo that cannot be used and for an account without room for a further
    library, and ServiceError if the service cannot be used. The library is removed in any case.
    """
    photos = _photos(settings)
    patience = Patience(seconds=PATIENCE_SECONDS)
    with connect(
        settings,
        read_credentials,
        endpoint=settings.endpoint,
        announce=prompt.connecting,
        patience=patience,
    ) as connection:
        known = list_libraries(connection)
        calls = ProbeCalls(connection, settings)
        old, others = leftovers(known, now=calls.now())
        for name in others:
            prompt.say(
                f"The library {name} is of another probe, which may be going on. A later probe "
                "removes it once it is an hour old."
            )
        if len(known) - len(old) >= MOST_LIBRARIES:
            raise UsageError(
                f"The account has {amount(len(known), 'library', 'libraries')}, the most that it "
                "may have, and a probe needs one of its own. Delete one that nobody needs "
                "(`enroll library delete`), or test another account."
            )
        if not prompt.confirm(_question(settings.endpoint, old)):
            return None
        prompt.soften(calls.interrupt)
        return _probed(calls, photos, old, prompt=prompt)


def _question(endpoint: str, old: Sequence[str]) -> str:
    also = f" Libraries that earlier probes left are deleted as well: {', '.join(old)}."
    return (
        f"Test the account at {endpoint} with at most {MOST_CALLS} calls, in a library of its own "
        f"that is deleted afterwards?{also if old else ''}"
    )


def leftovers(known: Sequence[Library], *, now: float) -> tuple[list[str], list[str]]:
    """The libraries that earlier probes have left, and those of probes that may be going on.

    Only a library with the name and the `group_data` of a probe is one. It was left if it is older
    than an hour by its name, or if it was made on this machine by a process that is gone.
    """
    old: list[str] = []
    others: list[str] = []
    for library in known:
        name, maker = _NAME.fullmatch(library.group_id), _MADE_BY.fullmatch(library.group_data)
        if name is None or maker is None:
            continue
        try:
            made = datetime.strptime(name[1], _TIME).replace(tzinfo=UTC).timestamp()
        except ValueError:  # no date, so no probe's
            continue
        gone = maker[1] == _this_machine() and not _alive(int(maker[2]))
        (old if gone or now - made > OLD_SECONDS else others).append(library.group_id)
    return old, others


def _alive(process: int) -> bool:
    if process == os.getpid():  # not ours: this probe has made none yet
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _this_machine() -> str:
    """This machine since its start, or this container: where a process number means something."""
    parts = [socket.gethostname()]
    with suppress(OSError):  # no Linux
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"))
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _probed(
    calls: ProbeCalls, photos: Photos, old: Sequence[str], *, prompt: ProbePrompt
) -> ProbeReport:
    """Check everything, and remove the library whatever happens."""
    began = datetime.fromtimestamp(calls.now(), UTC)
    cleaned = [name for name in old if not _remove(calls, name)]
    start = f"{PREFIX}{began.strftime(_TIME)}-"
    group_id = start + secrets.token_hex(LONGEST_ID)[: LONGEST_ID - len(start)]
    data = f"made by enroll probe {_this_machine()} {os.getpid()}"
    prober = Prober(calls, group_id, photos, data=data)
    left, failure = {}, None
    try:
        prober.check()
    except ServiceError as error:
        failure = error
        if prober.libraries:
            prompt.say("The probe has failed. Its library is being deleted.")
    finally:
        for name in prober.libraries:
            if why := _remove(calls, name):
                left[name] = why
    group_id = (*left, *prober.libraries, group_id)[0]
    why = left.get(group_id, "")
    if failure is not None and not prober.libraries:
        raise failure
    if failure is not None:
        why = "for the same reason" if why and why in str(failure) else why
        raise type(failure)(f"{failure} {removal(group_id, why)}") from failure
    prober.finish()
    return ProbeReport(
        endpoint=calls.connection.endpoint,
        group_id=group_id,
        facts=tuple(prober.notes.facts),
        observed=prober.notes.observed,
        calls=calls.made,
        seconds=median(calls.seconds),
        time=began,
        clock_offset=calls.connection.service.clock.offset,
        cleaned=cleaned,
        left=why,
        signal=calls.signal,
    )


def removal(group_id: str, left: str) -> str:
    """What became of a probe's library; `left` says why it may still be there."""
    if not left:
        return f"The library {group_id} was removed."
    return (
        f"The library {group_id} could not be removed ({left.rstrip('.')}). The next `enroll "
        f"probe` removes it, or `enroll library delete --force --group-id {group_id}` does."
    )


def _remove(calls: ProbeCalls, group_id: str) -> str:
    """Delete a probe's library with its faces; why it may still be there, or nothing."""
    call = RawCall(kind=CallKind.FREE, fields={"group_id": group_id, "check_empty": "0"})
    try:
        answer = calls.make(call, cleans_up=True)
    except ServiceError as error:
        return str(error).partition(". ")[0]
    if answer.verdict is Verdict.APPLIED or answer.code in LIBRARY_CODES:
        return ""
    return answer.message or answer.code


def _photos(settings: ProbeSettings) -> Photos:
    if settings.portrait is None:
        one, other = settings.portraits
        return Photos(one=one, other=other, small=other, nobody=settings.nobody)
    path = os.path.realpath(settings.portrait)
    store = open_store(os.path.dirname(path))  # noqa: PTH120
    photo = read_photo(path, store, Preparation(max_side=LONGEST_SIDE))
    if isinstance(photo, Unusable):
        raise UsageError(f"{settings.portrait}: {photo.fault.message}")
    one = as_jpeg(photo.content)
    other = padded(one, len(one) + 100)
    return Photos(one=one, other=other, small=settings.portraits[1], nobody=settings.nobody)
