"""`enroll forget`: delete everything that library and ledger hold of people; with --readmit, allow
them to be enrolled again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import filterfalse, islice
from pathlib import Path
from typing import Any, ClassVar

from enroll import clock
from enroll.commands.forget_search import (
    PeopleFaces,
    PeopleSearch,
    files_of,
    find_traces,
)
from enroll.errors import EnrollError, ExitCode, UsageError
from enroll.ledger import Ledger, Target
from enroll.manifest.rules import read_user_ids, user_id_fault
from enroll.model import RESULTS, Credentials
from enroll.photos import open_store
from enroll.session.deletions import (
    DELETE_PAGE,
    Deletion,
    delete_chosen,
    delete_targets,
    settle_deleting,
)
from enroll.session.library_faces import PhotoSearch
from enroll.session.session import (
    CommandRecord,
    Prompt,
    Session,
    SessionSettings,
    changing,
    command_record,
    command_start,
    hold_ledger,
    known_library,
    open_session,
    run_defaults,
)
from enroll.settings import files_record
from enroll.text.logs import mask, several
from enroll.text.wording import amount

SHOWN = 20
"""How many people one message names."""

ALL_RUNS = 1_000_000
"""More runs than any ledger has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetSettings(SessionSettings):
    """What `enroll forget` is to do: forget the people in `people` and in the file `user_ids`, or
    allow those in `readmitted` to be enrolled again."""

    command: ClassVar[str] = "forget"

    people: Sequence[str] = ()
    user_ids: Path | None = None
    readmitted: Sequence[str] = ()
    show_user_ids: bool = False
    dry_run: bool = False

    @property
    def files(self) -> dict[str, str]:
        return files_record({"the user ids": self.user_ids})

    def everybody(self) -> list[str]:
        """The people to forget, each once. Raises UsageError."""
        listed = [] if self.user_ids is None else read_user_ids(self.user_ids)
        return list(dict.fromkeys([*self.people, *listed]))

    def shown(self, user_id: str) -> str:
        """A user id as it may be printed."""
        return user_id if self.show_user_ids else mask(user_id)

    def shown_path(self, path: Path, people: Sequence[str]) -> str:
        """A path as it may be printed: a file may be named after its person's id."""
        text = str(path)
        for user_id in sorted(people, key=len, reverse=True):
            text = text.replace(user_id, self.shown(user_id))
        return text

    def several(self, people: Sequence[str]) -> str:
        """The first of some people, as they may be printed."""
        return several(people, most=SHOWN, shown=self.show_user_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """The outcome: the `people`, the number of their faces in the ledger (`chosen`), those not
    completely forgotten in `left` with the reason, and `gone` deleted faces; `in_all` also counts
    those that earlier, interrupted commands deleted. Nothing was done unless it was `agreed` to.
    `run` is the command's number in the ledger."""

    stop: ClassVar[EnrollError | None] = None

    run: int
    people: Sequence[str] = ()
    chosen: int = 0
    gone: int = 0
    in_all: int = 0
    left: Mapping[str, str] = field(default_factory=dict)
    agreed: bool = True

    @property
    def exit_code(self) -> ExitCode:
        """By what is left to be decided."""
        if not self.agreed:
            return ExitCode.INTERRUPTED
        return ExitCode.IN_DOUBT if self.left else ExitCode.DONE

    def figures(self) -> dict[str, Any]:
        """What was done, in numbers."""
        return {
            "run": self.run,
            "people": len(self.people),
            "chosen": self.chosen,
            "gone": self.gone,
            "left": len(self.left),
        }


def forget(
    settings: ForgetSettings, read_credentials: Callable[[], Credentials], prompt: Prompt
) -> Forgotten:
    """Delete everything that library and ledger hold of people, if that is agreed to, and keep a
    hash by which runs withhold them. Raises EnrollError.

    They are withheld before anything is deleted, and a person's data in the ledger is deleted once
    the library holds none of their faces: after a crash, the same command continues.
    """
    named = settings.everybody()
    with open_session(settings, read_credentials, prompt) as session:
        files = _files(session)
        session.audit.refresh()
        with changing(session) as (ledger, work):
            people = ledger.forgetting.as_known(named)
            alike = _alike(settings, ledger, people)
            chosen = ledger.deletions.choose_people(people).faces
            if not _agreed(session, ledger, people, alike, chosen):
                prompt.say("Nothing was deleted, and nobody is withheld.")
                work.decline(dry_run=settings.dry_run)
                return Forgotten(run=work.run, people=people, chosen=chosen, agreed=False)
            ledger.forgetting.block(people, at=work.began, run=work.run)
            ledger.commit()
            forgotten = replace(
                _Forgetting(session, ledger, work, people).carry_out(), chosen=chosen
            )
            work.exit_code = forgotten.exit_code
    _say_how_it_went(settings, prompt, forgotten, session.group_id)
    _say_who_names_them(settings, prompt, files, people)
    return forgotten


def _files(session: Session[ForgetSettings]) -> dict[Path, str]:
    """The files that may name people, as far as the ledger knows; listed before anything is
    deleted."""
    settings = session.settings
    others = {} if settings.user_ids is None else {settings.user_ids.absolute(): "the user ids"}
    last_scan = session.audit.last_scan()
    if last_scan is not None and last_scan.results is not None:
        others[Path(last_scan.results[0])] = RESULTS
    return files_of(session.audit.runs(ALL_RUNS), settings.ledger.absolute(), others)


def _alike(
    settings: ForgetSettings, ledger: Ledger, people: Sequence[str]
) -> Mapping[str, Sequence[str]]:
    """People unknown to the ledger, each with the known ones who have nearly the same id. Raises
    UsageError for an id that the service would not accept."""
    unknown = ledger.forgetting.unknown_people(people)
    for user_id in filterfalse(ledger.block_list.holds, unknown):  # a repeated command continues
        if fault := user_id_fault(user_id):
            which = "" if settings.show_user_ids else ", which --show-user-ids names"
            raise UsageError(
                f"Nobody can be enrolled as {settings.shown(user_id)}, and the ledger has no row "
                f"with this id: {fault.message} Nothing was done. Correct the id{which}."
            )
    return {user_id: others for user_id, others in unknown.items() if others}


def _agreed(
    session: Session[ForgetSettings],
    ledger: Ledger,
    people: Sequence[str],
    alike: Mapping[str, Sequence[str]],
    chosen: int,
) -> bool:
    settings, prompt = session.settings, session.prompt
    withheld = ledger.block_list
    faceless = [user_id for user_id, faces in ledger.faces_of(people).items() if not faces]
    again = [user_id for user_id in faceless if withheld.holds(user_id)]
    unknown = [user_id for user_id in faceless if not withheld.holds(user_id)]
    prompt.say(f"To be forgotten: {settings.several(people)}.")
    if again:
        prompt.say(f"Already withheld, and searched for again: {settings.several(again)}.")
    if unknown:
        prompt.say(
            f"The ledger has no face of {settings.several(unknown)}. The library is searched all "
            "the same, and the user_id is withheld."
        )
    for user_id, others in islice(alike.items(), SHOWN):
        prompt.say(
            f"  Similar to {settings.several([user_id])}, except for leading zeros, case or "
            f"blanks: {settings.several(others)}. These stay enrolled unless you name them as well."
        )
    return prompt.confirm(
        f"Delete {amount(chosen, 'face')} of {amount(len(people), 'person', 'people')}, any "
        f"other face that the library {session.group_id} has under the same user_id, and "
        "everything that the ledger holds about them, and withhold them from now on? This cannot "
        "be undone."
    )


@dataclass(frozen=True, slots=True)
class _Forgetting:
    """People who are withheld already, while all their faces and data are deleted."""

    session: Session[ForgetSettings]
    ledger: Ledger
    work: CommandRecord
    people: Sequence[str]

    def carry_out(self) -> Forgotten:
        session, ledger = self.session, self.ledger
        if refused := settle_deleting(ledger, session.caller):
            session.prompt.say(refused)
        photo_search = PhotoSearch(
            group_id=session.group_id,
            store=open_store(ledger.photo_root),
            send_as=session.defaults.send_as,
        )
        theirs = PeopleSearch(
            session.caller,
            ledger,
            session.audit.listing,
            photo_search,
            settle_after=session.defaults.settle_after,
            on_progress=lambda count: session.prompt.progress(count, "faces listed"),
        ).find(self.people)
        if theirs.because:
            session.prompt.say(
                f"The library cannot be listed completely: {theirs.because} Faces of these people "
                "that other programs added may still be there."
            )
        gone, left = self._delete(theirs)
        left = {**left, **theirs.unsettled}
        done = [user_id for user_id in self.people if user_id not in left]
        if done:
            ledger.forgetting.wipe(done)
            session.audit.refresh()  # else it keeps the file's old bytes in use
            ledger.forgetting.scrub(done, at=clock.now_ms())
        in_all = sum(ledger.forgetting.count_deleted(done).values())
        return Forgotten(run=self.work.run, people=self.people, gone=gone, in_all=in_all, left=left)

    def _delete(self, theirs: PeopleFaces) -> tuple[int, dict[str, str]]:
        """Delete all faces; returns how many are gone, and the people who may have some left."""
        ledger, session = self.ledger, self.session
        known, unknown = self._on_record(theirs)
        gone, left = self._delete_unknown(unknown)
        gone += len(known) - delete_targets(ledger, session.caller, known)
        chosen = ledger.deletions.choose_people(self.people)
        gone += chosen.faces - delete_chosen(
            ledger,
            session.caller,
            run=self.work.run,
            on_progress=lambda count: session.prompt.progress(count, "faces deleted"),
        )
        whose = {token: one for one, tokens in theirs.unknown.items() for token in tokens}
        left |= {whose.get(one.face_token, one.user_id) for one in ledger.deletions.intended()}
        because = "it is not known whether the service deleted all of their faces"
        return gone, {user_id: because for user_id in self.people if user_id in left}

    def _on_record(self, theirs: PeopleFaces) -> tuple[list[Target], dict[str, str]]:
        """Faces that the ledger does not have as these people's: those that are deleted with a face
        of the ledger, so that their deletion can be recorded; and the others' owners by token."""
        known, unknown = [], dict[str, str]()
        faces = self.ledger.faces_of(theirs.unknown)
        for user_id, tokens in theirs.unknown.items():
            holders = self.ledger.holders_of(tokens)
            own = faces[user_id][0].face_id if faces[user_id] else None
            for token in tokens:
                face_id = holders.get(token, own)
                if face_id is None:
                    unknown[token] = user_id
                else:
                    run = self.work.run
                    known.append(
                        Target(face_token=token, face_id=face_id, user_id=user_id, run=run)
                    )
        return known, unknown

    def _delete_unknown(self, owners: Mapping[str, str]) -> tuple[int, set[str]]:
        """Delete faces that the ledger does not have, so there is no intent to record. Returns how
        many are gone, and the people who may have some left."""
        ledger, session, tokens = self.ledger, self.session, list(owners)
        counts, left = Counter[str](), set[str]()
        for start in range(0, len(tokens), DELETE_PAGE):
            page = tokens[start : start + DELETE_PAGE]
            deletion = Deletion(session.caller)
            try:
                deletion.carry_out(page)
            finally:  # these have no other record
                found = Counter(owners[token] for token in deletion.gone)
                for user_id, count in found.items():
                    ledger.forgetting.deleted(user_id, count)
                ledger.commit()
            counts += found
            left |= {owners[token] for token in page if token not in deletion.gone}
        return counts.total(), left


def _say_how_it_went(
    settings: ForgetSettings, prompt: Prompt, forgotten: Forgotten, group_id: str
) -> None:
    total = forgotten.in_all
    in_all = f", {total:,} since these people were withheld" if total > forgotten.gone else ""
    prompt.say(f"{amount(forgotten.gone, 'face')} deleted from the library {group_id}{in_all}.")
    if done := len(forgotten.people) - len(forgotten.left):
        prompt.say(
            f"{amount(done, 'person', 'people')} forgotten. All that is left is a keyed hash of "
            "the user_id, which runs use to withhold their rows."
        )
    if not forgotten.left:
        return
    who = amount(len(forgotten.left), "person is", "people are")
    prompt.say(f"{who} withheld but not completely forgotten:")
    for why in dict.fromkeys(forgotten.left.values()):
        those = [one for one, because in forgotten.left.items() if because == why]
        prompt.say(f"  {settings.several(those)}: {why}")
    prompt.say(
        "Until then the ledger keeps what it holds about them. Run the same command again; if a "
        "doubt is the reason, run `enroll run` first, which settles it."
    )


def _say_who_names_them(
    settings: ForgetSettings, prompt: Prompt, files: Mapping[Path, str], people: Sequence[str]
) -> None:
    found = list(find_traces(files, people))
    naming = [one for one in found if not one.because]
    if naming:
        prompt.say("These files still name people who were forgotten:")
        prompt.say(
            *(
                f"  {settings.shown_path(one.path, people)} ({one.what}, "
                f"{amount(len(one.people), 'person', 'people')}): {one.remedy}."
                for one in naming
            )
        )
    for one in found:
        if one.because:
            path = settings.shown_path(one.path, people)
            prompt.say(
                f"{path} ({one.what}) cannot be read: {one.because}. Check by hand who it names."
            )
    if any(settings.shown_path(one.path, people) != str(one.path) for one in found):
        prompt.say("--show-user-ids shows the whole paths.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Readmitted:
    """Who may be enrolled again, and who was not withheld. `run` is the command's number in the
    ledger."""

    exit_code: ClassVar[ExitCode] = ExitCode.DONE
    stop: ClassVar[EnrollError | None] = None

    run: int
    people: Sequence[str]
    others: Sequence[str]

    def figures(self) -> dict[str, Any]:
        """What was done, in numbers."""
        return {"run": self.run, "people": len(self.people), "others": len(self.others)}


def readmit(settings: ForgetSettings, prompt: Prompt) -> Readmitted:
    """Take people off the block list, without a call. Raises EnrollError."""
    library = known_library(settings.ledger, group_id=settings.group_id)
    with hold_ledger(settings.ledger, library) as held:
        ledger = held.ledger
        defaults = run_defaults(ledger, endpoint=None)
        start = command_start(settings, defaults, group_id=library.group_id)
        # Writing drops the scan cache, which was made without them.
        with command_record(ledger, start) as work:
            holds = ledger.block_list.holds
            named = dict.fromkeys(one if holds(one) else one.strip() for one in settings.readmitted)
            lifted = [
                user_id
                for user_id in named
                if ledger.forgetting.readmit(user_id, at=clock.now_ms(), run=work.run)
            ]
            ledger.commit()
    others = [user_id for user_id in named if user_id not in lifted]
    if lifted:
        prompt.say(f"No longer withheld: {settings.several(lifted)}. The next run enrolls them.")
    if others:
        prompt.say(f"Nothing to do, because not withheld: {settings.several(others)}.")
    return Readmitted(run=work.run, people=lifted, others=others)
