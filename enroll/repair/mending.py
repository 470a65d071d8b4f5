"""What `enroll verify` puts right when it is asked to: copies deleted, missing faces due again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from enroll.ledger import DifferenceKind, Ledger
from enroll.model import LibraryFace
from enroll.repair.surplus import Copy, SearchPlace, in_time, prove_copies, remove
from enroll.session.command_record import CommandRecord
from enroll.session.library_listing import look_up
from enroll.session.requeue import Requeued, requeue_missing
from enroll.session.session import Session, VerifySettings, changing
from enroll.text.wording import amount


@dataclass(frozen=True, slots=True)
class _Copies:
    """Copies to be deleted: those on record as surplus, and those proved just now."""

    recorded: tuple[Copy, ...] = ()
    proved: tuple[Copy, ...] = ()

    def __len__(self) -> int:
        return len(self.recorded) + len(self.proved)


def mend(session: Session[VerifySettings], differences: Mapping[DifferenceKind, int]) -> bool:
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
                group_id=session.group_id,
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
            f"{amount(len(unknown), 'face')} with copies on record were not listed: asking for "
            f"them, with {amount(len(unknown), 'call')} of face_info."
        )
        for token, found in look_up(session.caller, session.group_id, unknown):
            if isinstance(found, LibraryFace):
                audit.listing.take([found])
            elif found is None:
                audit.absent([token])
        copies = audit.copies()
    kept = [copy for copy in copies if not copy.spare]
    if kept:
        session.prompt.say(
            f"{amount(len(kept), 'copy', 'copies')} on record not deleted, because the library "
            "does not hold the faces themselves: these may be all that it has of a person. "
            "--requeue-missing makes the oldest copy of each the face itself."
        )
    return tuple(Copy(copy.face_token, copy.face_id) for copy in copies if copy.spare)


def _agreed_to_requeue(session: Session[VerifySettings], missing: int) -> bool:
    copies = sum(copy.own is not None and not copy.spare for copy in session.audit.copies())
    calls = missing + copies + session.audit.formers_of_missing()
    by_copy = " One that has a copy on record in the library gets its token instead." * bool(copies)
    return session.prompt.confirm(
        f"Make {amount(missing, 'face')} due again that the library does not hold? Each is asked "
        f"for once more, with at most {amount(calls, 'call')} of face_info.{by_copy}"
    )


def _prove(session: Session[VerifySettings]) -> list[Copy]:
    """The strangers that are copies of a face, proved by search."""
    audit, caller = session.audit, session.caller
    suspects = in_time(audit.suspects(), clock_offset=caller.clock_offset)
    if not suspects:
        return []
    faces = sorted({suspect.face.face_id for suspect in suspects})
    strangers = {suspect.face_token for suspect in suspects}
    session.prompt.say(
        f"{amount(len(strangers), 'stranger')} may come from an attempt that was in doubt: "
        f"looking, with {amount(len(faces), 'call')} of search."
    )
    place = SearchPlace(group_id=session.group_id, images=audit.images, send_as=session.send_as)
    return prove_copies(caller, place, suspects, audit.paths_of(faces))


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
        for page in remove(
            sure, caller=session.caller, ledger=ledger, work=work, group_id=session.group_id
        ):
            gone += len(page)
            audit.deleted(page)
    finally:
        session.prompt.say(f"{gone:,} of {amount(len(copies), 'face')} deleted.")


def _requeued_lines(requeued: Requeued) -> list[str]:
    lines = [f"{amount(requeued.due, 'face')} due again: `enroll run` adds them."]
    if requeued.adopted:
        lines.append(
            f"{amount(requeued.adopted, 'face')} with the token of a copy from now on: there is "
            "nothing to add."
        )
    if requeued.gone:
        lines.append(
            f"{amount(requeued.gone, 'face')} recorded as removed: no row points to them any more."
        )
    if requeued.kept:
        lines.append(
            f"{amount(requeued.kept, 'face')} left as they are: the service did not say that "
            "they are gone."
        )
    return lines
