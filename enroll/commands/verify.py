"""`enroll verify`: the ledger compared with its library, and what is put right when asked to.

An unknown face is proved to be a copy when it bears the face's `user_id`, when it was added in the
time of an attempt that was in doubt, and when a search with the face's photo gives it the score
of the face itself. Beside those and copies on record nothing is ever deleted.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from enroll.commands.verify_report import Verified, left_lines, verified_lines, write_differences
from enroll.expiry import APPLYING_SECONDS
from enroll.ledger import DifferenceKind, Ledger, UnknownFace, ledger_at
from enroll.model import Credentials, LibraryFace
from enroll.photos import open_store
from enroll.session.caller import Caller
from enroll.session.deletions import Copy, delete_copies
from enroll.session.face_search import SCORE_SLACK, PhotoSearch, found_faces, score_of
from enroll.session.library_listing import ListedLibrary, look_up, read_library
from enroll.session.recovery import Requeued, requeue_missing
from enroll.session.session import (
    CommandRecord,
    Prompt,
    Session,
    SessionSettings,
    changing,
    open_session,
)
from enroll.settings import files_record
from enroll.text.files import Output
from enroll.text.wording import amount


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifySettings(SessionSettings):
    """What `enroll verify` is to do; `differences` is a CSV to write them to."""

    command: ClassVar[str] = "verify"

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
            "remove_surplus": self.remove_surplus,
            "requeue_missing": self.requeue_missing,
        }

    @property
    def files(self) -> dict[str, str]:
        return files_record({"the differences": self.differences})


@dataclass(frozen=True, slots=True)
class _Copies:
    """Copies to be deleted: those on record as surplus, and those proved just now."""

    recorded: tuple[Copy, ...] = ()
    proved: tuple[Copy, ...] = ()

    def __len__(self) -> int:
        return len(self.recorded) + len(self.proved)


def _change(session: Session[VerifySettings], differences: Mapping[DifferenceKind, int]) -> bool:
    """Do what the settings ask for and a person agrees to; whether anything may have changed."""
    settings = session.settings
    copies = _agreed_copies(session) if settings.remove_surplus else _Copies()
    missing = differences.get(DifferenceKind.MISSING, 0) if settings.requeue_missing else 0
    requeuing = missing and _agreed_to_requeue(session, missing)
    if not (copies or requeuing):
        return False
    with changing(session) as (ledger, work):
        if copies:
            _remove(session, ledger, work, copies)
        if requeuing:
            requeued = requeue_missing(
                session.audit,
                caller=session.caller,
                ledger=ledger,
                work=work,
            )
            session.prompt.say(*_requeued_lines(requeued))
    return True


def _agreed_copies(session: Session[VerifySettings]) -> _Copies:
    copies = _Copies(_spare_copies(session), tuple(_prove(session)))
    if not copies:
        session.prompt.say("There is no copy to delete.")
        return copies
    agreed = session.prompt.confirm(
        f"Delete {amount(len(copies), 'face')} from the library {session.group_id}: "
        f"{len(copies.recorded):,} on record as surplus, {len(copies.proved):,} proved to be "
        "copies? This cannot be undone."
    )
    return copies if agreed else _Copies()


def _spare_copies(session: Session[VerifySettings]) -> tuple[Copy, ...]:
    """The copies on record whose face the library holds under its own token as well."""
    audit = session.audit
    copies = audit.copies()
    unknown = sorted({copy.own for copy in copies if copy.own and copy.own_there is None})
    if unknown:
        session.prompt.say(
            f"{amount(len(unknown), 'face')} with copies on record were not listed: looking them "
            f"up, with {amount(len(unknown), 'call')} of face_info."
        )
        for token, found in look_up(session.caller, unknown):
            if isinstance(found, LibraryFace):
                audit.listing.add_faces([found])
            elif found is None:
                audit.absent([token])
        copies = audit.copies()
    kept = [copy for copy in copies if not copy.spare]
    if kept:
        session.prompt.say(
            f"{amount(len(kept), 'copy', 'copies')} on record not deleted, because the library "
            "does not hold the faces they are copies of: these may be all that it has of a "
            "person. --requeue-missing makes the oldest copy of each the face itself."
        )
    return tuple(Copy(copy.face_token, copy.face_id) for copy in copies if copy.spare)


def _agreed_to_requeue(session: Session[VerifySettings], missing: int) -> bool:
    copies = sum(copy.own is not None and not copy.spare for copy in session.audit.copies())
    calls = missing + copies + session.audit.formers_of_missing()
    by_copy = " One that has a copy on record in the library gets its token instead." * bool(copies)
    return session.prompt.confirm(
        f"Make {amount(missing, 'face')} due again that the library does not hold? Each is looked "
        f"up again first, with at most {amount(calls, 'call')} of face_info.{by_copy}"
    )


def _prove(session: Session[VerifySettings]) -> list[Copy]:
    """The unknown faces that are copies of a face, proved by search."""
    audit, caller = session.audit, session.caller
    unknown_faces = _in_time(
        audit.unknown_faces(), clock_offset=caller.connection.service.clock.offset
    )
    if not unknown_faces:
        return []
    faces = sorted({unknown.face.face_id for unknown in unknown_faces})
    unknown_tokens = {unknown.face_token for unknown in unknown_faces}
    session.prompt.say(
        f"{amount(len(unknown_tokens), 'stranger')} may come from an attempt that was in doubt: "
        f"checking, with {amount(len(faces), 'call')} of search."
    )
    photo_search = PhotoSearch(
        group_id=session.group_id,
        store=open_store(audit.photos_folder),
        send_as=session.defaults.send_as,
    )
    return _prove_copies(caller, photo_search, unknown_faces, audit.paths_of(faces))


def _remove(
    session: Session[VerifySettings], ledger: Ledger, work: CommandRecord, copies: _Copies
) -> None:
    """Delete what is still a copy, now that nobody else changes the ledger."""
    audit = session.audit
    still = {copy.face_token for copy in audit.copies() if copy.spare}
    held = ledger.holders_of([copy.face_token for copy in copies.proved])
    sure = [copy for copy in copies.recorded if copy.face_token in still]
    sure += [copy for copy in copies.proved if copy.face_token not in held]
    gone = 0
    try:
        for page in delete_copies(sure, caller=session.caller, ledger=ledger, work=work):
            gone += len(page)
            audit.deleted(page)
    finally:
        session.prompt.say(f"{gone:,} of {amount(len(copies), 'face')} deleted.")


def _in_time(unknown_faces: Iterable[UnknownFace], *, clock_offset: float) -> list[UnknownFace]:
    """Those that were added while an attempt at the face was under way, or soon after.

    `clock_offset` is the service's clock minus ours, in seconds.
    """
    slack = APPLYING_SECONDS * 1000
    return [
        unknown
        for unknown in unknown_faces
        if unknown.earliest - slack
        <= unknown.add_time - clock_offset * 1000
        <= unknown.latest + slack
    ]


def _prove_copies(
    caller: Caller,
    photo_search: PhotoSearch,
    unknown_faces: Sequence[UnknownFace],
    paths: Mapping[int, Sequence[str]],
) -> list[Copy]:
    """The unknown faces that score the same as the face itself when its photo is searched for.

    Makes one search per face. `paths` has the places where each face's photo may be.
    """
    faces = {unknown.face.face_id: unknown.face for unknown in unknown_faces}
    unknown_tokens: dict[int, set[str]] = defaultdict(set)
    for unknown in unknown_faces:
        unknown_tokens[unknown.face.face_id].add(unknown.face_token)
    # A failed search proves nothing.
    searched = [
        (face, found_faces(answer) or [])
        for face, answer in photo_search.each(caller, faces.values(), paths)
    ]
    # A face's own score is that of a face whose token we know; it must not lie below what other
    # photos get for theirs, or the token may be another photo's.
    best = max((one.score for _, found in searched for one in found), default=0.0)
    copies: dict[str, Copy] = {}
    for face, found in searched:
        own = score_of(face, found)
        if own is None or own < best - SCORE_SLACK:
            continue
        for one in found:
            same = one.user_id == face.user_id and abs(one.score - own) <= SCORE_SLACK
            if same and one.face_token in unknown_tokens[face.face_id]:
                copies.setdefault(one.face_token, Copy(one.face_token, face.face_id))
    return list(copies.values())


def _requeued_lines(requeued: Requeued) -> list[str]:
    lines = [f"{amount(requeued.due, 'face')} due again: `enroll run` adds them."]
    if requeued.adopted:
        lines.append(
            f"{amount(requeued.adopted, 'face')} now with the token of a copy: there is nothing "
            "to add."
        )
    if requeued.gone:
        lines.append(
            f"{amount(requeued.gone, 'face')} recorded as removed: no row points to them any more."
        )
    if requeued.kept:
        lines.append(
            f"{amount(requeued.kept, 'face')} left as they are: the service did not confirm that "
            "they are gone."
        )
    return lines


def verify(
    settings: VerifySettings, read_credentials: Callable[[], Credentials], prompt: Prompt
) -> Verified:
    """Compare a ledger with its library, report the differences, and fix those it is asked to.

    The ledger's lock is taken only to change something. Raises EnrollError.
    """
    with open_session(settings, read_credentials, prompt) as session:
        listed = _read(session)
        found = _compared(session, listed)
        if settings.differences is not None:
            differences = session.audit.differences(under_way=_under_way(session))
            write_differences(differences, settings.differences)
        prompt.say(*verified_lines(found))
        if _change(session, found.differences):
            session.audit.refresh()
            found = _compared(session, listed)
            prompt.say(*left_lines(found))
        return found


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
    asked = session.settings.deep and _ask_for_the_rest(session, listed)
    if listed.whole and not asked:
        audit.all_was_listed(before=listed.began)
    return listed


def _ask_for_the_rest(session: Session[VerifySettings], listed: ListedLibrary) -> bool:
    """Ask for each face of the ledger that `list` did not show, if that is agreed to."""
    audit, before = session.audit, listed.began
    count = audit.unseen_count(before=before)
    if count and not session.prompt.confirm(
        f"`list` did not show {amount(count, 'face')} of the ledger. Look up each, with "
        f"{amount(count, 'call')} of face_info?"
    ):
        return False
    after, done = "", 0
    while batch := audit.unseen(before=before, after=after):
        after = batch[-1]
        there, absent = [], []
        for token, found in look_up(session.caller, batch):
            if isinstance(found, LibraryFace):
                there.append(found)
            elif found is None:
                absent.append(token)
            done += 1
            session.prompt.progress(done, f"of {amount(count, 'face')} looked up")
        audit.listing.add_faces(there)
        audit.absent(absent)
    return True


def _under_way(session: Session[VerifySettings]) -> bool:
    return ledger_at(session.settings.ledger).holder() is not None


def _compared(session: Session[VerifySettings], listed: ListedLibrary) -> Verified:
    audit = session.audit
    differences = audit.differences(under_way=_under_way(session))
    return Verified(
        ledger=session.settings.ledger,
        endpoint=session.defaults.endpoint,
        group_id=session.group_id,
        listed=listed,
        seen=audit.listing.count_faces(),
        counts=audit.status(runs=0).counts,
        differences=Counter(one.kind for one in differences),
        unchecked=audit.unseen_count(before=listed.began),
        calls=session.caller.connection.tally.calls,
        written_to=session.settings.differences,
    )
