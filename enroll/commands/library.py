"""Shows, creates and deletes an account's libraries; never repeats a change without checking
first."""

from __future__ import annotations

from pathlib import Path

from enroll.errors import ServiceError, UsageError
from enroll.facesearch import Call, faces, library, next_start
from enroll.facesearch.answers import LIBRARY_CODES
from enroll.model import Answer, Library, Verdict
from enroll.session.account import Connection, list_libraries
from enroll.session.session import Prompt
from enroll.text.wording import amount

LONGEST_NAME = 60
"""Characters that the service accepts in a library's name."""

CALLS_TO_MAKE = 2
"""Calls needed to create a library that is known to be missing: `create`, and `group_list` for its
creation time."""

COUNTED = 1000
"""Faces that are counted before a library is deleted: the largest page of `list`."""


def describe_library(connection: Connection, group_id: str) -> Library:
    """The library named `group_id`. Raises ServiceError if the account has no such library, and as
    `Connection.ask` does."""
    answer = connection.make_call(Call.group_info(group_id=group_id))
    if answer.code in LIBRARY_CODES:
        raise ServiceError(
            f"The account has no library {group_id}. `enroll library list` shows its libraries."
        )
    if answer.verdict is not Verdict.APPLIED:
        raise connection.failed(answer)
    return library(answer)


def create_library(
    connection: Connection, *, group_id: str, group_name: str, group_data: str, model_version: str
) -> None:
    """Create a library; an empty `model_version` leaves the choice to the service.

    Raises UsageError if it exists already, and ServiceError.
    """
    if _find(connection, group_id) is not None:
        raise UsageError(
            f"The account already has a library {group_id}; `enroll library list` shows it. "
            "Choose another --group-id."
        )
    answer = connection.make_call(
        Call.create(
            group_id=group_id,
            group_name=group_name,
            group_data=group_data,
            model_version=model_version,
        ),
        changes=True,
    )
    if answer.verdict is not Verdict.APPLIED:
        raise _failed(connection, answer)


def provide_library(
    connection: Connection,
    group_id: str,
    *,
    ledger: Path | None,
    most_calls: int | None,
) -> tuple[Library, bool]:
    """The library named `group_id`, and whether it had to be created; its name is its id.

    `ledger` is the library's, if there is one; `most_calls` is how many calls may be made in all.
    Raises ServiceError, and UsageError if the library is gone although its ledger exists, or if too
    few calls are left.
    """
    found = _find(connection, group_id)
    if found is not None:
        return found, False
    if ledger is not None:
        raise UsageError(
            f"The account has no library {group_id}, and the ledger {ledger} belongs to one that "
            "it had: --create-library does not create another for it. Correct --group-id, or "
            "move that ledger away first."
        )
    if most_calls is not None and most_calls < connection.tally.calls.total() + CALLS_TO_MAKE:
        raise UsageError(
            f"The account has no library {group_id}, and --max-calls {most_calls} is too few "
            "calls to create it. Allow more."
        )
    answer = connection.make_call(
        Call.create(group_id=group_id, group_name=group_id[:LONGEST_NAME]),
        changes=True,
    )
    found = _find(connection, group_id)  # also if another program was quicker
    if found is not None:
        return found, True
    if answer.verdict is Verdict.APPLIED:
        raise ServiceError(
            f"The library {group_id} was created, but the service does not list it yet. Run the "
            "same command again in a minute."
        )
    raise _failed(connection, answer)


def delete_library(connection: Connection, *, group_id: str, force: bool, prompt: Prompt) -> bool:
    """Delete a library if a person agrees; returns whether it was deleted.

    Raises UsageError if it does not exist, or if it holds faces and `force` is not set;
    ServiceError if the service refuses, or if the outcome is unknown.
    """
    if _find(connection, group_id) is None:
        raise UsageError(
            f"The account has no library {group_id}; `enroll library list` shows its libraries. "
            "Nothing was deleted."
        )
    held = connection.ask(Call.list(group_id=group_id, limit=COUNTED))
    count = len(faces(held))
    holds = f"{'at least ' if next_start(held) else ''}{amount(count, 'face')}"
    if count and not force:
        raise UsageError(
            f"The library {group_id} holds {holds}, and deleting cannot be undone. Use --force to "
            "delete it with them."
        )
    if not prompt.confirm(
        f"Delete the library {group_id}, which holds {holds if count else 'no face'}, at "
        f"{connection.endpoint}?"
    ):
        return False
    answer = connection.make_call(
        # What was found empty must still be so: somebody may be enrolling.
        Call.free(group_id=group_id, check_empty=not count),
        changes=True,
    )
    if answer.code == "NOT_EMPTY":
        raise UsageError(
            f"The library {group_id} is no longer empty: somebody is enrolling into it. Nothing "
            "was deleted."
        )
    if answer.verdict is not Verdict.APPLIED and _find(connection, group_id) is not None:
        raise _failed(connection, answer, outcome="will be deleted: it is still there")
    return True


def _find(connection: Connection, group_id: str) -> Library | None:
    found = list_libraries(connection)
    return next((library for library in found if library.group_id == group_id), None)


def _failed(
    connection: Connection, answer: Answer, *, outcome: str = "was created"
) -> ServiceError:
    if answer.verdict is not Verdict.UNKNOWN:
        return connection.failed(answer)
    return ServiceError(
        f"It is not known whether the library {outcome} ({answer.message or answer.code}). Check "
        "with `enroll library list`."
    )
