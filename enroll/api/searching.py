"""`audit`, `accept` and `who` for Python: what a search of the library finds."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Unpack

from enroll.addresses import path_of
from enroll.api.options import (
    AuditOptions,
    CredentialsLike,
    LedgerOptions,
    PathLike,
    Settings,
    WhoOptions,
    library_of,
    names_of,
    reader,
    session_values,
    taken_with_credentials,
)
from enroll.api.reports import Outcome
from enroll.api.rows import BYTES, UserIds, listed, people_file
from enroll.api.watching import Answers, OnStep
from enroll.commands.audit import Accepted, AuditSettings, accept_pairs
from enroll.commands.audit import audit as audit_ledger
from enroll.commands.audit_report import Audited
from enroll.commands.who import Resembling, WhoSettings, who_lines
from enroll.commands.who import who as search
from enroll.ledger import iso_time, ledger_at
from enroll.model import Status
from enroll.settings import known_ledger


def audit(
    *,
    user_ids: UserIds | None = None,
    run: int | None = None,
    again: bool = False,
    sample: int | None = None,
    findings: PathLike | None = None,
    show_user_ids: bool = False,
    on_progress: OnStep | None = None,
    cancel: Event | None = None,
    credentials: CredentialsLike = None,
    settings: Settings | None = None,
    **options: Unpack[AuditOptions],
) -> Outcome[Audited]:
    """Search the library with each enrolled face, as `enroll audit` does: who is there twice, or
    under a wrong id? Nothing in the library changes.

    Faces that no audit has searched with are chosen, with `again` all; only those of the people in
    `user_ids` (ids, or the path of a file with them), or that a `run` added; and of these a
    `sample`. The result has the first `findings`, the file `findings` gets all of them. What ended
    the audit early is the outcome's `stop`. The exit code is 1 for findings.

    `on_progress` gets a `Step` after each call; setting `cancel` ends it before the next one, and
    the same call continues. Further options are `allow_http`, `ca_bundle`, `endpoint`, `group_id`,
    `ledger`, `max_calls`, `max_in_flight`, `rate`, `score` (0 to 100), `seed`, `timeout` (seconds),
    `unlike` (a score). Raises EnrollError, a NotDoneError if it was cancelled.
    """
    with people_file(user_ids) as file:
        given = {
            **options,
            "user_ids": file,
            "of_run": run,
            "again": again,
            "sample": sample,
            "findings": findings,
            "show_user_ids": show_user_ids,
        }
        values, credentials = session_values("audit", AuditSettings, given, credentials, settings)
        wanted = AuditSettings(**values)
        answers = Answers(on_progress=on_progress, cancel=cancel)
        return answers.outcome(wanted, lambda: audit_ledger(wanted, reader(credentials), answers))


def accept(
    people: Iterable[str],
    *,
    settings: Settings | None = None,
    **options: Unpack[LedgerOptions],
) -> Outcome[Accepted]:
    """Record that these people may look alike, each with each other, as `enroll audit --accept`
    does, without a call.

    `people` are their user ids, two or more. The same id twice accepts two unlike photos of one
    person. Held photos that wait for this are due again. Further options are those of `verify`.
    Raises `EnrollError`.
    """
    values, _ = session_values("audit", AuditSettings, {**options}, None, settings)
    wanted, answers = AuditSettings(**{**values, "accept": [listed(people)]}), Answers()
    return answers.outcome(wanted, lambda: accept_pairs(wanted, answers))


@dataclass(frozen=True, slots=True, kw_only=True)
class Resemblance:
    """A face that the library returned for a photo, with its `score` (0 to 100).

    `added` is ISO 8601 in UTC, empty if it is not known. `status` and `image` are those of the
    ledger, None and empty for a face that it does not know.
    """

    user_id: str
    user_data: str
    score: float
    added: str
    face_token: str
    status: Status | None
    image: str


def who(
    photo: PathLike | bytes,
    *,
    credentials: CredentialsLike = None,
    settings: Settings | None = None,
    **options: Unpack[WhoOptions],
) -> Outcome[list[Resemblance]]:
    """Show the people that the library returns for a photo (its path or its bytes), as `enroll who`
    does, with one call of search.

    The result has the faces, best first, at most `limit` (5). The exit code is 1 if no face scores
    75 or more: it is probably none of these people. Further options are `allow_http`, `ca_bundle`,
    `endpoint`, `group_id`, `ledger`, `max_side` (pixels), `multi_oriented_detection`, `timeout`
    (seconds). Raises EnrollError, a UsageError for a photo that cannot be used.
    """
    with _file_of(photo) as path:
        given = {**options, "photo": path}
        values, credentials = taken_with_credentials(
            "who", settings, given, credentials, names=names_of(WhoSettings)
        )
        ledger = known_ledger(**library_of(values))
        if values.get("ledger") is None and ledger is not None and not ledger_at(ledger).exists():
            ledger = None
        answers = Answers()
        wanted = WhoSettings(**{**values, "ledger": ledger})
        found = search(wanted, reader(credentials), answers.connecting)
    best = found.faces[0].found.score if found.faces else None
    return Outcome(
        exit_code=found.exit_code,
        text="\n".join(who_lines(found)),
        result=[_resemblance(one) for one in found.faces],
        figures={
            "command": "who",
            "exit_code": int(found.exit_code),
            "reason": found.exit_code.name,
            "faces": len(found.faces),
            "best_score": best,
        },
    )


def _resemblance(one: Resembling) -> Resemblance:
    return Resemblance(
        user_id=one.found.user_id,
        user_data=one.found.user_data,
        score=one.found.score,
        added=iso_time(one.add_time),
        face_token=one.found.face_token,
        status=None if one.face is None else one.face.status,
        image=one.image,
    )


@contextmanager
def _file_of(photo: PathLike | bytes) -> Iterator[Path]:
    """The file of a photo, which is there within the context if its bytes were given."""
    if not isinstance(photo, BYTES):
        yield path_of(photo)
        return
    with tempfile.NamedTemporaryFile(prefix="enroll-photo-") as file:
        file.write(photo)
        file.flush()
        yield Path(file.name)
