"""`enroll remove`: take faces out of the library again."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from enroll.errors import EnrollError, ExitCode, UsageError
from enroll.ledger import Chosen, Deletions, Ledger, Target
from enroll.manifest.rules import read_user_ids
from enroll.model import Credentials
from enroll.session.deletions import chosen_pages, delete_chosen, settle_deleting
from enroll.session.session import (
    CommandRecord,
    Prompt,
    Session,
    SessionSettings,
    changing,
    open_session,
)
from enroll.settings import files_record
from enroll.text.logs import mask, several
from enroll.text.tables import new_table
from enroll.text.wording import amount
from enroll.visible import path_text

SHOWN = 5
"""How many faces are shown before asking for confirmation."""

LIST_COLUMNS = ("user_id", "face_token", "image")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoveSettings(SessionSettings):
    """What `enroll remove` is to do: one of `of_run`, `superseded` and `user_ids` selects the
    faces.

    `user_ids` is a file of them; `list` a table to write the faces to. The faces shown before
    asking have masked user ids and no path, unless `show_user_ids`. With `dry_run`, the deletions
    that an earlier command began are not finished either.
    """

    command: ClassVar[str] = "remove"

    of_run: int | None = None
    superseded: bool = False
    user_ids: Path | None = None
    list: Path | None = None
    show_user_ids: bool = False
    dry_run: bool = False

    @property
    def tables(self) -> Mapping[str, Path | None]:
        return {"--list": self.list}

    def record(self) -> dict[str, Any]:
        return {
            "remove_run": self.of_run,
            "superseded": self.superseded,
            "user_ids": path_text(self.user_ids or ""),
        }

    @property
    def files(self) -> dict[str, str]:
        return files_record({"the list of faces": self.list, "the user ids": self.user_ids})


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """How many faces were selected and how many are gone; for `unknown` ones it is not known. `run`
    is the command's number in the ledger."""

    stop: ClassVar[EnrollError | None] = None

    run: int
    chosen: Chosen
    gone: int
    unknown: int
    agreed: bool = True

    @property
    def exit_code(self) -> ExitCode:
        """By what is left to be decided."""
        if not self.agreed:
            return ExitCode.INTERRUPTED
        return ExitCode.IN_DOUBT if self.unknown or self.chosen.open else ExitCode.DONE

    def figures(self) -> dict[str, Any]:
        """What was deleted, in numbers."""
        return {
            "run": self.run,
            "chosen": self.chosen.faces,
            "gone": self.gone,
            "unknown": self.unknown,
        }


def remove(
    settings: RemoveSettings, read_credentials: Callable[[], Credentials], prompt: Prompt
) -> Removed:
    """Delete faces of the ledger from its library, if that is agreed to. Raises EnrollError.

    The ledger is held before they are selected. A row whose face was deleted is due again.
    """
    people = [] if settings.user_ids is None else read_user_ids(settings.user_ids)
    with (
        open_session(settings, read_credentials, prompt) as session,
        changing(session) as (ledger, work),
    ):
        if settings.of_run is not None and settings.of_run >= work.run:
            raise UsageError(f"There is no run {settings.of_run}. `enroll status` lists them.")
        before = len(ledger.deletions.intended())
        if not settings.dry_run and (refused := settle_deleting(ledger, session.caller)):
            prompt.say(refused)
        left = len(ledger.deletions.intended())
        if settled := before - left:
            faces = amount(settled, "face")
            prompt.say(f"The deletion of {faces} by an earlier command is settled.")
        people = ledger.forgetting.as_known(people)
        chosen = _choose(settings, ledger.deletions, people)
        removed = Removed(run=work.run, chosen=chosen, gone=0, unknown=left)
        if settings.list is not None:
            _write_list(settings.list, ledger, work)
        prompt.say(*_unknown_lines(ledger, people, settings))
        if chosen.open:
            are, they = ("is", "it is") if chosen.open == 1 else ("are", "they are")
            prompt.say(
                f"{amount(chosen.open, 'face')} of these people {are} in doubt and not deleted: "
                f"`enroll run` settles doubts; run `enroll remove` again once {they} settled."
            )
        if not chosen.faces:
            prompt.say(f"Nothing to delete: the library holds no {_described(settings)}.")
        elif _agreed(session, ledger, work, chosen):
            removed = _removed(session, ledger, work, chosen, left)
        else:
            prompt.say("Nothing was deleted.")
            work.decline(dry_run=settings.dry_run)
            return replace(removed, agreed=False)
        work.exit_code = removed.exit_code
        return removed


def _choose(settings: RemoveSettings, deletions: Deletions, people: Sequence[str]) -> Chosen:
    if settings.of_run is not None:
        return deletions.choose_run(settings.of_run)
    return deletions.choose_superseded() if settings.superseded else deletions.choose_people(people)


def _described(settings: RemoveSettings) -> str:
    if settings.of_run is not None:
        return f"face that run {settings.of_run} added"
    return "superseded face" if settings.superseded else "face of these people"


def _unknown_lines(
    ledger: Ledger, people: Sequence[str], settings: RemoveSettings
) -> Iterator[str]:
    """People unknown to the ledger, perhaps misspelt."""
    known = ledger.faces_of(people)
    if unknown := [one for one in people if not known[one]]:
        of_all = f"{len(unknown):,} of the {amount(len(people), 'person', 'people')}"
        if len(unknown) == len(people):
            of_all = "this person" if len(people) == 1 else "any of these people"
        names = several(unknown, most=SHOWN, shown=settings.show_user_ids)
        yield f"The ledger has no face of {of_all}: {names}."


def _agreed(
    session: Session[RemoveSettings], ledger: Ledger, work: CommandRecord, chosen: Chosen
) -> bool:
    """Show some of the faces, and ask."""
    some = ledger.deletions.chosen(after="", most=SHOWN, run=work.run)
    more = chosen.faces - len(some)
    session.prompt.say(
        *(
            f"  {user_id}  {token}  {image}".rstrip()
            if session.settings.show_user_ids
            else f"  {mask(user_id)}  {token}"
            for user_id, token, image in _cells(ledger, some)
        ),
        *([f"  and {more:,} more"] if more else []),
        *([] if session.settings.show_user_ids else ["  --show-user-ids names people and photos."]),
    )
    return session.prompt.confirm(
        f"Delete {amount(chosen.faces, 'face')} of {amount(chosen.people, 'person', 'people')} "
        f"from the library {session.group_id}? This cannot be undone. The next run enrolls "
        "everybody again who is still in its manifest."
    )


def _removed(
    session: Session[RemoveSettings], ledger: Ledger, work: CommandRecord, chosen: Chosen, left: int
) -> Removed:
    unknown = delete_chosen(
        ledger,
        session.caller,
        run=work.run,
        on_progress=lambda gone: session.prompt.progress(gone, "faces deleted", of=chosen.faces),
    )
    gone = chosen.faces - unknown
    session.prompt.say(f"{amount(gone, 'face')} deleted from the library {session.group_id}.")
    if unknown:
        session.prompt.say(
            f"{amount(unknown, 'face')} may still be there: the next command that changes the "
            "library finds out, and deletes what is left."
        )
    return Removed(run=work.run, chosen=chosen, gone=gone, unknown=unknown + left)


def _write_list(path: Path, ledger: Ledger, work: CommandRecord) -> None:
    """Write every selected face, some at a time."""
    with new_table(path, LIST_COLUMNS) as table:
        for some in chosen_pages(ledger, run=work.run):
            table.write(_cells(ledger, some))


def _cells(ledger: Ledger, targets: Sequence[Target]) -> Iterator[tuple[str, str, str]]:
    paths = ledger.paths_of([target.face_id for target in targets])
    for target in targets:
        yield target.user_id, target.face_token, next(iter(paths[target.face_id]), "")
