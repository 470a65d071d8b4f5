"""A command that changes the ledger beside `enroll run`: it has a number and an end as a run."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enroll import __version__
from enroll.clock import now_ms
from enroll.errors import ExitCode
from enroll.ledger import Ledger, RunEnd, RunStart
from enroll.model import Event, EventKind
from enroll.tally import Tally

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
            at=now_ms(),
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
                at=now_ms(),
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
        at=now_ms(),
        host=socket.gethostname(),
        user=user,
        pid=os.getpid(),
        version=__version__,
        manifest=manifest,
        manifest_sha256=manifest_sha256,
        options=options,
    )
