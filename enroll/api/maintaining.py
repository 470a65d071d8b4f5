"""`verify`, `adopt`, `resolve`, `remove` and `forget` for Python: what the commands do."""

from __future__ import annotations

from collections.abc import Iterable
from threading import Event
from typing import Unpack

from enroll import clock
from enroll.api.options import (
    AdoptOptions,
    CredentialsLike,
    LedgerOptions,
    PathLike,
    Settings,
    names_of,
    place_of_ledger,
    reader,
    run_settings,
    session_values,
    taken_with_credentials,
)
from enroll.api.reports import Outcome, outcome_of
from enroll.api.rows import Rows, UserIds, is_path, listed, manifest_of, people_file
from enroll.api.watching import Answers, OnStep
from enroll.commands.adopt import AdoptSettings
from enroll.commands.adopt import adopt as adopt_faces
from enroll.commands.adopt_report import Adoption
from enroll.commands.forget import ForgetSettings, Forgotten, Readmitted
from enroll.commands.forget import forget as forget_people
from enroll.commands.forget import readmit as readmit_people
from enroll.commands.remove import Removed, RemoveSettings
from enroll.commands.remove import remove as remove_faces
from enroll.commands.resolve import Resolved, ResolveSettings
from enroll.commands.resolve import resolve as resolve_doubt
from enroll.commands.verify import Verified, VerifySettings
from enroll.commands.verify import verify as verify_ledger
from enroll.errors import UsageError
from enroll.report.outcome import of_run_settings
from enroll.settings import RunSettings


def verify(
    *,
    deep: bool = False,
    remove_surplus: bool = False,
    requeue_missing: bool = False,
    differences: PathLike | None = None,
    dry_run: bool = False,
    on_progress: OnStep | None = None,
    cancel: Event | None = None,
    credentials: CredentialsLike = None,
    settings: Settings | None = None,
    **options: Unpack[LedgerOptions],
) -> Outcome[Verified]:
    """Compare the ledger with the library, as `enroll verify` does.

    Changes nothing unless `remove_surplus` or `requeue_missing`; with `dry_run` the text says what
    these would do. The result has `differences`, faces by kind, and `unchecked`, faces that could
    not be compared: with `deep`, each is looked up. The table of the differences goes into the file
    `differences` (.csv, .xlsx, .jsonl or .parquet). The exit code is 1 for differences.

    `on_progress` gets a `Step` after each call; setting `cancel` ends it before the next one.
    Further options are `allow_http`, `ca_bundle`, `endpoint`, `group_id`, `ledger`,
    `max_in_flight` and `timeout` (seconds). Raises EnrollError, a NotDoneError if it was cancelled.
    """
    given = {
        **options,
        "deep": deep,
        "remove_surplus": remove_surplus,
        "requeue_missing": requeue_missing,
        "differences": differences,
    }
    values, credentials = session_values("verify", VerifySettings, given, credentials, settings)
    wanted = VerifySettings(**values)
    answers = Answers(yes=not dry_run, on_progress=on_progress, cancel=cancel)
    return answers.outcome(wanted, lambda: verify_ledger(wanted, reader(credentials), answers))


def adopt(
    rows: Rows,
    *,
    group_id: str | None = None,
    ledger: PathLike | None = None,
    score: float | None = None,
    report: PathLike | None = None,
    dry_run: bool = False,
    on_progress: OnStep | None = None,
    cancel: Event | None = None,
    credentials: CredentialsLike = None,
    settings: Settings | None = None,
    **options: Unpack[AdoptOptions],
) -> Outcome[Adoption]:
    """Record in a ledger the faces that the library already holds, as `enroll adopt` does.

    `rows` are as for `run`. A search with each row's photo confirms which face is whose; `score`
    (0 to 100) is what such a face has to reach, by default it is learned. The rows that a person
    has to look at go into the file `report`. With `dry_run`, the text says what it takes, and no
    search is made. The exit code is 1 if there are rows to look at.

    `on_progress` gets a `Step` after each call; setting `cancel` ends it before the next one, and
    the same call continues. Further options are those of `run`: `allow_http`, `ca_bundle`,
    `columns`, `delimiter`, `encoding`, `endpoint`, `header_row`, `id_from`, `images`,
    `max_in_flight`, `memory`, `multi_oriented_detection`, `photo`, `send_as`, `sheet`, `timeout`.
    Raises EnrollError, a NotDoneError if it was cancelled.
    """
    given = {
        "group_id": group_id,
        "ledger": ledger,
        "score": score,
        "report": report,
        **options,
    }
    began = clock.time()
    names = names_of(RunSettings, "score", "report")
    values, credentials = taken_with_credentials("adopt", settings, given, credentials, names=names)
    own = {name: values.pop(name) for name in ("score", "report") if name in values}
    place = None if dry_run else place_of_ledger(values)
    with (
        Answers(on_progress=on_progress, cancel=cancel) as answers,
        manifest_of(rows, ledger=place, images=values.get("images")) as (manifest, images),
    ):
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
    dry_run: bool = False,
    credentials: CredentialsLike = None,
    settings: Settings | None = None,
    **options: Unpack[LedgerOptions],
) -> Outcome[Resolved]:
    """Settle a face in doubt by hand, as `enroll resolve` does: the library holds it under `token`,
    or it was `not_added`.

    `sha256` is the beginning of the photo's hash, for a person with several faces in doubt. The
    service is asked, unless `offline`. With `dry_run`, nothing is recorded, and the text says what
    would be. Further options are those of `verify`. Raises EnrollError, also if the decision cannot
    be right, or it is too early for it.
    """
    if (token is None) is not not_added:
        raise UsageError("Give one of token and not_added=True.")
    values, credentials = session_values(
        "resolve", ResolveSettings, {**options}, credentials, settings
    )
    own = {"user_id": user_id, "token": token, "sha256": sha256, "dry_run": dry_run}
    wanted = ResolveSettings(**{**values, **own})
    answers = Answers()
    read = None if offline else reader(credentials)

    def act() -> Resolved:
        resolved = resolve_doubt(wanted, read, announce=answers.connecting)
        answers.say(resolved.sentence)
        return resolved

    return answers.outcome(wanted, act)


def remove(
    user_ids: UserIds | None = None,
    *,
    run: int | None = None,
    superseded: bool = False,
    list_file: PathLike | None = None,
    dry_run: bool = False,
    show_user_ids: bool = False,
    on_progress: OnStep | None = None,
    cancel: Event | None = None,
    credentials: CredentialsLike = None,
    settings: Settings | None = None,
    **options: Unpack[LedgerOptions],
) -> Outcome[Removed]:
    """Delete faces from the library, as `enroll remove --yes` does: all of some people, those that
    the run of a number added, or superseded ones. Exactly one of the three has to be given. A row
    whose face was deleted is due again.

    `user_ids` are ids, or the path of a file with them; a text is a path. With `list_file`, the
    faces go into that file first. With `dry_run`, nothing is deleted and the result's `chosen` says
    what would be: `faces`, `people`, and how many are `open`, in doubt and so not deleted.

    `on_progress` gets a `Step` after each call; setting `cancel` ends it before the next one.
    Further options are those of `verify`. Raises EnrollError, a NotDoneError if it was cancelled.
    """
    if [user_ids is not None, run is not None, superseded].count(True) != 1:
        raise UsageError("Give one of user_ids, run and superseded=True.")
    with people_file(user_ids) as file:
        given = {
            **options,
            "user_ids": file,
            "of_run": run,
            "superseded": superseded,
            "list": list_file,
            "show_user_ids": show_user_ids,
            "dry_run": dry_run,
        }
        values, credentials = session_values("remove", RemoveSettings, given, credentials, settings)
        wanted = RemoveSettings(**values)
        answers = Answers(yes=not dry_run, on_progress=on_progress, cancel=cancel)
        return answers.outcome(wanted, lambda: remove_faces(wanted, reader(credentials), answers))


def forget(
    user_ids: UserIds,
    *,
    dry_run: bool = False,
    show_user_ids: bool = False,
    on_progress: OnStep | None = None,
    cancel: Event | None = None,
    credentials: CredentialsLike = None,
    settings: Settings | None = None,
    **options: Unpack[LedgerOptions],
) -> Outcome[Forgotten]:
    """Delete everything about people from library and ledger for good, as `enroll forget --yes`
    does. Rows that still name them are withheld.

    `user_ids` are ids, or the path of a file with them; a text is a path. With `dry_run`, nothing
    is deleted; the result has the `people`, and how many of their faces the ledger has, `chosen`.

    `on_progress` gets a `Step` after each call; setting `cancel` ends it before the next one, and
    the same call continues. Further options are those of `verify`. Raises EnrollError, a
    NotDoneError if it was cancelled.
    """
    with people_file(user_ids) as file:
        given = {
            **options,
            "user_ids": file,
            "show_user_ids": show_user_ids,
            "dry_run": dry_run,
        }
        values, credentials = session_values("forget", ForgetSettings, given, credentials, settings)
        wanted = ForgetSettings(**values)
        answers = Answers(yes=not dry_run, on_progress=on_progress, cancel=cancel)
        return answers.outcome(wanted, lambda: forget_people(wanted, reader(credentials), answers))


def readmit(
    user_ids: Iterable[str],
    *,
    show_user_ids: bool = False,
    settings: Settings | None = None,
    **options: Unpack[LedgerOptions],
) -> Outcome[Readmitted]:
    """Allow forgotten people to be enrolled again, as `enroll forget --readmit` does, without a
    call. Further options are those of `verify`. Raises EnrollError."""
    given = {**options, "show_user_ids": show_user_ids}
    values, _ = session_values("forget", ForgetSettings, given, None, settings)
    wanted, answers = ForgetSettings(**{**values, "readmitted": listed(user_ids)}), Answers()
    return answers.outcome(wanted, lambda: readmit_people(wanted, answers))
