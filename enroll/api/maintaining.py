"""`verify`, `audit`, `adopt`, `resolve`, `remove` and `forget` for Python: what the commands do."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias, Unpack

from enroll import clock
from enroll.api.options import (
    AdoptOptions,
    AuditOptions,
    CredentialsLike,
    LedgerOptions,
    PathLike,
    Settings,
    names_of,
    place_of_ledger,
    reader,
    run_settings,
    session_values,
    taken,
)
from enroll.api.reports import E, Outcome, outcome_of
from enroll.api.rows import Rows, is_path, manifest_of
from enroll.api.watching import Answers
from enroll.commands.adopt import AdoptSettings
from enroll.commands.adopt import adopt as adopt_faces
from enroll.commands.adopt_report import Adoption
from enroll.commands.audit import Accepted, AuditSettings, accept_pairs
from enroll.commands.audit import audit as audit_ledger
from enroll.commands.audit_report import Audited
from enroll.commands.forget import ForgetSettings, Forgotten, Readmitted
from enroll.commands.forget import forget as forget_people
from enroll.commands.forget import readmit as readmit_people
from enroll.commands.remove import Removed, RemoveSettings
from enroll.commands.remove import remove as remove_faces
from enroll.commands.resolve import Resolved, ResolveSettings
from enroll.commands.resolve import resolve as resolve_doubt
from enroll.commands.verify import Verified, VerifySettings
from enroll.commands.verify import verify as verify_ledger
from enroll.errors import ExitCode, UsageError
from enroll.report.outcome import of_run_settings, of_session_settings
from enroll.session.session import SessionSettings
from enroll.settings import RunSettings

UserIds: TypeAlias = "PathLike | Iterable[str]"
"""People: their user ids, or the path of a file with an id a line, or of a CSV with the column
`user_id`. One `str` is a path."""


def verify(
    *,
    deep: bool = False,
    remove_surplus: bool = False,
    requeue_missing: bool = False,
    differences: PathLike | None = None,
    dry_run: bool = False,
    credentials: CredentialsLike = None,
    settings: Settings | None = None,
    **options: Unpack[LedgerOptions],
) -> Outcome[Verified]:
    """Compare the ledger with the library, as `enroll verify` does.

    Changes nothing unless `remove_surplus` (delete copies that the ledger does not know) or
    `requeue_missing` (make faces that are gone due again); with `dry_run` the text says what these
    would do. With `deep`, each face that the library does not list is looked up, a call each.
    `differences` is a table to write. The result counts the `differences` by kind. Raises
    `EnrollError`.
    """
    given = {
        **options,
        "deep": deep,
        "remove_surplus": remove_surplus,
        "requeue_missing": requeue_missing,
        "differences": differences,
    }
    values, credentials = _session("verify", VerifySettings, given, credentials, settings)
    wanted, answers = VerifySettings(**values), Answers(yes=not dry_run)
    return _outcome(wanted, answers, lambda: verify_ledger(wanted, reader(credentials), answers))


def audit(
    *,
    user_ids: UserIds | None = None,
    run: int | None = None,
    again: bool = False,
    sample: int | None = None,
    findings: PathLike | None = None,
    show_user_ids: bool = False,
    credentials: CredentialsLike = None,
    settings: Settings | None = None,
    **options: Unpack[AuditOptions],
) -> Outcome[Audited]:
    """Search the library with each enrolled face, as `enroll audit` does: who is there twice, or
    under a wrong id? Nothing in the library changes.

    `user_ids` and `run`, the number of a run, choose whose faces. `sample` searches with so many,
    drawn at random, and `again` also with faces that an earlier audit has searched with.
    `findings` is a table to write. The result has the `findings`; what ended the audit early is
    the outcome's `stop`. Raises `EnrollError` if it cannot begin.
    """
    with _people(user_ids) as file:
        given = {
            **options,
            "user_ids": file,
            "of_run": run,
            "again": again,
            "sample": sample,
            "findings": findings,
            "show_user_ids": show_user_ids,
        }
        values, credentials = _session("audit", AuditSettings, given, credentials, settings)
        wanted, answers = AuditSettings(**values), Answers(yes=True)
        return _outcome(wanted, answers, lambda: audit_ledger(wanted, reader(credentials), answers))


def accept(
    people: Iterable[str],
    *,
    settings: Settings | None = None,
    **options: Unpack[LedgerOptions],
) -> Outcome[Accepted]:
    """Record that these people may look alike, as `enroll audit --accept` does, without a call.

    `people` are their user ids, two or more. The same id twice accepts two unlike photos of one
    person. Held photos that wait for this are due again. Raises `EnrollError`.
    """
    values, _ = _session("audit", AuditSettings, {**options}, None, settings)
    wanted = AuditSettings(**{**values, "accept": [_listed(people)]})
    answers = Answers(yes=True)
    return _outcome(wanted, answers, lambda: accept_pairs(wanted, answers))


def adopt(
    rows: Rows,
    *,
    group_id: str | None = None,
    ledger: PathLike | None = None,
    score: float | None = None,
    report: PathLike | None = None,
    dry_run: bool = False,
    credentials: CredentialsLike = None,
    settings: Settings | None = None,
    **options: Unpack[AdoptOptions],
) -> Outcome[Adoption]:
    """Record in a ledger the faces that the library already holds, as `enroll adopt` does.

    `rows` are as for `run`. `score` is the least that a search has to give for the same face, 0 to
    100, and `report` a table to write of each row. With `dry_run`, the text says how many searches
    it takes, and none is made. The result's `outcomes` count the rows. Raises `EnrollError`.
    """
    given = {
        "group_id": group_id,
        "ledger": ledger,
        "score": score,
        "report": report,
        **options,
    }
    began = clock.time()
    values = taken("adopt", settings, given, names=names_of(RunSettings, "score", "report"))
    of_settings = values.pop("credentials", None)
    credentials = of_settings if credentials is None else credentials
    own = {name: values.pop(name) for name in ("score", "report") if name in values}
    answers = Answers(yes=True)
    place = None if dry_run else place_of_ledger(values)
    with manifest_of(rows, ledger=place, images=values.get("images")) as (manifest, images):
        shared = run_settings(
            RunSettings,
            values | {"images": images},
            manifest,
            credentials=credentials,
            settings=settings,
            in_memory=not is_path(rows),
        )
        wanted = AdoptSettings(run=shared, dry_run=dry_run, **own)
        adopted = adopt_faces(wanted, reader(credentials), answers)
        about = of_run_settings(shared, command="adopt")
        return outcome_of(about, adopted, text=answers.text, started=began)


def resolve(
    user_id: str,
    *,
    token: str | None = None,
    not_added: bool = False,
    sha256: str = "",
    offline: bool = False,
    credentials: CredentialsLike = None,
    settings: Settings | None = None,
    **options: Unpack[LedgerOptions],
) -> Outcome[Resolved]:
    """Settle a face in doubt by hand, as `enroll resolve` does: the library holds it under `token`,
    or it was `not_added`. Exactly one of the two has to be given.

    `sha256` (hexadecimal) says which photo, if several of the person are in doubt. The service is
    asked whether it is true, unless `offline`. Raises `EnrollError`, also if it is not true.
    """
    if (token is None) is not not_added:
        raise UsageError("Give one of token and not_added=True.")
    values, credentials = _session("resolve", ResolveSettings, {**options}, credentials, settings)
    wanted = ResolveSettings(**{**values, "user_id": user_id, "token": token, "sha256": sha256})
    answers = Answers(yes=True)
    read = None if offline else reader(credentials)

    def act() -> Resolved:
        resolved = resolve_doubt(wanted, read, announce=answers.connecting)
        answers.say(resolved.sentence)
        return resolved

    return _outcome(wanted, answers, act)


def remove(
    user_ids: UserIds | None = None,
    *,
    run: int | None = None,
    superseded: bool = False,
    list_file: PathLike | None = None,
    dry_run: bool = False,
    show_user_ids: bool = False,
    credentials: CredentialsLike = None,
    settings: Settings | None = None,
    **options: Unpack[LedgerOptions],
) -> Outcome[Removed]:
    """Delete faces from the library, as `enroll remove --yes` does: all of some people, those that
    the run of a number added, or superseded ones. Exactly one of the three has to be given. A row
    whose face was deleted is due again.

    `list_file` is a table to write of the faces. With `dry_run`, nothing is deleted, and the
    result's `chosen` says what would be. Raises `EnrollError`.
    """
    if [user_ids is not None, run is not None, superseded].count(True) != 1:
        raise UsageError("Give one of user_ids, run and superseded=True.")
    with _people(user_ids) as file:
        given = {
            **options,
            "user_ids": file,
            "of_run": run,
            "superseded": superseded,
            "list": list_file,
            "show_user_ids": show_user_ids,
        }
        values, credentials = _session("remove", RemoveSettings, given, credentials, settings)
        wanted, answers = RemoveSettings(**values), Answers(yes=not dry_run)
        return _outcome(wanted, answers, lambda: remove_faces(wanted, reader(credentials), answers))


def forget(
    user_ids: UserIds,
    *,
    dry_run: bool = False,
    show_user_ids: bool = False,
    credentials: CredentialsLike = None,
    settings: Settings | None = None,
    **options: Unpack[LedgerOptions],
) -> Outcome[Forgotten]:
    """Delete everything about people from library and ledger for good, as `enroll forget --yes`
    does. Rows that still name them are withheld.

    With `dry_run`, nothing is deleted, and the text says what would be. The result has the people,
    how many faces are `gone`, and who is `left`, with the reason. Raises `EnrollError`.
    """
    with _people(user_ids) as file:
        given = {**options, "user_ids": file, "show_user_ids": show_user_ids}
        values, credentials = _session("forget", ForgetSettings, given, credentials, settings)
        wanted, answers = ForgetSettings(**values), Answers(yes=not dry_run)
        return _outcome(
            wanted, answers, lambda: forget_people(wanted, reader(credentials), answers)
        )


def readmit(
    user_ids: Iterable[str],
    *,
    show_user_ids: bool = False,
    settings: Settings | None = None,
    **options: Unpack[LedgerOptions],
) -> Outcome[Readmitted]:
    """Allow forgotten people to be enrolled again, as `enroll forget --readmit` does, without a
    call. The result's `others` were not forgotten. Raises `EnrollError`."""
    given = {**options, "show_user_ids": show_user_ids}
    values, _ = _session("forget", ForgetSettings, given, None, settings)
    wanted = ForgetSettings(**{**values, "readmitted": _listed(user_ids)})
    answers = Answers(yes=True)
    return _outcome(wanted, answers, lambda: readmit_people(wanted, answers))


def _outcome(settings: SessionSettings, answers: Answers, act: Callable[[], E]) -> Outcome[E]:
    """Carry out a command on an existing ledger. One whose question was answered with no was only
    tried, so it is done."""
    began, about = clock.time(), of_session_settings(settings)
    result = act()
    code = ExitCode.DONE if result.exit_code is ExitCode.INTERRUPTED else None
    return outcome_of(about, result, text=answers.text, started=began, exit_code=code)


def _session(
    command: str,
    kind: type[Any],
    given: Mapping[str, Any],
    credentials: CredentialsLike,
    settings: Settings | None,
) -> tuple[dict[str, Any], CredentialsLike]:
    """The values of a command's settings, with the ledger that is meant, and the credentials."""
    values = taken(command, settings, given, names=names_of(kind))
    of_settings = values.pop("credentials", None)
    credentials = of_settings if credentials is None else credentials
    return session_values(values, credentials, settings), credentials


def _listed(user_ids: Iterable[str]) -> list[str]:
    """Ids as a list; one alone, which is a text, would be taken for its letters."""
    return [user_ids] if isinstance(user_ids, str) else list(user_ids)


@contextmanager
def _people(user_ids: UserIds | None) -> Iterator[Path | None]:
    """The file of user ids, which is there within the context if they were given themselves."""
    if user_ids is None or isinstance(user_ids, str | os.PathLike):
        yield None if user_ids is None else Path(user_ids)
        return
    with tempfile.NamedTemporaryFile(
        "w", prefix="enroll-", suffix=".csv", newline="", encoding="utf-8"
    ) as file:
        writer = csv.writer(file)
        writer.writerows([["user_id"], *([user_id] for user_id in user_ids)])
        file.flush()
        yield Path(file.name)
