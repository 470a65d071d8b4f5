"""`enroll verify`: the ledger compared with its library, and what is put right when asked to.

An unknown face is proved to be a copy if it has the face's `user_id`, was added during an attempt
that was in doubt, and gets the score of the face itself in a search with the face's photo. Only
such copies and those on record are ever deleted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from enroll.errors import EnrollError, ExitCode, ServiceError, UnreachedError
from enroll.expiry import APPLYING_SECONDS
from enroll.ledger import DifferenceKind, Ledger, LibraryDifference, iso_time, ledger_at
from enroll.model import CallKind, Credentials, LibraryFace, Status
from enroll.photos import open_store
from enroll.runner.health import RUNNING
from enroll.session.deletions import delete_copies
from enroll.session.library_faces import (
    SCORE_SLACK,
    ListedLibrary,
    PhotoSearch,
    faces_seen,
    found_faces,
    look_up,
    read_library,
    score_of,
)
from enroll.session.recovery import Requeued, requeue_missing
from enroll.session.session import (
    CommandRecord,
    Prompt,
    Session,
    SessionSettings,
    changing,
    open_session,
)
from enroll.session.tally import by_kind
from enroll.settings import files_record
from enroll.text.tables import free_text, maybe_table
from enroll.text.wording import amount, counted, facts

DIFFERENCE_COLUMNS = ("difference", "face_token", "user_id", "library_user_id", "add_time", "image")
"""The columns of a file of differences; `user_id` is the ledger's."""

_LIBRARY_TEXT = dict.fromkeys(("face_token", "library_user_id"), free_text)

MEANINGS = {
    DifferenceKind.MISSING: "enrolled, but not in the library; --requeue-missing makes them due",
    DifferenceKind.UNKNOWN_FACE: "in the library, but not in the ledger",
    DifferenceKind.UNSETTLED: "not in the ledger, of people with a face in doubt; `enroll run` "
    "settles them",
    DifferenceKind.SURPLUS: "further copies of enrolled faces; --remove-surplus deletes them",
    DifferenceKind.OTHER_USER_ID: "in the library under another user_id",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySettings(SessionSettings):
    """What `enroll verify` is to do; `differences` is a table to write them to."""

    command: ClassVar[str] = "verify"

    deep: bool = False
    remove_surplus: bool = False
    requeue_missing: bool = False
    differences: Path | None = None

    @property
    def tables(self) -> Mapping[str, Path | None]:
        return {"--differences": self.differences}

    def record(self) -> dict[str, Any]:
        return {"remove_surplus": self.remove_surplus, "requeue_missing": self.requeue_missing}

    @property
    def files(self) -> dict[str, str]:
        return files_record({"the differences": self.differences})


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """How ledger and library compare.

    `seen` counts the faces of the library that were seen; `counts` are the ledger's entries by
    status, `differences` faces by kind, `unchecked` the faces of the ledger of which nothing is
    known. `calls` were made so far; the account's limit refused `calls_refused` of them. `run` is
    the command's number in the ledger if it changed something. `stop` is what ended the looking
    early, None if nothing did: then nothing is changed.
    """

    settings: VerifySettings
    endpoint: str
    group_id: str
    listed: ListedLibrary
    seen: int
    counts: Mapping[Status, int]
    differences: Counter[DifferenceKind]
    unchecked: int
    calls: Mapping[CallKind, int]
    calls_refused: int
    run: int | None = None
    stop: EnrollError | None = None

    @property
    def exit_code(self) -> ExitCode:
        """That of what stopped it, else 1 for differences, else 4 where not everything could be
        compared, else 0."""
        if self.stop is not None:
            return self.stop.exit_code
        if self.differences.total():
            return ExitCode.SOME_ROWS_FAILED
        return ExitCode.IN_DOUBT if self.unchecked else ExitCode.DONE

    def figures(self) -> dict[str, Any]:
        """The comparison in numbers."""
        return {
            "run": self.run,
            "seen": self.seen,
            "listed_whole": self.listed.whole,
            "statuses": {one.value: self.counts.get(one, 0) for one in Status},
            "differences": {kind.value: self.differences[kind] for kind in DifferenceKind},
            "unchecked": self.unchecked,
            "calls": by_kind(self.calls),
            "calls_refused": self.calls_refused,
        }


def verify(
    settings: VerifySettings, read_credentials: Callable[[], Credentials], prompt: Prompt
) -> Verified:
    """Compare a ledger with its library, report the differences, and fix those it is asked to.

    The ledger's lock is taken only to change something. What stopped it once the library has shown
    something is in the outcome's `stop`. Raises EnrollError.
    """
    with open_session(settings, read_credentials, prompt) as session:
        listed = _read(session)
        found = _compared(session, listed)
        with maybe_table(settings.differences, DIFFERENCE_COLUMNS, rules=_LIBRARY_TEXT) as table:
            if table is not None:
                table.write(map(_cells, _differences(session)))
        prompt.say(*_lines(found))
        run = None if found.stop is not None else _change(session, found)
        if run is not None:
            session.audit.refresh()
            found = replace(_compared(session, listed), run=run)
            left = found.differences.total()
            prompt.say(f"{amount(left, 'difference')} left." if left else "No difference is left.")
        return found


# Comparing


def _read(session: Session[VerifySettings]) -> ListedLibrary:
    """See as much of the library as is asked for."""
    prompt, audit = session.prompt, session.audit
    holder = ledger_at(session.settings.ledger).holder()
    if holder is not None:
        prompt.say(f"A run is in progress{holder}. What it adds meanwhile is left out.")
    listed = read_library(
        session.caller,
        audit.listing,
        on_progress=lambda count: prompt.progress(count, "faces listed"),
    )
    audit.refresh()
    unseen = audit.unseen_count(before=listed.began)
    asked = session.settings.deep and listed.stop is None
    if asked and unseen:
        asked = prompt.confirm(
            f"`list` did not show {amount(unseen, 'face')} of the ledger. Look up each, with "
            f"{amount(unseen, 'call')} of face_info?",
            changes=False,
        )
    if asked:
        return replace(listed, stop=_ask_for_the_rest(session, listed, count=unseen))
    if listed.whole:
        audit.all_was_listed(before=listed.began)
    return listed


def _ask_for_the_rest(
    session: Session[VerifySettings], listed: ListedLibrary, *, count: int
) -> ServiceError | None:
    """Ask for each of the `count` faces of the ledger that `list` did not show; what the service
    was away with in the end, or for many in a row."""
    audit, before = session.audit, listed.began
    after, done = "", 0
    away: list[ServiceError] = []
    while len(away) < RUNNING and (batch := audit.unseen(before=before, after=after)):
        after = batch[-1]
        there, absent = [], []
        for token, found in look_up(session.caller, batch):
            away = [*away, found] if isinstance(found, UnreachedError) else []
            if len(away) == RUNNING:
                break
            if isinstance(found, LibraryFace):
                there.append(found)
            elif found is None:
                absent.append(token)
            done += 1
            session.prompt.progress(done, "faces looked up", of=count)
        audit.listing.add_faces(there)
        audit.absent(absent)
    return away[-1] if away else None


def _differences(session: Session[VerifySettings]) -> Iterator[LibraryDifference]:
    under_way = ledger_at(session.settings.ledger).holder() is not None
    return session.audit.differences(under_way=under_way)


def _compared(session: Session[VerifySettings], listed: ListedLibrary) -> Verified:
    audit, tally = session.audit, session.caller.connection.tally
    return Verified(
        settings=session.settings,
        endpoint=session.defaults.endpoint,
        group_id=session.group_id,
        listed=listed,
        seen=audit.listing.count_faces(),
        counts=audit.status(runs=0).counts,
        differences=Counter(one.kind for one in _differences(session)),
        unchecked=audit.unseen_count(before=listed.began),
        calls=dict(tally.calls),
        calls_refused=tally.refused,
        stop=listed.stop,
    )


# Changing


def _change(session: Session[VerifySettings], found: Verified) -> int | None:
    """Do what the settings ask for and a person agrees to; the run's number, None if nothing can
    have changed."""
    settings = session.settings
    recorded, proved = _agreed_copies(session) if settings.remove_surplus else ({}, {})
    missing = found.differences[DifferenceKind.MISSING] if settings.requeue_missing else 0
    requeuing = missing and _agreed_to_requeue(session, missing)
    if not (recorded or proved or requeuing):
        return None
    with changing(session) as (ledger, work):
        if recorded or proved:
            _remove(session, ledger, work, recorded, proved)
        if requeuing:
            requeued = requeue_missing(
                session.audit, caller=session.caller, ledger=ledger, work=work
            )
            session.prompt.say(*_requeued_lines(requeued))
        return work.run


def _agreed_copies(session: Session[VerifySettings]) -> tuple[dict[str, int], dict[str, int]]:
    """The copies on record as surplus and those proved now, each with its face's number by token;
    none if nobody agrees to delete them."""
    recorded, proved = _spare_copies(session), _prove(session)
    count = len(recorded) + len(proved)
    if not count:
        session.prompt.say("There is no copy to delete.")
    elif session.prompt.confirm(
        f"Delete {amount(count, 'face')} from the library {session.group_id}: {len(recorded):,} on "
        f"record as surplus, {len(proved):,} proved to be copies? This cannot be undone."
    ):
        return recorded, proved
    return {}, {}


def _spare_copies(session: Session[VerifySettings]) -> dict[str, int]:
    """The copies on record whose face the library holds under its own token as well."""
    audit = session.audit
    copies = audit.copies()
    unknown = sorted({copy.own for copy in copies if copy.own and copy.own_there is None})
    if unknown:
        were = "was" if len(unknown) == 1 else "were"
        session.prompt.say(
            f"{amount(len(unknown), 'face')} with copies on record {were} not listed: looking up "
            f"each, with {amount(len(unknown), 'call')} of face_info."
        )
        for token, found in look_up(session.caller, unknown):
            if isinstance(found, LibraryFace):
                audit.listing.add_faces([found])
            elif found is None:
                audit.absent([token])
        copies = audit.copies()
    kept = sum(not copy.spare for copy in copies)
    if kept:
        session.prompt.say(
            f"{amount(kept, 'copy', 'copies')} on record not deleted, because the library does not "
            "hold the original face: a copy may be all that it has of a person. --requeue-missing "
            "makes the oldest copy of each the face itself."
        )
    return {copy.face_token: copy.face_id for copy in copies if copy.spare}


def _prove(session: Session[VerifySettings]) -> dict[str, int]:
    """The unknown faces that are copies: they were added during an attempt at a face, or soon after
    it, and score the same as the face itself when its photo is searched for."""
    audit, caller = session.audit, session.caller
    slack, offset = APPLYING_SECONDS * 1000, caller.connection.service.clock.offset * 1000
    unknown_faces = [
        one
        for one in audit.unknown_faces()
        if one.earliest - slack <= one.add_time - offset <= one.latest + slack
    ]
    if not unknown_faces:
        return {}
    faces = {one.face.face_id: one.face for one in unknown_faces}
    suspected = {(one.face_token, one.face.face_id) for one in unknown_faces}
    strangers = len({token for token, _ in suspected})
    session.prompt.say(
        f"{amount(strangers, 'stranger')} may come from an attempt that was in doubt: checking, "
        f"with {amount(len(faces), 'call')} of search."
    )
    photo_search = PhotoSearch(
        group_id=session.group_id,
        store=open_store(audit.photo_root),
        send_as=session.defaults.send_as,
    )
    # A failed search proves nothing.
    searched = [
        (face, found_faces(answer) or [])
        for face, answer in photo_search.each(caller, faces.values(), audit.paths_of(list(faces)))
    ]
    # A face's own score is that of a face whose token we know; it must not lie below what other
    # photos get for theirs, or the token may be another photo's.
    best = max((one.score for _, found in searched for one in found), default=0.0)
    copies: dict[str, int] = {}
    for face, found in searched:
        own = score_of(face, found)
        if own is None or own < best - SCORE_SLACK:
            continue
        for one in found:
            same = one.user_id == face.user_id and abs(one.score - own) <= SCORE_SLACK
            if same and (one.face_token, face.face_id) in suspected:
                copies.setdefault(one.face_token, face.face_id)
    return copies


def _remove(
    session: Session[VerifySettings],
    ledger: Ledger,
    work: CommandRecord,
    recorded: Mapping[str, int],
    proved: Mapping[str, int],
) -> None:
    """Delete what is still a copy, now that nobody else changes the ledger."""
    audit = session.audit
    still = {copy.face_token for copy in audit.copies() if copy.spare}
    held = ledger.holders_of(list(proved))
    sure = [one for one in recorded.items() if one[0] in still]
    sure += [one for one in proved.items() if one[0] not in held]
    gone = 0
    try:
        for page in delete_copies(sure, caller=session.caller, ledger=ledger, work=work):
            gone += len(page)
            audit.deleted(page)
    finally:
        session.prompt.say(f"{gone:,} of {amount(len(recorded) + len(proved), 'face')} deleted.")


def _agreed_to_requeue(session: Session[VerifySettings], missing: int) -> bool:
    copies = sum(copy.own is not None and not copy.spare for copy in session.audit.copies())
    calls = missing + copies + session.audit.formers_of_missing()
    by_copy = " One that has a copy on record in the library gets its token instead." * bool(copies)
    return session.prompt.confirm(
        f"Make {amount(missing, 'face')} due again that the library does not hold? Each is looked "
        f"up again first, with at most {amount(calls, 'call')} of face_info.{by_copy}"
    )


# Reporting


def _cells(one: LibraryDifference) -> list[str]:
    return [
        one.kind.value,
        one.face_token,
        one.user_id,
        one.library_user_id,
        iso_time(one.add_time),
        one.image,
    ]


def _lines(found: Verified) -> Iterator[str]:
    """A comparison as lines, a blank one between its parts."""
    in_library = sum(found.counts.get(one, 0) for one in (Status.ENROLLED, Status.SUPERSEDED))
    calls = ", ".join(f"{count:,} {kind}" for kind, count in found.calls.items())
    seen = faces_seen(found.seen, whole=found.listed.whole)
    yield from facts(
        [
            ("Library", f"{found.group_id} at {found.endpoint}, {seen}"),
            ("Ledger", f"{found.settings.ledger}, {amount(in_library, 'face')} in the library"),
            ("Calls", calls),
        ],
        least=len("Endpoint"),  # aligned with what was shown before the first call
    )
    yield ""
    if not found.listed.whole:
        yield (
            f"`list` showed {amount(found.listed.faces, 'face')} and no more: "
            f"{found.listed.because} Strangers and copies beyond these cannot be seen."
        )
    if found.unchecked:
        yield (
            f"{amount(found.unchecked, 'face')} of the ledger could not be compared. --deep looks "
            f"up each, with {amount(found.unchecked, 'call')} of face_info."
        )
    if found.unchecked or not found.listed.whole:
        yield ""
    shown = {kind: found.differences[kind] for kind in DifferenceKind if found.differences[kind]}
    yield from counted(shown, MEANINGS) or ["No difference."]
    if found.settings.differences is not None:
        yield from ("", f"The differences are in {found.settings.differences}.")
    elif shown:
        yield from ("", "--differences FILE lists them.")


def _requeued_lines(requeued: Requeued) -> Iterator[str]:
    yield f"{amount(requeued.due, 'face')} due again for the next `enroll run`."
    if requeued.adopted:
        yield f"{amount(requeued.adopted, 'face')} now with the token of a copy: nothing to add."
    if requeued.gone:
        yield f"{amount(requeued.gone, 'face')} that no row points to: recorded as removed."
    if requeued.kept:
        yield (
            f"{amount(requeued.kept, 'face')} left unchanged, because the service did not confirm "
            "the loss: run the same command again later."
        )
